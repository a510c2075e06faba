"""Whether a version is whole: its invariants, and with ``deep`` every byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.columns import all_columns, astray, data_columns, digest_column
from embstore.entity import EntityState
from embstore.errors import DamagedStoreError, EmbstoreError
from embstore.ids import IdMap
from embstore.initial import id_keys, row_digests
from embstore.storage.arrays import Reader
from embstore.storage.chunks import ArrayMeta, content_crc, decode_chunk
from embstore.storage.index import read_runs
from embstore.version import Version


@dataclass(frozen=True)
class Report:
    """What a check found, or what a clean-up did.

    Parameters
    ----------
    title
        What was done.
    problems
        What is wrong, a line each; empty where all is well.
    counts
        What was looked at, by kind.
    """

    title: str
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Return whether no problem was found."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return the report, JSON-ready."""
        return {"title": self.title, "ok": self.ok, "problems": self.problems, "counts": self.counts}

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {what}" for what, n in self.counts.items())
        verdict = "ok" if self.ok else f"{len(self.problems)} problems"
        return "\n".join([f"{self.title}: {verdict} ({counts})", *self.problems])


def verify(version: Version, *, deep: bool) -> Report:
    """Check one version.

    Always: the groups and arrays are those of the commit, ids, index and tables are of one length and agree, rows of segments
    and records exist. With ``deep``: every chunk of every array is there with a fitting checksum, the digests fit the vectors,
    which finds swapped chunks too, and values that are to be rows of an entity are such.
    """
    problems = _guarded(lambda: _check_documents(version), "documents")
    counts = {"entities": 0, "tables": 0}
    if deep:
        problems += _guarded(lambda: _check_chunks(version.reader, counts), "arrays")
    for entity in _entities(version, problems):
        counts["entities"] += 1
        problems += _guarded(lambda entity=entity: _check_ids(version, entity), f"entity {entity!r}")  # type: ignore[misc]
    for name in version.tables if not problems else ():
        counts["tables"] += 1
        problems += _guarded(lambda name=name: _check_table(version, name, deep), f"table {name!r}")  # type: ignore[misc]
    problems += _guarded(lambda: _check_lineage(version), "lineage")
    problems += _guarded(lambda: _check_consumed(version), "consumed")
    problems += _guarded(lambda: _check_dense(version), "dense")
    return Report(f"verify {version.id}{' deep' if deep else ''}", list(dict.fromkeys(problems)), counts)


def _entities(version: Version, problems: list[str]) -> list[str]:
    try:
        return sorted(version.schema.entities or {})
    except (EmbstoreError, KeyError, TypeError, ValueError) as error:
        problems.append(f"schema: {error}")
        return []


