"""All pairs of an entity, and some of each id's held out to judge by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore import Batch, Checkout, InvalidInputError, View
from trainers.pairs import last_of_each

I64 = NDArray[np.int64]
SHARE = 0.2
_FEWEST = 5
_BLOCK_SCORES = 1 << 22
_DEPTH = 100


def take(batch: Batch, which: NDArray[Any]) -> Batch:
    """Return some of the pairs: bool[n], or int64[m] positions."""
    ratings = None if batch.ratings is None else batch.ratings[which]
    times = None if batch.times is None else batch.times[which]
    return Batch(batch.users[which], batch.items[which], ratings, times)


def without_repeats(batch: Batch) -> Batch:
    """Return distinct pairs in the order given; of one that is there twice the last."""
    return take(batch, np.sort(last_of_each(batch.users, batch.items)))


def whole_record(work: Checkout, entity: str) -> Batch:
    """Return the distinct pairs that live ids of ``entity`` have been recorded with, of each id oldest first."""
    ids = work.ids(entity).ids()
    others = work.consumed.of(entity, ids, distinct=True)
    mine = np.repeat(work.ids(entity).live_rows(), [len(part) for part in others])
    other = "item" if entity == "user" else "user"
    theirs = work.ids(other).rows([id_ for part in others for id_ in part.tolist()])
    return Batch(mine, theirs) if entity == "user" else Batch(theirs, mine)


def hold_out(owners: I64) -> NDArray[np.bool_]:
    """Return which pairs are held out: the last fifth of each row's, where it has five or more.

    Parameters
    ----------
    owners
        int64[n], the row of each pair, in the order of time.

    Raises
    ------
    InvalidInputError
        If no row has so many.
    """
    order = np.argsort(owners, kind="stable")
    _, starts, sizes = np.unique(owners[order], return_index=True, return_counts=True)
    n_held = np.where(sizes < _FEWEST, 0, np.floor(sizes * SHARE)).astype(np.int64)
    if n_held.sum() == 0:
        msg = f"{len(owners)} pairs of {len(sizes)} ids: none has {_FEWEST}, of which one is held out; give more pairs"
        raise InvalidInputError(msg)
    place = np.arange(len(owners)) - np.repeat(starts, sizes)
    held = np.zeros(len(owners), bool)
    held[order] = place >= np.repeat(sizes - n_held, sizes)
    return held


def held_out_loss(base: Any, view: View, kept: Batch, held: Batch) -> float:
    """Return how badly held-out pairs are predicted by the scores of a model; NaN if a score is not finite.

    The mean squared error of ratings for a model that learns from them; for others 1 - NDCG@100 of each user's held-out items
    among all live ones that are not in ``kept``, the mean over users. Of equal scores a held-out item's counts as the least.
    """
    users, live = np.unique(held.users), view.ids("item").live_rows()
    owners, columns = np.searchsorted(users, held.users), np.searchsorted(live, held.items)
    had = np.isin(kept.users, users)
    had_owners, had_columns = np.searchsorted(users, kept.users[had]), np.searchsorted(live, kept.items[had])
    ratings = held.ratings if getattr(base, "learns_ratings", False) else None
    height, found = max(1, _BLOCK_SCORES // len(live)), np.empty(len(held))
    for start in range(0, len(users), height):
        scores = base.scores(view, users[start : start + height])[:, live]
        if not np.isfinite(scores).all():
            return math.nan
        mine, theirs = (owners // height == start // height), (had_owners // height == start // height)
        own = scores[owners[mine] - start, columns[mine]]
        if ratings is not None:
            found[mine] = own
        else:
            scores[had_owners[theirs] - start, had_columns[theirs]] = -np.inf
            found[mine] = _places(scores, owners[mine] - start, own)
    if ratings is not None:
        return float(np.square(found - ratings).mean())
    return 1 - float(_ndcg(found, owners).mean())


def _places(scores: NDArray[Any], owners: I64, own: NDArray[Any]) -> I64:
    """Return the place, from 1, of each of some scores in its row."""
    height = max(1, _BLOCK_SCORES // scores.shape[1])
    blocks = [slice(start, start + height) for start in range(0, len(own), height)]
    return np.concatenate([(scores[owners[block]] >= own[block, None]).sum(axis=1) for block in blocks])


def _ndcg(places: NDArray[Any], owners: I64) -> NDArray[np.float64]:
    """Return NDCG@100 of each owner, by the places of the owner's items."""
    gains = np.where(places <= _DEPTH, 1 / np.log2(places + 1), 0.0)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(1, _DEPTH + 1) + 1))])
    found: NDArray[np.float64] = np.bincount(owners, gains) / ideal[np.minimum(np.bincount(owners), _DEPTH)]
    return found
