"""Where the rows of a commit go: to a segment, or to a new base."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.storage.arrays import Rows
from embstore.storage.segments import DIGESTS, Column, Edit, Segment, StoredTable, TableState, as_items
from embstore.storage.writer import Writer

MOST_SEGMENTS = 16
MERGED_SEGMENTS = 8
# Of the table's bytes: at twice the table a folded row is written once and a half on the way, and a read costs three tables at
# the most; at once the table that is twice and two.
MOST_LOG = 2


class TableWriter:
    """Writes the rows of one commit to the table at ``path``: to a segment, or to a new base.

    Parameters
    ----------
    writer
        Of the state being made.
    path
        Of the table's group.
    columns
        All columns of the table.
    n_rows
        Of the table after this commit.
    """

    def __init__(self, writer: Writer, path: str, columns: Iterable[Column], n_rows: int) -> None:
        self._writer = writer
        self._path = path
        self._columns = {column.name: column for column in columns}
        self._n_rows = n_rows
        self._stored = StoredTable(writer, path)
        self.state = self._stored.state
        self._derived: list[tuple[str, list[Edit]]] = []

    def declare(self, columns: Iterable[str]) -> None:
        """Note the columns that this commit adds and forget those that there are no more."""
        self.state.made = {name: self.state.made.get(name, self._writer.token) for name in columns}

    def write(self, edits: Mapping[str, Edit]) -> None:
        """Write ``edits`` (column name -> rows) by whichever way costs less in the long run.

        More than half of the table, its first rows, or a log of segments longer than two tables: a new base. Else a segment,
        and where that makes more than sixteen the oldest eight are merged.
        """
        edits = {name: edit for name, edit in edits.items() if len(edit.rows)}
        if not edits:
            return
        if self._wants_base(edits):
            self.fold(edits)
            return
        for rows, names in _by_rows(edits):
            self._write_segment(rows, {name: edits[name] for name in names}, len(self.state.segments))
        if len(self.state.segments) > MOST_SEGMENTS:
            self._merge_oldest()

    def finish(self) -> None:
        """Write what is computed from other columns: last, while those are still on their way to the disk."""
        for path, edits in self._derived:
            self._writer.write_all({path: [edit.values for edit in edits]})
        self._derived = []

    def drop(self, columns: Collection[str]) -> None:
        """Delete columns from the base and from every segment."""
        kept = []
        for segment in self.state.segments:
            left = segment.without(columns)
            path = f"{self._path}/segments/{segment.name}"
            if left.arrays:
                kept.append(left)
                for name in set(segment.arrays) - set(left.arrays):
                    self._writer.delete(f"{path}/{name}")
            else:
                self._writer.delete(path)
        self.state.segments = kept
        for name in columns:
            self.state.made.pop(name, None)
            if self._stored.base(name) is not None:
                self._writer.delete(f"{self._path}/base/{name}")

    def _wants_base(self, edits: Mapping[str, Edit]) -> bool:
        if self._stored.base("values") is None:
            return True
        present = {c for s in self.state.segments for c in s.columns} | set(edits)
        present |= {name for name in self._columns if self._stored.base(name) is not None}
        table_bytes = self._n_rows * sum(self._columns[name].row_bytes for name in present)
        edit_bytes = sum(len(edit.rows) * self._columns[name].row_bytes for name, edit in edits.items())
        log_bytes = sum(s.n_rows * sum(self._columns[name].row_bytes for name in s.columns) for s in self.state.segments)
        return edit_bytes * 2 > table_bytes or log_bytes + edit_bytes > MOST_LOG * table_bytes

    def fold(self, edits: Mapping[str, Edit]) -> None:
        """Write a new base of every column that has edits or segments, and drop the segments."""
        touched = set(edits) | {name for segment in self.state.segments for name in segment.columns}
        for name in sorted(touched):
            self._write_base(self._columns[name], edits.get(name))
        if self.state.segments:
            self._writer.delete(f"{self._path}/segments")
        self.state.segments = []

    def _write_base(self, column: Column, edit: Edit | None) -> None:
        path = f"{self._path}/base/{column.name}"
        if edit is not None and len(edit.rows) == self._n_rows:
            full = edit.values
        else:
            full = self._stored.read(column, self._n_rows)
            if edit is not None:
                as_items(full)[edit.rows] = as_items(edit.values)
        if self._stored.base(column.name) is not None:
            # A new length is a new chunk height; old chunks left behind would be read with it.
            self._writer.delete(path)
        self._writer.write(path, full)

    def _write_segment(self, rows: Rows, edits: Mapping[str, Edit], position: int) -> None:
        name = self._writer.unique(f"{self._path}/segments", self.state.next_segment)
        self.state.next_segment += 1
        path = f"{self._path}/segments/{name}"
        arrays = self._arrays(edits)
        data: dict[str, list[NDArray[Any]]] = {f"{path}/rows": [rows.astype(np.int32)]}
        for array, columns in arrays.items():
            found = [edits[column] for column in columns]
            if any(edit.is_derived for edit in found):
                self._derived.append((f"{path}/{array}", found))
            else:
                data[f"{path}/{array}"] = [edit.values for edit in found]
        self._writer.write_all(data)
        self.state.segments.insert(position, Segment(name, len(rows), arrays))

    def _arrays(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Return which columns lie in one array, by the array's name: those of one dtype and shape, and digests by themselves."""
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name in names:
            column = self._columns[name]
            groups.setdefault((name.startswith(DIGESTS), column.dtype, column.row_shape), []).append(name)
        return {names[0].replace("/", "."): tuple(names) for names in groups.values()}

    def _merge_oldest(self) -> None:
        oldest = self.state.segments[:MERGED_SEGMENTS]
        merged = StoredTable(self._writer, self._path)
        merged.state = TableState(list(oldest))
        sets = {name: merged.segments(name) for name in {c for s in oldest for c in s.columns}}
        edits = {}
        for name, segments in sets.items():
            rows = np.unique(np.concatenate(merged.segment_rows(segments)))
            edits[name] = Edit(rows, merged.gather(self._columns[name], rows))
        self.state.segments = self.state.segments[MERGED_SEGMENTS:]
        for i, (rows, names) in enumerate(_by_rows(edits)):
            self._write_segment(rows, {name: edits[name] for name in names}, i)
        for segment in oldest:
            self._writer.delete(f"{self._path}/segments/{segment.name}")


def _by_rows(edits: Mapping[str, Edit]) -> list[tuple[Rows, list[str]]]:
    """Group columns that were written for the same rows; each group is a segment."""
    groups: list[tuple[Rows, list[str]]] = []
    for name, edit in edits.items():
        for rows, names in groups:
            if rows is edit.rows or np.array_equal(rows, edit.rows):
                names.append(name)
                break
        else:
            groups.append((edit.rows, [name]))
    return groups
