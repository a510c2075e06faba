"""The stored columns of one table: a base, and segments of new and changed rows that lie over it.

A column is ``values``, ``slots/<name>`` or ``digests/<values or slot>`` (one number a row of a wide column, so that rows are
compared without being read). A segment lists the columns it has; later segments win. Rows that neither the base nor a
segment holds have the column's fill. Columns of one kind lie one behind the other in one array of a segment, so that a small
commit makes few objects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.storage.arrays import Reader, Rows, rows_by_chunk
from embstore.storage.chunks import ArrayMeta
from embstore.storage.stacking import first_row, parts

DIGESTS = "digests/"


@dataclass(frozen=True)
class Column:
    """One column: its name on disk, the dtype and shape of a row, and what a row that was never written holds."""

    name: str
    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    fill: Any

    def empty(self, n_rows: int) -> NDArray[Any]:
        """Return room for ``n_rows`` rows."""
        return np.empty((n_rows, *self.row_shape), self.dtype)

    @property
    def row_bytes(self) -> int:
        """Return the bytes of a row."""
        return int(np.prod(self.row_shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Segment:
    """Rows of one commit (or of several merged): sorted rows and the columns that were written.

    ``arrays`` has for each array the columns that lie in it, one behind the other; None is where one was dropped.
    """

    name: str
    n_rows: int
    arrays: Mapping[str, tuple[str | None, ...]]

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that it has."""
        return tuple(column for columns in self.arrays.values() for column in columns if column)

    def find(self, column: str) -> tuple[str, int, int]:
        """Return the array that a column lies in, behind how many others, and how many lie in it."""
        return next((name, held.index(column), len(held)) for name, held in self.arrays.items() if column in held)

    def without(self, dropped: Collection[str]) -> Segment:
        """Return the segment that lacks these columns, and the arrays that hold no others."""
        left = {name: tuple(None if column in dropped else column for column in held) for name, held in self.arrays.items()}
        return replace(self, arrays={name: held for name, held in left.items() if any(held)})

    def to_json(self) -> dict[str, Any]:
        """Return the segment as JSON data."""
        return {"name": self.name, "rows": self.n_rows, "arrays": {name: list(held) for name, held in self.arrays.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Segment:
        """Return the segment that ``to_json`` gave."""
        return cls(data["name"], data["rows"], {name: tuple(held) for name, held in data["arrays"].items()})


class Edit:
    """Rows of one column to be written.

    Parameters
    ----------
    rows
        Sorted and distinct.
    values
        In the order of ``rows``; or a function that gives them, called when they are first asked for.
    """

    def __init__(self, rows: Rows, values: NDArray[Any] | Callable[[], NDArray[Any]]) -> None:
        self.rows = rows
        self._given = values

    @property
    def is_derived(self) -> bool:
        """Return whether the rows are computed when they are asked for."""
        return callable(self._given)

    @cached_property
    def values(self) -> NDArray[Any]:
        """Return the rows."""
        return self._given() if callable(self._given) else self._given


@dataclass
class TableState:
    """What the attributes of a table's group say of its arrays.

    ``made`` has for each column a token of the commit that added it: a column that was dropped and added again is another.
    """

    segments: list[Segment] = field(default_factory=list)
    next_segment: int = 1
    made: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableState:
        """Return the state that ``to_json`` gave."""
        segments = [Segment.from_json(segment) for segment in data["segments"]]
        return cls(segments, data["next_segment"], dict(data["made"]))

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON data."""
        segments = [segment.to_json() for segment in self.segments]
        return {"segments": segments, "next_segment": self.next_segment, "made": self.made}


class StoredTable:
    """The columns of the table at ``path`` as one state has them."""

    def __init__(self, reader: Reader, path: str, *, ignored: Collection[str] = ()) -> None:
        self.reader = reader
        self.path = path
        self._ignored = ignored  # columns that are about to be deleted, to make room for others of their names
        attributes = reader.attributes(path)
        self.state = TableState.from_json(attributes["columns"]) if attributes else TableState()
        self._segment_rows: dict[str, Rows] = {}

    def base(self, column: str) -> ArrayMeta | None:
        """Return the base array of a column; None if it has none."""
        if column in self._ignored:
            return None
        return self.reader.meta(f"{self.path}/base/{column}")

    def segments(self, column: str) -> list[Segment]:
        """Return the segments that hold rows of a column, oldest first."""
        if column in self._ignored:
            return []
        return [segment for segment in self.state.segments if column in segment.columns]

    def segment_rows(self, segments: Sequence[Segment]) -> list[Rows]:
        """Return the rows of each segment, fetched in one round and kept."""
        missing = [s.name for s in segments if s.name not in self._segment_rows]
        fetched = self.reader.read([f"{self.path}/segments/{name}/rows" for name in missing])
        self._segment_rows.update((name, rows.astype(np.int64)) for name, rows in zip(missing, fetched, strict=True))
        return [self._segment_rows[s.name] for s in segments]

    def read(self, column: Column, n_rows: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the whole column ``[n_rows, *row_shape]``, into ``out`` where given; each stored row is copied once or twice."""
        out = column.empty(n_rows) if out is None else out
        n_base = self._read_base(column, out)
        out[n_base:] = column.fill
        segments = self.segments(column.name)
        if not segments:
            return out
        all_rows = self.segment_rows(segments)
        # The last segment that holds a row owns it; then every row is scattered once, in whatever order chunks arrive.
        owner = np.full(n_rows, -1, np.int16)
        for i, rows in enumerate(all_rows):
            owner[rows] = i
        items = as_items(out)
        self._read_segments(column, segments, all_rows, owner, items)
        return out

    def _read_base(self, column: Column, out: NDArray[Any]) -> int:
        meta = self.base(column.name)
        if meta is None:
            return 0
        path = f"{self.path}/base/{column.name}"

        def place(index: int, chunk: NDArray[Any]) -> None:
            out[slice(*meta.bounds(index))] = chunk

        self.reader.chunks([(path, meta, i) for i in range(meta.n_chunks)], place)
        return meta.n_rows

    def _read_segments(
        self, column: Column, segments: Sequence[Segment], all_rows: Sequence[Rows], owner: NDArray[np.int16], items: NDArray[Any]
    ) -> None:
        wanted, sources = [], []
        for i, (path, meta, first) in enumerate(self.places(column.name, segments)):
            for index, part, rows in parts(meta, first, segments[i].n_rows):
                wanted.append((path, meta, index))
                sources.append((i, part, all_rows[i][rows]))

        def place(position: int, chunk: NDArray[Any]) -> None:
            i, part, rows = sources[position]
            live = owner[rows] == i
            if live.all():
                items[rows] = as_items(chunk[part])
            else:
                items[rows[live]] = as_items(chunk[part])[live]

        self.reader.chunks(wanted, place)

    def places(self, column: str, segments: Sequence[Segment]) -> Iterator[tuple[str, ArrayMeta, int]]:
        """Yield for each segment, which has the column, the array it lies in and the row of it that it begins with."""
        found = [segment.find(column) for segment in segments]
        paths = [f"{self.path}/segments/{segment.name}/{array}" for segment, (array, _, _) in zip(segments, found, strict=True)]
        for path, meta, (_, position, n_columns) in zip(paths, self.reader.metas(paths), found, strict=True):
            yield path, meta, first_row(meta, position, n_columns)

    def gather(self, column: Column, rows: Rows) -> NDArray[Any]:
        """Return ``rows`` (any order, repeats allowed) of a column, reading only the chunks that hold them."""
        out = column.empty(len(rows))
        pending = np.ones(len(rows), bool)
        wanted: list[tuple[str, ArrayMeta, int]] = []
        places: list[tuple[Rows, Rows]] = []  # positions in out, positions in the chunk
        segments = self.segments(column.name)
        held = self.segment_rows(segments)
        for i, (path, meta, first) in reversed(list(enumerate(self.places(column.name, segments)))):
            at = np.searchsorted(held[i], rows)
            found = pending & (held[i][np.minimum(at, len(held[i]) - 1)] == rows)
            _plan(path, meta, np.flatnonzero(found), at + first, wanted, places)
            pending &= ~found
        base = self.base(column.name)
        n_base = base.n_rows if base else 0
        out[pending & (rows >= n_base)] = column.fill
        if base:
            _plan(f"{self.path}/base/{column.name}", base, np.flatnonzero(pending & (rows < n_base)), rows, wanted, places)

        def place(position: int, chunk: NDArray[Any]) -> None:
            targets, sources = places[position]
            out[targets] = chunk[sources]

        self.reader.chunks(wanted, place)
        return out


def _plan(
    path: str,
    meta: ArrayMeta,
    targets: Rows,
    at: Rows,
    wanted: list[tuple[str, ArrayMeta, int]],
    places: list[tuple[Rows, Rows]],
) -> None:
    sources = at[targets]
    for index, positions in rows_by_chunk(sources, meta.height):
        wanted.append((path, meta, index))
        places.append((targets[positions], sources[positions] - index * meta.height))


def as_items(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view with one opaque item a row, which numpy moves in one piece."""
    if array.ndim == 1 or not array.flags.c_contiguous:
        return array
    width = int(np.prod(array.shape[1:], dtype=np.int64)) * array.dtype.itemsize
    return array.view(np.dtype((np.void, width))).reshape(len(array))
