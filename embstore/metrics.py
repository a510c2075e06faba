"""Ranking metrics in numpy: the best items of each user, which of them were hits, and what that is worth.

Gains are binary. With n targets and the first k places of a ranking:

- ``recall@k``: hits / n; ``capped_recall@k``: hits / min(k, n), so that 1 can always be reached
- ``ndcg@k``: sum of 1 / log2(place + 1) over the hits, divided by the same sum over the first min(k, n) places
  (Järvelin and Kekäläinen, 2002)
- ``ap@k``: sum over the hits of the precision down to their place, divided by min(k, n)
- ``hit@k``: 1 if there is a hit, ``mrr@k``: 1 / place of the first hit; 0 without one
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.errors import InvalidInputError

Hits = NDArray[np.bool_]
Counts = NDArray[np.int64]
MetricFunction = Callable[[Hits, Counts], NDArray[np.float64]]


def _recall(hits: Hits, n_targets: Counts) -> NDArray[np.float64]:
    return np.asarray(hits.sum(axis=1) / np.maximum(n_targets, 1))


def _capped_recall(hits: Hits, n_targets: Counts) -> NDArray[np.float64]:
    return np.asarray(hits.sum(axis=1) / _reachable(hits, n_targets))


def _ndcg(hits: Hits, n_targets: Counts) -> NDArray[np.float64]:
    gains = 1.0 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.cumsum(gains)
    return np.asarray(hits @ gains / ideal[_reachable(hits, n_targets) - 1])


def _average_precision(hits: Hits, n_targets: Counts) -> NDArray[np.float64]:
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return np.asarray((precision * hits).sum(axis=1) / _reachable(hits, n_targets))


def _hit(hits: Hits, n_targets: Counts) -> NDArray[np.float64]:
    return np.asarray(hits.any(axis=1), np.float64)


def _reciprocal_rank(hits: Hits, n_targets: Counts) -> NDArray[np.float64]:
    return np.asarray(_hit(hits, n_targets) / (hits.argmax(axis=1) + 1))


def _reachable(hits: Hits, n_targets: Counts) -> Counts:
    """Return how many hits each user could have, 1 for a user without targets, who has no hits either."""
    return np.clip(n_targets, 1, hits.shape[1])


FUNCTIONS: dict[str, MetricFunction] = {
    "recall": _recall,
    "capped_recall": _capped_recall,
    "ndcg": _ndcg,
    "ap": _average_precision,
    "hit": _hit,
    "mrr": _reciprocal_rank,
}
_NAME = re.compile(r"([a-z_]+)@([1-9][0-9]{0,5})")


@dataclass(frozen=True)
class Metric:
    """A metric of the first ``k`` places.

    Parameters
    ----------
    name, k
        As in results, ``"recall@20"``, and how many places count.
    function
        From hits bool[users, k] and numbers of targets int64[users] to float64[users]; 0 for a user without targets.
    """

    name: str
    k: int
    function: MetricFunction


def parse_metric(name: str) -> Metric:
    """Return the metric called ``name``, such as ``"ndcg@100"``.

    Raises
    ------
    InvalidInputError
        If there is none of that name, or k is not a whole number from 1 to 999999.
    """
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None or found[1] not in FUNCTIONS:
        msg = f"metric {name!r}: use one of {', '.join(FUNCTIONS)} with the number of places after it, such as recall@20"
        raise InvalidInputError(msg)
    return Metric(name, int(found[2]), FUNCTIONS[found[1]])


def top_k(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return the items with the highest scores, the same ones whatever the machine.

    Parameters
    ----------
    scores
        Numbers [users, items]; NaN and minus infinity mean: never.
    k
        How many items, at least one.

    Returns
    -------
    ranked : int64[users, k]
        Item rows, highest score first, equal scores by row; -1 at the end where there are fewer than k.

    Raises
    ------
    InvalidInputError
        If ``scores`` is not two-dimensional, or ``k`` no whole number from 1.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.dtype.kind not in "fiub":
        msg = f"scores {scores.dtype} of shape {scores.shape}: give numbers [users, items]"
        raise InvalidInputError(msg)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        msg = f"k {k!r}: give a whole number from 1"
        raise InvalidInputError(msg)
    scores = _comparable(scores)
    items = _best_items(scores, min(k, scores.shape[1]))
    best = np.take_along_axis(scores, items, axis=1)
    order = np.lexsort((items, -best), axis=1)
    ranked = np.where(np.isneginf(best), -1, items)
    padded = np.full((len(scores), k), -1, np.int64)
    padded[:, : items.shape[1]] = np.take_along_axis(ranked, order, axis=1)
    return padded


def _comparable(scores: NDArray[Any]) -> NDArray[Any]:
    if scores.dtype.kind != "f":
        return scores.astype(np.float64)
    is_nan = np.isnan(scores)
    return np.where(is_nan, -np.inf, scores).astype(scores.dtype, copy=False) if is_nan.any() else scores


def _best_items(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return int64[users, k], the items of the k highest scores in any order; among equal ones those of lower rows."""
    n_items = scores.shape[1]
    if k == n_items:
        return np.tile(np.arange(n_items), (len(scores), 1))
    items = np.argpartition(scores, n_items - k, axis=1)[:, n_items - k :]
    best = np.take_along_axis(scores, items, axis=1)
    # argpartition takes any of those that equal the lowest that is in: where it left some out, choose again.
    lowest = best.min(axis=1, keepdims=True)
    n_left_out = (scores == lowest).sum(axis=1) - (best == lowest).sum(axis=1)
    again = np.flatnonzero((n_left_out > 0) & ~np.isneginf(lowest[:, 0]))
    items[again] = _lower_rows_first(scores[again], lowest[again], k)
    return items


