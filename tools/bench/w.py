"""Workload W: ten days of a daily retrain, with a store and its peers side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from tools.bench.figures import Cell, Figure, Grid, Result, Settings
from tools.bench.fresh import digest
from tools.bench.peers import LogPeer, Peer, StorePeer, TorchPeer
from tools.bench.timing import Stopwatch, folder_bytes, note, run_python, settle
from tools.bench.workload import Edit, Reference, assert_equal

STORE, SYNCED, TORCH, LOG = "embstore", "embstore, synced", "torch", "log"
# The name of each peer's kind in tools.bench.fresh.
KINDS = {STORE: "embstore", SYNCED: "embstore", TORCH: "torch", LOG: "log"}
TIMES_WARM = 5
TIMES_FRESH = 3
N_LOOKUPS = 10_000
_MOST_MEMORY = 1.3  # of the arrays: as much as any peer takes to restore them


@dataclass
class Runner:
    """One peer under way: its folder, its times, the bytes that its days wrote."""

    name: str
    folder: Path
    peer: Peer
    watch: Stopwatch = field(default_factory=Stopwatch)
    base_bytes: int = 0
    day_bytes: list[int] = field(default_factory=list)
    peak: float | None = None

    @property
    def disk_bytes(self) -> int:
        """Return what the base and all days take on the disk."""
        return self.base_bytes + sum(self.day_bytes)


def run(settings: Settings) -> Result:
    """Run the workload and return what came of it."""
    reference = Reference(settings)
    runners = _runners(settings.folder / "w")
    for runner in runners:
        note(f"w: base of {runner.name}")
        settle(reference.array_bytes)
        runner.peer.found(reference.state)
        runner.base_bytes = folder_bytes(runner.folder)
    payloads = [_day(day, reference, runners) for day in range(settings.days)]
    _restore(reference, runners)
    _lookup(reference, runners)
    _restore_fresh(reference, runners)
    _peaks(runners)
    result = _result(settings, reference, runners, sum(payloads))
    shutil.rmtree(settings.folder / "w")
    return result


def _runners(folder: Path) -> list[Runner]:
    folder.mkdir()
    makers: dict[str, Callable[[Path], Peer]] = {
        STORE: StorePeer,
        TORCH: TorchPeer,
        LOG: LogPeer,
        SYNCED: partial(StorePeer, durability="full"),
    }
    return [Runner(name, folder / str(i), make(folder / str(i))) for i, (name, make) in enumerate(makers.items())]


def _day(day: int, reference: Reference, runners: Sequence[Runner]) -> int:
    edits: list[Edit] = reference.next_day()
    for runner in _in_turn(runners, day):
        settle(reference.array_bytes)
        runner.day_bytes.append(runner.peer.day(edits, reference.state, runner.watch))
    note(f"w: day {day + 1}: " + ", ".join(f"{r.name} {r.watch.seconds['day'][-1]:.3f} s" for r in runners))
    return sum(edit.payload_bytes for edit in edits)


def _in_turn(runners: Sequence[Runner], turn: int) -> list[Runner]:
    """Return all of them, each time another one first."""
    first = turn % len(runners)
    return [*runners[first:], *runners[:first]]


def _restore(reference: Reference, runners: Sequence[Runner]) -> None:
    # The first reads what the system no longer has in memory.
    for turn, name in enumerate(("first restore", *["restore"] * TIMES_WARM)):
        for runner in _in_turn(runners, turn):
            settle(int(_MOST_MEMORY * reference.array_bytes))
            with runner.watch.time(name):
                state = runner.peer.restore()
            reference.check(state, who=runner.name)
            del state
    note("w: restored " + ", ".join(f"{r.name} {r.watch.cell('restore')} s" for r in runners))


def _lookup(reference: Reference, runners: Sequence[Runner]) -> None:
    for _ in range(TIMES_WARM):
        users, vectors = reference.sample(N_LOOKUPS)
        for runner in runners:
            settle(reference.array_bytes // 4)
            with runner.watch.time("lookup"):
                found = runner.peer.lookup(users)
            assert_equal(found, vectors, f"{runner.name}: looked up")


def _restore_fresh(reference: Reference, runners: Sequence[Runner]) -> None:
    wanted = digest(reference.state)
    for _ in range(TIMES_FRESH):
        for runner in runners:
            settle(reference.array_bytes)
            found = _fresh("restore", runner)
            assert_equal(np.array(found["digest"]), np.array(wanted), f"{runner.name}: restored in a fresh process")
            runner.watch.seconds.setdefault("fresh", []).append(found["seconds"])
    note("w: restored in fresh processes")


def _peaks(runners: Sequence[Runner]) -> None:
    """Measure the memory of restoring and storing; it comes last because it adds a version."""
    for runner in runners:
        found = _fresh("peak", runner)
        runner.peak = found["bytes"] / found["arrays"]


def _fresh(action: str, runner: Runner) -> dict[str, float]:
    out: dict[str, float] = json.loads(run_python("-m", "tools.bench.fresh", action, KINDS[runner.name], str(runner.folder)))
    return out


def _result(settings: Settings, reference: Reference, runners: Sequence[Runner], payload: int) -> Result:
    title = (
        f"w: {settings.days} days; {reference.array_bytes / 1e6:,.0f} MB of arrays at the end, "
        f"{payload / 1e6:,.0f} MB changed in all; no line but the synced ones waits for the disk"
    )
    return Result(title, _figures({r.name: r for r in runners}, payload), [_grid(runners, payload)])


def _grid(runners: Sequence[Runner], payload: int) -> Grid:
    times = {
        "day": "day",
        "  of it staging": "stage",
        "  of it the commit": "commit",
        "day and fsync": "day, synced",
        "restore, first": "first restore",
        "restore, warm": "restore",
        "restore, fresh process": "fresh",
        f"look up {N_LOOKUPS:,} users": "lookup",
        "open the store": "open",
    }
    rows: list[list[Cell]] = [[f"{label}, s", *(r.watch.cell(name) for r in runners)] for label, name in times.items()]
    rows += [
        ["MB written in all days", *(sum(r.day_bytes) / 1e6 for r in runners)],
        ["  over what changed", *(sum(r.day_bytes) / payload for r in runners)],
        ["  most in one day, MB", *(max(r.day_bytes) / 1e6 for r in runners)],
        ["MB on disk", *(r.disk_bytes / 1e6 for r in runners)],
        ["peak memory over arrays", *(r.peak for r in runners)],
    ]
    return Grid("median (minimum)", ["", *(r.name for r in runners)], rows)


def _figures(runners: dict[str, Runner], payload: int) -> list[Figure]:
    store, torch = runners[STORE], runners[TORCH]

    def ratios(label: str, name: str, goal: float | None, *, over: str | None = None) -> list[Figure]:
        ours, theirs = store.watch, torch.watch
        return [
            Figure(f"{label} / torch, median", ours.median(name) / theirs.median(over or name), "x", goal),
            Figure(f"{label} / torch, minimum", ours.best(name) / theirs.best(over or name), "x"),
        ]

    synced = runners[SYNCED].watch.median("day") / torch.watch.median("day, synced")
    assert store.peak is not None
    return [
        *ratios("day", "day", 0.25),
        *ratios("commit alone", "commit", None, over="day"),
        Figure("synced day / torch and fsync, median", synced, "x"),
        *ratios("restore warm", "restore", 2.0),
        *ratios("restore in a fresh process", "fresh", None),
        Figure("look-up, median", store.watch.median("lookup"), "s", 0.5),
        Figure("bytes written / changed", sum(store.day_bytes) / payload, "x", 1.2),
        Figure("disk / torch", store.disk_bytes / torch.disk_bytes, "x"),
        Figure("peak memory / arrays", store.peak, "x", 1.5),
    ]
