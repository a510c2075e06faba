"""The three states of a merge: what both sides began with, what is here, and what comes to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.columns import data_columns
from embstore.compare import ChangedRows, Comparison, bits
from embstore.entity import Ids
from embstore.history import Find, compare
from embstore.initial import initial_vectors
from embstore.schema import TableSpec
from embstore.storage.arrays import Rows
from embstore.storage.segments import Column
from embstore.version import View

_NO_ROWS: Rows = np.empty(0, np.int64)


@dataclass(frozen=True)
class Side:
    """What one side made of the base.

    Parameters
    ----------
    comparison
        Of the base and this side.
    """

    comparison: Comparison
    _found: dict[str, dict[str, ChangedRows]] = field(default_factory=dict, compare=False)

    @property
    def base(self) -> View:
        """Return what it began with."""
        return self.comparison.base

    @property
    def view(self) -> View:
        """Return what it is now."""
        return self.comparison.target

    def lost(self, entity: str) -> Rows:
        """Return the rows of the base whose ids are gone."""
        if entity not in (self.base.schema.entities or {}):
            return _NO_ROWS
        matching = self.comparison.matchings.get(entity)
        return self.base.ids(entity).live_rows() if matching is None else matching.removed_rows

    def gained(self, entity: str) -> Rows:
        """Return the rows, here, whose ids the base lacks."""
        if entity not in (self.view.schema.entities or {}):
            return _NO_ROWS
        matching = self.comparison.matchings.get(entity)
        return self.view.ids(entity).live_rows() if matching is None else matching.appended_rows

    def rows_of(self, entity: str, base_rows: Rows) -> Rows:
        """Return the rows that the ids of rows of the base have here, -1 where they are gone."""
        matching = self.comparison.matchings.get(entity)
        return np.full(len(base_rows), -1) if matching is None else matching.targets(base_rows)

    def changed(self, table: str) -> dict[str, ChangedRows]:
        """Return the rows of ids that the base has and whose bits differ, by column.

        Where the base lacks the table or the column, it counts as what rows start with.
        """
        if table not in self._found:
            self._found[table] = self._changed(table)
        return self._found[table]

    def _changed(self, table: str) -> dict[str, ChangedRows]:
        if table not in self.view.tables:
            return {}
        rows = self.view.table_rows(table)
        if rows.spec.entity not in self.comparison.matchings:
            return {}
        compared: Mapping[str, ChangedRows] = self.comparison.rows.get(table, {})
        return {
            column.name: compared[column.name] if column.name in compared else self._off_start(rows.spec, column)
            for column in data_columns(rows.spec)
            if column.name in compared or column.name == "values" or rows.holds(column)
        }

    def _off_start(self, spec: TableSpec, column: Column) -> ChangedRows:
        both = self.comparison.matchings[spec.entity].both
        ids = self.view.ids(spec.entity).at(both.target_rows)
        now = self.view.table_rows(spec.name).gather(column, both.target_rows)
        differ = bits(now) != bits(starts(spec, column, ids))
        return ChangedRows(both.base_rows[differ], both.target_rows[differ])

    def changed_rows(self, spec: TableSpec) -> Rows:
        """Return the rows of the base that differ in any column of ``spec``, ascending."""
        return self._rows_changed(spec.name, data_columns(spec))

    def _rows_changed(self, table: str, columns: Sequence[Column]) -> Rows:
        changed = self.changed(table)
        found = [changed[column.name].base_rows for column in columns if column.name in changed]
        return np.unique(np.concatenate([_NO_ROWS, *found]))

    def changed_ids(self, spec: TableSpec, columns: Sequence[Column]) -> Ids:
        """Return the ids whose rows differ from the base in any of ``columns``; from their start, of ids that the base lacks."""
        rows, new = self._rows_changed(spec.name, columns), self.view.ids(spec.entity).at(self.gained(spec.entity))
        new = new[off_start(self.view, spec, columns, new)]
        return np.concatenate([self.base.ids(spec.entity).at(rows), new]) if len(rows) else new


@dataclass(frozen=True)
class Sides:
    """Both sides of a merge: ``here`` is what it is staged on, and ``incoming`` what comes to it."""

    here: Side
    incoming: Side

    @classmethod
    def of(cls, base: View, here: View, incoming: View, find: Find) -> Sides:
        """Return what two states made of one that both come from."""
        return cls(Side(compare(base, here, find)), Side(compare(base, incoming, find)))

    @property
    def base(self) -> View:
        """Return what both began with."""
        return self.here.base


def starts(spec: TableSpec, column: Column, ids: Ids) -> NDArray[Any]:
    """Return what rows of these ids start with: initial vectors, or a slot's fill."""
    if column.name == "values":
        return initial_vectors(spec, ids)
    return np.full((len(ids), *column.row_shape), column.fill, column.dtype)


def off_start(view: View, spec: TableSpec, columns: Sequence[Column], ids: Ids) -> NDArray[np.bool_]:
    """Return which ids have other rows in a view than they start with, in any of ``columns``."""
    off = np.zeros(len(ids), bool)
    for column in columns if len(ids) else ():
        off |= bits(rows_as_in(view, spec, column, ids)) != bits(starts(spec, column, ids))
    return off


def rows_as_in(view: View, spec: TableSpec, column: Column, ids: Ids) -> NDArray[Any]:
    """Return the rows of ids in a view; what they start with where it lacks the id, the table or the column."""
    out = starts(spec, column, ids)
    if spec.name not in view.tables:
        return out
    table = view.table_rows(spec.name)
    if column.name not in [own.name for own in data_columns(table.spec)]:
        return out
    rows = table.idmap.rows(ids, missing=-1)
    out[rows >= 0] = table.gather(table.column(column.name), rows[rows >= 0])
    return out