def _lower_rows_first(scores: NDArray[Any], lowest: NDArray[Any], k: int) -> NDArray[np.int64]:
    above = scores > lowest
    level = scores == lowest
    level &= np.cumsum(level, axis=1, dtype=np.int32) <= k - above.sum(axis=1, keepdims=True)
    return np.nonzero(above | level)[1].reshape(len(scores), k)


def hits(ranked: NDArray[np.int64], target_users: NDArray[np.int64], target_items: NDArray[np.int64], n_items: int) -> Hits:
    """Return which of the ranked items are targets.

    Parameters
    ----------
    ranked
        int64[users, k], item rows; -1 is never a hit.
    target_users, target_items
        int64[m]: m targets, a row of ``ranked`` and an item row each.
    n_items
        All item rows are below it.

    Returns
    -------
    hits : bool[users, k]

    Raises
    ------
    InvalidInputError
        For a user or item outside.
    """
    n_users = len(ranked)
    _check_range(ranked, -1, n_items, "ranked item")
    _check_range(target_users, 0, n_users, "target user")
    _check_range(target_items, 0, n_items, "target item")
    # One number for each pair: item rows are below n_items.
    keys = np.arange(n_users)[:, None] * n_items + ranked
    return np.asarray(np.isin(keys, target_users * n_items + target_items) & (ranked >= 0))


def _check_range(values: NDArray[np.int64], low: int, high: int, what: str) -> None:
    if values.size and not (low <= values.min() and values.max() < high):
        value = values.min() if values.min() < low else values.max()
        msg = f"{what} {value}: give rows from {low} to {high - 1}, without what is not known"
        raise InvalidInputError(msg)


