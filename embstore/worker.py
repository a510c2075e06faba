"""Part of a checkout's work, done elsewhere: a worker stages rows that the checkout has given out, which takes them back."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from embstore.columns import TableRows
from embstore.consumed import ITEM, USER, Consumed, StagedConsumed
from embstore.dense import StagedDense, same_bits
from embstore.errors import ConflictError, InvalidInputError, RefusedError
from embstore.ids import IdMap
from embstore.layer import Claims, Given, Layer, LayeredRows, clashing_arrays, clashing_rows, without_starts
from embstore.names import IdType
from embstore.schema import Schema, TableSpec, is_another, with_slot
from embstore.storage.arrays import Reader, Rows
from embstore.storage.records import Part, Records, apply
from embstore.storage.segments import Edit
from embstore.tables import StagedTable
from embstore.version import Version
from embstore.workspace import Workspace


class Worker(Workspace):
    """What ``Checkout.fork`` gives: it sees what the checkout sees, and stages rows, slots, consumed records and dense arrays.

    It can be pickled, without secrets, to a process that can open the store, and back with what it has staged, for
    ``Checkout.collect``. Ids, tables and entities are the checkout's to add; slots may be added here.
    """

    def __init__(self, version: Version, given: Given) -> None:
        super().__init__(version.repo, version.id)
        self.version = version
        self.name = secrets.token_hex(8)
        self.part = 0  # how many parts of its work were handed over
        self.given = given
        self._schema = given.layers[-1].schema

    def __repr__(self) -> str:
        return f"Worker({self.name} of {self.version.id}, {'dirty' if self.dirty else 'clean'})"

    def _make_idmap(self, entity: str) -> IdMap:
        idmap = super()._make_idmap(entity)
        ids, removed = self.given.ids.get(entity, (np.empty(0, object), np.empty(0, np.int64)))
        if len(ids):
            idmap.staged.append(ids)
        idmap.staged.removed.update(removed.tolist())
        return idmap

    def table_rows(self, name: str) -> TableRows:
        """Return the columns of a table with what is staged over them."""
        spec = self.schema.table(name)
        if name not in self._tables:
            stored = {table.name: table for table in self._stored_schema.tables}.get(name)
            self._tables[name] = LayeredRows(self.reader, spec, self.ids(spec.entity), self.given.layers, stored)
            self._tables[name].closed = self._closed
        return self._tables[name]

    @cached_property
    def _staged_dense(self) -> StagedDense:
        dense = StagedDense(self.reader)
        for layer in self.given.layers:
            dense.staged |= layer.dense
        return dense

    @cached_property
    def _staged_consumed(self) -> StagedConsumed:
        return _GivenConsumed(self.reader, self.ids, self.given.layers)

    def append(self, entity: str, ids: object, *, init: Mapping[str, object] | None = None) -> Rows:
        """Return the rows of ids that are known.

        Raises
        ------
        RefusedError
            For other ids: two workers would give two of them one row.
        """
        unknown = int(np.count_nonzero(self.ids(entity).rows(ids, missing=-1) < 0))
        if unknown:
            self._refuse(f"{unknown} new ids of {entity!r}")
        return self.ids(entity).rows(ids)

    def remove(self, entity: str, ids: object) -> None:
        """Raise RefusedError: the checkout removes ids."""
        self._refuse(f"removing ids of {entity!r}")

    def add_entity(self, name: str, id_type: IdType | None = None) -> None:
        """Raise RefusedError: the checkout adds entities."""
        self._refuse(f"entity {name!r}")

    def add_table(self, spec: TableSpec) -> StagedTable:
        """Raise RefusedError: the checkout adds tables."""
        self._refuse(f"table {spec.name!r}")

    def adopt(self, schema: Schema) -> None:
        """Raise RefusedError: the checkout has the schema."""
        self._refuse("schema")

    def _refuse(self, what: str) -> NoReturn:
        msg = f"{what}: a worker only stages rows of what is there; let the checkout do it, before fork()"
        raise RefusedError(msg)

    @property
    def dirty(self) -> bool:
        """Return whether there is anything to collect."""
        layer = self.layer()
        return bool(layer.rows or layer.dense or not layer.consumed.is_empty or layer.schema != self.given.layers[-1].schema)

    def layer(self) -> Layer:
        """Return what this worker has staged itself."""
        rows = {name: edits for name, table in self._tables.items() if (edits := table.edits())}
        return Layer(self.schema, rows, self.consumed.part, self._own_dense())

    def _own_dense(self) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for layer in self.given.layers:
            given |= layer.dense
        staged, changed = self.dense.staged, self.dense.changed()
        return {
            name: array for name, array in staged.items() if (not _same(array, given[name]) if name in given else name in changed)
        }

    def claims(self, layer: Layer) -> Claims:
        """Return which rows and arrays a layer of this worker's has."""
        return Claims.of(self.given, self.name, self.part, layer)

    def hand_over(self, layer: Layer) -> None:
        """Note that the checkout has what was staged so far: it stays to be seen here, and is not given a second time."""
        self.given.layers.append(layer)
        for table in self._tables.values():
            table.staged.clear()
        self.consumed.reload(self.reader)
        self.part += 1

    def follow(self, version: Version) -> None:
        """Begin anew on the version that the checkout has committed."""
        self.version, self.part = version, 0
        self.given.ids.clear()
        self.given.layers[:] = [Layer(version.schema)]
        self.reload(version.id)

    def close(self, reason: str) -> None:
        """Drop what is staged; every later change raises StaleCheckoutError with ``reason``."""
        del self.given.layers[1:]
        super().close(reason)

    def __reduce__(self) -> tuple[Callable[..., Worker], tuple[Any, ...]]:
        return _revive, (self.version, self.name, self.part, self.given, self.layer())


