"""What a commit costs in bytes: what was new and changed, and little else, however much is there already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import zarr

import embstore
from embstore import Checkout, Schema, SlotSpec, Store, TableSpec, Version
from tests.store.agreement import as_read

DIM = 64
ROW_BYTES = 3 * 4 * DIM + 8  # values and two slots, and the id
TABLE = TableSpec("user", "user", DIM, slots=(SlotSpec("exp_avg", DIM), SlotSpec("exp_avg_sq", DIM)))
COLUMNS = ("values", "exp_avg", "exp_avg_sq")


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _column(view: Any, name: str) -> Any:
    return view.table("user") if name == "values" else view.table("user").slot(name)


def _rows(rng: np.random.Generator, n: int) -> Any:
    return rng.standard_normal((n, DIM), dtype=np.float32)


def _grown(place: Path, n: int) -> tuple[Store, Checkout, np.random.Generator]:
    """Return a store with ``n`` users whose values and slots are all written."""
    store = embstore.create(place, schema=Schema((TABLE,)), durability="none")
    work, rng = store.checkout(), np.random.default_rng(0)
    rows = work.append("user", rng.permutation(n) * 3)
    for name in COLUMNS:
        _column(work, name).scatter(rows, _rows(rng, n))
    work.commit("all of them")
    return store, work, rng


def _append(work: Checkout, rng: np.random.Generator, ids: Any) -> None:
    rows = work.append("user", ids)
    for name in COLUMNS:
        _column(work, name).scatter(rows, _rows(rng, len(rows)))


def _kept(version: Version, expected: dict[str, Any]) -> bool:
    return {name: as_read(_column(version, name).values()[: len(rows)]) for name, rows in expected.items()} == {
        name: as_read(rows) for name, rows in expected.items()
    }


def test_appending_costs_what_is_appended(tmp_path: Path) -> None:
    """10,000 new rows beside 100,000: at most 1.15 of their bytes, each of three times; old rows keep their bits."""
    store, work, rng = _grown(tmp_path / "s", 100_000)
    expected = {name: _column(store.at(), name).values() for name in COLUMNS}
    for day in range(3):
        before = _bytes_of(tmp_path / "s")
        _append(work, rng, np.arange(10_000) * 3 + 1 + 300_000 * day)
        version = work.commit(f"day {day}")
        written = _bytes_of(tmp_path / "s") - before
        assert 10_000 * ROW_BYTES <= written <= 1.15 * 10_000 * ROW_BYTES
        assert 10_000 * ROW_BYTES <= version.lineage["bytes"] <= written
        assert _kept(version, expected)
    assert store.verify().problems == []


def test_updating_costs_what_is_updated(tmp_path: Path) -> None:
    """A random twentieth of 200,000 rows with their slots: at most 1.1 of their bytes."""
    store, work, rng = _grown(tmp_path / "s", 200_000)
    some = rng.choice(200_000, 10_000, replace=False)
    expected = {name: _column(store.at(), name).values() for name in COLUMNS}
    for name in COLUMNS:
        expected[name][some] = _rows(rng, 10_000)
        _column(work, name).scatter(some, expected[name][some])
    before = _bytes_of(tmp_path / "s")
    version = work.commit("a twentieth")
    assert 10_000 * 3 * 4 * DIM <= _bytes_of(tmp_path / "s") - before <= 1.1 * 10_000 * ROW_BYTES
    assert _kept(version, expected)
    diff = store.diff("main~1")
    assert sorted(diff.tables["user"].changed_rows.tolist()) == sorted(some.tolist())
    assert diff.slots["user"] == {"exp_avg": 10_000, "exp_avg_sq": 10_000}
    assert 10_000 * 3 * 4 * DIM <= diff.bytes_new <= 1.1 * 10_000 * ROW_BYTES
    assert diff.bytes_shared >= 200_000 * 3 * 4 * DIM


def test_a_small_table_takes_its_own_size(tmp_path: Path) -> None:
    """943 x 64 numbers take 241 KB and a little, not a whole chunk of 4 MiB."""
    store = embstore.create(tmp_path / "s", schema=Schema((TableSpec("user", "user", DIM),)), durability="none")
    before = _bytes_of(tmp_path / "s")
    work = store.checkout()
    work.append("user", range(943))
    work.commit("small")
    assert 943 * 4 * DIM <= _bytes_of(tmp_path / "s") - before <= 943 * 4 * DIM + 50_000


def test_small_commits_stay_small(tmp_path: Path) -> None:
    """One row of a large table, and one number without rows, cost kilobytes; forty of them too, merging included."""
    _, work, rng = _grown(tmp_path / "s", 20_000)
    start = _bytes_of(tmp_path / "s")
    for n in range(40):
        work.table("user").scatter([n], _rows(rng, 1))
        work.dense["step"] = n
        before = _bytes_of(tmp_path / "s")
        work.commit(f"{n}")
        assert _bytes_of(tmp_path / "s") - before < 40_000
    assert _bytes_of(tmp_path / "s") - start < 40 * 20_000


def test_appending_before_training(tmp_path: Path) -> None:
    """Ids may be appended long before their rows are trained: old rows and slots keep their bits, new slots their fill."""
    store, work, _ = _grown(tmp_path / "s", 5_000)
    expected = {name: _column(store.at(), name).values() for name in COLUMNS}
    rows = work.append("user", np.arange(1_000) * 3 + 1)
    for view in (work, work.commit("appended"), store.at()):
        assert _kept(view, expected)  # type: ignore[arg-type]
        assert as_read(view.table("user").gather(rows)) == as_read(view.table("user").initial(np.arange(1_000) * 3 + 1))
        for name in COLUMNS[1:]:
            assert not _column(view, name).gather(rows).any()


def test_plain_zarr_reads_the_arrays(tmp_path: Path) -> None:
    """Any Zarr reader opens every array of a version, with names for its dimensions and its checksums; an export is whole."""
    store, work, rng = _grown(tmp_path / "s", 3_000)
    work.table("user").scatter([5, 7], _rows(rng, 2))
    work.dense["w"], work.dense["scalar"], work.dense["flag"] = rng.random((3, 4)), 2.5, np.array([True, False])
    work.commit("some")
    store.export(tmp_path / "export")
    version = store.at()
    for place in (tmp_path / "s", tmp_path / "export"):
        session = icechunk.Repository.open(icechunk.local_filesystem_storage(str(place))).readonly_session("main")
        group = zarr.open_group(session.store, mode="r")
        arrays = {path: node for path, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}
        for path, array in arrays.items():
            dimensions = getattr(array.metadata, "dimension_names", None)
            assert dimensions == ("row", "column")[: array.ndim], path
            assert np.asarray(array[...]).shape == array.shape
            assert "crc32c" in str(array.metadata.to_dict()["codecs"]), path
        assert as_read(group["dense/w"][...]) == as_read(version.dense["w"])  # type: ignore[index]
        assert (float(group["dense/scalar"][()]), group["dense/flag"][...].tolist()) == (2.5, [True, False])  # type: ignore[index,union-attr,arg-type]
        assert group["entities/user/ids/values"][...].tolist() == version.ids("user").ids().tolist()  # type: ignore[index,union-attr]
    whole = group["tables/user/base/values"][...]  # type: ignore[index]
    assert as_read(whole) == as_read(version.table("user").values())
