"""A store and its model, taken through the same steps; after each commit they must agree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import embstore
from embstore import Checkout, Constant, Schema, SlotSpec, TableSpec, Uniform, Version, Zeros
from tests.store.agreement import assert_diff_agrees, assert_view_agrees
from tests.store.model import ITEM, USER, EntityModel, Id, Record, State, StoreModel, TableModel, Vectors

FIRST_TABLES = (
    TableSpec("user", USER, 3, slots=(SlotSpec("exp_avg", 3), SlotSpec("step", None, fill=1.0))),
    TableSpec("wide", USER, 40, slots=(SlotSpec("sum", 40, fill=0.5),)),
    TableSpec("item", ITEM, 2, "float64", init=Uniform(-1, 1)),
)
LATE_TABLES = (
    TableSpec("c", USER, None, "int16", init=Constant(-1)),
    TableSpec("bias", ITEM, None, slots=(SlotSpec("c", None),), seed=3),
    TableSpec("thing", "thing", 33, init=Zeros()),
)
LATE_SLOTS = (
    ("user", SlotSpec("max", None, "int32", fill=7)),
    ("wide", SlotSpec("late", 40, fill=0.25)),
    ("item", SlotSpec("late", 2, "float16")),
)
ODD_NUMBERS = (0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324)


def numbers(seed: int, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Return numbers that follow from ``seed``, odd ones among them."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind != "f":
        return rng.integers(0, 2, shape).astype(dtype) if dtype == "bool" else rng.integers(-9, 10, shape).astype(dtype)
    drawn = np.asarray(rng.standard_normal(shape))
    odd = rng.random(shape) < 0.05
    return np.where(odd, rng.choice(ODD_NUMBERS, shape), drawn).astype(dtype)


class Pair:
    """One store with its model and one checkout with its own.

    Without ``ordered`` all records are to have times, which tell their order whatever their places.

    Parameters
    ----------
    url
        Where the store is made.
    """

    ordered = True

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url = url
        schema = Schema(FIRST_TABLES, {USER: "int64", ITEM: None})
        self.store = embstore.create(url, schema=schema, durability="none")
        self.model = StoreModel()
        self.handles: dict[str, Version] = {}
        state = State({USER: EntityModel("int64"), ITEM: EntityModel()}, {s.name: TableModel.of(s, {}) for s in FIRST_TABLES})
        first = self.store.at()
        self.model.commit("main", first.id, state, parent=None, message=first.message, metadata={})
        self.checkout("main")

    def checkout(self, branch: str) -> None:
        """Begin anew on a branch's tip."""
        self.work: Checkout = self.store.checkout(branch)
        self.branch, self.base = branch, self.model.branches[branch]
        self.staged = self.model.versions[self.base].state.copy()

    def live(self, entity: str) -> list[Id]:
        """Return the ids that the checkout has."""
        return self.staged.entities[entity].live() if entity in self.staged.entities else []

    def append(self, entity: str, ids: Sequence[Id], *, init_seed: int | None = None, init_of_each: bool = False) -> None:
        """Append ids; with ``init_seed`` they start elsewhere, given for each id or only for each new one."""
        known = set(self.live(entity))
        new = [id_ for id_ in dict.fromkeys(ids) if id_ not in known]
        starts: dict[str, Vectors] = {}
        init = {}
        for table in self.staged.tables.values():
            if table.spec.entity != entity:
                continue
            given = list(ids) if init_of_each else new
            if init_seed is None:
                vectors = self.work.table(table.spec.name).initial(new)
                starts[table.spec.name] = dict(zip(new, vectors, strict=True))
            else:
                vectors = numbers(init_seed, (len(given), *self._row_shape(table.spec)), table.spec.dtype)
                init[table.spec.name] = vectors
                starts[table.spec.name] = dict(reversed(list(zip(given, vectors, strict=True))))
        rows = self.work.append(entity, list(ids), init=init or None)
        self.staged.append(entity, ids, starts)
        assert rows.tolist() == [self.staged.entities[entity].row_of(id_) for id_ in ids]

    def _row_shape(self, spec: TableSpec | SlotSpec) -> tuple[int, ...]:
        return () if spec.dim is None else (spec.dim,)

    def remove(self, entity: str, ids: Sequence[Id]) -> None:
        """Remove ids that are there."""
        self.work.remove(entity, list(ids))
        self.staged.remove(entity, ids)
        assert [id_ in self.work.ids(entity) for id_ in ids] == [False] * len(ids)

    def scatter(self, table: str, column: str, ids: Sequence[Id], seed: int) -> None:
        """Write rows of a table's values or of a slot; ids may repeat."""
        spec = self.staged.tables[table].spec
        shaped = spec if column == "values" else spec.slot(column)
        vectors = numbers(seed, (len(ids), *self._row_shape(shaped)), shaped.dtype)
        target = self.work.table(table) if column == "values" else self.work.table(table).slot(column)
        target.scatter(self.work.ids(spec.entity).rows(list(ids)), vectors)
        self.staged.scatter(table, column, ids, vectors)

    def consume(self, pairs: Sequence[tuple[Id, Id]], times: Sequence[float] | None, *, replace: bool) -> None:
        """Record pairs."""
        users = self.work.ids(USER).rows([user for user, _ in pairs])
        items = self.work.ids(ITEM).rows([item for _, item in pairs])
        self.work.consumed.append(users, items, times=None if times is None else list(times), replace=replace)
        each = [None] * len(pairs) if times is None else list(times)
        records = [Record(user, item, time) for (user, item), time in zip(pairs, each, strict=True)]
        self.staged.consume(records, replace=replace)
        if not self.ordered:
            self.staged.records.sort(key=lambda record: record.time or 0)

    def set_dense(self, name: str, array: NDArray[Any]) -> None:
        """Assign an array without rows."""
        self.work.dense[name] = array
        self.staged.dense[name] = array.copy()

    def delete_dense(self, name: str) -> None:
        """Delete an array without rows."""
        del self.work.dense[name]
        del self.staged.dense[name]

    def add_entity(self, name: str, id_type: Any) -> None:
        """Add a kind of id, or declare the type of one that has none."""
        self.work.add_entity(name, id_type)
        entity = self.staged.entities.setdefault(name, EntityModel())
        if entity.declared is None and not entity.rows:
            entity.declared = id_type

    def add_table(self, spec: TableSpec) -> None:
        """Add a table; one that is there stays as it is."""
        table = self.work.add_table(spec)
        self.staged.entities.setdefault(spec.entity, EntityModel())
        if spec.name not in self.staged.tables:
            ids = self.live(spec.entity)
            starts = dict(zip(ids, table.initial(ids), strict=True))
            self.staged.tables[spec.name] = TableModel.of(spec, starts)

    def add_slot(self, table: str, slot: SlotSpec) -> None:
        """Add a slot; one that is there stays as it is."""
        self.work.table(table).add_slot(slot)
        self.staged.tables[table].add_slot(slot)

    def commit(self, metadata: dict[str, Any] | None = None, *, to: str | None = None) -> Version:
        """Commit what is staged; where the branch has moved, to a branch of its own."""
        branch = to or self.branch
        if self.model.branches.get(branch, self.base) != self.base:
            branch = f"rescue-{len(self.model.versions)}"
        message = f"version {len(self.model.versions)}"
        version = self.work.commit(message, metadata=metadata, branch=branch, allow_empty=True, allow_nonfinite=True)
        assert version.id not in self.model.versions
        self.model.commit(branch, version.id, self.staged, parent=self.base, message=message, metadata=metadata or {})
        self.branch, self.base = branch, version.id
        assert (self.work.dirty, self.work.changes.is_empty) == (False, True)
        self.check(version.id)
        return version

    def revert(self, ref: str, target: str, branch: str) -> None:
        """Revert a branch to the version ``target``, called ``ref``."""
        tip, wanted = self.model.branches[branch], self.model.versions[target]
        version = self.store.revert(ref, branch=branch)
        state = self.model.versions[tip].state.reverted(wanted.state)
        self.model.commit(branch, version.id, state, parent=tip, message=f"revert to {ref}", metadata=wanted.metadata)
        self.check(version.id)
        assert_diff_agrees(self.store.diff(target, version.id), wanted.state, state, ordered=self.ordered)

    def compact(self, branch: str) -> None:
        """Compact a branch: nothing differs."""
        tip = self.model.branches[branch]
        version = self.store.compact(branch)
        if version.id == tip:
            return
        before = self.model.versions[tip]
        self.model.commit(branch, version.id, before.state, parent=tip, message="compact", metadata=before.metadata)
        self.check(version.id)
        assert self.store.diff(tip, version.id).is_empty

    def export(self, id_: str, url: str | os.PathLike[str], *, slots: bool) -> None:
        """Export a version: a store that holds the same, and goes on."""
        state = self.model.versions[id_].state.copy()
        exported = self.store.export(url, ref=id_, slots=slots)
        if not slots:
            for name, table in state.tables.items():
                bare = TableSpec(**{**table.spec.__dict__, "slots": ()})
                state.tables[name] = TableModel(bare, {"values": table.columns["values"]})
        assert_view_agrees(exported.at(), state)
        assert exported.verify().problems == []
        work = exported.checkout()
        work.append(USER, [4242])
        assert work.commit("goes on").entities[USER] == len({4242, *state.entities[USER].live()})
        assert exported.verify().problems == []

    def check(self, id_: str) -> None:
        """Read one version anew and compare it with the model, and with its parent and one older version."""
        version, expected = self.store.at(id_), self.model.versions[id_]
        self.handles[id_] = version
        assert_view_agrees(version, expected.state)
        assert version.metadata == expected.metadata
        assert self.store.verify(id_).problems == []
        others = list(self.model.versions)
        self.check_diff(expected.parent or id_, id_)
        self.check_diff(others[(len(others) * 7) // 11], id_)

    def check_diff(self, base: str, target: str) -> None:
        """Compare two versions in both directions."""
        states = self.model.versions
        for one, other in ((base, target), (target, base)):
            diff = self.store.diff(one, other)
            assert_diff_agrees(diff, states[one].state, states[other].state, ordered=self.ordered)

    def check_blame(self, entity: str, id_: Id, table: str | None) -> None:
        """Ask who changed a row of main."""
        tip = self.model.versions[self.model.branches["main"]].state
        tables = [table] if table else [t for t in tip.tables if tip.tables[t].spec.entity == entity]
        found = [version.id for version in self.store.blame(entity, id_, table=table)]
        assert found == self.model.blame(entity, id_, tables)

    def check_all(self) -> None:
        """Read every version that was ever committed, anew and through a handle that is as old as it is."""
        for id_, expected in self.model.versions.items():
            assert_view_agrees(self.store.at(id_), expected.state)
            assert_view_agrees(self.handles.get(id_, self.store.at(id_)), expected.state)
