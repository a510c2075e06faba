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
from embstore.targets import Hits, hits, ranked_rows, target_pairs

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


Metrics = Sequence[str | Metric | MetricFunction]


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
    ranked = best_items(scores, k)
    padded = np.full((len(ranked), k), -1, np.int64)
    padded[:, : ranked.shape[1]] = ranked
    return padded


def best_items(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return what `top_k` does, but no more places than there are items: int64[users, min(k, items)].

    Raises
    ------
    InvalidInputError
        As there.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.dtype.kind not in "fiub":
        msg = f"scores {scores.dtype} of shape {scores.shape}: give numbers [users, items]"
        raise InvalidInputError(msg)
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        msg = f"k {k!r}: give a whole number from 1"
        raise InvalidInputError(msg)
    scores = _comparable(scores)
    items = _highest(scores, min(k, scores.shape[1]))
    best = np.take_along_axis(scores, items, axis=1)
    order = np.lexsort((items, -best), axis=1)
    return np.take_along_axis(np.where(np.isneginf(best), -1, items), order, axis=1)


def _comparable(scores: NDArray[Any]) -> NDArray[Any]:
    if scores.dtype.kind != "f":
        return scores.astype(np.float64)
    is_nan = np.isnan(scores)
    return np.where(is_nan, -np.inf, scores).astype(scores.dtype, copy=False) if is_nan.any() else scores


def _highest(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
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


def evaluate_ranked(ranked: NDArray[np.int64], targets: Any, metrics: Metrics = ("recall@20", "ndcg@100")) -> dict[str, float]:
    """Return the mean of each metric over the users who have targets.

    Parameters
    ----------
    ranked
        int64[users, k], the item rows of each user, best first and each once; -1 where there are fewer.
    targets
        For each user some item rows, each counted once: a list of arrays, lists or sets, a pair ``(indptr, indices)``, or
        a sparse matrix of scipy, of which counts what is not zero.
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
        For a metric that is unknown or deeper than ``ranked``, two of one name, targets that do not fit ``ranked``, and rows
        that are no whole numbers.
    """
    ranked = ranked_rows(ranked)
    users, items, n_items = target_pairs(targets, ranked)
    n_targets = np.bincount(users, minlength=len(ranked))
    counted = n_targets > 0
    means = mean_metrics(hits(ranked, users, items, n_items)[counted], n_targets[counted], metrics)
    return {**means, "dropped_users": len(ranked) - int(counted.sum())}


def mean_metrics(hits: Hits, n_targets: Counts, metrics: Metrics) -> dict[str, float]:
    """Return the mean of each metric over users who all have targets, and ``users``, how many they are.

    Parameters
    ----------
    hits
        bool[users, k], as `hits` returns them.
    n_targets
        int64[users], how many distinct targets each has.
    metrics
        As `evaluate_ranked` takes them.

    Raises
    ------
    InvalidInputError
        For a metric that is unknown or looks at more than k places, and two of one name.
    """
    means = {metric.name: _mean(metric, hits, n_targets) for metric in _with_names(metrics, n_places=hits.shape[1])}
    return {**means, "users": len(hits)}


def n_places(metrics: Metrics, *, default: int) -> int:
    """Return how many places the deepest of the metrics looks at, of those that say so.

    Raises
    ------
    InvalidInputError
        For a metric that is unknown.
    """
    return max((_as_metric(metric, 0).k for metric in metrics), default=0) or default


def _with_names(metrics: Metrics, *, n_places: int) -> list[Metric]:
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
