"""Random steps on a store and on dictionaries by id: every version that was ever committed reads as the dictionaries say."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import embstore
from embstore.errors import NameExistsError, NameSpentError
from tests.store.agreement import assert_store_agrees, assert_view_agrees
from tests.store.model import ITEM, USER
from tests.store.pair import LATE_SLOTS, LATE_TABLES, Pair, numbers

_counter = itertools.count()
INTEGERS = st.sampled_from([*range(-3, 12), 2**31, -(2**63), 2**63 - 1])
TEXTS = st.sampled_from(
    ["a", "b", "c", "0", "1", " ", "é", "e\u0301", "ß", "日本語", "🎉", "a b", "x" * 300, "\n", "\ud7ff", "A"]
)
IDS = {USER: INTEGERS, ITEM: TEXTS, "thing": INTEGERS}
SEEDS = st.integers(0, 2**32 - 1)
DENSE_NAMES = st.sampled_from(["c", "_", "~", "zarr.json", "a/b", "..", ".", "%63", "C", "w.0.weight", "é 🎉", "n" * 200])
SHAPES = st.sampled_from([(), (0,), (3, 0), (1,), (5,), (2, 3), (2, 1, 0, 2), (1, 2, 1, 1, 1, 1, 2), (700,)])
DTYPES = st.sampled_from(["float16", "float32", "float64", "int8", "int64", "uint64", "bool"])
METADATA = st.dictionaries(st.text(max_size=3), st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3), max_size=2)


class StoreMachine(RuleBasedStateMachine):
    """Every step there is, in any order; what is staged and what is committed must be what the model holds."""

    def url(self) -> str | os.PathLike[str]:
        """Return where the next store is made."""
        return f"memory://machine-{next(_counter)}"

    @initialize()
    def create(self) -> None:
        """Make the store."""
        self.pair = Pair(self.url())

    def _subset(self, data: st.DataObject, ids: Sequence[Any]) -> list[Any]:
        return data.draw(st.lists(st.sampled_from(ids), max_size=6)) if ids else []

    def _version(self, data: st.DataObject) -> str:
        return str(data.draw(st.sampled_from(list(self.pair.model.versions))))

    def _branch(self, data: st.DataObject) -> str:
        return str(data.draw(st.sampled_from(sorted(self.pair.model.branches))))

    @rule(data=st.data(), entity=st.sampled_from([USER, ITEM, "thing"]), seed=st.none() | SEEDS, each=st.booleans())
    def append(self, data: st.DataObject, entity: str, seed: int | None, each: bool) -> None:
        """Append ids, new and known, with repeats."""
        if entity in self.pair.staged.entities:
            ids = data.draw(st.lists(IDS[entity], max_size=8))
            self.pair.append(entity, ids, init_seed=seed, init_of_each=each)

    @rule(data=st.data(), entity=st.sampled_from([USER, ITEM, "thing"]))
    def remove(self, data: st.DataObject, entity: str) -> None:
        """Remove some ids."""
        if entity in self.pair.staged.entities:
            self.pair.remove(entity, list(dict.fromkeys(self._subset(data, self.pair.live(entity))))[:3])

    @rule(data=st.data(), seed=SEEDS)
    def scatter(self, data: st.DataObject, seed: int) -> None:
        """Write rows of a table or slot, some of them twice."""
        name = data.draw(st.sampled_from(sorted(self.pair.staged.tables)))
        table = self.pair.staged.tables[name]
        column = data.draw(st.sampled_from(sorted(table.columns)))
        self.pair.scatter(name, column, self._subset(data, self.pair.live(table.spec.entity)), seed)

    @rule(seed=SEEDS)
    def scatter_everything(self, seed: int) -> None:
        """Write all rows of all columns, as a trainer does."""
        for name, table in self.pair.staged.tables.items():
            for column in sorted(table.columns):
                self.pair.scatter(name, column, self.pair.live(table.spec.entity), seed)

    @rule(data=st.data(), timed=st.sampled_from(["none", "whole", "broken"]), replace=st.booleans())
    def consume(self, data: st.DataObject, timed: str, replace: bool) -> None:
        """Record pairs, with times or without."""
        users, items = self._subset(data, self.pair.live(USER)), self._subset(data, self.pair.live(ITEM))
        pairs = list(zip(users, items, strict=False))
        drawn = data.draw(st.lists(st.integers(-2, 3), min_size=len(pairs), max_size=len(pairs)))
        times = {"none": None, "whole": drawn, "broken": [t + 0.5 for t in drawn]}[timed]
        self.pair.consume(pairs, times, replace=replace)

    @rule(name=DENSE_NAMES, shape=SHAPES, dtype=DTYPES, seed=SEEDS)
    def set_dense(self, name: str, shape: tuple[int, ...], dtype: str, seed: int) -> None:
        """Assign an array without rows."""
        self.pair.set_dense(name, numbers(seed, shape, dtype))

    @rule(data=st.data())
    def delete_dense(self, data: st.DataObject) -> None:
        """Delete an array without rows."""
        if self.pair.staged.dense:
            self.pair.delete_dense(data.draw(st.sampled_from(sorted(self.pair.staged.dense))))

    @rule(id_type=st.sampled_from([None, "int64"]))
    def add_entity(self, id_type: Any) -> None:
        """Add a kind of id."""
        self.pair.add_entity("thing", id_type)

    @rule(spec=st.sampled_from(LATE_TABLES))
    def add_table(self, spec: embstore.TableSpec) -> None:
        """Add a table to ids that are there."""
        self.pair.add_table(spec)

    @rule(which=st.sampled_from(LATE_SLOTS))
    def add_slot(self, which: tuple[str, embstore.SlotSpec]) -> None:
        """Add a slot to rows that are there."""
        self.pair.add_slot(*which)

    @rule(metadata=METADATA)
    def commit(self, metadata: dict[str, Any]) -> None:
        """Make a version."""
        self.pair.commit(metadata)

    @rule(data=st.data())
    def commit_elsewhere(self, data: st.DataObject) -> None:
        """Make a version on another branch, which may or may not be there."""
        self.pair.commit(to=data.draw(st.sampled_from(["main", "side", "other"])))

    @rule(data=st.data())
    def checkout(self, data: st.DataObject) -> None:
        """Leave what is staged and go on elsewhere."""
        self.pair.work.discard()
        self.pair.checkout(self._branch(data))

    @rule(data=st.data(), name=st.sampled_from(["side", "other", "third"]))
    def make_branch(self, data: st.DataObject, name: str) -> None:
        """Make a branch at any version."""
        at = self._version(data)
        if name in self.pair.model.branches:
            with pytest.raises(NameExistsError, match=name):
                self.pair.store.branch(name, at=at)
        else:
            self.pair.store.branch(name, at=at)
            self.pair.model.branches[name] = at

    @rule(data=st.data())
    def move_branch(self, data: st.DataObject) -> None:
        """Point a branch to any version."""
        name, at = self._branch(data), self._version(data)
        self.pair.store.branch(name, at=at, move=True)
        self.pair.model.branches[name] = at

    @rule(data=st.data(), name=st.sampled_from(["t.1", "t-2"]))
    def tag(self, data: st.DataObject, name: str) -> None:
        """Name a version, once for ever."""
        at, model = self._version(data), self.pair.model
        if name in model.tags or name in model.spent:
            with pytest.raises(NameExistsError if name in model.tags else NameSpentError, match=name):
                self.pair.store.tag(name, at=at)
        else:
            self.pair.store.tag(name, at=at)
            model.tags[name] = at

    @rule(data=st.data())
    def delete_name(self, data: st.DataObject) -> None:
        """Delete a tag or a branch."""
        model = self.pair.model
        name = data.draw(st.sampled_from([*sorted(model.tags), *sorted(set(model.branches) - {"main"}), ""]))
        if name in model.tags:
            self.pair.store.delete_tag(name)
            model.spent.add(name)
            del model.tags[name]
        elif name:
            self.pair.store.delete_branch(name)
            del model.branches[name]

    @rule(data=st.data())
    def revert(self, data: st.DataObject) -> None:
        """Revert a branch to any version, of its own past or not."""
        target = self._version(data)
        self.pair.revert(target, target, self._branch(data))

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        """Compact a branch."""
        self.pair.compact(self._branch(data))

    @rule(data=st.data(), slots=st.booleans())
    def export(self, data: st.DataObject, slots: bool) -> None:
        """Export any version."""
        self.pair.export(self._version(data), self.url(), slots=slots)

    @rule()
    def reopen(self) -> None:
        """Go on with a new handle; what is staged is gone."""
        self.pair.store = embstore.open(self.pair.url)
        self.pair.checkout("main")

    @rule(data=st.data())
    def blame(self, data: st.DataObject) -> None:
        """Ask who changed a row."""
        tip = self.pair.model.versions[self.pair.model.branches["main"]].state
        entity = data.draw(st.sampled_from(sorted(tip.entities)))
        tables = [name for name, table in tip.tables.items() if table.spec.entity == entity]
        live = tip.entities[entity].live()
        if live:
            table = data.draw(st.sampled_from([None, *tables]))
            self.pair.check_blame(entity, data.draw(st.sampled_from(live)), table)

    @rule(data=st.data())
    def diff_any(self, data: st.DataObject) -> None:
        """Compare any two versions."""
        self.pair.check_diff(self._version(data), self._version(data))

    @rule()
    def look_at_what_is_staged(self) -> None:
        """A checkout shows what its commit will hold."""
        assert_view_agrees(self.pair.work, self.pair.staged)

    def teardown(self) -> None:
        """Nothing that came later has changed any version."""
        if hasattr(self, "pair"):
            self.pair.check_all()
            assert_store_agrees(self.pair.store, self.pair.model)


class DiskMachine(StoreMachine):
    """The same on a disk."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()

    def url(self) -> Path:
        """Return where the next store is made."""
        return Path(self._folder.name) / f"store-{next(_counter)}"

    def teardown(self) -> None:
        """Look at everything, then clean up."""
        try:
            super().teardown()
        finally:
            self._folder.cleanup()


