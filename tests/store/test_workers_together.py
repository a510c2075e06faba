"""Workers in other processes, and whatever they stage: the version is that of one process."""

from __future__ import annotations

import multiprocessing
import uuid
from pathlib import Path

from hypothesis import given, strategies as st

import embstore
from embstore import Checkout, Schema, SlotSpec, TableSpec, Worker
from tests.store.views import same, sent

edits = st.lists(st.tuples(st.sampled_from(["values", "m", "n"]), st.integers(0, 5), st.integers(-3, 3)), max_size=12)


@given(before=edits, parts=st.lists(edits, min_size=1, max_size=3))
def test_workers_equal_one_process(before: list[tuple[str, int, int]], parts: list[list[tuple[str, int, int]]]) -> None:
    """Whatever was staged before, and by whichever worker: the version is that of one process, and as many bytes."""
    schema = Schema((TableSpec("t", "user", 2, slots=(SlotSpec("m", 2), SlotSpec("n", None, fill=0.5))),), {"user": "int64"})
    made = []
    for forked in (False, True):
        store = embstore.create(f"memory://{uuid.uuid4()}", schema=schema)
        with store.checkout() as work:
            work.append("user", range(3))
            work.commit("three")
            work.append("user", range(3, 6))
            _apply(work, before)
            workers = [sent(work.fork()) if forked else work for _ in parts]
            for number, part in enumerate(parts):  # rows of each by its number, so that no two meet
                _apply(workers[number], [edit for edit in part if edit[1] % len(parts) == number])
            if forked:
                work.collect(map(sent, workers))  # type: ignore[arg-type]
            made.append(work.commit("all", allow_empty=True))
    same(*made)
    assert made[0].lineage["bytes"] == made[1].lineage["bytes"]
    assert made[0].lineage["counts"] == made[1].lineage["counts"]


def _apply(work: Checkout | Worker, wanted: list[tuple[str, int, int]]) -> None:
    for column, row, number in wanted:
        table = work.table("t")
        part = table if column == "values" else table.slot(column)
        part.scatter([row], [number] if column == "n" else [[number, 0]])


def _double(worker: Worker, ids: list[int]) -> Worker:
    table, rows = worker.table("user"), worker.ids("user").rows(ids)
    table.scatter(rows, table.gather(rows) * 2)
    return worker


def test_processes(tmp_path: Path, schema: Schema) -> None:
    """Spawned processes stage their rows, old and new ones, and one version comes out."""
    store = embstore.create(tmp_path / "s", schema=schema, durability="none")
    with store.checkout() as work:
        work.append("user", range(50))
        work.commit("fifty")
        work.append("user", range(50, 60))
        before = work.table("user").values()
        shares = [list(range(0, 60, 2)), list(range(1, 60, 2))]
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            work.collect(pool.starmap(_double, [(work.fork(), share) for share in shares]))
        version = work.commit("doubled")
    assert version.table("user").values().tobytes() == (before * 2).tobytes()
    assert [v.message for v in store.log()][:2] == ["doubled", "fifty"]
