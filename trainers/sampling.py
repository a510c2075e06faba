"""Order of an epoch and negatives that the user has not had: pure functions of seed, epoch and position or id.

Nothing is drawn from a generator with a state: each number is a hash of its counters (splitmix64, Steele, Lea and Flood 2014),
so a run that goes on needs the seed and the number of the epoch, and numpy may change its generators. For the 64,285 pairs of
MovieLens-100k with two negatives this costs about 5 ms of CPU an epoch more than numpy's PCG64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore import InvalidInputError
from trainers.settings import check_count

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
BITMAP_BITS = 1 << 26
# Draws at a time, which stay in the cache with all that is computed of them.
_BLOCK = 1 << 15
_LOW = np.uint64(0xFFFF)
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_ORDER, _UNIFORM, _HASHED, _DROPPED, _NORMAL, _START = 1, 2, 3, 4, 5, 6


class PairSet:
    """A set of (user row, item row) pairs that answers for many pairs at once.

    One bit for every possible pair while that takes 8 MiB or less; else sorted 64-bit keys and a binary search.

    Parameters
    ----------
    indptr, indices
        int[n_users + 1] and int[n]: a CSR matrix in rows, such as ``consumed.to_csr()`` gives; repeats do no harm.
    n_items
        Number of item rows.
    bitmap_bits
        The most bits that a bitmap may have.

    Raises
    ------
    InvalidInputError
        For an item outside ``[0, n_items)``.
    """

    def __init__(self, indptr: NDArray[Any], indices: NDArray[Any], *, n_items: int, bitmap_bits: int = BITMAP_BITS) -> None:
        outside = np.flatnonzero((indices < 0) | (indices >= n_items))
        if len(outside):
            msg = f"item row {indices[outside[0]]}: there are {n_items} items; give rows below that"
            raise InvalidInputError(msg)
        self.n_users = len(indptr) - 1
        self.n_items = n_items
        users = np.repeat(np.arange(self.n_users, dtype=np.int64), np.diff(indptr))
        keys = np.sort(users * n_items + indices)
        n_bits = self.n_users * n_items
        self._bits = _bitmap(keys, n_bits) if n_bits <= bitmap_bits else None
        self._keys = keys if self._bits is None else np.empty(0, np.int64)

    def contains(self, users: I64, items: I64) -> NDArray[np.bool_]:
        """Return for each pair whether it is in the set.

        Parameters
        ----------
        users, items
            int64[n], rows within the set's shape.

        Returns
        -------
        bool[n].
        """
        keys = users * self.n_items + items
        if self._bits is not None:
            hit: NDArray[np.bool_] = (self._bits[keys >> 3] >> (keys & 7).astype(np.uint8) & 1).astype(np.bool_)
            return hit
        if len(self._keys) == 0:
            return np.zeros(len(keys), np.bool_)
        found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        same: NDArray[np.bool_] = self._keys[found] == keys
        return same


def _bitmap(keys: I64, n_bits: int) -> NDArray[np.uint8]:
    bits = np.zeros((n_bits + 7) // 8, np.uint8)
    if len(keys):
        places = keys >> 3
        first = np.flatnonzero(np.diff(places, prepend=-1))
        bits[places[first]] = np.bitwise_or.reduceat(np.uint8(1) << (keys & 7).astype(np.uint8), first)
    return bits


def shuffled(n: int, *, seed: int, epoch: int) -> I64:
    """Return the numbers below ``n`` in the order of this epoch.

    Parameters
    ----------
    n
        Number of pairs.
    seed, epoch
        The order is a function of these two and ``n``.

    Returns
    -------
    int64[n].
    """
    return _order(n, seed=seed, epoch=epoch).astype(np.int64)


def _order(n: int, *, seed: int, epoch: int) -> NDArray[Any]:
    """Return the same in as few bytes as ``n`` needs."""
    stream, low, high = _stream(_ORDER, seed, epoch), np.empty(n, np.uint16), np.empty(n, np.uint16)
    for start in range(0, n, _BLOCK):
        bits = _mix(_counters(min(_BLOCK, n - start), start) + stream)
        low[start : start + _BLOCK], high[start : start + _BLOCK] = bits & _LOW, bits >> np.uint64(16) & _LOW
    # Two stable passes over 16 bits each: numpy sorts 16-bit integers by radix, five times faster than one pass over 64.
    order = np.argsort(low, kind="stable").astype(np.min_scalar_type(n))
    return order[np.argsort(high[order], kind="stable")]


def shuffled_batches(n: int, *, batch_size: int, seed: int, epoch: int) -> Iterator[I64]:
    """Yield the positions of one epoch in batches, each position once; the last batch may be smaller.

    Parameters
    ----------
    n
        Number of pairs.
    batch_size
        Positions in a batch.
    seed, epoch
        As in ``shuffled``.

    Raises
    ------
    InvalidInputError
        For a batch size below 1.
    """
    check_count(batch_size, "batch_size")
    order = _order(n, seed=seed, epoch=epoch)
    for start in range(0, n, batch_size):
        yield order[start : start + batch_size].astype(np.int64)


def uniform_negatives(consumed: PairSet, users: I64, *, n_negatives: int, seed: int, epoch: int, tries: int = 10) -> I64:
    """Draw items uniformly for every pair, avoiding what its user has consumed.

    A draw that hits a consumed item is drawn again, at most ``tries`` times in all; then the last draw stays, so that a user
    who has had nearly everything costs no more than others.

    Parameters
    ----------
    consumed
        Pairs to avoid; its ``n_items`` is the number of items drawn from.
    users
        int64[n], the user row of each pair.
    n_negatives
        Items for each pair.
    seed, epoch
        A draw is a function of these, of its position and of the number of items.
    tries
        Draws at most.

    Returns
    -------
    int64[n, n_negatives] item rows.

    Raises
    ------
    InvalidInputError
        For counts below 1, or no items.
    """
    check_count(n_negatives, "n_negatives")
    items, stream = np.empty(len(users) * n_negatives, np.int64), _stream(_UNIFORM, seed, epoch)
    height = max(1, _BLOCK // n_negatives)
    for start in range(0, max(1, len(users)), height):
        owners, first = np.repeat(users[start : start + height], n_negatives), start * n_negatives
        states = _mix(_counters(len(owners), first) + stream)
        items[first : first + len(owners)] = _draw(consumed, owners, states=states, tries=tries)
    return items.reshape(-1, n_negatives)


def hashed_negatives(
    consumed: PairSet, users: I64, *, user_keys: I64, item_keys: I64, seed: int, epoch: int, tries: int = 10
) -> I64:
    """Draw one item for every pair by a hash of (seed, user, epoch, positive item, try), avoiding what the user has consumed.

    The draw does not depend on rows or on other pairs: folded in alone, a user meets the same negatives as among others.

    Parameters
    ----------
    consumed
        Pairs to avoid; its ``n_items`` is the number of items drawn from.
    users
        int64[n], the user row of each pair.
    user_keys, item_keys
        int64[n], a 64-bit key of each pair's user id and item id.
    seed, epoch
        As in ``uniform_negatives``.
    tries
        Draws at most; then the last one stays.

    Returns
    -------
    int64[n] item rows.

    Raises
    ------
    InvalidInputError
        For fewer than 1 try, or no items.
    """
    states = _mix(user_keys.view(np.uint64) ^ _stream(_HASHED, seed, epoch))
    states = _mix(states + item_keys.view(np.uint64) * np.uint64(_GOLDEN))
    return _draw(consumed, users, states=states, tries=tries)


def dropout(shape: tuple[int, ...], share: float, *, seed: int, epoch: int, step: int) -> NDArray[np.float32]:
    """Return what numbers are multiplied by to drop a share of them and keep the mean: 0, or 1 / (1 - share).

    Parameters
    ----------
    shape
        Of the numbers.
    share
        Below 1.
    seed, epoch, step
        What is dropped is a function of these and of the place.
    """
    bits = _mix(_counters(int(np.prod(shape))) + _stream(_DROPPED, seed, epoch, step))
    is_kept = (bits >> np.uint64(40)).astype(np.float32) >= np.float32(share * 2**24)
    return np.asarray(is_kept.reshape(shape) / np.float32(1 - share), np.float32)


def normals(shape: tuple[int, ...], *, seed: int, epoch: int, step: int) -> NDArray[np.float32]:
    """Return standard normal numbers (Box and Muller 1958).

    Parameters
    ----------
    shape
        Of them.
    seed, epoch, step
        They are a function of these and of the place.
    """
    return _normals(shape, _stream(_NORMAL, seed, epoch, step))


def starting_normals(shape: tuple[int, ...], *, seed: int, number: int) -> NDArray[np.float32]:
    """Return standard normal numbers for the ``number``-th array that begins with such."""
    return _normals(shape, _stream(_START, seed, number))


def _normals(shape: tuple[int, ...], stream: np.uint64) -> NDArray[np.float32]:
    bits = _mix(_counters(int(np.prod(shape))) + stream)
    first = ((bits >> np.uint64(32)).astype(np.float64) + 1) * 2.0**-32  # above 0
    second = (bits & np.uint64(0xFFFFFFFF)).astype(np.float64) * 2.0**-32
    found: NDArray[np.float32] = (np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)).astype(np.float32)
    return found.reshape(shape)


def _draw(consumed: PairSet, users: I64, *, states: U64, tries: int) -> I64:
    """Return one item for each state, redrawing the consumed ones; try ``t`` is a hash of the state and ``t``."""
    check_count(tries, "tries")
    check_count(consumed.n_items, "number of items")
    items = np.empty(len(states), np.int64)
    again = np.arange(len(states))
    for attempt in range(1, tries + 1):
        bits = _mix(states[again] + np.uint64(attempt * _GOLDEN & _MASK))
        items[again] = (bits % np.uint64(consumed.n_items)).view(np.int64)
        again = again[consumed.contains(users[again], items[again])]
        if len(again) == 0:
            break
    return items


def _counters(n: int, start: int = 0) -> U64:
    return np.arange(start + 1, start + n + 1, dtype=np.uint64) * np.uint64(_GOLDEN)


def _stream(*numbers: int) -> np.uint64:
    """Return a 64-bit key of some whole numbers, in their order."""
    key = np.zeros(1, np.uint64)
    for number in numbers:
        key = _mix(key + np.uint64((number * _GOLDEN + 1) & _MASK))
    return np.uint64(key[0])


def _mix(x: U64) -> U64:
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