class SmallCommits(StoreMachine):
    """Many commits of a few rows each, so that segments, index runs and records are merged and tables folded."""

    @initialize()
    def create(self) -> None:
        """Make a store with a table that is long beside each commit, and one that is short."""
        self.pair = Pair(self.url())
        self.pair.append(USER, range(120), init_seed=1)
        self.pair.append(ITEM, ["a", "b", "c"])
        self.pair.consume([(user, "a") for user in range(40)], None, replace=False)
        self.pair.commit()

    @rule(data=st.data(), seed=SEEDS, table=st.sampled_from(["user", "wide", "item"]))
    def small_update(self, data: st.DataObject, seed: int, table: str) -> None:
        """Commit a few rows of one column."""
        columns = self.pair.staged.tables[table].columns
        ids = self._subset(data, self.pair.live(self.pair.staged.tables[table].spec.entity))
        self.pair.scatter(table, data.draw(st.sampled_from(sorted(columns))), ids, seed)
        self.pair.commit()

    @rule(id_=st.integers(1_000, 1_000_000))
    def small_growth(self, id_: int) -> None:
        """Commit one new id of each kind."""
        self.pair.append(USER, [id_])
        self.pair.append(ITEM, [str(id_)])
        self.pair.commit()

    @rule(data=st.data(), replace=st.booleans())
    def small_record(self, data: st.DataObject, replace: bool) -> None:
        """Commit a few pairs."""
        pairs = list(zip(self._subset(data, self.pair.live(USER)), self._subset(data, self.pair.live(ITEM)), strict=False))
        self.pair.consume(pairs, None, replace=replace)
        self.pair.commit()


def _run(machine: type[StoreMachine], *, share: float, steps: int) -> None:
    examples = max(1, int(settings().max_examples * share))
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=steps))


def test_random_steps_in_memory() -> None:
    """Whatever is done, every version reads as the model says."""
    _run(StoreMachine, share=1, steps=40)


def test_random_steps_on_disk() -> None:
    """The same where the store is a folder."""
    _run(DiskMachine, share=0.12, steps=40)


def test_many_small_commits() -> None:
    """The same where commits are so many that what they wrote is merged."""
    _run(SmallCommits, share=0.2, steps=70)
