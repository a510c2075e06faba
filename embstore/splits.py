"""Which pairs go into which part of a split, by exact arithmetic: .29 of 100 is 29, though the binary fraction is less."""

from __future__ import annotations

from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.errors import InvalidInputError
from embstore.normalize import rank_ids

Chosen = NDArray[np.bool_] | NDArray[np.int64]
_FEWEST_TO_SPLIT = 5  # A user with fewer pairs keeps them all in a split within users.


def parts(by: str, share: float, user_ids: NDArray[Any], times: NDArray[Any] | None, *, seed: int) -> tuple[Chosen, Chosen]:
    """Return which pairs stay, and which are the ``share`` of them that goes, as `embstore.Interactions.split` has it.

    Raises
    ------
    InvalidInputError
        As there.
    """
    exact = _as_written(share)
    if by == "time":
        return _by_time(times, exact)
    if by not in ("within", "user"):
        msg = f"by={by!r}: use 'time', 'user' or 'within'"
        raise InvalidInputError(msg)
    second = _is_last_within(user_ids, times, exact) if by == "within" else _is_of_drawn_users(user_ids, exact, seed)
    return ~second, second


def _as_written(share: float) -> Fraction:
    """Return the decimal number that a share is written as."""
    if not isinstance(share, Real) or not 0 < share < 1:
        msg = f"share {share!r}: give a number between 0 and 1"
        raise InvalidInputError(msg)
    return Fraction(str(share))


def _by_time(times: NDArray[Any] | None, share: Fraction) -> tuple[Chosen, Chosen]:
    if times is None:
        msg = "by='time': these pairs have no times; name their column (time=...), or split by 'user' or 'within'"
        raise InvalidInputError(msg)
    order = np.argsort(times, kind="stable")
    n_first = int((1 - share) * len(times))
    return order[:n_first], order[n_first:]


def _is_last_within(user_ids: NDArray[Any], times: NDArray[Any] | None, share: Fraction) -> NDArray[np.bool_]:
    users = rank_ids(user_ids)
    n_pairs = np.bincount(users)
    numbers, places = np.unique(n_pairs, return_inverse=True)
    n_last = [int(share * number) if number >= _FEWEST_TO_SPLIT else 0 for number in numbers.tolist()]
    n_first = n_pairs - np.array(n_last, np.int64)[places]
    order = np.lexsort([users] if times is None else [times, users])
    n_before = np.empty(len(users), np.int64)
    n_before[order] = np.arange(len(users)) - np.repeat(np.cumsum(n_pairs) - n_pairs, n_pairs)
    return np.asarray(n_before >= n_first[users])


def _is_of_drawn_users(user_ids: NDArray[Any], share: Fraction, seed: object) -> NDArray[np.bool_]:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        msg = f"seed {seed!r}: give a whole number from 0"
        raise InvalidInputError(msg)
    users = rank_ids(user_ids)
    order = np.random.default_rng(seed).permutation(len(np.bincount(users)))
    return np.isin(users, order[: int(share * len(order))])
