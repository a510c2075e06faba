"""What users have had, as sparse matrices by rows, in numpy alone: scipy takes 10 MB that training does without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embstore import View
from trainers.pairs import Pairs

I64 = NDArray[np.int64]


class RowMatrix(Protocol):
    """A sparse matrix by rows, such as scipy's CSR."""

    @property
    def indptr(self) -> NDArray[Any]:
        """Return where each row begins in the other two, and behind the last where it ends."""

    @property
    def indices(self) -> NDArray[Any]:
        """Return the column of each number."""

    @property
    def data(self) -> NDArray[Any]:
        """Return the numbers."""


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix by rows, see `RowMatrix`.

    Parameters
    ----------
    indptr
        int64[n + 1].
    indices, data
        int[n_values], and float32[n_values].
    """

    indptr: NDArray[Any]
    indices: NDArray[Any]
    data: NDArray[Any]

    @classmethod
    def of(cls, pairs: Pairs) -> SparseRows:
        """Return ones, a row for each group of distinct pairs."""
        return cls(pairs.ends, pairs.columns.astype(np.int32), np.ones(len(pairs), np.float32))

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def take(self, rows: I64) -> SparseRows:
        """Return some rows, in the order of ``rows``, int64[m]."""
        sizes = np.diff(self.indptr)[rows]
        indptr = np.concatenate([[0], np.cumsum(sizes)])
        places = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], sizes)
        return SparseRows(indptr, self.indices[places], self.data[places])


def normalized(matrix: RowMatrix) -> SparseRows:
    """Return a sparse matrix with rows of length 1 (empty ones stay), float32."""
    squares = np.append(matrix.data * matrix.data, matrix.data.dtype.type(0))
    lengths = np.sqrt(np.add.reduceat(squares, matrix.indptr[:-1]))
    sizes = np.diff(matrix.indptr)
    values = matrix.data / np.repeat(np.where(lengths > 0, lengths, 1), sizes)
    return SparseRows(matrix.indptr, matrix.indices, values.astype(np.float32))


def histories(view: View, users: I64) -> Pairs:
    """Return what some users have had, each item once, grouped as they are given; nothing for row -1."""
    distinct, places = np.unique(users, return_inverse=True)
    found = Pairs.of(*_records_of(view, distinct), None, n_groups=len(distinct))
    return found if np.array_equal(distinct, users) else found.take(places.reshape(-1))


def _records_of(view: View, users: I64) -> tuple[I64, I64]:
    """Return the records of some users, -1 or distinct rows, as places in ``users`` and rows of items."""
    owner = np.full(len(view.ids("user")), -1)
    owner[users[users >= 0]] = np.flatnonzero(users >= 0)
    records = view.consumed.records()
    owners = owner[records.users]
    is_theirs = owners >= 0
    return owners[is_theirs], records.items[is_theirs]


def everybody(view: View) -> SparseRows:
    """Return what all users have had, each item once, a row for each row of users."""
    users, items = np.divmod(recorded(view), max(1, len(view.ids("item"))))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=len(view.ids("user"))))])
    return SparseRows(indptr, items, np.ones(len(items), np.float32))


def recorded(view: View) -> I64:
    """Return the distinct pairs that are consumed, ascending: a user's row times the number of items, plus an item's."""
    records = view.consumed.records()
    return np.unique(records.users * len(view.ids("item")) + records.items)