def evaluate_ranked(
    ranked: NDArray[np.int64], targets: Any, metrics: Sequence[str | Metric | MetricFunction] = ("recall@20", "ndcg@100")
) -> dict[str, float]:
    """Return the mean of each metric over the users who have targets.

    Parameters
    ----------
    ranked
        int64[users, k], the item rows of each user, best first and each once; -1 where there are fewer.
    targets
        For each user some item rows, each counted once: a list of arrays, lists or sets, a pair ``(indptr, indices)``, or
        a scipy CSR matrix.
    metrics
        Names, or callables ``(hits bool[users, k], n_targets int64[users]) -> float[users]``, which see all k places and go
        by their ``__name__``.

    Returns
    -------
    means : dict
        One number for each metric, NaN without any user with targets; ``users``, how many have targets, and
        ``dropped_users``, how many do not.

    Raises
    ------
    InvalidInputError
        For a metric that is unknown or deeper than ``ranked``, two of one name, and targets that do not fit ``ranked``.
    """
    ranked = np.asarray(ranked)
    if ranked.ndim != 2:
        msg = f"ranked of shape {ranked.shape}: give the items of each user, [users, k]"
        raise InvalidInputError(msg)
    users, items, n_items = _target_pairs(targets, ranked)
    n_targets = np.bincount(users, minlength=len(ranked))
    counted = n_targets > 0
    found, n_found = hits(ranked, users, items, n_items)[counted], n_targets[counted]
    means = {metric.name: _mean(metric, found, n_found) for metric in _with_names(metrics, n_places=ranked.shape[1])}
    return {**means, "users": len(found), "dropped_users": len(ranked) - len(found)}


def _target_pairs(targets: Any, ranked: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return users and items of the distinct targets, and the number that all item rows are below."""
    indptr, items = _as_csr(targets)
    if len(indptr) != len(ranked) + 1 or indptr[0] != 0 or indptr[-1] != len(items) or (np.diff(indptr) < 0).any():
        msg = (
            f"targets of {len(indptr) - 1} users with {len(items)} items: give targets for each of the {len(ranked)} ranked users"
        )
        raise InvalidInputError(msg)
    n_items = int(max(ranked.max(initial=-1), items.max(initial=-1))) + 1
    _check_range(items, 0, n_items, "target item")
    users = np.repeat(np.arange(len(ranked)), np.diff(indptr))
    keys = np.unique(users * n_items + items)
    return keys // max(n_items, 1), keys % max(n_items, 1), n_items


def _as_csr(targets: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if hasattr(targets, "indptr"):
        targets = (targets.indptr, targets.indices)
    if not isinstance(targets, tuple):
        lists = [np.fromiter(items, np.int64) for items in targets]
        targets = (np.cumsum([0, *map(len, lists)]), np.concatenate([np.empty(0, np.int64), *lists]))
    indptr, indices = (np.asarray(part, np.int64) for part in targets)
    return indptr, indices


def _with_names(metrics: Sequence[str | Metric | MetricFunction], *, n_places: int) -> list[Metric]:
    found = [_as_metric(metric, n_places) for metric in metrics]
    names = [metric.name for metric in found] + ["users", "dropped_users"]
    for metric in found:
        if metric.k > n_places:
            msg = f"metric {metric.name!r}: rankings have {n_places} places; rank {metric.k}"
            raise InvalidInputError(msg)
        if names.count(metric.name) > 1:
            msg = f"metric {metric.name!r}: the name is there twice; rename the function, or ask once"
            raise InvalidInputError(msg)
    return found


def _as_metric(metric: str | Metric | MetricFunction, n_places: int) -> Metric:
    if isinstance(metric, Metric):
        return metric
    if callable(metric):
        return Metric(getattr(metric, "__name__", type(metric).__name__), n_places, metric)
    return parse_metric(metric)


def _mean(metric: Metric, hits: Hits, n_targets: Counts) -> float:
    if not len(hits):
        return float("nan")
    values = np.asarray(metric.function(hits[:, : metric.k], n_targets), np.float64)
    if values.shape != n_targets.shape:
        msg = f"metric {metric.name!r} gave shape {values.shape}: return one number for each of {len(n_targets)} users"
        raise InvalidInputError(msg)
    return float(values.mean())
