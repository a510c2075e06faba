"""Batches of users whose negatives are what the other users of the batch have had.

Scores are computed for the items that any of some sampled users has had, in place of all (Moussawi 2018, arXiv 1809.00999). So a
step costs as much as its users have had, however many items there are; the negatives of a user are drawn by how popular they are.
Several batches may share the items of all their users: more negatives without larger batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embstore import InvalidInputError
from trainers.pairs import Pairs
from trainers.sampling import shuffled_batches
from trainers.settings import check_count

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class UserBatch:
    """Some users, all pairs of theirs, and the items that are scored.

    Parameters
    ----------
    users
        int64[n], places among all users, ascending.
    items
        int64[m], ascending.
    pairs
        Of n groups, with columns as places in ``items``.
    """

    users: I64
    items: I64
    pairs: Pairs


@dataclass(frozen=True)
class Batching:
    """How users are put into batches.

    Parameters
    ----------
    batch_size
        Users in a batch.
    negative_sampling
        Score what any of the sampled users has had, and no other item.
    num_sampling_users
        Users that are sampled at a time, a multiple of ``batch_size``: their batches share their items. 0: a batch by itself.

    Raises
    ------
    InvalidInputError
        For settings out of range.
    """

    batch_size: int
    negative_sampling: bool = False
    num_sampling_users: int = 0

    def __post_init__(self) -> None:
        check_count(self.batch_size, "batch_size")
        if not isinstance(self.negative_sampling, bool):
            msg = f"negative_sampling {self.negative_sampling!r}: give True or False"
            raise InvalidInputError(msg)
        n_sampled = self.num_sampling_users
        if isinstance(n_sampled, bool) or not isinstance(n_sampled, int) or n_sampled < 0 or n_sampled % self.batch_size:
            msg = f"num_sampling_users {n_sampled!r}: give 0, or a multiple of batch_size {self.batch_size}"
            raise InvalidInputError(msg)
        if n_sampled and not self.negative_sampling:
            msg = f"num_sampling_users {n_sampled!r} without negative_sampling: all items are scored; set it to True"
            raise InvalidInputError(msg)

    def batches(self, pairs: Pairs, every: I64 | None, *, seed: int, epoch: int) -> Iterator[UserBatch]:
        """Yield the batches of an epoch, each user once, in an order that is a function of seed and epoch.

        Parameters
        ----------
        pairs
            Of all users; a group without any is left out of no batch.
        every
            int64[n_items], ascending: the items that are scored without negative sampling; None: those of the batch's own pairs.
        seed, epoch
            As in `trainers.sampling.shuffled`.
        """
        n_sampled = self.num_sampling_users or self.batch_size
        for sampled in shuffled_batches(pairs.n_groups, batch_size=n_sampled, seed=seed, epoch=epoch):
            shared = np.unique(pairs.take(sampled).columns) if self.negative_sampling else every
            for start in range(0, len(sampled), self.batch_size):
                users = np.sort(sampled[start : start + self.batch_size])
                own = pairs.take(users)
                items = np.unique(own.columns) if shared is None else shared
                yield UserBatch(users, items, own.among(items))
