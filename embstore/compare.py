"""Two states compared by id: the ids of each side, the rows whose bits differ, the record, the arrays without rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.changes import Changes, RowChanges
from embstore.columns import TableRows, data_columns, digest_column
from embstore.entity import Ids
from embstore.ids import IdMap
from embstore.initial import row_digests
from embstore.rowless import consumed_changes, dense_changes
from embstore.schema import is_another
from embstore.storage.arrays import Rows
from embstore.storage.segments import Column, as_items
from embstore.version import View


@dataclass(frozen=True)
class Matching:
    """How the ids of one entity in two states go together.

    Parameters
    ----------
    n_shared
        Rows below this are the same ids on both sides.
    base_rows, target_rows
        Rows of the ids that both sides have elsewhere than in one shared row.
    appended_rows
        Rows of ``target`` whose ids ``base`` lacks.
    removed_rows
        Rows of ``base`` whose ids ``target`` lacks.
    gone
        Rows below ``n_shared`` whose ids one of them has removed.
    """

    n_shared: int
    base_rows: Rows
    target_rows: Rows
    appended_rows: Rows
    removed_rows: Rows
    gone: Rows

    def targets(self, base_rows: Rows) -> Rows:
        """Return the rows of ``target`` that have the ids of rows of ``base``, -1 where none has."""
        stay = (base_rows < self.n_shared) & ~np.isin(base_rows, self.gone)
        rows = np.where(stay, base_rows, -1)
        if len(self.base_rows):  # ascending
            at = np.minimum(np.searchsorted(self.base_rows, base_rows), len(self.base_rows) - 1)
            found = self.base_rows[at] == base_rows
            rows[found] = self.target_rows[at[found]]
        return rows

    @property
    def both(self) -> ChangedRows:
        """Return the rows of all ids that both sides have."""
        stay = np.delete(np.arange(self.n_shared), self.gone)
        return ChangedRows(np.concatenate([stay, self.base_rows]), np.concatenate([stay, self.target_rows]))


def match_ids(base: IdMap, target: IdMap, n_shared: int) -> Matching:
    """Match the ids of two states whose first ``n_shared`` rows are the same ids."""
    base_gone, target_gone = base.removed_rows(), target.removed_rows()
    base_loose, target_loose = _loose(base, n_shared, base_gone, target_gone), _loose(target, n_shared, target_gone, base_gone)
    same_type = base.id_type == target.id_type
    at = target.rows(base.at(base_loose), missing=-1) if same_type else np.full(len(base_loose), -1)
    both = at >= 0
    appended = np.setdiff1d(target_loose, at[both], assume_unique=True)
    gone = np.union1d(base_gone[base_gone < n_shared], target_gone[target_gone < n_shared])
    return Matching(n_shared, base_loose[both], at[both], appended, base_loose[~both], gone)


def _loose(mine: IdMap, n_shared: int, gone: Rows, gone_there: Rows) -> Rows:
    """Return my live rows that are not live in the same place on the other side."""
    own = np.setdiff1d(np.arange(n_shared, len(mine)), gone, assume_unique=True)
    lost_there = np.setdiff1d(gone_there[gone_there < n_shared], gone, assume_unique=True)
    return np.concatenate([lost_there, own])


@dataclass(frozen=True)
class ChangedRows:
    """Rows of one column whose bits differ, on either side."""

    base_rows: Rows
    target_rows: Rows

    def __len__(self) -> int:
        return len(self.base_rows)


def changed_rows(
    base: TableRows,
    target: TableRows,
    column: Column,
    matching: Matching,
    candidates: Rows | None,
    renumber: tuple[Rows, Rows] | None = None,
) -> ChangedRows:
    """Return the rows whose bits differ, looking only at ``candidates`` of the shared ones (None: at all).

    ``renumber``: where values are rows themselves, the row in ``target`` that each row of ``base`` is, and each of ``target``.
    """
    shared = np.arange(matching.n_shared) if candidates is None else candidates[candidates < matching.n_shared]
    shared = shared[~np.isin(shared, matching.gone)]
    base_rows = np.concatenate([shared, matching.base_rows])
    target_rows = np.concatenate([shared, matching.target_rows])
    before, after = _compared(base, column, base_rows), _compared(target, column, target_rows)
    if renumber is not None:
        before, after = (_pointed(values, rows) for values, rows in zip((before, after), renumber, strict=True))
    differ = bits(before) != bits(after)
    return ChangedRows(base_rows[differ], target_rows[differ])


def _pointed(values: NDArray[Any], rows: Rows) -> NDArray[Any]:
    """Return what ``rows`` has in the place of each value; -1 where it is in none."""
    out, inside = np.full_like(values, -1), (values >= 0) & (values < len(rows))
    out[inside] = rows[values[inside]]
    return out


def _compared(table: TableRows, column: Column, rows: Rows) -> NDArray[Any]:
    """Return what rows of ``column``, with the fill that they have in ``table``, are compared by."""
    own = table.column(column.name)
    digests = digest_column(own)
    if digests is not None and column.name in table.staged:  # what is staged has no digests yet
        return row_digests(table.gather(own, rows))
    return table.gather(digests or own, rows)


def _shape(column: Column) -> tuple[Any, ...]:
    return column.dtype, column.row_shape


def bits(rows: NDArray[Any]) -> NDArray[Any]:
    """Return one comparable item a row: equal only where all bits are (NaN equals itself, -0.0 is not 0.0)."""
    if rows.ndim > 1:
        return as_items(np.ascontiguousarray(rows))
    return rows.view(f"u{rows.dtype.itemsize}")


class ComparedColumns(Mapping[str, ChangedRows]):
    """The changed rows of each column that both sides have; a column is compared when it is asked for."""

    def __init__(self, compare: Mapping[str, Callable[[], ChangedRows]]) -> None:
        self._compare = compare
        self._found: dict[str, ChangedRows] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._compare)

    def __len__(self) -> int:
        return len(self._compare)

    def __getitem__(self, column: str) -> ChangedRows:
        if column not in self._found:
            self._found[column] = self._compare[column]()
        return self._found[column]


class Comparison:
    """What turns ``base`` into ``target``.

    Parameters
    ----------
    base, target
        Two states.
    n_shared
        Rows of each entity that are the same ids on both sides.
    candidates
        Shared rows of each table and column that may differ; what is missing here: any.
    """

    def __init__(self, base: View, target: View, n_shared: Mapping[str, int], candidates: Mapping[tuple[str, str], Rows]) -> None:
        self.base, self.target = base, target
        self._candidates = candidates
        entities = set(base.schema.entities or {}) & set(target.schema.entities or {})
        self.matchings = {e: match_ids(base.ids(e), target.ids(e), n_shared.get(e, 0)) for e in sorted(entities)}
        same = [name for name, spec in base.tables.items() if name in target.tables and not is_another(spec, target.tables[name])]
        self.rows = {name: self._changed(name) for name in same}

    def _changed(self, table: str) -> ComparedColumns:
        base, target = self.base.table_rows(table), self.target.table_rows(table)
        there = {column.name: column for column in data_columns(base.spec)}
        matching = self.matchings[target.spec.entity]
        renumber = self._renumbering(target.spec.rows_of)
        compare: dict[str, Callable[[], ChangedRows]] = {}
        for column in data_columns(target.spec):
            if column.name not in there or _shape(column) != _shape(there[column.name]):
                continue
            if renumber is not None and column.name == "values":
                compare[column.name] = partial(changed_rows, base, target, column, matching, None, renumber)
            else:
                candidates = self._candidates.get((table, column.name))
                compare[column.name] = partial(changed_rows, base, target, column, matching, candidates)
        return ComparedColumns(compare)

    def _renumbering(self, entity: str | None) -> tuple[Rows, Rows] | None:
        """Return the target's row for each row of an entity in ``base`` and in itself; None where all are the same."""
        if entity is None or entity not in self.matchings:
            return None
        matching, base, target = self.matchings[entity], self.base.ids(entity), self.target.ids(entity)
        renumber = np.arange(len(base))
        # An id that the other side lacks has a number of its own there, which is nobody's row; one that it has removed has still
        # the row of its tombstone.
        lacking = np.concatenate([matching.removed_rows, base.removed_rows()])
        tombstones = target.removed_rows()
        lacking = lacking[~np.isin(lacking, tombstones[tombstones < matching.n_shared])]
        renumber[lacking] = -2 - lacking
        renumber[matching.base_rows] = matching.target_rows
        return None if np.array_equal(renumber, np.arange(len(base))) else (renumber, np.arange(len(target)))

    @property
    def target_rows_stay(self) -> bool:
        """Return whether every live row of ``target`` is the same id's row in ``base``."""
        known = self.matchings.keys() == set(self.target.schema.entities or {})
        return known and not any(len(m.base_rows) or len(m.appended_rows) for m in self.matchings.values())

    def appended(self, entity: str) -> Ids:
        """Return the ids that only ``target`` has, in its row order."""
        return _ids_of(self.target, entity, self.matchings[entity].appended_rows if entity in self.matchings else None)

    def removed(self, entity: str) -> Ids:
        """Return the ids that only ``base`` has, in its row order."""
        return _ids_of(self.base, entity, self.matchings[entity].removed_rows if entity in self.matchings else None)

    def entities(self) -> list[str]:
        """Return the entities of either side."""
        return sorted({*(self.base.schema.entities or {}), *(self.target.schema.entities or {})})

    def changes(self) -> Changes:
        """Return the same as what a checkout of ``base`` would have to stage."""
        entities = self.entities()
        return Changes(
            self.base.schema,
            self.target.schema,
            {entity: self.appended(entity) for entity in entities},
            {entity: self.removed(entity) for entity in entities},
            {name: dict(self._row_changes(name)) for name in self.target.tables},
            consumed_changes(self.base, self.target),
            dense_changes(self.base, self.target),
        )

    def _row_changes(self, table: str) -> Iterable[tuple[str, RowChanges]]:
        rows = self.target.table_rows(table)
        matching = self.matchings.get(rows.spec.entity)
        for column in data_columns(rows.spec):
            compared = self.rows.get(table)
            changed = compared.get(column.name) if compared is not None else None
            if matching is None or changed is None:
                wanted = rows.idmap.live_rows()
            else:
                wanted = np.concatenate([changed.target_rows, matching.appended_rows])
            refers_to = self.target.ids(rows.spec.rows_of) if rows.spec.rows_of and column.name == "values" else None
            yield column.name, RowChanges(rows.idmap.at(wanted), _reading(rows, column, wanted), refers_to)


def _reading(rows: TableRows, column: Column, wanted: Rows) -> Any:
    return lambda: rows.gather(column, wanted)


def _ids_of(view: View, entity: str, rows: Rows | None) -> Ids:
    if entity not in (view.schema.entities or {}):
        return np.empty(0, object)
    idmap = view.ids(entity)
    return idmap.ids() if rows is None else idmap.at(rows)
