"""The items of a version or checkout, ranked by a trainer's scores, some users at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.checkout import Checkout
from embstore.consumed import ITEM, USER
from embstore.errors import InvalidInputError
from embstore.metrics import best_items
from embstore.trainer import Trainer, that_recommends
from embstore.version import Version

Rows = NDArray[np.int64]
Ranked = tuple[Rows, NDArray[np.float64]]
BLOCK_SCORES = 1 << 22


class Ranker:
    """Ranks the items of a view for some of its users.

    Parameters
    ----------
    view
        A version, or a checkout, which may change between two calls of ``rank``, but for its ids and consumed record.
    trainer
        That gives the scores.
    rows
        int64[n], distinct rows of users; -1 is the mean user, who has had nothing.
    exclude_consumed
        Leave out what each has had.
    block_scores
        About how many scores are held in memory at a time.
    """

    def __init__(
        self,
        view: Version | Checkout,
        trainer: Trainer,
        rows: Rows,
        *,
        exclude_consumed: bool = True,
        block_scores: int = BLOCK_SCORES,
    ) -> None:
        self._view = view
        self._name = trainer.name
        self._learner = that_recommends(trainer)
        self._rows = rows
        self._height = max(1, block_scores // max(1, len(view.ids(ITEM))))
        self._ends, self._had = _items_had(view, rows) if exclude_consumed else (np.zeros(len(rows) + 1, np.int64), rows[:0])

    def rank(self, k: int) -> Ranked:
        """Return the item rows ``[n, min(k, items)]`` of each user, best first and -1 where there are fewer, and their scores."""
        blocks = list(self.blocks(k))
        return np.concatenate([ranked for ranked, _ in blocks]), np.concatenate([best for _, best in blocks])

    def blocks(self, k: int) -> Iterator[Ranked]:
        """Yield what ``rank`` returns for some users at a time, one block at least."""
        return (_best(scores, k) for scores in self._scored())

    def _scored(self) -> Iterator[NDArray[Any]]:
        """Yield the scores of some users at a time; what is not to be ranked has minus infinity."""
        removed = self._view.ids(ITEM).removed_rows()
        for start in range(0, max(1, len(self._rows)), self._height):
            scores = self._scores(self._rows[start : start + self._height])
            scores[:, removed] = -np.inf
            ends = self._ends[start : start + len(scores) + 1]
            scores[np.repeat(np.arange(len(scores)), np.diff(ends)), self._had[ends[0] : ends[-1]]] = -np.inf
            yield scores

    def _scores(self, rows: Rows) -> NDArray[Any]:
        shape = (len(rows), len(self._view.ids(ITEM)))
        scores = np.array(self._learner.scores(self._view, rows)) if len(rows) else np.empty(shape)
        if scores.shape != shape or scores.dtype.kind not in "fiu":
            msg = f"trainer {self._name!r}: scores {scores.dtype} of shape {scores.shape}; give numbers [users, items], {shape}"
            raise InvalidInputError(msg)
        return scores if scores.dtype.kind == "f" else scores.astype(np.float64)


def _items_had(view: Version | Checkout, rows: Rows) -> tuple[Rows, Rows]:
    """Return where the items of each user end (with a leading 0), and the items that each of ``rows`` has had."""
    records = view.consumed.records()
    place = np.full(len(view.ids(USER)), -1)
    place[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    owner = place[records.users]
    owned = owner >= 0
    order = np.argsort(owner[owned], kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(owner[owned], minlength=len(rows)))])
    return ends, records.items[owned][order]


def _best(scores: NDArray[Any], k: int) -> Ranked:
    """Return the items ``[users, min(k, items)]`` with the highest scores, -1 where there are fewer, and these scores."""
    ranked = best_items(scores, k)
    if not scores.size:
        return ranked, np.zeros(ranked.shape)
    return ranked, np.take_along_axis(scores, np.maximum(ranked, 0), axis=1).astype(np.float64)


def of_most_users(view: Version | Checkout, k: int) -> Ranked:
    """Return the item rows ``[1, min(k, items)]`` that most users have had, and how many these are."""
    records, n_items = view.consumed.records(), len(view.ids(ITEM))
    pairs = np.unique(records.users * max(n_items, 1) + records.items)
    counts = np.bincount(pairs % max(n_items, 1), minlength=n_items).astype(np.float64)[None, :n_items]
    counts[:, view.ids(ITEM).removed_rows()] = -np.inf
    return _best(counts, k)
