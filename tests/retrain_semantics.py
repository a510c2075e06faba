"""What a retrain must keep, as tests of any trainer with row-wise Adam: growth, steps, refusals, ids and records."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import embstore
from embstore import IdTypeError, Interactions, NonFiniteError, Store, Version, View
from embstore.testing import example_interactions
from tests.examples import new_store

ROOT = Path(__file__).resolve().parents[1]
NEW = {"user": [1001, 1000, 1002], "item": ["new b", "new a"]}
LATER = Interactions([3, 7, 1000, 1000], ["item 02", "item 05", "item 01", "new a"], times=[500, 501, 502, 503])
NEWCOMER = Interactions([1000, 3], ["new a", "item 02"])  # a new user, a new item, and a pair beside them
FEATURED_PAIRS = replace(
    example_interactions(),
    user_features=pd.DataFrame({"user": range(20), "gender": ["F", "M"] * 10, "zip": [i % 7 for i in range(20)]}),
    item_features=pd.DataFrame({"item": [f"item {i:02}" for i in range(3, 19)], "genres": [["x"], ["y", "x"], None, "z"] * 4}),
)


class RetrainSemantics:
    """Tests of one trainer that has settings ``lr`` and ``epochs``; users are numbers, items text."""

    trainer: ClassVar[Any]
    pairs: ClassVar[Interactions] = example_interactions()

    def test_grow_by_id_keeps_every_old_row_and_slot(self, tmp_path: Path) -> None:
        """Appending moves nothing: values, moments and steps of old ids, arrays and scores are the same bits, by id."""
        store, before = self._trained(tmp_path / "store")
        with store.checkout() as work:
            for entity in before.entities:
                work.append(entity, _new_ids(before, entity))
            work.commit("grown")
        after = embstore.open(tmp_path / "store").at()
        for name, columns in _columns(before).items():
            entity = before.tables[name].entity
            old, new = before.ids(entity).ids(), _new_ids(before, entity)
            for column, rows in columns.items():
                grown = _columns(after)[name][column]
                np.testing.assert_array_equal(grown.get(old), rows.get(old), strict=True)
                start = np.full_like(grown.get(new), before.tables[name].slot(column).fill) if column else rows.initial(new)
                np.testing.assert_array_equal(grown.get(new), start, strict=True)
        assert {name: after.dense[name].tobytes() for name in after.dense} == {n: before.dense[n].tobytes() for n in before.dense}
        users, n_items = np.arange(len(before.ids("user"))), len(before.ids("item"))
        scores = self.trainer.scores(after, users)[:, :n_items]
        np.testing.assert_allclose(scores, self.trainer.scores(before, users), rtol=1e-5, atol=1e-6)

    def test_grow_by_id_writes_no_old_bytes(self, tmp_path: Path) -> None:
        """Beside 20,000 users three new ones cost their rows and the last chunk of ids; no file that was there is changed."""
        store, _ = self._trained(tmp_path / "store")
        with store.checkout() as work:
            work.append("user", np.arange(10_000, 30_000))
            before = work.commit("many")
        files = _files(tmp_path / "store")
        with store.checkout() as work:
            work.append("user", NEW["user"])
            after = work.commit("grown")
        grown = _files(tmp_path / "store")
        assert {path: digest for path, digest in grown.items() if path in files} == files
        names = [name for name, spec in before.tables.items() if spec.entity == "user"]
        assert sorted(after.lineage["counts"]["tables"]) == sorted(names)
        counts = after.lineage["counts"]["tables"]
        assert [(count["new"], count["changed"]) for count in counts.values()] == [(3, 0)] * len(names)
        assert sum(count["bytes"] for count in counts.values()) < 1_000
        written = sum(Path(path).stat().st_size for path in grown.keys() - files.keys())
        assert 0 < written < 8 * len(after.ids("user")) + 2_000

    def test_first_adam_step_of_a_new_row_is_lr_at_step_10000(self) -> None:
        """The step is counted by row: after 10,000 steps of all others a new row moves by lr, not 3.16 times that."""
        store, version = self._trained()
        stepped = [name for name, spec in version.tables.items() if "step" in {s.name for s in spec.slots}]
        with store.checkout() as work:
            for name in stepped:
                work.table(name).slot("step").scatter(np.arange(len(work.table(name))), np.full(len(work.table(name)), 10_000))
            work.commit("long ago")
        version = embstore.fit(store, replace(self.trainer, epochs=1), NEWCOMER, message="newcomer")
        moves = [self._first_moves(version, name) for name in stepped if version.tables[name].entity in ("user", "item")]
        np.testing.assert_allclose(np.concatenate(moves), self.trainer.lr, rtol=1e-2)
        users = [name for name in stepped if version.tables[name].entity == "user"]
        assert [version.table(name).slot("step").get([1000, 3]).tolist() for name in users] == [[1, 10_001]] * len(users)

    def test_new_learning_rate_counts_after_resume(self) -> None:
        """What is asked is what is done, whatever an earlier version was trained with; the lineage says which."""
        store, _ = self._trained()
        slower = replace(self.trainer, epochs=1, lr=self.trainer.lr / 100)
        version = embstore.fit(store, slower, NEWCOMER, message="slower")
        stepped = [n for n, s in version.tables.items() if s.entity == "user" and "step" in {slot.name for slot in s.slots}]
        moves = np.concatenate([self._first_moves(version, name) for name in stepped])
        np.testing.assert_allclose(moves, slower.lr, rtol=1e-2)
        assert version.lineage["settings"]["lr"] == slower.lr

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_nan_or_infinity_in_any_array_refuses_the_commit(self, bad: float) -> None:
        """Values, slots and arrays without rows, each by itself; the tip stays."""
        store, version = self._trained()
        work = store.checkout()
        columns = [(name, column, rows) for name, of_table in _columns(version).items() for column, rows in of_table.items()]
        floats = [(name, column) for name, column, rows in columns if _is_float(rows.gather([0]))]
        for name, column in floats:
            rows = work.table(name).slot(column) if column else work.table(name)
            good = rows.gather([0])
            rows.scatter([0], np.full_like(good, bad))
            with pytest.raises(NonFiniteError, match=f"of table '{name}': 1 rows are not finite"):
                work.commit("bad")
            rows.scatter([0], good)
        for array_name in [name for name in version.dense if _is_float(version.dense[name])]:
            good = work.dense[array_name]
            work.dense[array_name] = np.full_like(good, bad)
            with pytest.raises(NonFiniteError, match=f"dense array '{array_name}'"):
                work.commit("bad")
            work.dense[array_name] = good
        assert len(floats) >= 3
        assert store.at() == version
        work.discard()

    def test_consumed_items_stay_out_after_merges(self) -> None:
        """However often a pair was recorded and however few items are left: the rest, each once, and nothing else."""
        store, _ = self._trained()
        for day in range(3):
            version = embstore.fit(store, replace(self.trainer, epochs=1), self.pairs, message=f"again {day}")
        users, items = version.ids("user").ids(), version.ids("item").ids().tolist()
        frame = embstore.recommend(version, users, 3 * len(items), trainer=self.trainer)
        records, distinct = version.consumed.of("user", users), version.consumed.of("user", users, distinct=True)
        for user, had, once in zip(users.tolist(), records, distinct, strict=True):
            assert len(had) == 4 * (self.pairs.user_ids == user).sum() > len(once)
            assert sorted([*once, *frame.loc[frame["user"] == user, "item"]]) == sorted(items)

    def test_cold_start_lists_have_no_duplicates(self) -> None:
        """Unknown users get every item once at most, as the popular ones and as the mean user's, also after merges."""
        store, _ = self._trained()
        version = embstore.fit(store, replace(self.trainer, epochs=1), LATER, message="later")
        items = sorted(version.ids("item").ids().tolist())
        for unknown in ("popular", "mean"):
            frame = embstore.recommend(version, [77, 78, 77], 50, trainer=self.trainer, unknown=unknown)
            assert frame["user"].tolist() == [77] * len(items) + [78] * len(items)
            assert sorted(frame.loc[frame["user"] == 78, "item"]) == items

    def test_nan_scores_rank_nowhere(self) -> None:
        """An item whose vector is not finite is recommended to nobody; the others are."""
        store, version = self._trained()
        items = version.ids("item").ids().tolist()
        with store.checkout() as work:
            for name in [n for n, spec in version.tables.items() if spec.entity == "item" and spec.slots]:
                work.table(name).scatter([2], np.full_like(work.table(name).gather([2]), np.nan))
            version = work.commit("broken", allow_nonfinite=True)
        frame = embstore.recommend(version, [3], 50, trainer=self.trainer, exclude_consumed=False)
        assert sorted(frame["item"]) == sorted(items[:2] + items[3:])

    def test_int_and_text_ids_do_not_mix(self) -> None:
        """User 1 and user "1" are never two: pairs with ids of the other type are refused, and nothing is changed."""
        store, version = self._trained()
        for pairs in (Interactions(["1"], ["item 01"]), Interactions([1], [1])):
            with pytest.raises(IdTypeError, match="ids of '(user|item)' are"):
                embstore.fit(store, self.trainer, pairs, message="mixed")
        assert store.at() == version

    def test_a_store_is_read_without_running_code(self, tmp_path: Path) -> None:
        """Opening, reading every array and recommending unpickle nothing: a file can bring no code with it."""
        self._trained(tmp_path / "store")
        kind = type(self.trainer)
        command = [sys.executable, "-c", _READ_ALL, str(tmp_path / "store"), kind.__module__, kind.__name__]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "read\n", "")

    def test_slots_reset_is_what_an_export_without_slots_gives(self, tmp_path: Path) -> None:
        """Weights only, moments and steps from the beginning: both ways come to the same bits, and keeping them does not."""
        store, _ = self._trained()
        bare = store.export(tmp_path / "bare", slots=False)
        assert [name for name, spec in bare.at().tables.items() if spec.slots] == []
        users = store.at().ids("user").ids()
        served = [embstore.recommend(view, users, 5, trainer=self.trainer) for view in (store.at(), bare.at())]
        assert served[0].equals(served[1])
        one = replace(self.trainer, epochs=1)
        store.branch("kept")
        kept = embstore.fit(store, one, LATER, message="later", branch="kept")
        states = [_bits(embstore.fit(s, one, LATER, message="later", slots="reset")) for s in (store, bare)]
        assert states[0] == states[1] != _bits(kept)

    def _trained(self, url: Path | None = None) -> tuple[Store, Version]:
        store = new_store() if url is None else embstore.create(url, durability="none")
        return store, embstore.fit(store, self.trainer, self.pairs, message="fit")

    def _first_moves(self, version: Version, name: str) -> NDArray[Any]:
        """Return how far each number of the newcomer's row has moved."""
        new = NEWCOMER.user_ids[:1] if version.tables[name].entity == "user" else NEWCOMER.item_ids[:1]
        table = version.table(name)
        return np.abs(table.get(new) - table.initial(new)).ravel()


