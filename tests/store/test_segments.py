"""Columns of one kind in one array of a segment: what is written is read again, and a small commit makes few objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import embstore
from embstore import Schema, SlotSpec, Store, TableSpec

SLOTS = (SlotSpec("m", 64), SlotSpec("v", 64), SlotSpec("half", 64, "float16"), SlotSpec("step", None, "int64"))
WIDE = TableSpec("wide", "user", 64, slots=SLOTS)
NARROW = TableSpec("narrow", "user", None, "float64", slots=(SlotSpec("m", None, "float64"), SlotSpec("v", None, "float64")))


def numbers(spec: TableSpec | SlotSpec, n: int, seed: int) -> NDArray[Any]:
    """Return rows of a column."""
    rng = np.random.default_rng(seed)
    return rng.integers(-9, 9, n if spec.dim is None else (n, spec.dim)).astype(spec.dtype)


def made(url: str | Path, n_users: int) -> Store:
    """Return a store whose base has users 0, 1, 2, …"""
    store = embstore.create(url, schema=Schema((WIDE, NARROW)), durability="none")
    with store.checkout() as work:
        work.append("user", np.arange(n_users))
        work.commit("base")
    return store


def scatter(work: embstore.Checkout, rows: NDArray[np.int64], seed: int) -> dict[tuple[str, str], NDArray[Any]]:
    """Give every column of these rows other numbers, and return them."""
    found = {}
    for spec in (WIDE, NARROW):
        for part in (spec, *spec.slots):
            found[spec.name, "" if part is spec else part.name] = numbers(part, len(rows), seed + len(found))
    for (table, slot), values in found.items():
        target = work.table(table).slot(slot) if slot else work.table(table)
        target.scatter(rows, values)
    return found


def column(view: embstore.View, table: str, slot: str) -> Any:
    """Return a table's values or a slot."""
    return view.table(table).slot(slot) if slot else view.table(table)


@pytest.mark.parametrize("n_changed", [1, 5_461, 5_462, 16_385, 21_003])
def test_segments_of_any_size(url: str, n_changed: int) -> None:
    """Columns that share a chunk, that each have one, and that have several with room between them."""
    store = made(url, 60_000)
    rows = np.sort(np.random.default_rng(n_changed).permutation(60_000)[:n_changed])
    with store.checkout() as work:
        wanted = scatter(work, rows, seed=1)
        version = work.commit("changed")
    rest = np.setdiff1d(np.arange(60_000), rows)
    some = np.random.default_rng(2).integers(0, n_changed, 50)
    for (table, slot), values in wanted.items():
        stored = column(version, table, slot)
        assert np.array_equal(stored.values()[rows], values), (table, slot)
        assert np.array_equal(stored.gather(rows[some]), values[some]), (table, slot)
        assert np.array_equal(stored.values()[rest], column(store.at("main~1"), table, slot).values()[rest]), (table, slot)
    assert store.verify(deep=True).problems == []


def test_narrow_columns_larger_than_a_chunk(url: str) -> None:
    """Their array has a checksum of the whole, the room between them included."""
    store = made(url, 600_000)
    rows = np.arange(0, 600_000, 3)
    with store.checkout() as work:
        for slot in ("", "m", "v"):
            column(work, "narrow", slot).scatter(rows, numbers(NARROW, len(rows), seed=len(slot)))
        version = work.commit("changed")
    for slot in ("", "m", "v"):
        assert np.array_equal(column(version, "narrow", slot).values()[rows], numbers(NARROW, len(rows), seed=len(slot)))
    assert store.verify(deep=True).problems == []


def test_a_slot_that_goes_and_comes_again(url: str) -> None:
    """A column dropped from a segment leaves its neighbours where they are; one of its name and another kind is another."""
    store = made(url, 50)
    store.branch("before")
    with store.checkout() as work:
        work.table("wide").add_slot(SlotSpec("late", 64))
        wanted = scatter(work, np.arange(9), seed=3)
        work.table("wide").slot("late").scatter(np.arange(9), np.ones((9, 64)))
        with_late = work.commit("late")
    store.revert("before")
    with store.checkout() as work:
        work.table("wide").add_slot(SlotSpec("late", None, "int32", fill=7))
        again = scatter(work, np.arange(9), seed=3)
        version = work.commit("again")
    assert np.array_equal(with_late.table("wide").slot("late").gather([8, 9]), [[1] * 64, [0] * 64])
    assert np.array_equal(version.table("wide").slot("late").gather([8, 9]), [7, 7])
    for view, all_values in ((with_late, wanted), (version, again)):
        for (table, slot), values in all_values.items():
            assert np.array_equal(column(view, table, slot).gather(np.arange(9)), values), (table, slot)
    assert store.verify(deep=True).problems == []


def test_a_small_commit_makes_few_objects(tmp_path: Path) -> None:
    """New users with all their columns: a handful of chunks and manifests, not some for each column."""
    store = made(tmp_path / "store", 500)
    before = _counts(tmp_path / "store")
    with store.checkout() as work:
        scatter(work, work.append("user", [1_000]), seed=5)
        work.commit("one more")
    after = _counts(tmp_path / "store")
    # Ids, keys and rows of the index; of each table rows, digests where they are wide, and an array for each kind of column.
    assert after["manifests"] - before["manifests"] == 3 + 5 + 2
    assert after["chunks"] - before["chunks"] <= 3 + 5 + 2  # what is smallest lies in the manifests


def _counts(place: Path) -> dict[str, int]:
    return {kind: len(list((place / kind).iterdir())) for kind in ("chunks", "manifests")}
