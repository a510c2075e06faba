"""Ranks of one job stage their own rows, and one version comes out, or none."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import embstore
from embstore import Schema, SlotSpec, Store, TableSpec
from embstore.distributed import Shard
from embstore.errors import (
    InvalidInputError,
    RefusedError,
    StaleCheckoutError,
    UncommittedError,
)
from tests.with_torch.ranks import Ranks
from tests.with_torch.sharded_job import SCHEMA, train
from tests.with_torch.shared_store import on_ranks, twelve


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store in a folder with twelve users."""
    return twelve(tmp_path)


# --- torchrun


def torchrun(n_ranks: int, *args: object) -> None:
    """Run the sharded job as its users do."""
    script = Path(__file__).with_name("sharded_job.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_ranks}", script, *args]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr


def test_torchrun_with_two_ranks_and_then_one(tmp_path: Path) -> None:
    """What two ranks had in memory is in the version, to the bit; one rank goes on from it; one process writes as much."""
    store = embstore.create(tmp_path / "ranks", schema=SCHEMA, durability="none")
    torchrun(2, tmp_path / "ranks", tmp_path, "two")
    _check_stored(store, tmp_path, "two", 2)
    torchrun(1, tmp_path / "ranks", tmp_path, "one")
    _check_stored(store, tmp_path, "one", 1)
    assert [(v.message, v.lineage.get("ranks")) for v in store.log()] == [("one", 1), ("two", 2), ("create the store", None)]
    alone = embstore.create(tmp_path / "alone", schema=SCHEMA, durability="none")
    torch.manual_seed(0)
    for message in ("two", "one"):
        train(alone, tmp_path, message)
    for ref in ("main", "main~1"):
        assert store.at(ref).lineage["bytes"] == pytest.approx(alone.at(ref).lineage["bytes"], rel=0.1)
    written, at_once = (sum(f.stat().st_size for f in (tmp_path / s).rglob("*")) for s in ("ranks", "alone"))
    assert written == pytest.approx(at_once, rel=0.1)
    np.testing.assert_allclose(store.at().table("user").values(), alone.at().table("user").values(), atol=1e-4)


def _check_stored(store: Store, folder: Path, message: str, n_ranks: int) -> None:
    version = store.at()
    for rank in range(n_ranks):
        kept = np.load(folder / f"{message}-{rank}.npz")
        assert len(kept["users"]) == 600 // n_ranks
        for name, ids in (("user", kept["users"]), ("item", version.ids("item").ids())):
            table = version.table(name)
            assert table.get(ids).tobytes() == kept[name].tobytes()
            for slot in ("exp_avg", "exp_avg_sq"):
                assert table.slot(slot).get(ids).tobytes() == kept[f"{name} {slot}"].tobytes()
            assert version.dense[f"optim.{name}.weight.step"] == kept[f"{name} step"]
        assert version.dense["model.top.weight"].tobytes() == kept["top"].tobytes()
    assert store.verify().ok


# --- what ranks see and give


def _see(shard: Shard) -> Any:
    view = [shard.ids(e).ids().tolist() for e in ("user", "item")], shard.table("user").values().tolist()
    record = [o.tolist() for o in shard.consumed.of("user", [2, 1])]
    return view, record, {name: (array.dtype.str, array.tolist()) for name, array in shard.dense.items()}, _stage(shard)


def _stage(shard: Shard) -> Any:
    ids = shard.ids_of_rank("user")
    table, rows = shard.table("user"), shard.ids("user").rows(ids)
    table.scatter(rows, np.full((len(rows), 4), 10.0 + shard.rank))
    table.slot("m").scatter(rows[:1], np.ones((1, 4)))
    shard.consumed.append(rows[:1], [0], times=[shard.rank])
    shard.dense["w"] = np.array([[3]], np.int16)
    shard.dense[f"rank.{shard.rank}"] = np.zeros((0, 2))
    if shard.rank == 1:
        del shard.dense["note"]
        shard.table("item").add_slot(SlotSpec("sum", None, fill=0.5)).scatter([1], [9.0])
    version = shard.commit("staged", metadata={"by": "ranks"})
    return version.id, ids.tolist(), shard.dirty, shard.table("user").values()[:, 0].tolist()


