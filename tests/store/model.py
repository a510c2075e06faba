"""What a store should hold, told the obvious way: dictionaries by id, copied at every commit."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore import SlotSpec, TableSpec

Id = Any
Vector = NDArray[Any]
Vectors = dict[Id, Vector]
USER, ITEM = "user", "item"


@dataclass(frozen=True)
class Record:
    """One consumed pair; ``time`` is None where none was given."""

    user: Id
    item: Id
    time: float | None


@dataclass
class EntityModel:
    """One kind of id: what stands in each row (None where it was removed), and the type that was declared."""

    declared: str | None = None
    rows: list[Id | None] = field(default_factory=list)

    def live(self) -> list[Id]:
        """Return the ids that are there, in row order."""
        return [id_ for id_ in self.rows if id_ is not None]

    def row_of(self, id_: Id) -> int:
        """Return where an id stands."""
        return self.rows.index(id_)


@dataclass
class TableModel:
    """One table: its columns (``"values"`` and each slot's name) by id."""

    spec: TableSpec
    columns: dict[str, Vectors]

    @classmethod
    def of(cls, spec: TableSpec, starts: Vectors) -> TableModel:
        """Return the table of ids that start at ``starts``, slots at their fill."""
        table = cls(spec, {"values": dict(starts)})
        for slot in spec.slots:
            table.columns[slot.name] = {id_: filled(slot) for id_ in starts}
        return table

    def add_slot(self, slot: SlotSpec) -> None:
        """Add a slot at its fill; one that is there stays as it is."""
        if slot.name not in self.columns:
            self.spec = TableSpec(**{**self.spec.__dict__, "slots": (*self.spec.slots, slot)})
            self.columns[slot.name] = {id_: filled(slot) for id_ in self.columns["values"]}


def filled(slot: SlotSpec) -> Vector:
    """Return the row of a slot that was never written."""
    return np.full(() if slot.dim is None else (slot.dim,), slot.fill, slot.dtype)


@dataclass
class State:
    """Everything one version holds."""

    entities: dict[str, EntityModel] = field(default_factory=dict)
    tables: dict[str, TableModel] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    dense: dict[str, Vector] = field(default_factory=dict)

    def copy(self) -> State:
        """Return a state of its own; vectors are shared, for they are never written into."""
        return State(
            {name: EntityModel(e.declared, list(e.rows)) for name, e in self.entities.items()},
            {n: TableModel(t.spec, {c: dict(v) for c, v in t.columns.items()}) for n, t in self.tables.items()},
            list(self.records),
            dict(self.dense),
        )

    def append(self, entity: str, ids: Iterable[Id], starts: Mapping[str, Vectors]) -> None:
        """Give every new id a row; ``starts`` has the first vector of each, by table."""
        known = set(self.entities[entity].live())
        for id_ in dict.fromkeys(ids):
            if id_ in known:
                continue
            self.entities[entity].rows.append(id_)
            for table in self._tables_of(entity):
                table.columns["values"][id_] = starts[table.spec.name][id_]
                for slot in table.spec.slots:
                    table.columns[slot.name][id_] = filled(slot)

    def remove(self, entity: str, ids: Iterable[Id]) -> None:
        """Forget ids, their vectors and their records."""
        gone = set(ids)
        rows = self.entities[entity].rows
        self.entities[entity].rows = [None if id_ in gone else id_ for id_ in rows]
        for table in self._tables_of(entity):
            for vectors in table.columns.values():
                for id_ in gone:
                    del vectors[id_]
        if entity == USER:
            self.records = [r for r in self.records if r.user not in gone]
        if entity == ITEM:
            self.records = [r for r in self.records if r.item not in gone]

    def _tables_of(self, entity: str) -> list[TableModel]:
        return [table for table in self.tables.values() if table.spec.entity == entity]

    def scatter(self, table: str, column: str, ids: Iterable[Id], vectors: Vector) -> None:
        """Set rows; of an id given twice the last counts."""
        for id_, vector in zip(ids, vectors, strict=True):
            self.tables[table].columns[column][id_] = np.array(vector)

    def consume(self, records: list[Record], *, replace: bool) -> None:
        """Record pairs, after what these users had is dropped if ``replace``."""
        if replace:
            gone = {r.user for r in records}
            self.records = [r for r in self.records if r.user not in gone]
        self.records = [*self.records, *records]

    def had(self, entity: str, id_: Id, *, distinct: bool = False) -> list[Id]:
        """Return what a user had, or who had an item: by time where every record has one, else as recorded."""
        mine = [r for r in self.records if (r.user if entity == USER else r.item) == id_]
        if all(r.time is not None for r in mine):
            mine.sort(key=lambda r: r.time or 0)
        others = [r.item if entity == USER else r.user for r in mine]
        return list(dict.fromkeys(others)) if distinct else others

    def reverted(self, target: State) -> State:
        """Return what a version equal to ``target`` by id looks like when it follows this one: rows stay where they are."""
        after = target.copy()
        for name, entity in after.entities.items():
            wanted = entity.live()
            before = self.entities[name].rows if name in self.entities else []
            kept = [id_ if id_ in set(wanted) else None for id_ in before]
            entity.rows = kept + [id_ for id_ in wanted if id_ not in set(kept)]
        return after


def same_bits(one: Vector, other: Vector) -> bool:
    """Return whether two arrays are equal in shape, dtype and every bit."""
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


@dataclass
class DiffModel:
    """What turns one state into another, in the words of ``embstore.Diff``."""

    appended: dict[str, set[Id]]
    removed: dict[str, set[Id]]
    changed: dict[str, set[Id]]
    slots: dict[str, dict[str, int]]
    dense: dict[str, str]
    n_records: tuple[int, int]
    is_empty: bool


def difference(base: State, target: State) -> DiffModel:
    """Return what turns ``base`` into ``target``; every entity and table of either has its entry."""
    entities = sorted({*base.entities, *target.entities})
    ids = {e: tuple(set(s.entities[e].live()) if e in s.entities else set() for s in (base, target)) for e in entities}
    changed: dict[str, set[Id]] = {}
    slots: dict[str, dict[str, int]] = {}
    for name in sorted({*base.tables, *target.tables}):
        columns = changed_columns(base, target, name)
        changed[name] = columns.pop("values", set())
        slots[name] = {slot: len(rows) for slot, rows in columns.items()}
    return DiffModel(
        {e: after - before for e, (before, after) in ids.items()},
        {e: before - after for e, (before, after) in ids.items()},
        changed,
        slots,
        dense_difference(base, target),
        (len(base.records), len(target.records)),
        is_equal(base, target),
    )


def changed_columns(base: State, target: State, table: str) -> dict[str, set[Id]]:
    """Return the ids, in both states, whose bits differ in each column that both have."""
    if table not in base.tables or table not in target.tables:
        return {}
    before, after = base.tables[table].columns, target.tables[table].columns
    return {
        column: {id_ for id_ in before[column] if id_ in after[column] and not same_bits(before[column][id_], after[column][id_])}
        for column in after
        if column in before
    }


def dense_difference(base: State, target: State) -> dict[str, str]:
    """Return which arrays without rows differ, and how."""
    words = {}
    for name in sorted({*base.dense, *target.dense}):
        if name not in target.dense:
            words[name] = "deleted"
        elif name not in base.dense:
            words[name] = "added"
        elif not same_bits(base.dense[name], target.dense[name]):
            words[name] = "changed"
    return words


def is_equal(base: State, target: State) -> bool:
    """Return whether two states hold the same, whatever the rows."""
    return (
        {n: (e.declared, set(e.live())) for n, e in base.entities.items()}
        == {n: (e.declared, set(e.live())) for n, e in target.entities.items()}
        and {n: t.spec for n, t in base.tables.items()} == {n: t.spec for n, t in target.tables.items()}
        and not any(any(changed_columns(base, target, name).values()) for name in base.tables)
        and not dense_difference(base, target)
        and base.records == target.records
    )


@dataclass
class VersionModel:
    """One committed version."""

    state: State
    parent: str | None
    message: str
    metadata: dict[str, Any]
    second: str | None = None

    @property
    def parents(self) -> list[str]:
        """Return the version before this one, and the one that was merged into it."""
        return [id_ for id_ in (self.parent, self.second) if id_ is not None]


@dataclass
class StoreModel:
    """Every version that was ever committed, and the names that point to them."""

    versions: dict[str, VersionModel] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)

    def commit(
        self,
        branch: str,
        id_: str,
        state: State,
        *,
        parent: str | None,
        message: str,
        metadata: dict[str, Any],
        second: str | None = None,
    ) -> None:
        """Keep a version and point the branch to it."""
        self.versions[id_] = VersionModel(state.copy(), parent, message, copy.deepcopy(metadata), second)
        self.branches[branch] = id_

    def ancestors(self, id_: str) -> set[str]:
        """Return a version and all that it comes from."""
        found, left = set(), [id_]
        while left:
            found.add(left.pop())
            left += [parent for one in found for parent in self.versions[one].parents if parent not in found]
        return found

    def common_ancestors(self, one: str, other: str) -> list[str]:
        """Return the versions that both come from and that none of the others comes from."""
        both = self.ancestors(one) & self.ancestors(other)
        older = {old for id_ in both for old in self.ancestors(id_) - {id_}}
        return sorted(both - older)

    def line(self, id_: str | None) -> list[str]:
        """Return a version and those before it, newest first."""
        found = []
        while id_ is not None:
            found.append(id_)
            id_ = self.versions[id_].parent
        return found

    def blame(self, entity: str, id_: Id, tables: Iterable[str]) -> list[str]:
        """Return the versions on main that changed the id's rows in these tables, newest first; the last appended it."""
        tip = self.versions[self.branches["main"]].state
        row, found = tip.entities[entity].row_of(id_), []
        for version_id in self.line(self.branches["main"]):
            state, parent = self.versions[version_id].state, self.versions[version_id].parent
            before = self.versions[parent].state if parent else State()
            if entity not in before.entities or len(before.entities[entity].rows) <= row:
                return [*found, version_id]
            if any(id_ in ids for t in tables for ids in changed_columns(before, state, t).values()):
                found.append(version_id)
        return found