def _guarded(check: Callable[[], Iterator[str]], what: str) -> list[str]:
    """Return the problems that ``check`` yields; what it cannot even read is one too."""
    found: list[str] = []
    try:
        found.extend(check())
    except (EmbstoreError, ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        found.append(f"{what}: {error}" if isinstance(error, DamagedStoreError) else f"{what}: cannot be checked ({error!r})")
    return found


def verify_metadata(version: Version) -> list[str]:
    """Return what is wrong with what the engine says of a version; empty where all is well.

    Its documents are those of the commit, and every chunk that they tell of has an object that is not empty. The engine takes
    what it cannot follow for garbage, so this is looked at before anything is collected.
    """
    documents = _guarded(lambda: _check_documents(version), "documents")
    return [*documents, *_guarded(lambda: _check_present(version.reader), "arrays")]


def _check_present(reader: Reader) -> Iterator[str]:
    _, wanted, missing = _chunks(reader)
    yield from missing
    yield from reader.without_object(list(wanted))


def _chunks(reader: Reader) -> tuple[dict[str, ArrayMeta], dict[str, ArrayMeta], list[str]]:
    """Return all arrays, the chunks that there must be, and what is missing of these."""
    keys = reader.keys()
    present = set(keys)
    paths = [key[: -len("/zarr.json")] for key in keys if key.endswith("/zarr.json")]
    reader.load_documents(paths)
    metas = {path: meta for path in paths if (meta := reader.meta(path))}
    wanted: dict[str, ArrayMeta] = {}
    missing = []
    for path, meta in metas.items():
        for index in range(meta.n_chunks):
            key = meta.chunk_key(path, index)
            if key in present:
                wanted[key] = meta
            elif not path.endswith("/state"):  # live rows have no state stored
                missing.append(f"{key}: the chunk is missing")
    return metas, wanted, missing


def _check_chunks(reader: Reader, counts: dict[str, int]) -> Iterator[str]:
    metas, wanted, missing = _chunks(reader)
    yield from missing
    counts["arrays"], counts["chunks"], counts["bytes"] = len(metas), len(wanted), 0
    problems: list[str] = []

    def check(key: str, raw: NDArray[np.uint8] | None) -> None:
        counts["bytes"] += 0 if raw is None else len(raw)
        try:
            if raw is None:
                problems.append(f"{key}: the chunk is missing")
            else:
                decode_chunk(wanted[key], raw, key)
        except DamagedStoreError as error:
            problems.append(str(error))

    for key in wanted:  # one by one, so that a chunk that cannot even be fetched is named and the others still looked at
        try:
            reader.raw([key], check)
        except EmbstoreError as error:
            problems.append(f"{key}: {error}")
    yield from problems
    for path, meta in metas.items() if not problems else ():
        if "content" in meta.attributes and content_crc(reader.read([path])[0]) != meta.attributes["content"]:
            yield f"{path}: its chunks are not those that were written together"


def _check_ids(version: Version, entity: str) -> Iterator[str]:
    idmap = IdMap(version.reader, entity)
    state = EntityState.from_json(version.reader.attributes(f"entities/{entity}"))
    removed = idmap.removed_rows()
    if len(removed) != state.n_removed:
        yield f"entity {entity!r}: {len(removed)} rows are marked removed, {state.n_removed} are counted"
    rows = idmap.live_rows()
    ids = idmap.at(rows)
    if len(set(ids.tolist())) < len(ids):
        yield f"entity {entity!r}: an id stands in two rows"
    keys = id_keys(ids)
    order = np.lexsort((rows, keys))
    index_keys, index_rows = read_runs(version.reader, f"entities/{entity}/index", state.runs)
    if not (np.array_equal(index_keys, keys[order]) and np.array_equal(index_rows, rows[order])):
        yield f"entity {entity!r}: the index does not fit the ids"


def _check_table(version: Version, name: str, deep: bool) -> Iterator[str]:
    table = version.table_rows(name)
    n_rows, stored, rows_of = len(table.idmap), table.stored, table.spec.rows_of
    if stored.base("values") is None and n_rows:
        yield f"table {name!r}: it has {n_rows} rows but no values"
    segments = stored.state.segments
    for segment, rows in zip(segments, stored.segment_rows(segments), strict=True):
        if len(rows) != segment.n_rows or np.any(np.diff(rows) <= 0) or rows[0] < 0 or rows[-1] >= n_rows:
            yield f"table {name!r}: the rows of segment {segment.name} are not {segment.n_rows} ascending rows below {n_rows}"
    for column in all_columns(table.spec):
        base, segments = stored.base(column.name), stored.segments(column.name)
        places = [(f"{stored.path}/base/{column.name}", base, base.n_rows, n_rows)] if base else []
        found = zip(stored.places(column.name, segments), segments, strict=True)
        places += [(path, meta, first + segment.n_rows, meta.n_rows) for (path, meta, first), segment in found]
        for path, meta, end, most in places:
            if meta.dtype != column.dtype or meta.row_shape != column.row_shape or end > most:
                yield f"{path}: {meta.dtype} of shape {meta.shape} does not fit the table"
    for column in data_columns(table.spec) if deep else ():
        digests = digest_column(column)
        if digests and not np.array_equal(row_digests(table.read(column)), table.read(digests)):
            yield f"table {name!r}: vectors of {column.name} are not those that were committed"
    if deep and rows_of:
        live = table.idmap.live_rows()
        problem = astray(table, live, table.gather(table.column("values"), live), version.ids(rows_of))
        yield from [problem] if problem else []


def _check_documents(version: Version) -> Iterator[str]:
    if version.repo.documents(version.id) != version.documents:
        yield "documents: the groups and arrays are not those that were committed"


def _check_lineage(version: Version) -> Iterator[str]:
    recorded = version.lineage.get("counts", {}).get("entities", {})
    for entity, counts in recorded.items():
        if entity in (version.schema.entities or {}) and counts["rows"] != len(version.ids(entity)):
            yield f"lineage: {counts['rows']} rows of {entity!r}, there are {len(version.ids(entity))}"


def _check_consumed(version: Version) -> Iterator[str]:
    if not {"user", "item"} <= set(version.schema.entities or {}):
        return
    records = version.consumed.records()
    for what, rows, n in (
        ("user", records.users, len(version.ids("user"))),
        ("item", records.items, len(version.ids("item"))),
    ):
        if len(rows) and (rows.min() < 0 or rows.max() >= n):
            yield f"consumed: a record is of {what} row {rows.max()}, there are {n}"


def _check_dense(version: Version) -> Iterator[str]:
    for name in version.dense:
        if version.dense[name] is None:
            yield f"dense {name!r}: it is missing"
