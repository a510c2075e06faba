"""Very many very small commits: what does a version cost?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import embstore
from tools.bench.figures import Figure, Result, Settings
from tools.bench.timing import Stopwatch, folder_bytes, note

N_COMMITS = 200
BACK = 150
TIMES = 5
DIM = 16


def run(settings: Settings) -> Result:
    """Commit a few rows many times; then look back."""
    folder = settings.folder / "small"
    watch = Stopwatch()
    note(f"small: {N_COMMITS} commits")
    _commits(folder, watch)
    for _ in range(TIMES):
        _look_back(folder, watch)
    seconds = watch.seconds["commit"]
    labels = {
        "log": f"log of all {N_COMMITS} versions",
        "back": f"main~{BACK}",
        "blame": "blame of an id that ten versions changed",
    }
    figures = [
        Figure("a commit, median", watch.median("commit"), "s"),
        Figure(
            "a commit, median of the last 20 / of the first 20", float(np.median(seconds[-20:]) / np.median(seconds[:20])), "x"
        ),
        Figure("a version on the disk", folder_bytes(folder) / N_COMMITS / 1e3, "kB"),
        *(Figure(f"{label}, median of {TIMES}", watch.median(name), "s") for name, label in labels.items()),
    ]
    return Result(f"small: {N_COMMITS} commits, each of one new user, one new item and one changed row", figures)


def _commits(folder: Path, watch: Stopwatch) -> None:
    tables = tuple(embstore.TableSpec(name, name, DIM) for name in ("user", "item"))
    store = embstore.create(folder, schema=embstore.Schema(tables), durability="none")
    for number in range(N_COMMITS):
        with watch.time("commit"), store.checkout() as work:
            users = work.append("user", [number])
            work.append("item", [number])
            # Every twentieth commit changes user 0 again, the others the user that they add.
            changed = users if number % 20 else work.ids("user").rows([0])
            work.table("user").scatter(changed, np.full((1, DIM), number, np.float32))
            work.commit(f"commit {number}")


def _look_back(folder: Path, watch: Stopwatch) -> None:
    _timed(folder, "log", watch, lambda store: _check(len(list(store.log())), N_COMMITS + 1))
    _timed(folder, "back", watch, lambda store: _check(store.at(f"main~{BACK}").entities["user"], N_COMMITS - BACK))
    _timed(folder, "blame", watch, lambda store: _check(len(store.blame("user", 0)), N_COMMITS // 20))


def _timed(folder: Path, name: str, watch: Stopwatch, task: Callable[[embstore.Store], None]) -> None:
    store = embstore.open(folder)
    with watch.time(name):
        task(store)


def _check(found: int, wanted: int) -> None:
    if found != wanted:
        msg = f"{found} in place of {wanted}"
        raise AssertionError(msg)
