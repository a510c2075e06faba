"""Staged changes as plain data and arrays, and a table with such layers over it: how a worker sees and gives back its part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.columns import TableRows, column_of
from embstore.entity import Ids
from embstore.ids import IdMap
from embstore.initial import U64, initial_vectors, row_digests
from embstore.schema import Schema, TableSpec, is_another
from embstore.staging import StagedColumn
from embstore.storage.arrays import Reader, Rows
from embstore.storage.records import Part
from embstore.storage.segments import Column, Edit

_BLOCK_ROWS = 1 << 14
Array = NDArray[Any]


@dataclass
class Layer:
    """What somebody has staged.

    Parameters
    ----------
    schema
        As it will be.
    rows
        Table -> column -> rows, sorted, and their values.
    consumed
        What follows the record.
    dense
        Arrays by name; None for deleted ones.
    """

    schema: Schema
    rows: dict[str, dict[str, Edit]] = field(default_factory=dict)
    consumed: Part = field(default_factory=Part)
    dense: dict[str, Array | None] = field(default_factory=dict)


@dataclass
class Given:
    """What a worker starts from, over the stored version.

    Parameters
    ----------
    origin
        A token of the checkout that gave it.
    layers
        What the checkout had staged, and what the worker has handed over since; the newest last. New rows that are still where
        they start are left out, and computed where they are asked for.
    ids
        Entity -> appended ids and removed rows.
    seen
        How many workers' parts the checkout had taken back.
    """

    origin: str
    layers: list[Layer]
    ids: dict[str, tuple[Ids, Rows]]
    seen: int


class LayeredRows(TableRows):
    """The columns of a table in a worker: stored rows, the layers that it was given, and what it stages itself."""

    def __init__(self, reader: Reader, spec: TableSpec, idmap: IdMap, layers: list[Layer], stored: TableSpec | None) -> None:
        super().__init__(reader, spec, idmap, writable=True, replaced=stored)
        self._layers = layers
        self._is_stored = stored is not None and not is_another(stored, spec)

    def reload(self, reader: Reader, spec: TableSpec) -> None:
        """Begin anew on what was committed."""
        super().reload(reader, spec)
        self._is_stored = True

    @property
    def n_stored(self) -> int:
        """Return how many rows the version below has of this table."""
        return self.idmap.n_stored if self._is_stored else 0

    def _edits_over(self, column: Column) -> list[Edit]:
        found = [layer.rows.get(self.spec.name, {}).get(column.name) for layer in self._layers]
        return [edit for edit in found if edit is not None]

    def holds(self, column: Column) -> bool:
        """Return whether a row of the column was ever written; else all are at its fill."""
        return bool(self._edits_over(column)) or super().holds(column)

    def gather(self, column: Column, rows: Rows) -> Array:
        """Return ``rows`` of a column."""
        out = self.stored.gather(column, rows)
        fresh = rows >= self.n_stored
        if fresh.any():
            out[fresh] = start_of(self.spec, self.idmap, column, rows[fresh])
        for edit in self._edits_over(column):
            at = np.minimum(np.searchsorted(edit.rows, rows), len(edit.rows) - 1)
            found = edit.rows[at] == rows
            out[found] = edit.values[at[found]]
        if column.name in self.staged:
            self.staged[column.name].overlay(rows, out)
        return out

    def read(self, column: Column, out: Array | None = None) -> Array:
        """Return a whole column."""
        n_rows, n_stored = len(self.idmap), self.n_stored
        out = column.empty(n_rows) if out is None else out
        self.stored.read(column, n_stored, out[:n_stored])
        for first in range(n_stored, n_rows, _BLOCK_ROWS):
            rows = np.arange(first, min(first + _BLOCK_ROWS, n_rows))
            out[rows[0] : rows[-1] + 1] = start_of(self.spec, self.idmap, column, rows)
        for edit in self._edits_over(column):
            out[edit.rows] = edit.values
        if column.name in self.staged:
            self.staged[column.name].overlay_all(out)
        return out

    def staging(self, column: Column) -> StagedColumn:
        """Return the column's staged rows; of a worker none is new."""
        if column.name not in self.staged:
            self.staged[column.name] = StagedColumn(column, len(self.idmap))
        return self.staged[column.name]


def start_of(spec: TableSpec, idmap: IdMap, column: Column, rows: Rows) -> Array:
    """Return what rows hold before anybody has written to them."""
    if column.name == column_of(spec).name:
        return initial_vectors(spec, idmap.at(rows))
    return np.full((len(rows), *column.row_shape), column.fill, column.dtype)


def without_starts(table: TableRows, column: Column, edit: Edit, *, n_stored: int) -> Edit:
    """Return the rows of ``edit`` but for those from ``n_stored`` on that are where they start."""
    first = int(np.searchsorted(edit.rows, n_stored))
    kept = [np.arange(first)]
    for start, stop in _blocks(first, len(edit.rows)):
        begun = start_of(table.spec, table.idmap, column, edit.rows[start:stop])
        kept.append(start + np.flatnonzero((_bytes(begun) != _bytes(edit.values[start:stop])).any(axis=1)))
    which = np.concatenate(kept)
    return Edit(edit.rows[which], edit.values[which])


def _blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    return ((at, min(at + _BLOCK_ROWS, stop)) for at in range(start, stop, _BLOCK_ROWS))


def _bytes(array: Array) -> Array:
    return np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1)


@dataclass(frozen=True)
class Claims:
    """Who has staged what: rows and arrays, with digests of their bits.

    Parameters
    ----------
    origin, seen
        As in ``Given``.
    worker, part
        Whose it is, and the how manieth of its parts.
    schema
        With the slots that it added.
    rows
        (Table, column) -> rows, sorted, and the digest of each.
    dense
        Name -> digest; None for a deleted array.
    """

    origin: str
    seen: int
    worker: str
    part: int
    schema: Schema
    rows: dict[tuple[str, str], tuple[Rows, U64]]
    dense: dict[str, list[Any] | None]

    @classmethod
    def of(cls, given: Given, worker: str, part: int, layer: Layer) -> Claims:
        """Return the claims of a layer."""
        columns = {(table, name): edit for table, edits in layer.rows.items() for name, edit in edits.items()}
        rows = {key: (edit.rows, row_digests(edit.values)) for key, edit in columns.items()}
        dense = {name: _array_digest(array) for name, array in layer.dense.items()}
        return cls(given.origin, given.seen, worker, part, layer.schema, rows, dense)


def _array_digest(array: Array | None) -> list[Any] | None:
    if array is None:
        return None
    digest = int(row_digests(array.reshape(1, -1))[0]) if array.size else 0
    return [str(array.dtype), list(array.shape), digest]


def clashing_rows(mine: Claims, other: Claims) -> Iterator[tuple[str, Rows]]:
    """Yield each table, and the rows of it, that both staged with other bits."""
    for (table, column), (rows, digests) in mine.rows.items():
        if (table, column) in other.rows:
            their_rows, theirs = other.rows[table, column]
            common, at, their_at = np.intersect1d(rows, their_rows, assume_unique=True, return_indices=True)
            differ = digests[at] != theirs[their_at]
            if differ.any():
                yield table, common[differ]


def clashing_arrays(mine: Claims, other: Claims) -> list[str]:
    """Return the names of the dense arrays that both staged with other bits."""
    return sorted(name for name in mine.dense.keys() & other.dense.keys() if mine.dense[name] != other.dense[name])
