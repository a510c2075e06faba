"""Users that no training sees, as the judges of its epochs: encoded from some of their pairs, asked for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from embstore import Checkout, Interactions, InvalidInputError, View, evaluate_ranked, top_k

# The metrics of Liang et al. (2018), whose Recall@k is hits / min(k, n).
PAPER_METRICS = ("ndcg@100", "capped_recall@20", "capped_recall@50")
_DEPTH = 100


@dataclass(frozen=True, eq=False)
class HeldOutUsers:
    """A validation by users who are not in the store: a callable for `embstore.Validation`.

    ::

        held_out = HeldOutUsers(trainer.scores_from, given, targets)
        fit(store, trainer, pairs, message="…", validation=Validation(held_out), patience=20)

    Parameters
    ----------
    scores_from
        Gives scores ``[n, n_items]`` for a view and what n users have had, ``[n, n_items]``: `MultVAE.scores_from`.
    given, targets
        Pairs of held-out users. Items that the store does not have are left out, and then users without targets.
    metrics
        Of at most 100 places.
    """

    scores_from: Callable[[View, csr_array], NDArray[Any]]
    given: Interactions
    targets: Interactions
    metrics: Sequence[str] = PAPER_METRICS

    def __call__(self, work: Checkout) -> dict[str, float]:
        """Return the metrics of a checkout as it is, and how many ``users`` they are the mean of.

        Raises
        ------
        InvalidInputError
            If no target has a known item.
        """
        users = np.unique(self.targets.user_ids)
        given, targets = (_matrix(work, pairs, users) for pairs in (self.given, self.targets))
        if not targets.nnz:
            msg = f"held-out users: of {len(self.targets)} targets none has a known item; give targets among items trained on"
            raise InvalidInputError(msg)
        scores = np.array(self.scores_from(work, given))
        scores[given.nonzero()] = -np.inf
        scores[:, work.ids("item").removed_rows()] = -np.inf
        found = evaluate_ranked(top_k(scores, _DEPTH), targets, self.metrics)
        return {name: value for name, value in found.items() if name != "dropped_users"}


def _matrix(view: View, pairs: Interactions, users: NDArray[Any]) -> csr_array:
    """Return the pairs of some users with known items, ``[len(users), n_items]``, float32 ones."""
    idmap = view.ids("item")
    items, places = idmap.rows(pairs.item_ids, missing=-1), {user: place for place, user in enumerate(users.tolist())}
    owners = np.array([places.get(user, -1) for user in pairs.user_ids.tolist()], np.int64)
    known = (items >= 0) & (owners >= 0)
    keys = np.unique(owners[known] * len(idmap) + items[known])
    owners, items = np.divmod(keys, max(1, len(idmap)))
    return csr_array((np.ones(len(keys), np.float32), (owners, items)), shape=(len(users), len(idmap)))
