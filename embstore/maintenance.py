"""Rewriting a state without changing it: in place (compact) or elsewhere (export)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from embstore.columns import all_columns, data_columns, table_path
from embstore.dense import array_path, stored_names, write_dense
from embstore.entity import EntityState
from embstore.founding import root_attributes
from embstore.lineage import trained_by, version_record
from embstore.schema import Schema, TableSpec
from embstore.storage import making
from embstore.storage.arrays import Reader
from embstore.storage.folding import TableWriter
from embstore.storage.index import merge_runs
from embstore.storage.location import Location
from embstore.storage.records import PATH as CONSUMED_PATH, Part, RecordState, add_part, merge, read_records
from embstore.storage.repo import Described, Repo
from embstore.storage.segments import StoredTable, TableState
from embstore.storage.writer import Writer
from embstore.version import Version


def needs_compaction(version: Version) -> bool:
    """Return whether there are segments or index runs to be merged."""
    reader = version.reader
    tables = any(StoredTable(reader, table_path(name)).state.segments for name in version.tables)
    runs = any(len(EntityState.from_json(reader.attributes(f"entities/{e}")).runs) > 1 for e in version.schema.entities or {})
    return tables or runs or len(RecordState.read(reader).segments) > 1


def compact(repo: Repo, branch: str, tip: Version) -> str:
    """Commit the state of ``tip`` with every table, index and record folded; return the new version's id.

    Raises
    ------
    ConflictError
        If the branch has moved.
    """

    def write(writer: Writer) -> Described:
        _fold(tip, writer)
        trainer = trained_by(tip.id, repo.ancestry)  # so that versions before this one can be expired
        lineage = {**trainer, "compacted": True, "counts": {}, "bytes": writer.written_bytes}
        return version_record("compact", [tip.id], tip.metadata, lineage, documents=tip.documents)

    return repo.commit(branch, tip.id, write)


def _fold(version: Version, writer: Writer) -> None:
    for name, spec in version.tables.items():
        path = table_path(name)
        target = TableWriter(writer, path, all_columns(spec), len(version.ids(spec.entity)))
        target.fold({})
        if writer.meta(f"{path}/changed") is not None:
            writer.delete(f"{path}/changed")
        writer.set_group(path, {"table": name, "columns": target.state.to_json()})
    for entity in version.schema.entities or {}:
        path = f"entities/{entity}"
        state = EntityState.from_json(writer.attributes(path))
        state.runs, state.next_run = merge_runs(writer, f"{path}/index", state.runs, number=state.next_run)
        if writer.meta(f"{path}/changed") is not None:
            writer.delete(f"{path}/changed")
        writer.set_group(path, state.to_json())
    records = RecordState.read(writer)
    if len(records.segments) > 1:
        merge(writer, records, len(records.segments))
        writer.set_group(CONSUMED_PATH, records.to_json())


def export(version: Version, location: Location, *, slots: bool) -> Repo:
    """Make a store with the state of ``version``, folded; the same rows, tombstones too.

    Raises
    ------
    StoreExistsError
        If anything is there.
    """
    root = root_attributes("full")

    def write(writer: Writer) -> Described:
        _export_state(version, writer, root, slots=slots)
        lineage = {**_carried_over(version), "counts": _all_new(version), "bytes": writer.written_bytes}
        return version_record(version.message, [], version.metadata, lineage)

    repo = making.create(location)
    making.commit_first(repo, write)
    return repo


def _carried_over(version: Version) -> dict[str, Any]:
    """Return what an export's lineage has of the one it comes from: also who trained it, though that be an older version."""
    own = {what: value for what, value in version.lineage.items() if what != "reverted_to"}  # which is not in the new store
    return {**trained_by(version.id, version.repo.ancestry), **own, "exported_from": version.id}


def _all_new(version: Version) -> dict[str, Any]:
    """Return the counts of a version that appended everything it has."""
    entities = {
        entity: {"rows": len(ids), "new": len(ids), "removed": len(ids) - ids.n_live}
        for entity, ids in ((entity, version.ids(entity)) for entity in version.schema.entities or {})
    }
    return {"entities": entities, "tables": {}}


def _export_state(version: Version, writer: Writer, root: Mapping[str, Any], *, slots: bool) -> None:
    schema = version.schema if slots else without_slots(version.schema)
    writer.set_group("", {**root, "schema": schema.to_json()})
    reader = version.reader
    for entity in schema.entities or {}:
        writer.set_group(f"entities/{entity}", reader.attributes(f"entities/{entity}") or EntityState().to_json())
        for part in ("ids", "state", "index"):
            writer.copy(reader, f"entities/{entity}/{part}")
    for spec in schema.tables:
        _export_table(reader, writer, spec, len(version.ids(spec.entity)))
    add_part(writer, Part(read_records(reader)))
    names = [name for name in stored_names(reader) if slots or not _is_optimizer_state(name)]
    write_dense(writer, {name: reader.read([array_path(name)])[0] for name in names})


def _is_optimizer_state(name: str) -> bool:
    """Return whether a dense array is what `embstore.bind` keeps of an optimizer besides slots."""
    return name == "optim" or name.startswith(("optim.", "rows.optim."))


def _export_table(reader: Reader, writer: Writer, spec: TableSpec, n_rows: int) -> None:
    path = table_path(spec.name)
    stored = StoredTable(reader, path)
    for column in all_columns(spec):
        if stored.base(column.name) is not None or stored.segments(column.name):
            writer.write(f"{path}/base/{column.name}", stored.read(column, n_rows))
    made = TableState(made={column.name: writer.token for column in data_columns(spec)})
    writer.set_group(path, {"table": spec.name, "columns": made.to_json()})


def without_slots(schema: Schema) -> Schema:
    """Return the schema without any optimizer state."""
    return replace(schema, tables=tuple(replace(spec, slots=()) for spec in schema.tables))