_READ_ALL = """
import importlib, pickle, sys
import embstore, pandas
from embstore.trainer import with_settings
kind = getattr(importlib.import_module(sys.argv[2]), sys.argv[3])
store = embstore.open(sys.argv[1])

def refuse(event, arguments):
    if event == "pickle.find_class":
        raise RuntimeError(event)

sys.addaudithook(refuse)
for name in ("load", "loads", "Unpickler", "_Unpickler"):
    setattr(pickle, name, None)
version = store.at()
for name, spec in version.tables.items():
    [column.values() for column in (version.table(name), *version.table(name).slots.values())]
[version.dense[name] for name in version.dense]
users = version.ids("user").ids()
version.consumed.of("user", users)
assert len(embstore.recommend(version, users, 3, trainer=with_settings(kind, version.lineage["settings"])))
assert store.verify(deep=True).ok
assert len(list(store.log())) == 2
print("read")
"""


def _columns(view: View) -> dict[str, dict[str, Any]]:
    """Return the values (under "") and slots of every table."""
    return {name: {"": view.table(name), **view.table(name).slots} for name in view.tables}


def _new_ids(view: View, entity: str) -> list[Any]:
    """Return ids that the view lacks; of a category one."""
    return NEW.get(entity, ["new"] if view.ids(entity).id_type == "str" else [1000])


def _is_float(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f"


def _files(folder: Path) -> dict[str, str]:
    """Return a digest of every file that holds data; refs and the lock are there to be changed."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and "chunks" in path.parts]
    assert len(paths) > 0
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _bits(view: View) -> dict[str, Any]:
    """Return the bits of every table, slot and array."""
    bits: dict[str, Any] = {name: view.dense[name].tobytes() for name in view.dense}
    for name, columns in _columns(view).items():
        bits |= {f"{name} {column}": rows.values().tobytes() for column, rows in columns.items()}
    return bits
