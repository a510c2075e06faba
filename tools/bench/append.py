"""Commits that only append: do bytes and time stay the same however large the table has grown?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import embstore
from tools.bench.figures import Cell, Figure, Grid, Result, Settings
from tools.bench.made import random_vectors, user_store
from tools.bench.peers import SLOTS
from tools.bench.timing import Stopwatch, folder_bytes, note, settle
from tools.bench.workload import ROW_BYTES, Floats, Ids, distinct_ids

SIZES = (100_000, 1_000_000, 4_000_000)
N_NEW = 10_000
TIMES = 5
PARTS = ("checkout", "append", "scatter", "commit", "whole")
SETTLED_BYTES = 200_000_000


@dataclass
class Grown:
    """A store that grows by equal commits: how long each took and how many bytes it wrote."""

    n_rows: int
    folder: Path
    store: embstore.Store
    new_ids: Iterator[Ids]
    watch: Stopwatch = field(default_factory=Stopwatch)
    written_bytes: list[int] = field(default_factory=list)


def run(settings: Settings) -> Result:
    """Measure ascending ids, which follow all earlier ones, and random ids, which fall between them."""
    n_new = settings.rows(N_NEW)
    results = [_measure(kind, settings, n_new) for kind in ("ascending", "random")]
    title = f"append: commits of {n_new:,} new rows x 64 with two slots"
    return Result(title, [f for _, figures in results for f in figures], [grid for grid, _ in results])


def _measure(kind: str, settings: Settings, n_new: int) -> tuple[Grid, list[Figure]]:
    grown = [_grown(settings.folder / f"{kind}-{n}", kind, settings.rows(n), n_new) for n in SIZES]
    for one in grown:
        _commit(one, Stopwatch())
    for _ in range(TIMES):
        for one in grown:
            _commit(one, one.watch)
    for one in grown:
        shutil.rmtree(one.folder)
    title = f"{kind} ids: median (minimum), s"
    return Grid(title, ["rows", *PARTS, "bytes / payload"], [_line(g, n_new) for g in grown]), _figures(kind, grown, n_new)


def _grown(folder: Path, kind: str, n_rows: int, n_new: int) -> Grown:
    note(f"append: {n_rows:,} rows, {kind} ids")
    n_all = n_rows + n_new * (1 + TIMES)
    ids = distinct_ids(np.random.default_rng(3), n_all) if kind == "random" else np.arange(n_all)
    return Grown(n_rows, folder, user_store(folder, ids[:n_rows]), iter(np.split(ids[n_rows:], 1 + TIMES)))


def _commit(one: Grown, watch: Stopwatch) -> None:
    ids = next(one.new_ids)
    vectors = random_vectors(np.random.default_rng(4), len(ids))
    before = folder_bytes(one.folder)
    settle(SETTLED_BYTES)
    with watch.time("whole"):
        _timed(one.store, ids, vectors, watch)
    one.written_bytes.append(folder_bytes(one.folder) - before)


def _timed(store: embstore.Store, ids: Ids, vectors: Sequence[Floats], watch: Stopwatch) -> None:
    with watch.time("checkout"):
        work = store.checkout()
    with watch.time("append"):
        rows = work.append("user", ids, init={"user": vectors[0]})
    with watch.time("scatter"):
        for slot, values in zip(SLOTS, vectors[1:], strict=True):
            work.table("user").slot(slot).scatter(rows, values)
    with watch.time("commit"):
        work.commit("more")


def _overhead(one: Grown, n_new: int) -> float:
    return max(one.written_bytes) / (n_new * ROW_BYTES)


def _line(one: Grown, n_new: int) -> list[Cell]:
    return [f"{one.n_rows:,}", *(one.watch.cell(part) for part in PARTS), _overhead(one, n_new)]


def _figures(kind: str, grown: Sequence[Grown], n_new: int) -> list[Figure]:
    first, last = grown[0].watch, grown[-1].watch
    return [
        Figure(f"{kind}: bytes / payload, most", max(_overhead(one, n_new) for one in grown), "x", 1.15),
        Figure(f"{kind}: time at most rows / at fewest, median", last.median("whole") / first.median("whole"), "x", 2.2),
        Figure(f"{kind}: time at most rows / at fewest, minimum", last.best("whole") / first.best("whole"), "x"),
    ]