def test_every_rank_sees_and_gives(store: Store, ranks: Ranks) -> None:
    """What the checkout has staged is there on every rank; what all staged is in one version, from which all go on."""
    seen = ranks.run(3, on_ranks, store.url, _see)
    assert [one[:3] for one in seen] == [seen[0][:3]] * 3
    (users, items), values = seen[0][0]
    assert (users, items) == ([*range(11), 99], ["a", "ü €"])
    assert (values[0], values[11], values[12]) == ([5, 6, 7, 8], [0, 0, 0, 0], [1, 2, 3, 4])
    assert seen[0][1] == [["ü €"], ["a"]]
    assert seen[0][2] == {"note": ("<f4", 2.0), "w": ("<f8", [1.0])}
    version = store.at()
    assert [v.message for v in store.log()] == ["staged", "twelve", "create the store"]
    assert {one[3][0] for one in seen} == {version.id}
    assert [one[3][1] for one in seen] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 99]]
    assert [one[3][2:] for one in seen] == [(False, version.table("user").values()[:, 0].tolist())] * 3
    assert version.table("user").values()[:, 0].tolist() == [10, 10, 10, 10, 11, 11, 11, 11, 12, 12, 12, 0, 12]
    assert version.table("user").slot("m").values()[:, 0].tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]
    assert version.table("item").slot("sum").values().tolist() == [0.5, 9.0]
    assert {name: array.shape for name, array in version.dense.items()} == {"w": (1, 1)} | {f"rank.{r}": (0, 2) for r in range(3)}
    assert [o.tolist() for o in version.consumed.of("user", [0, 4, 8])] == [["a", "a"], ["a"], ["a"]]
    assert (version.metadata, version.lineage["ranks"], store.verify().ok) == ({"by": "ranks"}, 3, True)


# --- one process


def test_one_process_is_a_job_of_one_rank(store: Store) -> None:
    """The same script runs without torchrun."""
    with embstore.share(store, store.checkout()) as shard:
        assert (shard.rank, shard.n_ranks, len(shard.ids_of_rank("user"))) == (0, 1, 12)
        shard.table("user").scatter([0], np.ones((1, 4)))
        first = shard.commit("alone")
        shard.table("user").scatter([0], np.full((1, 4), 2.0))
        assert shard.commit("again").parent == first.id
        with pytest.raises(RefusedError, match="nothing is staged"):
            shard.commit("nothing")
    with pytest.raises(StaleCheckoutError):
        shard.commit("too late")


@pytest.mark.parametrize("timeout", [5, 1.5, None, "30m"])
def test_a_timeout_that_is_none(store: Store, timeout: Any) -> None:
    """It is refused on every rank before anything is sent, and the checkout stays open."""
    work = store.checkout()
    with pytest.raises(InvalidInputError, match=r"timeout .*: give a datetime.timedelta"):
        embstore.share(store, work, timeout=timeout)
    work.discard()


def test_leaving_with_staged_rows(store: Store) -> None:
    """Work that nobody committed is not forgotten in silence, unless an error is on its way."""
    with pytest.raises(UncommittedError, match="rank 0"), embstore.share(store, store.checkout()) as shard:
        shard.table("user").scatter([0], np.ones((1, 4)))
    with pytest.raises(ZeroDivisionError), embstore.share(store, store.checkout()) as shard:
        shard.table("user").scatter([0], np.full((1, 4), 1 / 0))


# --- memory

N_ROWS, DIM = 200_000, 64


def _peak(url: str) -> int:
    """Return the most bytes that this rank has held at once: arrays, and its module."""
    store = embstore.open(url)
    tracemalloc.start()
    try:
        with embstore.share(store, None if torch.distributed.get_rank() else store.checkout()) as shard:
            ids = shard.ids_of_rank("item")
            model = nn.ParameterDict({"item": nn.Parameter(torch.empty(len(ids), DIM))})
            binding = embstore.bind(shard, model, None, {"item": "item"})
            binding.restore({"item": ids})
            with torch.no_grad():
                model["item"][::20] += 1
            binding.stage()
            shard.commit("every twentieth row")
        return tracemalloc.get_traced_memory()[1] + model["item"].nbytes
    finally:
        tracemalloc.stop()


def test_no_rank_holds_the_whole_table(tmp_path: Path, ranks: Ranks) -> None:
    """Each of three ranks holds less than the table at any time, rank 0 too, which commits the rows that all have changed."""
    schema = Schema((TableSpec("item", "item", DIM),), {"item": "int64"})
    store = embstore.create(tmp_path / "s", schema=schema, durability="none")
    with store.checkout() as work:
        work.append("item", range(N_ROWS))
        work.commit("items")
    peaks = ranks.run(3, _peak, store.url)
    assert max(peaks) < N_ROWS * DIM * 4, peaks
    assert store.at().lineage["counts"]["tables"]["item"]["changed"] == pytest.approx(N_ROWS / 20, rel=0.01)
