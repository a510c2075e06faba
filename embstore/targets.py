"""What is ranked and what was to be found, in all the forms in which these are given, as rows of items."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.errors import InvalidInputError

Rows = NDArray[np.int64]
Hits = NDArray[np.bool_]
_INT64 = np.iinfo(np.int64)
_MOST_PAIRS = 1 << 62  # A user and an item make one int64.


def ranked_rows(ranked: Any) -> Rows:
    """Return the items of each user as int64[users, k].

    Raises
    ------
    InvalidInputError
        If they are not two-dimensional, or no whole numbers.
    """
    try:
        given = np.asarray(ranked)
    except ValueError:
        msg = "ranked: users with different numbers of items; give [users, k], with -1 where there are fewer"
        raise InvalidInputError(msg) from None
    if given.ndim != 2:
        msg = f"ranked of shape {given.shape}: give the items of each user, [users, k]"
        raise InvalidInputError(msg)
    if given.dtype.kind != "i" and given.size:
        given = np.stack([_as_rows(items, f"ranked item of user {user},") for user, items in enumerate(ranked)])
    return given.astype(np.int64, copy=False)


def target_pairs(targets: Any, ranked: Rows) -> tuple[Rows, Rows, int]:
    """Return users and items of the distinct targets, and the number that all item rows are below.

    Raises
    ------
    InvalidInputError
        If they have another form than `embstore.evaluate_ranked` takes, or do not fit ``ranked``.
    """
    indptr, items = _as_csr(targets)
    if len(indptr) != len(ranked) + 1 or indptr[0] != 0 or indptr[-1] != len(items) or (np.diff(indptr) < 0).any():
        msg = (
            f"targets of {len(indptr) - 1} users with {len(items)} items: give targets for each of the {len(ranked)} ranked users"
        )
        raise InvalidInputError(msg)
    end = _MOST_PAIRS // max(len(ranked), 1)
    _check_range(ranked, -1, end, "ranked item")
    _check_range(items, 0, end, "target item")
    n_items = int(max(ranked.max(initial=-1), items.max(initial=-1))) + 1
    return *distinct(np.repeat(np.arange(len(ranked)), np.diff(indptr)), items, n_items), n_items


def hits(ranked: Rows, target_users: Rows, target_items: Rows, n_items: int) -> Hits:
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


def distinct(users: Rows, items: Rows, n_items: int) -> tuple[Rows, Rows]:
    """Return each pair once, by user and item; all items are below ``n_items``."""
    users, items = np.divmod(np.unique(users * n_items + items), max(n_items, 1))
    return users, items


def _check_range(values: Rows, low: int, high: int, what: str) -> None:
    if values.size and not (low <= values.min() and values.max() < high):
        value = values.min() if values.min() < low else values.max()
        msg = f"{what} {value}: give rows from {low} to {high - 1}, without what is not known"
        raise InvalidInputError(msg)


def _as_csr(targets: Any) -> tuple[Rows, Rows]:
    """Return where the items of each user end (with a leading 0), and these items."""
    if hasattr(targets, "tocsr"):
        return _of_matrix(targets)
    if isinstance(targets, tuple):
        return _of_parts(targets)
    lists = [_as_rows(_listed(items, user), f"target item of user {user},") for user, items in enumerate(_listed(targets))]
    return np.cumsum([0, *map(len, lists)]), np.concatenate([np.empty(0, np.int64), *lists])


def _of_matrix(matrix: Any) -> tuple[Rows, Rows]:
    if len(matrix.shape) != 2:
        msg = f"targets {type(matrix).__name__} of shape {matrix.shape}: give a sparse matrix [users, items]"
        raise InvalidInputError(msg)
    csr = matrix.tocsr(copy=True)
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr.indptr.astype(np.int64), csr.indices.astype(np.int64)


def _of_parts(parts: tuple[Any, ...]) -> tuple[Rows, Rows]:
    if len(parts) != 2:
        msg = f"targets in a tuple of {len(parts)}: give (indptr, indices), or a list with the items of each user"
        raise InvalidInputError(msg)
    indptr, items = (_as_rows(_listed(part), what) for part, what in zip(parts, ("target indptr", "target item"), strict=True))
    return indptr, items


def _listed(values: Any, user: int | None = None) -> Any:
    """Return an array as it is, and all else as a list, since numpy makes no array of a set."""
    if isinstance(values, np.ndarray) and values.ndim:
        return values
    try:
        return list(values)
    except TypeError:
        whose = "" if user is None else f" of user {user}"
        msg = f"targets{whose} {values!r}: give the item rows of each user"
        raise InvalidInputError(msg) from None


def _as_rows(values: Any, what: str) -> Rows:
    if isinstance(values, np.ndarray) and values.ndim == 1 and (values.dtype.kind == "i" or not len(values)):
        return values.astype(np.int64, copy=False)
    for position, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or abs(int(value)) > _INT64.max:
            msg = f"{what} {value!r} at position {position}: give whole numbers, the rows of items"
            raise InvalidInputError(msg)
    return np.array(values, np.int64)
