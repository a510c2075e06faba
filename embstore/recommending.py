"""What to show to whom, and how good that is: the items of a version or checkout, ranked by a trainer's scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from embstore.checkout import Checkout
from embstore.consumed import ITEM, USER
from embstore.errors import InvalidInputError
from embstore.foldin import fold
from embstore.ids import IdMap
from embstore.interactions import Interactions, check_interactions
from embstore.metrics import Metrics, mean_metrics, n_places
from embstore.ranking import Ranker, Rows, of_most_users
from embstore.registry import trainer_of
from embstore.targets import Hits, distinct, hits
from embstore.trainer import Trainer, check_tables, check_trainer, that_recommends
from embstore.version import Version, View

if TYPE_CHECKING:
    import pandas as pd

METRICS: Metrics = ("recall@20", "ndcg@100")
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
        If ``k`` or ``unknown`` cannot be used, the trainer gives no scores, or the store lacks its tables (has them otherwise:
        SchemaMismatchError).
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
        others = of_most_users(view, k) if unknown == "popular" else Ranker(view, learner, _MEAN_USER).rank(k)
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
        For a metric that is unknown, a trainer that gives no scores, cannot fold in, or whose tables the store lacks or has
        otherwise, what are no pairs, and ``given`` with a checkout that has staged changes.
    """
    learner = _learner(view, trainer)
    check_interactions(targets, "targets")
    if given is not None:
        check_interactions(given, "given")
        view = scratch(view)
        fold(view, learner, given)
    return Evaluation(view, learner, targets, metrics=metrics, exclude_consumed=exclude_consumed).run()


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
        places, self._items = distinct(places, items[known], len(view.ids(ITEM)))
        self._n_items = len(view.ids(ITEM))
        self._n_targets = np.bincount(places, minlength=len(rows))
        self._metrics = metrics
        self._n_places = n_places(metrics, default=_PLACES)
        self._ranker = Ranker(view, trainer, rows, exclude_consumed=exclude_consumed)
        self.n_users = len(rows)
        self._n_dropped_users = len(set(targets.user_ids.tolist())) - len(rows)
        self._n_dropped_targets = int((items < 0).sum())

    def run(self) -> dict[str, float]:
        """Return the metrics of the view as it is now."""
        found = mean_metrics(self._hits(), self._n_targets, self._metrics)
        return found | {"dropped_users": self._n_dropped_users, "dropped_targets": self._n_dropped_targets}

    def _hits(self) -> Hits:
        """Return bool[users, places]; there are no hits at places beyond the number of items."""
        found = np.zeros((self.n_users, self._n_places), np.bool_)
        users, start = np.repeat(np.arange(self.n_users), self._n_targets), 0
        for ranked, _ in self._ranker.blocks(self._n_places):
            own = slice(*np.searchsorted(users, [start, start + len(ranked)]))
            found[start : start + len(ranked), : ranked.shape[1]] = hits(
                ranked, users[own] - start, self._items[own], self._n_items
            )
            start += len(ranked)
        return found


def _learner(view: Version | Checkout, trainer: Trainer | None) -> Trainer:
    """Return the trainer whose scores count, once it is sure that they can be had from ``view``."""
    _check_view(view)
    learner = trainer_of(view) if trainer is None else trainer
    check_trainer(learner)
    that_recommends(learner)
    check_tables(view, learner, to="rank by")
    return learner


def _check_view(view: object) -> None:
    if not isinstance(view, View):
        msg = f"view {type(view).__name__}: give a version or a checkout, such as store.at()"
        raise InvalidInputError(msg)


def _distinct(users: IdMap, ids: object) -> NDArray[Any]:
    """Return each id once, in the order given."""
    given = users.checked(ids)
    first: dict[Any, int] = {}
    for position, id_ in enumerate(given.tolist()):
        first.setdefault(id_, position)
    return given[list(first.values())].astype(np.int64 if users.id_type == "int64" else object)


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
