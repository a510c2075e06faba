"""A diff of as many changed rows, in a small and in a large table: does it cost what changed, or what there is?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

import embstore
from tools.bench.figures import Cell, Figure, Grid, Result, Settings
from tools.bench.made import random_vectors, stage, user_store
from tools.bench.timing import Stopwatch, note, settle
from tools.bench.workload import Ids, assert_equal

SIZES = (100_000, 4_000_000)
N_CHANGED = 20_000
N_NEW = 1_000
TIMES = 5
PARTS = ("diff", "drift", "open and diff")
SETTLED_BYTES = 200_000_000
T = TypeVar("T")


@dataclass(frozen=True)
class Compared:
    """A store whose last commit changed some ids and appended others."""

    n_rows: int
    folder: Path
    changed: Ids
    appended: Ids
    watch: Stopwatch = field(default_factory=Stopwatch)


def run(settings: Settings) -> Result:
    """Measure listing the changed and new ids, and then how far the rows have moved."""
    compared = [_made(settings.folder / str(n), settings.rows(n), settings) for n in SIZES]
    for i in range(1 + TIMES):
        for one in compared:
            _measure(one, one.watch if i else Stopwatch())
    n_changed, n_new = len(compared[0].changed), len(compared[0].appended)
    title = f"diff: one commit that changed {n_changed:,} rows x 64 with two slots and appended {n_new:,}"
    lines: list[list[Cell]] = [[f"{one.n_rows:,}", *(one.watch.cell(part) for part in PARTS)] for one in compared]
    return Result(title, _figures(compared), [Grid("median (minimum), s", ["rows", *PARTS], lines)])


def _made(folder: Path, n_rows: int, settings: Settings) -> Compared:
    note(f"diff: {n_rows:,} rows")
    rng = np.random.default_rng(7)
    n_changed, n_new = settings.rows(N_CHANGED), settings.rows(N_NEW)
    ids = rng.permutation(n_rows + n_new)
    rows = np.sort(rng.choice(n_rows, n_changed, replace=False))
    store = user_store(folder, ids[:n_rows])
    with store.checkout() as work:
        stage(work, rows, ids[n_rows:], random_vectors(rng, n_changed + n_new))
        work.commit("a day")
    return Compared(n_rows, folder, ids[rows], ids[n_rows:])


def _measure(one: Compared, watch: Stopwatch) -> None:
    store = embstore.open(one.folder)
    diff = _timed("diff", watch, lambda: _listed(store))
    found = diff.tables["user"].changed_ids, diff.ids["user"].appended
    assert_equal(found[0], one.changed, "diff: changed ids")
    assert_equal(found[1], one.appended, "diff: appended ids")
    _timed("drift", watch, diff.to_dict)
    _timed("open and diff", watch, lambda: _listed(embstore.open(one.folder)))


def _listed(store: embstore.Store) -> embstore.Diff:
    diff = store.diff("main~1")
    assert len(diff.tables["user"].changed_ids) + len(diff.ids["user"].appended)
    return diff


def _timed(name: str, watch: Stopwatch, task: Callable[[], T]) -> T:
    settle(SETTLED_BYTES)
    with watch.time(name):
        return task()


def _figures(compared: Sequence[Compared]) -> list[Figure]:
    small, large = compared[0].watch, compared[-1].watch
    return [
        Figure("diff of the large / of the small table, median", large.median("diff") / small.median("diff"), "x", 2.5),
        Figure("diff of the large / of the small table, minimum", large.best("diff") / small.best("diff"), "x"),
        Figure("drift of the large / of the small table, median", large.median("drift") / small.median("drift"), "x"),
    ]
