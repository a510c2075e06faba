"""A version: one state of the store, which never changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from embstore.columns import TableRows, table_path
from embstore.consumed import Consumed
from embstore.dense import Dense
from embstore.entity import Ids, read_changed
from embstore.errors import UnknownNameError, UnknownRefError
from embstore.ids import IdMap
from embstore.lineage import parse_record, time_of
from embstore.reaching import can_stay
from embstore.schema import Schema, TableSpec
from embstore.storage.arrays import Reader, Rows
from embstore.storage.leases import take
from embstore.storage.repo import Repo
from embstore.storage.walking import Snapshot
from embstore.tables import Table


class View:
    """What can be read of a version, and of a checkout as it will be committed."""

    def __init__(self, repo: Repo, version_id: str) -> None:
        self.repo = repo
        self._version_id = version_id
        self._idmaps: dict[str, IdMap] = {}

    @cached_property
    def reader(self) -> Reader:
        """Return the stored arrays below."""
        return self.repo.reader(self._version_id)

    @cached_property
    def _stored_schema(self) -> Schema:
        schema = Schema.from_json((self.reader.attributes("") or {})["schema"])
        names = [f"entities/{entity}" for entity in schema.entities or {}] + [table_path(t.name) for t in schema.tables]
        self.reader.load_documents(names)
        return schema

    @property
    def schema(self) -> Schema:
        """Return the entities, tables and slots."""
        return self._stored_schema

    @property
    def entities(self) -> dict[str, int]:
        """Return how many live ids each entity has."""
        return {entity: self.ids(entity).n_live for entity in self.schema.entities or {}}

    @property
    def tables(self) -> dict[str, TableSpec]:
        """Return the tables by name."""
        return {spec.name: spec for spec in self.schema.tables}

    def ids(self, entity: str) -> IdMap:
        """Return the ids of an entity and their rows.

        Raises
        ------
        UnknownNameError
            If there is no such entity.
        """
        self.check_entity(entity)
        if entity not in self._idmaps:
            self._idmaps[entity] = self._make_idmap(entity)
        return self._idmaps[entity]

    def _make_idmap(self, entity: str) -> IdMap:
        return IdMap(self.reader, entity)

    def check_entity(self, entity: str) -> None:
        """Raise UnknownNameError if there is no such entity."""
        known = self.schema.entities or {}
        if not isinstance(entity, str) or entity not in known:
            msg = f"entity {entity!r}: the store has {', '.join(known) or 'none'}"
            raise UnknownNameError(msg)

    def table(self, name: str) -> Table:
        """Return one table.

        Raises
        ------
        UnknownNameError
            If there is none of that name.
        """
        return Table(self.table_rows(name))

    def table_rows(self, name: str) -> TableRows:
        """Return the columns of a table."""
        spec = self.schema.table(name)
        return TableRows(self.reader, spec, self.ids(spec.entity))

    @property
    def consumed(self) -> Consumed:
        """Return what each user has had."""
        return self._consumed

    @cached_property
    def _consumed(self) -> Consumed:
        return Consumed(self.reader, self.ids)

    @property
    def dense(self) -> Mapping[str, Any]:
        """Return the arrays without rows, by name."""
        return self._dense

    @cached_property
    def _dense(self) -> Dense:
        return Dense(self.reader)


class Version(View):
    """One immutable state of a store, with its message, parents and lineage. Equal versions have equal ids."""

    def __init__(self, repo: Repo, snapshot: Snapshot, *, reopen: Callable[..., Version]) -> None:
        super().__init__(repo, snapshot.id)
        self._record = parse_record(snapshot)
        self._is_cut = snapshot.parent is None
        self._reopen = reopen

    @property
    def id(self) -> str:
        """Return the name that the version keeps for ever."""
        return self._version_id

    @property
    def parents(self) -> tuple[str, ...]:
        """Return the ids of the versions it was made from; the first is that of its own branch."""
        return tuple(self._record["parents"])

    @property
    def parent(self) -> str | None:
        """Return the id of the first parent; None for the first version of a store."""
        return self.parents[0] if self.parents else None

    @property
    def kept_parents(self) -> tuple[str, ...]:
        """Return its parents but for a first one that is expired, whether its files are still there or not."""
        return self.parents[1:] if self._is_cut else self.parents

    @property
    def message(self) -> str:
        """Return what its author said."""
        message: str = self._record["message"]
        return message

    @property
    def time(self) -> datetime:
        """Return when it was committed (UTC)."""
        return time_of(self._record)

    @property
    def metadata(self) -> dict[str, Any]:
        """Return what the caller of commit recorded."""
        return deepcopy(self._record["metadata"])

    @property
    def lineage(self) -> dict[str, Any]:
        """Return what embstore recorded: trainer, counts, bytes, library versions."""
        return deepcopy(self._record["lineage"])

    @property
    def documents(self) -> int:
        """Return the digest of everything the engine's files must say of it (``docs/format.md``)."""
        digest: int = self._record["documents"]
        return digest

    @contextmanager
    def pin(self) -> Iterator[Version]:
        """Keep the version from being collected inside a with-block, also if it is expired meanwhile.

        A version that nobody pins can be read as long as a branch, a tag or the retention keeps it. Where the store is
        read-only, pinning does nothing.

        Raises
        ------
        UnknownRefError
            If it is expired and collected already.
        """
        release = take(self.repo.leases, self.id, "reader", owner=self, writes=False)
        try:
            if not can_stay(self.repo, self.id):
                msg = f"version {self.id}: it is expired and collected; take one that log shows"
                raise UnknownRefError(msg)
            yield self
        finally:
            release()

    def changed_rows(self, table: str) -> Rows:
        """Return the rows of ``table`` below its parent's length that this version's commit wrote, ascending."""
        counts = self.lineage.get("counts", {}).get("tables", {}).get(table, {})
        if not counts.get("recorded"):
            return np.empty(0, np.int64)
        path = f"{table_path(table)}/changed"
        if self.reader.meta(path) is None:  # the same as all that the commit wrote of the entity, which is recorded too
            return self.changed_ids(self.tables[table].entity)[0]
        rows: Rows = self.reader.read([path])[0].astype(np.int64)
        return rows

    def changed_ids(self, entity: str) -> tuple[Rows, Ids]:
        """Return the rows that this version's commit wrote in any table of an entity, with their ids; none where not recorded."""
        counts = self.lineage.get("counts", {}).get("entities", {}).get(entity, {})
        if not counts.get("recorded"):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return read_changed(self.reader, entity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and (self.id, self.repo.url) == (other.id, other.repo.url)

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Version({self.id}, {self.time:%Y-%m-%d %H:%M:%S}, {self.message!r})"

    def __reduce__(self) -> tuple[Callable[..., Version], tuple[Any, ...]]:
        return self._reopen, (self.repo.url, self.id, self.repo.location.public_options)
