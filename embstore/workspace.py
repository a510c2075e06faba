"""A state that can be changed: what is staged is seen at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from embstore.changes import Changes
from embstore.columns import TableRows
from embstore.consumed import ITEM, USER, StagedConsumed
from embstore.dense import StagedDense
from embstore.entity import StagedIds
from embstore.errors import InvalidInputError, SchemaMismatchError, StaleCheckoutError
from embstore.growth import append_ids, fill_table, zero_rows
from embstore.ids import IdMap
from embstore.names import IdType, check_id_type, check_name
from embstore.schema import Schema, SlotSpec, TableSpec, is_another, with_slot
from embstore.staged import Staged
from embstore.storage.arrays import Rows
from embstore.storage.repo import Repo
from embstore.tables import StagedTable
from embstore.version import View


class Workspace(View):
    """A view over one version with everything that is staged over it."""

    def __init__(self, repo: Repo, version_id: str) -> None:
        super().__init__(repo, version_id)
        self._schema: Schema | None = None
        self._tables: dict[str, TableRows] = {}
        self._closed: str | None = None

    @property
    def version_id(self) -> str:
        """Return the id of the version below."""
        return self._version_id

    @property
    def schema(self) -> Schema:
        """Return the entities, tables and slots, added ones too."""
        return self._schema or self._stored_schema

    def _make_idmap(self, entity: str) -> IdMap:
        return IdMap(self.reader, entity, StagedIds(), id_type=(self.schema.entities or {})[entity])

    def table(self, name: str) -> StagedTable:
        """Return one table; what is scattered into it is seen at once and stored by the commit.

        Raises
        ------
        UnknownNameError
            If there is none of that name.
        """
        return StagedTable(self.table_rows(name), self._add_slot)

    def table_rows(self, name: str) -> TableRows:
        """Return the columns of a table with what is staged over them."""
        spec = self.schema.table(name)
        if name not in self._tables:
            stored = {table.name: table for table in self._stored_schema.tables}.get(name)
            idmap = self.ids(spec.entity)
            self._tables[name] = TableRows(self.reader, spec, idmap, writable=True, replaced=stored)
            self._tables[name].closed = self._closed
        return self._tables[name]

    @property
    def consumed(self) -> StagedConsumed:
        """Return what each user has had; append to it here."""
        return self._staged_consumed

    @cached_property
    def _staged_consumed(self) -> StagedConsumed:
        return StagedConsumed(self.reader, self.ids)

    @property
    def dense(self) -> StagedDense:
        """Return the arrays without rows; assign to stage one, ``del`` to delete it."""
        return self._staged_dense

    @cached_property
    def _staged_dense(self) -> StagedDense:
        return StagedDense(self.reader)

    def append(self, entity: str, ids: object, *, init: Mapping[str, object] | None = None) -> Rows:
        """Give every new id a row in all tables of its entity; known ids keep theirs.

        Parameters
        ----------
        entity
            Of the schema.
        ids
            List or array of n ids, in any order, repeats allowed.
        init
            Table name -> ``[n, dim]`` (or a row for each new id): where new rows start, in place of the initializer.

        Returns
        -------
        The rows of all given ids, int64[n].

        Raises
        ------
        UnknownNameError
            If there is no such entity or table.
        IdTypeError
            For ids of another type than the entity's.
        InvalidInputError
            For what can be no id, or ``init`` of another shape or dtype.
        StaleCheckoutError
            If the checkout is closed.
        """
        self.check_open()
        if not isinstance(init, Mapping | None):
            msg = f"init {init!r}: give a mapping of table names and arrays"
            raise InvalidInputError(msg)
        tables = [self.table_rows(spec.name) for spec in self._tables_of(entity)]
        return append_ids(self.ids(entity), tables, ids, init or {})

    def _tables_of(self, entity: str) -> list[TableSpec]:
        return [spec for spec in self.schema.tables if spec.entity == entity]

    def remove(self, entity: str, ids: object) -> None:
        """Forget ids: vectors and slots are zeroed, consumed records dropped, the id blanked; rows stay and are not reused.

        Older versions still have all of it until they are expired.

        Raises
        ------
        UnknownIdError
            For ids that the entity does not have; nothing is removed then.
        StaleCheckoutError
            If the checkout is closed.
        """
        self.check_open()
        idmap = self.ids(entity)
        rows = np.unique(idmap.rows(ids))
        if len(rows) == 0:
            return
        for spec in self._tables_of(entity):
            zero_rows(self.table_rows(spec.name), rows)
        if entity in (USER, ITEM):
            self.consumed.drop(entity, rows)
        idmap.staged.removed.update(rows.tolist())

    def add_entity(self, name: str, id_type: IdType | None = None) -> None:
        """Add a kind of id; one that is there with the same type stays as it is.

        Raises
        ------
        SchemaMismatchError
            If it is there with another type.
        """
        self.check_open()
        check_name(name, "entity")
        wanted = None if id_type is None else check_id_type(id_type)
        entities = dict(self.schema.entities or {})
        have = self.ids(name).id_type if name in entities else None
        if have and wanted and have != wanted:
            msg = f"entity {name!r}: its ids are {have}, {wanted} was asked for"
            raise SchemaMismatchError(msg)
        if name not in entities or (have is None and wanted):
            self._schema = replace(self.schema, entities={**entities, name: wanted})
            self.ids(name).declare(wanted)

    def add_table(self, spec: TableSpec) -> StagedTable:
        """Add a table, with initial vectors for the ids that its entity has; slots that it lacks are added to one that is there.

        Raises
        ------
        SchemaMismatchError
            If there is one of that name with another entity, dim or dtype.
        """
        self.check_open()
        entities, new_tables, new_slots = self.schema.missing(Schema((spec,)))
        for name in entities:
            self.add_entity(name)
        for name, slot in new_slots:
            self._add_slot(name, slot)
        if new_tables:
            self._schema = replace(self.schema, tables=(*self.schema.tables, spec))
            fill_table(self.table_rows(spec.name))
        return self.table(spec.name)

    def _add_slot(self, table: str, slot: SlotSpec) -> None:
        grown = with_slot(self.schema.table(table), slot)
        self._schema = replace(self.schema, tables=tuple(grown if t.name == table else t for t in self.schema.tables))
        self.table_rows(table).spec = grown

    def adopt(self, schema: Schema) -> None:
        """Take ``schema`` in place of the one there is: tables, slots and entities that it lacks go, new tables are filled."""
        self.check_open()
        before, self._schema = {spec.name: spec for spec in self.schema.tables}, schema
        self._idmaps = {name: idmap for name, idmap in self._idmaps.items() if name in (schema.entities or {})}
        kept = {s.name for s in schema.tables if s.name in before and not is_another(before[s.name], s)}
        self._tables = {name: rows for name, rows in self._tables.items() if self.tables.get(name) == before[name]}
        for spec in schema.tables:
            self.table_rows(spec.name).spec = spec
            if spec.name not in kept:
                fill_table(self.table_rows(spec.name))

    @property
    def staged(self) -> Staged:
        """Return everything held back."""
        idmaps = {entity: self.ids(entity) for entity in self.schema.entities or {}}
        tables = {spec.name: self.table_rows(spec.name) for spec in self.schema.tables}
        return Staged(self._stored_schema, self.schema, idmaps, tables, self.consumed, self.dense)

    @property
    def changes(self) -> Changes:
        """Return what a commit would write, by id."""
        return self.staged.changes()

    def reload(self, version_id: str) -> None:
        """Begin anew on the version that was committed; rows and objects given out stay valid."""
        self._version_id = version_id
        for name in ("reader", "_stored_schema"):
            self.__dict__.pop(name, None)
        self._schema = None
        schema = self.schema  # first: it fetches the documents of all entities and tables in one round
        for idmap in self._idmaps.values():
            idmap.reload(self.reader)
        for name, table in self._tables.items():
            table.reload(self.reader, schema.table(name))
        self.consumed.reload(self.reader)
        self.dense.reload(self.reader)

    def close(self, reason: str) -> None:
        """Drop what is staged; every later change raises StaleCheckoutError with ``reason``."""
        self._closed = self._closed or reason
        self._schema = None
        for idmap in self._idmaps.values():
            idmap.staged.clear()
        for table in self._tables.values():
            table.closed = self._closed
            table.staged.clear()
        self.consumed.reload(self.reader)
        self.dense.staged.clear()
        self.consumed.closed = self.dense.closed = self._closed

    def check_open(self) -> None:
        """Raise StaleCheckoutError if the checkout has ended."""
        if self._closed is not None:
            raise StaleCheckoutError(self._closed)
