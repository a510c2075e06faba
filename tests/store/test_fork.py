"""After fork() every handle says so at once, where the engine would hang; spawned processes work."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest

import embstore
from embstore import Schema, Store
from embstore.errors import ForkedError

FORKED, WORKED, OTHER, HUNG = 7, 0, 9, -1
_PATIENCE_SECONDS = 20
FORK_FIRST = """
import os, sys, warnings, embstore
from embstore import Schema
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of fork with threads
child = os.fork()
if child == 0:
    store = embstore.create(sys.argv[1], schema=Schema(entities={"user": "str"}))
    with store.checkout() as work:
        work.append("user", ["a"])
        work.commit("x")
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(embstore.open(sys.argv[1]).at().entities)
"""


def in_child(act: Callable[[], object]) -> int:
    """Run ``act`` in a forked child; return how it ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of fork with threads
        child = os.fork()
    if child == 0:
        code = OTHER
        try:
            act()
            code = WORKED
        except ForkedError:
            code = FORKED
        finally:
            os._exit(code)
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return HUNG


@pytest.fixture
def on_disk(tmp_path: Path, schema: Schema) -> Store:
    """Return a store in a folder."""
    store = embstore.create(tmp_path / "s", schema=schema, durability="none")
    with store.checkout() as work:
        work.append("user", [1, 2])
        work.append("item", ["a"])
        work.consumed.append([0, 1], [0, 0])
        work.dense["w"] = np.ones(1000)
        work.commit("first")
    return store


def _acts(store: Store) -> dict[str, Callable[[], object]]:
    version, work, fresh = store.at(), store.checkout(), store.at()
    table, idmap, consumed, dense = version.table("user"), version.ids("user"), version.consumed, version.dense
    assert (len(table.values()), idmap.rows([1]).tolist(), len(consumed.of("user", [1]))) == (2, [0], 1)
    work.append("user", [3])
    packed, url = pickle.dumps(version), str(store.url)
    return {
        "branches": store.branches,
        "at": store.at,
        "log": lambda: list(store.log()),
        "checkout": store.checkout,
        "diff": lambda: store.diff("main~1"),
        "verify": store.verify,
        "tag": lambda: store.tag("t"),
        "revert": lambda: store.revert("main~1"),
        "a new table of an old version": lambda: version.table("item").values(),
        "a version not read before": lambda: fresh.entities,
        "values": table.values,
        "get": lambda: table.get([1]),
        "gather": lambda: table.gather([0]),
        "slot": lambda: table.slot("m").values(),
        "rows": lambda: idmap.rows([1]),
        "ids": lambda: idmap.ids(),
        "consumed": lambda: version.consumed.of("item", ["a"]),
        "dense": lambda: dense["w"],
        "append": lambda: work.append("user", [4]),
        "commit": lambda: work.commit("x"),
        "open": lambda: embstore.open(url).at(),
        "create": lambda: embstore.create(f"{url}-new"),
        "create in memory": lambda: embstore.create("memory://in-a-child"),
        "unpickle": lambda: pickle.loads(packed).entities,
        "export": lambda: store.export(f"{url}-export"),
        "pin": lambda: fresh.pin().__enter__(),
        "gc": lambda: store.gc("0s"),
        "expire": lambda: store.expire("0s"),
    }


def test_every_handle_says_that_it_was_forked(on_disk: Store) -> None:
    """No call in the child hangs or fails otherwise, and the parent goes on as if nothing had been."""
    acts = _acts(on_disk)
    assert {name: in_child(act) for name, act in acts.items()} == dict.fromkeys(acts, FORKED)
    assert on_disk.verify().problems == []
    with on_disk.checkout() as work:
        work.append("user", [3])
        work.commit("goes on")


def test_memory_says_it_too(filled: Store) -> None:
    """A store in memory is no better off in the child."""
    version = filled.at()
    version.table("user").values()
    assert in_child(lambda: version.table("user").values()) == FORKED
    assert in_child(filled.branches) == FORKED


def test_leaving_a_block_in_the_child_hides_no_error(on_disk: Store) -> None:
    """The error of the child's own work goes on through a with-block that was forked into."""

    def leave() -> None:
        with on_disk.checkout() as work:
            work.append("user", [9])

    assert in_child(leave) == FORKED
    work = on_disk.checkout()
    assert in_child(work.discard) in (WORKED, FORKED)
    work.discard()


def test_a_child_forked_before_any_store_works(tmp_path: Path) -> None:
    """Importing embstore is not using it: a pool that was forked before the first store is opened can open stores."""
    done = _run_alone(FORK_FIRST, tmp_path)
    assert (done.stdout, done.returncode) == ("{'user': 1}\n", 0), done.stderr


def test_a_child_forked_after_the_engine_was_imported(tmp_path: Path) -> None:
    """icechunk 1 starts its threads at the first request; icechunk 2 when it is imported, and then the child says so."""
    done = _run_alone("import embstore.store\n" + FORK_FIRST, tmp_path)
    if icechunk.__version__.startswith("1."):
        assert (done.stdout, done.returncode) == ("{'user': 1}\n", 0), done.stderr
    else:
        assert (done.stdout, "embstore.errors.ForkedError: process" in done.stderr) == ("", True), done.stderr


def _run_alone(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _work_elsewhere(job: tuple[str, Any, int]) -> tuple[int, int]:
    url, version, number = job
    with embstore.open(url).checkout() as work:
        work.append("user", [number])
        made = work.commit(f"job {number}", branch=f"job-{number}")
    return version.entities["user"], made.entities["user"]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_ways_to_start_processes_work(on_disk: Store, method: str) -> None:
    """Spawned processes and those of a fork server open the store, read versions and commit."""
    with multiprocessing.get_context(method).Pool(2) as pool:
        done = pool.map(_work_elsewhere, [(on_disk.url, on_disk.at(), 10 + n) for n in range(2)])
    assert (done, sorted(on_disk.branches())) == ([(2, 3), (2, 3)], ["job-10", "job-11", "main"])
