"""Everything a checkout holds back: row by row while it is open, by id as ``Changes``, and written by the commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.changes import Changes, ConsumedChanges, RowChanges
from embstore.columns import TableRows, all_columns, astray, data_columns, lost_columns, table_path, with_digests
from embstore.consumed import ITEM, USER, StagedConsumed
from embstore.dense import PATH as DENSE_PATH, StagedDense, write_dense
from embstore.entity import entity_paths, write_changed, write_ids
from embstore.errors import InvalidInputError, NonFiniteError
from embstore.ids import IdMap
from embstore.schema import Schema, TableSpec, is_another
from embstore.storage.arrays import Rows
from embstore.storage.folding import TableWriter
from embstore.storage.records import PATH as CONSUMED_PATH, Part, add_part, truncate
from embstore.storage.segments import Edit
from embstore.storage.writer import Writer


@dataclass
class Staged:
    """What one commit will write.

    Parameters
    ----------
    schema_before, schema
        As stored below, and as it will be.
    idmaps
        Of every entity, with its staged ids.
    tables
        Of every table that was looked at.
    consumed, dense
        With what is staged in them.
    """

    schema_before: Schema
    schema: Schema
    idmaps: dict[str, IdMap]
    tables: dict[str, TableRows]
    consumed: StagedConsumed
    dense: StagedDense

    @cached_property
    def edits(self) -> dict[str, dict[str, Edit]]:
        """Return the staged rows by table and column."""
        return {name: table.edits() for name, table in self.tables.items()}

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to commit."""
        return (
            self.schema == self.schema_before
            and all(idmap.staged.is_empty for idmap in self.idmaps.values())
            and all(column.is_empty for table in self.tables.values() for column in table.staged.values())
            and self.consumed.part.is_empty
            and self.consumed.reset_to is None
            and not self.dense.changed()
        )

    def check_finite(self) -> None:
        """Raise NonFiniteError if a staged number is NaN or infinite, naming where, how many and the first ids."""
        for name, table in self.tables.items():
            for column, edit in self.edits[name].items():
                bad = _non_finite(edit)
                if len(bad):
                    ids = ", ".join(repr(i) for i in table.idmap.at(edit.rows[bad[:3]]).tolist())
                    what = f"{column.removeprefix('slots/')} of table {name!r}"
                    msg = f"{what}: {len(bad)} rows are not finite (ids {ids}); mend them, or pass allow_nonfinite=True"
                    raise NonFiniteError(msg)
        for name, array in self.dense.staged.items():
            if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
                n_bad = np.sum(~np.isfinite(array))
                msg = f"dense array {name!r}: {n_bad} numbers are not finite; mend them, or pass allow_nonfinite=True"
                raise NonFiniteError(msg)

    def check_pointers(self) -> None:
        """Raise InvalidInputError if a staged value is to be a row of another entity (``rows_of``) and is none."""
        for name, table in self.tables.items():
            edit, rows_of = self.edits[name].get("values"), table.spec.rows_of
            problem = astray(table, edit.rows, edit.values, self.idmaps[rows_of]) if edit and rows_of else ""
            if problem:
                msg = f"{problem}; take rows from ids({rows_of!r}), -1 for none"
                raise InvalidInputError(msg)

    def changes(self) -> Changes:
        """Return the same by id."""
        appended, removed = {}, {}
        for entity, idmap in self.idmaps.items():
            gone = np.array(sorted(idmap.staged.removed), np.int64)
            stays = np.delete(np.arange(idmap.n_stored, len(idmap)), gone[gone >= idmap.n_stored] - idmap.n_stored)
            appended[entity] = idmap.at(stays)
            removed[entity] = idmap.at(gone[gone < idmap.n_stored])
        rows = {
            name: {column: self._row_changes(table, column, edit) for column, edit in self.edits[name].items()}
            for name, table in self.tables.items()
        }
        return Changes(self.schema_before, self.schema, appended, removed, rows, self._consumed_changes(), self.dense.changed())

    def _row_changes(self, table: TableRows, column: str, edit: Edit) -> RowChanges:
        stays = ~np.isin(edit.rows, list(table.idmap.staged.removed))
        values, rows_of = edit.values[stays], table.spec.rows_of
        refers_to = self.idmaps[rows_of] if rows_of and column == "values" else None
        return RowChanges(table.idmap.at(edit.rows[stays]), lambda: values, refers_to)

    def _consumed_changes(self) -> ConsumedChanges:
        if USER not in self.idmaps or ITEM not in self.idmaps:
            return ConsumedChanges()
        users, items, part = self.idmaps[USER], self.idmaps[ITEM], self.consumed.part
        reset = self.consumed.reset_to is not None
        records = self.consumed.records() if reset else part.records
        before = self.consumed.stored_count()
        return ConsumedChanges(
            users.at(records.users),
            items.at(records.items),
            records.times,
            users.at(part.dropped_users),
            items.at(part.dropped_items),
            reset,
            before,
            len(self.consumed.records()) if not part.is_empty or reset else before,
        )

    def write(self, writer: Writer) -> dict[str, Any]:
        """Write everything; return counts, JSON-ready."""
        writer.load_documents(self._paths())
        if self.schema != self.schema_before:
            writer.set_group("", {**(writer.attributes("") or {}), "schema": self.schema.to_json()})
        self._delete_dropped(writer)
        counts: dict[str, Any] = {"entities": {}, "tables": {}}
        unfinished: list[TableWriter] = []  # the most bytes first: the rest is made ready while they are written
        for spec in self.schema.tables:
            written = self._write_table(writer, spec, unfinished)
            if written:
                counts["tables"][spec.name] = written
        for entity, id_type in (self.schema.entities or {}).items():
            idmap = self.idmaps[entity]
            missing = writer.attributes(f"entities/{entity}") is None
            if not idmap.staged.is_empty or missing or idmap.unsaved_type:
                write_ids(writer, entity, id_type, idmap.staged)
                counts["entities"][entity] = entity_counts(idmap)
        for entity, rows in self._recorded.items():
            write_changed(writer, entity, rows, self.idmaps[entity].at(rows))
            counts["entities"].setdefault(entity, entity_counts(self.idmaps[entity]))["recorded"] = len(rows)
        for table_writer in unfinished:
            table_writer.finish()
        counts["consumed"] = self._write_consumed(writer)
        changed = self.dense.changed()
        if changed:
            write_dense(writer, changed)
        counts["dense"] = sorted(changed)
        for name, table in counts["tables"].items():
            table["bytes"] = writer.bytes_below(f"{table_path(name)}/")
        return counts

    def _paths(self) -> Iterator[str]:
        """Yield where most of what this commit touches lies, to be looked up in one round."""
        yield from ("", "entities", "tables", CONSUMED_PATH, DENSE_PATH)
        for entity in self.schema.entities or {}:
            yield from entity_paths(entity)
        for spec in self.schema.tables:
            path = table_path(spec.name)
            yield from (path, f"{path}/changed", f"{path}/segments", f"{path}/base")
            yield from (f"{path}/base/{column.name}" for column in all_columns(spec))

    def _delete_dropped(self, writer: Writer) -> None:
        kept = {spec.name: spec for spec in self.schema.tables}
        for spec in self.schema_before.tables:
            if spec.name not in kept or is_another(spec, kept[spec.name]):
                writer.delete(table_path(spec.name))
        for entity in set(self.schema_before.entities or {}) - set(self.schema.entities or {}):
            writer.delete(f"entities/{entity}")

    def _write_table(self, writer: Writer, spec: TableSpec, unfinished: list[TableWriter]) -> dict[str, int] | None:
        table, path = self.tables[spec.name], table_path(spec.name)
        edits, dropped = self.edits[spec.name], self._dropped_columns(spec)
        existed = writer.attributes(path) is not None
        names = [column.name for column in data_columns(spec)]
        if existed and not edits and not dropped and set(names) == set(table.made):
            return None
        n_stored = table.idmap.n_stored
        target = TableWriter(writer, path, all_columns(spec), len(table.idmap))
        target.drop(dropped)
        target.declare(names)
        target.write(with_digests(spec, edits))
        unfinished.append(target)
        recorded = _recorded(edits, n_stored) if existed else np.empty(0, np.int64)
        self._write_recorded(writer, spec, recorded)
        writer.set_group(path, {"table": spec.name, "columns": target.state.to_json()})
        removed = len([row for row in table.idmap.staged.removed if row < n_stored])
        return {
            "rows": len(table.idmap),
            "new": len(table.idmap) - (n_stored if existed else 0),
            "changed": len(recorded) - removed,
            "removed": removed,
            "recorded": len(recorded),
        }

    def _write_recorded(self, writer: Writer, spec: TableSpec, recorded: Rows) -> None:
        """Record which old rows of a table are written, unless its entity's record says the same."""
        path = f"{table_path(spec.name)}/changed"
        if len(recorded) and not np.array_equal(recorded, self._recorded.get(spec.entity, ())):
            writer.replace_all({path: recorded}, zstd=True)
        elif writer.meta(path) is not None:
            writer.delete(path)

    @cached_property
    def _recorded(self) -> dict[str, Rows]:
        """Return the old rows that this commit writes, of entities whose ids are short enough to be kept twice."""
        found = {entity: self._recorded_of(entity) for entity, idmap in self.idmaps.items() if idmap.id_type == "int64"}
        return {entity: rows for entity, rows in found.items() if len(rows)}

    def _recorded_of(self, entity: str) -> Rows:
        """Return the old rows that any table of an entity was written for, but for those whose ids are gone."""
        tables = [table for table in self.tables.values() if table.spec.entity == entity]
        edits = {f"{table.spec.name} {name}": e for table in tables for name, e in self.edits[table.spec.name].items()}
        idmap = self.idmaps[entity]
        recorded = _recorded(edits, idmap.n_stored)
        return recorded[~np.isin(recorded, idmap.removed_rows())]

    def _dropped_columns(self, spec: TableSpec) -> set[str]:
        before = [table for table in self.schema_before.tables if table.name == spec.name and not is_another(table, spec)]
        return lost_columns(before[0], spec) if before else set()

    def _write_consumed(self, writer: Writer) -> dict[str, int]:
        if self.consumed.kept_segments is not None:
            truncate(writer, self.consumed.kept_segments)
        elif self.consumed.reset_to is not None:
            writer.delete(CONSUMED_PATH)
            add_part(writer, Part(self.consumed.reset_to))
        if not self.consumed.part.is_empty:
            add_part(writer, self.consumed.part)
        return {"new": len(self.consumed.part.records)}


def entity_counts(idmap: IdMap) -> dict[str, int]:
    """Return how many rows an entity has and how many of its ids are new and removed, for a lineage."""
    return {"rows": len(idmap), "new": len(idmap.staged.ids), "removed": len(idmap.staged.removed)}


def _non_finite(edit: Edit) -> NDArray[np.int64]:
    """Return the positions of rows with NaN or infinity; one sum tells in most cases that there are none."""
    if edit.values.dtype.kind != "f":
        return np.empty(0, np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.add.reduce(edit.values, axis=None)
    if np.isfinite(total):
        return np.empty(0, np.int64)
    finite = np.isfinite(edit.values)
    return np.flatnonzero(~(finite if finite.ndim == 1 else finite.all(axis=1)))


def _recorded(edits: Mapping[str, Edit], n_stored: int) -> Rows:
    """Return the old rows that any column was written for."""
    old: list[Rows] = []
    for edit in edits.values():
        rows = edit.rows[: int(np.searchsorted(edit.rows, n_stored))]
        if len(rows) and not any(np.array_equal(rows, seen) for seen in old):
            old.append(rows)
    if not old:
        return np.empty(0, np.int64)
    return old[0] if len(old) == 1 else np.unique(np.concatenate(old))
