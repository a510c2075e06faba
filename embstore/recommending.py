"""What to show to whom, and how good that is: the items of a version or checkout, ranked by a trainer's scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from embstore.checkout import Checkout
from embstore.consumed import ITEM, USER
from embstore.errors import InvalidInputError
from embstore.foldin import fold
from embstore.ids import IdMap
from embstore.interactions import Interactions
from embstore.metrics import Metric, MetricFunction, evaluate_ranked, parse_metric, top_k
from embstore.registry import trainer_of
from embstore.trainer import Trainer, check_trainer, that_recommends
from embstore.version import Version

if TYPE_CHECKING:
    import pandas as pd

Rows = NDArray[np.int64]
Metrics = Sequence[str | Metric | MetricFunction]
METRICS: Metrics = ("recall@20", "ndcg@100")
BLOCK_SCORES = 1 << 22
_PLACES = 100  # for metrics that do not say how many they look at
_MEAN_USER = np.array([-1])


def recommend(
    view: Version | Checkout,
    ids: object,
    k: int = 10,
    *,
    trainer: Trainer | None = None,
    exclude_consumed: bool = True,
    unknown: Literal["raise", "popular", "mean"] = "raise",
) -> pd.DataFrame:
    """Return the k best items of each user.

    Parameters
    ----------
    view
        A version or a checkout.
    ids
        List or array of user ids; one given twice is answered once.
    k
        Items for each user. There are fewer where fewer are left: nothing is repeated to fill up.
    trainer
        Whose scores count; None: the trainer in the newest lineage of ``view`` that has one.
    exclude_consumed
        Leave out what a user has had.
    unknown
        What unknown users get: an error, the items that most users have had, or what the trainer gives the mean user.

    Returns
    -------
    Columns user, item, score (float64) and rank (from 1): users in the order given, best items first, equal ones by row.
    Removed items and those without a score (NaN) are never among them.

    Raises
    ------
    UnknownIdError
        For unknown users, where ``unknown="raise"``.
    InvalidInputError
        If ``k`` or ``unknown`` cannot be used, or the trainer gives no scores.
    """
    if unknown not in ("raise", "popular", "mean"):
        msg = f"unknown={unknown!r}: give 'raise', 'popular' or 'mean'"
        raise InvalidInputError(msg)
    learner = _learner(view, trainer)
    users = view.ids(USER)
    wanted = _distinct(users, ids)
    rows = users.rows(wanted, missing="raise" if unknown == "raise" else -1)
    ranked, scores = Ranker(view, learner, rows[rows >= 0], exclude_consumed=exclude_consumed).rank(k)
    places = np.cumsum(rows >= 0) - 1
    if (rows < 0).any():
        others = _of_most_users(view, k) if unknown == "popular" else Ranker(view, learner, _MEAN_USER).rank(k)
        ranked, scores = np.vstack([ranked, others[0]]), np.vstack([scores, others[1]])
        places[rows < 0] = len(ranked) - 1
    return _frame(view, wanted, ranked[places], scores[places])


def evaluate(
    view: Version | Checkout,
    targets: Interactions,
    *,
    trainer: Trainer | None = None,
    given: Interactions | None = None,
    metrics: Metrics = METRICS,
    exclude_consumed: bool = True,
) -> dict[str, float]:
    """Return the mean of ranking metrics over the users who have targets.

    All live items are candidates but for those that a user has had; a target that the user has had counts as missed.

    Parameters
    ----------
    view
        A version, or a checkout.
    targets
        Pairs to be found; of a pair that is there twice one counts.
    trainer
        Whose scores count; None: the trainer in the newest lineage of ``view`` that has one.
    given
        Pairs of held-out users to score them from: unknown users among them are folded in, and forgotten again. They count
        as consumed.
    metrics
        Names, or callables as in `embstore.metrics.evaluate_ranked`, which see as many places as the deepest name, else 100.
    exclude_consumed
        Leave out what a user has had.

    Returns
    -------
    A number for each metric (NaN without any user), and ``users``, how many it is the mean of, ``dropped_users`` that are
    unknown or have no known target, and ``dropped_targets``, pairs with an unknown item.

    Raises
    ------
    InvalidInputError
        For a metric that is unknown, a trainer that gives no scores or cannot fold in, and ``given`` with a checkout that has
        staged changes.
    """
    learner = _learner(view, trainer)
    if given is not None:
        view = scratch(view)
        fold(view, learner, given)
    return Evaluation(view, learner, targets, metrics=metrics, exclude_consumed=exclude_consumed).run()


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

    def rank(self, k: int) -> tuple[Rows, NDArray[np.float64]]:
        """Return the item rows ``[n, k]`` of each user, best first and -1 where there are fewer, and their scores."""
        blocks = [_best(scores, k) for scores in self._blocks()]
        return np.concatenate([ranked for ranked, _ in blocks]), np.concatenate([best for _, best in blocks])

    def _blocks(self) -> Iterator[NDArray[Any]]:
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


class Evaluation:
    """Targets in rows of a view, to be scored once or after every epoch; see `evaluate`."""

    def __init__(
        self,
        view: Version | Checkout,
        trainer: Trainer,
        targets: Interactions,
        *,
        metrics: Metrics = METRICS,
        exclude_consumed: bool = True,
    ) -> None:
        users = view.ids(USER).rows(targets.user_ids, missing=-1)
        items = view.ids(ITEM).rows(targets.item_ids, missing=-1)
        known = (users >= 0) & (items >= 0)
        rows, places = np.unique(users[known], return_inverse=True)
        order = np.argsort(places, kind="stable")
        self._targets = np.concatenate([[0], np.cumsum(np.bincount(places, minlength=len(rows)))]), items[known][order]
        self._metrics = metrics
        self._n_places = max([parse_metric(m).k for m in metrics if isinstance(m, str)], default=_PLACES)
        self._ranker = Ranker(view, trainer, rows, exclude_consumed=exclude_consumed)
        self.n_users = len(rows)
        self._n_dropped_users = len(set(targets.user_ids.tolist())) - len(rows)
        self._n_dropped_targets = int((items < 0).sum())

    def run(self) -> dict[str, float]:
        """Return the metrics of the view as it is now."""
        ranked, _ = self._ranker.rank(self._n_places)
        found = evaluate_ranked(ranked, self._targets, self._metrics)
        return found | {"dropped_users": self._n_dropped_users, "dropped_targets": self._n_dropped_targets}


def _learner(view: Version | Checkout, trainer: Trainer | None) -> Trainer:
    if trainer is None:
        return trainer_of(view)
    check_trainer(trainer)
    return trainer


def _distinct(users: IdMap, ids: object) -> NDArray[Any]:
    """Return each id once, in the order given."""
    given = users.checked(ids)
    first: dict[Any, int] = {}
    for position, id_ in enumerate(given.tolist()):
        first.setdefault(id_, position)
    return given[list(first.values())].astype(np.int64 if users.id_type == "int64" else object)


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


def _of_most_users(view: Version | Checkout, k: int) -> tuple[Rows, NDArray[np.float64]]:
    """Return the item rows ``[1, k]`` that most users have had, and how many these are."""
    records, n_items = view.consumed.records(), len(view.ids(ITEM))
    pairs = np.unique(records.users * max(n_items, 1) + records.items)
    counts = np.bincount(pairs % max(n_items, 1), minlength=n_items).astype(np.float64)[None, :n_items]
    counts[:, view.ids(ITEM).removed_rows()] = -np.inf
    return _best(counts, k)


def _best(scores: NDArray[Any], k: int) -> tuple[Rows, NDArray[np.float64]]:
    """Return the items ``[users, k]`` with the highest scores, -1 where there are fewer, and these scores."""
    ranked = top_k(scores, k)
    if not scores.size:
        return ranked, np.zeros(ranked.shape)
    return ranked, np.take_along_axis(scores, np.maximum(ranked, 0), axis=1).astype(np.float64)


def _frame(view: Version | Checkout, ids: NDArray[Any], ranked: Rows, scores: NDArray[np.float64]) -> pd.DataFrame:
    import pandas as pd

    is_there = ranked >= 0
    ranks = np.broadcast_to(np.arange(1, ranked.shape[1] + 1), ranked.shape)
    return pd.DataFrame(
        {
            "user": np.repeat(ids, is_there.sum(axis=1)),
            "item": view.ids(ITEM).ids(ranked[is_there]),
            "score": scores[is_there],
            "rank": ranks[is_there],
        }
    )


def scratch(view: Version | Checkout) -> Checkout:
    """Return a checkout of the same state, never to be committed."""
    if isinstance(view, Checkout) and view.dirty:
        msg = "given= with a checkout that has staged changes: commit them, and evaluate the version"
        raise InvalidInputError(msg)
    version = view.version if isinstance(view, Checkout) else view
    return Checkout(version.repo, "main", version, find_version=lambda _: version)
