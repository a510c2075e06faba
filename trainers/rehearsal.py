"""Pairs from before in an increment: what the store remembers of them keeps a net from forgetting what they taught it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embstore import Batch, Checkout
from trainers.histories import recorded
from trainers.sampling import shuffled

Rows = NDArray[np.int64]


class Rehearsal:
    """The pairs of a batch, with some that were consumed before.

    Parameters
    ----------
    work
        Whose consumed record has both.
    batch
        The new pairs.
    share
        How many earlier pairs there are to be for each new one; in all not more than there are.
    seed
        Of what is drawn.
    """

    def __init__(self, work: Checkout, batch: Batch, *, share: float, seed: int) -> None:
        self._batch, self._seed = batch, seed
        n_items = len(work.ids("item"))
        keys = np.setdiff1d(recorded(work), batch.users * n_items + batch.items) if share else np.empty(0, np.int64)
        self._users, self._items = keys // max(1, n_items), keys % max(1, n_items)
        self._n = min(len(keys), round(share * len(batch)))

    def pairs(self, epoch: int) -> tuple[Rows, Rows]:
        """Return the users and items of an epoch, new pairs first: a function of seed and epoch."""
        # Another seed than that of the order in which pairs are taken.
        drawn = shuffled(len(self._users), seed=self._seed + 1, epoch=epoch)[: self._n]
        users, items = (self._batch.users, self._users[drawn]), (self._batch.items, self._items[drawn])
        return np.concatenate(users), np.concatenate(items)