def _revive(version: Version, name: str, part: int, given: Given, layer: Layer) -> Worker:
    worker = Worker(version, given)
    worker.name, worker.part = name, part
    stage_layer(worker, layer)
    return worker


def _same(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    return one is other if one is None or other is None else same_bits(one, other)


class _GivenConsumed(StagedConsumed):
    """The record that a worker sees: what it was given comes between the stored one and its own."""

    def __init__(self, reader: Reader, ids: Callable[[str], IdMap], layers: list[Layer]) -> None:
        super().__init__(reader, ids)
        self._layers = layers

    def records(self) -> Records:
        """Return all pairs in rows, staged ones too, in the order they were recorded."""
        return apply(Consumed.records(self), [*(layer.consumed for layer in self._layers), self.part])


class Forks:
    """What a checkout remembers of the workers that it gave out since its last commit."""

    def __init__(self) -> None:
        self._origin = ""
        self._version = ""
        self._taken: list[Claims] = []

    def origin(self, version: str) -> str:
        """Return a token of the checkout as it stands on a version; what is remembered of an older one goes."""
        if version != self._version:
            self._origin, self._version, self._taken = secrets.token_hex(8), version, []
        return self._origin

    def fork(self, work: Workspace, version: Version) -> Worker:
        """Return a worker that sees what ``work`` sees now."""
        if work.consumed.reset_to is not None:
            msg = "fork of a checkout whose record was replaced as a whole: commit first"
            raise RefusedError(msg)
        maps = {entity: work.ids(entity) for entity in work.schema.entities or {}}
        ids = {name: (m.staged.ids, np.array(sorted(m.staged.removed), np.int64)) for name, m in maps.items()}
        layer = Layer(work.schema, _given_rows(work, version), work.consumed.part, work.dense.changed())
        return Worker(version, Given(self.origin(version.id), [layer], ids, len(self._taken)))

    def collect(self, work: Workspace, version: Version, workers: Iterable[Worker]) -> None:
        """Stage what the workers have staged, of all or, where that cannot be, of none."""
        given: list[Any] = list(workers) if isinstance(workers, Iterable) else [workers]
        for worker in given:
            if worker is workers or not isinstance(worker, Worker):
                msg = f"collect({type(worker).__name__}): give the workers that fork() gave, in a list"
                raise InvalidInputError(msg)
        layers = [worker.layer() for worker in given]
        self.admit(work, version, [worker.claims(layer) for worker, layer in zip(given, layers, strict=True)])
        for worker, layer in zip(given, layers, strict=True):
            stage_layer(work, layer)
            worker.hand_over(layer)

    def admit(self, work: Workspace, version: Version, claims: Sequence[Claims]) -> None:
        """Check that what these workers staged can be staged, and remember it.

        Raises
        ------
        ConflictError
            If two workers staged a row or an array with other bits.
        SchemaMismatchError
            If they added a slot with other shapes.
        InvalidInputError
            If a worker is of another checkout, or was collected before.
        """
        origin, schema, taken = self.origin(version.id), work.schema, list(self._taken)
        for mine in claims:
            if mine.origin != origin:
                msg = f"worker {mine.worker}: it is of another checkout, or from before its last commit; fork again"
                raise InvalidInputError(msg)
            if (mine.worker, mine.part) in {(other.worker, other.part) for other in taken}:
                msg = f"worker {mine.worker}: it was collected already; give each worker once"
                raise InvalidInputError(msg)
            schema = _with_slots(schema, mine.schema)
            for other in taken[mine.seen :]:
                if other.worker != mine.worker:
                    _check_apart(work, mine, other)
            taken.append(mine)
        self._taken = taken


def _given_rows(work: Workspace, version: Version) -> dict[str, dict[str, Edit]]:
    """Return the rows that a checkout has staged, but for those that anybody can compute."""
    stored = {spec.name: spec for spec in version.schema.tables}
    found: dict[str, dict[str, Edit]] = {}
    for spec in work.schema.tables:
        table = work.table_rows(spec.name)
        kept = spec.name in stored and not is_another(stored[spec.name], spec)
        n_stored = table.idmap.n_stored if kept else 0
        edits = {name: without_starts(table, table.column(name), edit, n_stored=n_stored) for name, edit in table.edits().items()}
        found[spec.name] = {name: edit for name, edit in edits.items() if len(edit.rows)}
    return found


def _with_slots(schema: Schema, other: Schema) -> Schema:
    for name, slot in schema.missing(other)[2]:
        tables = tuple(with_slot(table, slot) if table.name == name else table for table in schema.tables)
        schema = replace(schema, tables=tables)
    return schema


def _check_apart(work: Workspace, mine: Claims, other: Claims) -> None:
    for table, rows in clashing_rows(mine, other):
        ids = ", ".join(repr(i) for i in work.ids(work.schema.table(table).entity).at(rows[:3]).tolist())
        msg = f"table {table!r}: two workers staged {len(rows)} of its rows with other numbers (ids {ids}); give each row to one"
        raise ConflictError(msg)
    names = clashing_arrays(mine, other)
    if names:
        msg = f"dense array {names[0]!r}: two workers staged it with other numbers ({len(names)} such); let one of them stage it"
        raise ConflictError(msg)


def stage_layer(work: Workspace, layer: Layer) -> None:
    """Stage in ``work`` what a worker has staged; of ids that were removed meanwhile nothing."""
    for spec in layer.schema.tables:
        for slot in spec.slots:
            work.table(spec.name).add_slot(slot)
    for name, edits in layer.rows.items():
        table = work.table_rows(name)
        gone = table.idmap.removed_rows()
        for column, edit in edits.items():
            live = ~np.isin(edit.rows, gone)
            rows, values = (edit.rows, edit.values) if live.all() else (edit.rows[live], edit.values[live])
            table.scatter(table.column(column), rows, values)
    if not layer.consumed.is_empty:
        work.consumed.stage(_live_part(work, layer.consumed))
    for array, value in layer.dense.items():
        if value is not None:
            work.dense[array] = value
        elif array in work.dense:
            del work.dense[array]


def _live_part(work: Workspace, part: Part) -> Part:
    gone = np.isin(part.records.users, work.ids(USER).removed_rows()) | np.isin(part.records.items, work.ids(ITEM).removed_rows())
    return Part(part.records.take(~gone), part.dropped_users, part.dropped_items)
