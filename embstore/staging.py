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
    n_rows
        Rows that there are with the new ones, where that is known: room for them is made at once.
    """

    def __init__(self, column: Column, n_stored: int, *, n_rows: int = 0) -> None:
        self.column = column
        self._n_stored = n_stored
        self._n_rows = n_rows
        self._place: NDArray[np.int32] | None = None  # place in the buffer + 1; 0: not staged
        self._rows = np.empty(0, np.int64)
        self._buffer = column.empty(0)
        self._n_changed = 0
        self._new = column.empty(0)
        self._n_new = 0
        self._block = column.empty(0)

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
        n_old = len(rows) - int(np.count_nonzero(new))
        if not new[:n_old].any():  # old rows first, as a training job writes them: slices need no copy
            old_part, new_part = slice(0, n_old), slice(n_old, None)
            self._scatter_parts(rows[old_part], values[old_part], rows[new_part], values[new_part])
        else:
            self._scatter_parts(rows[~new], values[~new], rows[new], values[new])

    def _scatter_parts(self, old: Rows, old_values: NDArray[Any], new: Rows, new_values: NDArray[Any]) -> None:
        # New rows first: the block of old rows is then made with room for them behind it.
        if len(new):
            self._scatter_new(new - self._n_stored, new_values)
        if len(old):
            self._scatter_old(old, old_values)

    def _scatter_new(self, places: Rows, values: NDArray[Any]) -> None:
        stop = int(places.max()) + 1
        if stop > self._n_new:
            self._new = _room(self._new, self._n_new, max(stop, self._n_rows - self._n_stored) - self._n_new)
            self._new[self._n_new : stop] = self.column.fill
            self._n_new = stop
        if np.array_equal(places, np.arange(places[0], places[0] + len(places))):
            self._new[places[0] : places[0] + len(places)] = values
        else:
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
            rows = _distinct(rows, self._n_stored)
        n, stop = self._n_changed, self._n_changed + len(rows)
        if stop > len(self._buffer):
            self._make_block(max(stop, min(2 * n, self._n_stored)))
        self._rows = _room(self._rows, n, len(rows))
        self._rows[n:stop] = rows
        self._place[rows] = np.arange(n + 1, stop + 1, dtype=np.int32)
        self._n_changed = stop

    def _make_block(self, n_places: int) -> None:
        """Move old and new rows to one block, so that a commit can write both without copying them together."""
        block = self.column.empty(n_places + self._n_new)
        block[: self._n_changed] = self._buffer[: self._n_changed]
        block[n_places:] = self._new[: self._n_new]
        self._block, self._buffer, self._new = block, block[:n_places], block[n_places:]

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
        rows, whole = self._rows[: self._n_changed], self._buffer[: self._n_changed]
        values = whole
        if not np.all(rows[1:] > rows[:-1]):
            order = np.argsort(rows)
            rows, values = rows[order], values[order]
        new_rows = np.arange(self._n_stored, self._n_stored + self._n_new)
        new_values = self._new[: self._n_new]
        if len(rows) == 0:
            return Edit(new_rows, new_values)
        if self._n_new == 0:
            return Edit(rows, values)
        both = np.concatenate([rows, new_rows])
        adjacent = values is whole and self._new.base is self._block and len(self._block) == len(both)
        return Edit(both, self._block if adjacent else np.concatenate([values, new_values]))


def _distinct(rows: Rows, n_rows: int) -> Rows:
    """Return the distinct rows, ascending; where they are many of all rows, marking them is cheaper than sorting."""
    if len(rows) * 32 < n_rows:
        return np.unique(rows)
    marked = np.zeros(n_rows, bool)
    marked[rows] = True
    return np.flatnonzero(marked)


def _room(array: NDArray[Any], used: int, more: int) -> NDArray[Any]:
    """Return ``array``, or a larger copy of its used part, with room for ``more`` rows."""
    if used + more <= len(array):
        return array
    grown = np.empty((max(used + more, 2 * used), *array.shape[1:]), array.dtype)
    grown[:used] = array[:used]
    return grown
