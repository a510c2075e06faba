"""Rows that a checkout holds back until it commits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.storage.arrays import Rows
from embstore.storage.segments import Column, Edit, as_items


class StagedColumn:
    """Changed and new rows of one column.

    Old rows lie in a buffer in the order they were first written, found through a map with one number a row that costs memory
    only where it is touched; new rows lie in a block of their own. So scatter and gather cost what the batch costs.

    Parameters
    ----------
    column
        What a row is.
    n_stored
        Rows of the version below.
    """

    def __init__(self, column: Column, n_stored: int) -> None:
        self.column = column
        self._n_stored = n_stored
        self._place: NDArray[np.int32] | None = None  # place in the buffer + 1; 0: not staged
        self._rows = np.empty(0, np.int64)
        self._buffer = column.empty(0)
        self._n_changed = 0
        self._new = column.empty(0)
        self._n_new = 0

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is staged."""
        return self._n_changed == 0 and self._n_new == 0

    def append(self, values: NDArray[Any]) -> None:
        """Stage the rows that follow those staged or stored so far."""
        self._new = _room(self._new, self._n_new, len(values))
        self._new[self._n_new : self._n_new + len(values)] = values
        self._n_new += len(values)

    def scatter(self, rows: Rows, values: NDArray[Any]) -> None:
        """Stage ``values`` for ``rows``; of rows given twice the last counts."""
        if len(rows) == 0:
            return
        new = rows >= self._n_stored
        if new.any():
            self._scatter_new(rows[new] - self._n_stored, values[new])
            rows, values = rows[~new], values[~new]
        if len(rows):
            self._scatter_old(rows, values)

    def _scatter_new(self, places: Rows, values: NDArray[Any]) -> None:
        missing = int(places.max()) + 1 - self._n_new
        if missing > 0:
            self.append(np.full((missing, *self.column.row_shape), self.column.fill, self.column.dtype))
        self._new[places] = values

    def _scatter_old(self, rows: Rows, values: NDArray[Any]) -> None:
        if self._place is None:
            self._place = np.zeros(self._n_stored, np.int32)
        unseen = self._place[rows] == 0
        if unseen.any():
            self._make_places(rows[unseen])
        as_items(self._buffer)[self._place[rows] - 1] = as_items(np.ascontiguousarray(values))

    def _make_places(self, rows: Rows) -> None:
        assert self._place is not None
        if len(rows) > 1 and not np.all(rows[1:] > rows[:-1]):
            rows = np.unique(rows)
        n, stop = self._n_changed, self._n_changed + len(rows)
        self._buffer = _room(self._buffer, n, len(rows))
        self._rows = _room(self._rows, n, len(rows))
        self._rows[n:stop] = rows
        self._place[rows] = np.arange(n + 1, stop + 1, dtype=np.int32)
        self._n_changed = stop

    def overlay(self, rows: Rows, out: NDArray[Any]) -> NDArray[np.bool_]:
        """Enter staged rows into ``out`` and return which of ``rows`` neither were staged nor are new."""
        pending = rows < self._n_stored
        new = rows - self._n_stored
        inside = ~pending & (new < self._n_new)
        out[inside] = self._new[new[inside]]
        out[~pending & ~inside] = self.column.fill
        if self._place is not None:
            place = self._place[np.where(pending, rows, 0)]
            staged = pending & (place > 0)
            out[staged] = self._buffer[place[staged] - 1]
            pending &= ~staged
        return pending

    def overlay_all(self, out: NDArray[Any]) -> None:
        """Enter all staged rows into the whole column ``out``."""
        out[self._n_stored + self._n_new :] = self.column.fill
        out[self._n_stored : self._n_stored + self._n_new] = self._new[: self._n_new]
        if self._n_changed:
            as_items(out)[self._rows[: self._n_changed]] = as_items(self._buffer[: self._n_changed])

    def edit(self) -> Edit:
        """Return what is staged, rows sorted."""
        rows, values = self._rows[: self._n_changed], self._buffer[: self._n_changed]
        if not np.all(rows[1:] > rows[:-1]):
            order = np.argsort(rows)
            rows, values = rows[order], values[order]
        new_rows = np.arange(self._n_stored, self._n_stored + self._n_new)
        new_values = self._new[: self._n_new]
        if len(rows) == 0:
            return Edit(new_rows, new_values)
        if self._n_new == 0:
            return Edit(rows, values)
        return Edit(np.concatenate([rows, new_rows]), np.concatenate([values, new_values]))


def _room(array: NDArray[Any], used: int, more: int) -> NDArray[Any]:
    """Return ``array``, or a larger copy of its used part, with room for ``more`` rows."""
    if used + more <= len(array):
        return array
    grown = np.empty((max(used + more, 2 * used), *array.shape[1:]), array.dtype)
    grown[:used] = array[:used]
    return grown
