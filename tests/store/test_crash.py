"""Writers killed at any moment: what was acknowledged is there, whole, and the next writer goes on at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.sizes import at_most

# Runs in a process of its own, which forks and never uses a store itself: that is cheaper than starting Python each time.
HEAD = """
import os, random, signal, sys, time
from importlib.metadata import version
import numpy as np
import embstore, google_crc32c, numcodecs.zstd, zarr
if version("icechunk").startswith("1."):  # the other starts threads when it is imported, and no child would have them
    import embstore.store, icechunk
from embstore import Schema, SlotSpec, TableSpec
from embstore.errors import EmbstoreError

place, kills = sys.argv[1], int(sys.argv[2])
SCHEMA = Schema((TableSpec("user", "user", 40, slots=(SlotSpec("n", None),)), TableSpec("item", "item", 4)))

def fork(act):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child

def finished(child, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0, "a child failed"
            return
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("a child hangs")

def killed(child, seconds, *, ready=lambda: True):
    until = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < until, "a writer does not begin"
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) in (-signal.SIGKILL, 0), "a writer failed"
"""
COMMITS = """
acknowledged = os.path.join(place, "acknowledged")

def stage(work):
    # What version n holds follows from n: users 0 to 5n, all at n, and records of each; every fifth removes its first user.
    n = int(work.dense["n"]) + 1
    first = 5 * (n - 1)
    rows = work.append("user", range(first, first + 5))
    items = work.append("item", [f"item {n}"])
    live = work.ids("user").live_rows()
    work.table("user").scatter(live, np.full((len(live), 40), n))
    work.table("user").slot("n").scatter(rows, np.full(5, n))
    work.consumed.append(rows, np.repeat(items, 5))
    if n % 5 == 0:
        work.remove("user", [first])
    work.dense["n"] = n
    return n

def write():
    store = embstore.open(place + "/s")
    work = store.checkout()
    with open(acknowledged, "a") as log:
        while True:
            n = stage(work)
            version = work.commit(f"version {n}")
            log.write(f"{n} {version.id}\\n")
            log.flush()
            if n % 7 == 0:
                store.compact()
                work = store.checkout()

def check():
    store = embstore.open(place + "/s")
    known = [line.split() for line in open(acknowledged)]
    tip = store.at()
    n = int(tip.dense["n"])
    last = int(known[-1][0]) if known else 0
    assert last <= n <= last + 1, (last, n)
    ids = {version.id for version in store.log()}
    assert {id_ for _, id_ in known} <= ids, "an acknowledged version is lost"
    assert store.verify(deep=True).problems == []
    gone = {5 * (k - 1) for k in range(5, n + 1, 5)}
    assert tip.ids("user").ids().tolist() == [k for k in range(5 * n) if k not in gone]
    assert set(np.unique(tip.table("user").get(tip.ids("user").ids()))) <= {n}
    assert len(tip.consumed) == 5 * n - len(gone)
    work = store.checkout()
    stage(work)
    began = time.monotonic()
    version = work.commit("by the checker")
    assert time.monotonic() - began < 10, "the lock was stuck"
    with open(acknowledged, "a") as log:
        log.write(f"{n + 1} {version.id}\\n")

def begin():
    with embstore.create(place + "/s", schema=SCHEMA).checkout() as work:
        work.dense["n"] = 0
        work.commit("version 0")

finished(fork(begin), 30)
random.seed(0)
open(acknowledged, "w").close()
for number in range(kills):
    # Somewhere in the first commit after so many; each line tells of one.
    wanted = len(open(acknowledged).readlines()) + number % 3
    killed(fork(write), random.uniform(0, 0.1), ready=lambda: len(open(acknowledged).readlines()) >= wanted)
    finished(fork(check), 30)
print("done")
"""
BESIDE = """
def stage(work, writer):
    # What turn n of a writer holds follows from n: users 0 to 2n of its own, all at n, and records of each.
    n = int(work.dense.get(writer, 0)) + 1
    rows = work.append("user", [f"{writer} {k}" for k in range(2 * n)])
    items = work.append("item", [f"item {n}", f"{writer} {n}"])
    work.table("user").scatter(rows, np.full((2 * n, 40), n))
    work.consumed.append(rows[-2:], items)
    work.dense[writer] = n
    return n

def acknowledged(writer):
    path = os.path.join(place, writer)
    return [line.split() for line in open(path)] if os.path.exists(path) else []

def write(writer):
    store = embstore.open(place + "/s")
    with open(os.path.join(place, writer), "a") as log:
        while True:
            work = store.checkout()
            n = stage(work, writer)
            log.write(f"{n} {work.commit(f'{writer} {n}').id}\\n")
            log.flush()

def more_of(writer, number):
    before, until = len(acknowledged(writer)), time.monotonic() + 20
    while len(acknowledged(writer)) < before + number:
        assert time.monotonic() < until, f"{writer} waits: the lock is stuck"
        time.sleep(0.005)

def check():
    store = embstore.open(place + "/s")
    tip, log = store.at(), list(store.log())
    assert [list(version.parents) for version in log] == [[version.id] for version in log[1:]] + [[]], "not one line"
    ids = [version.id for version in log]
    for writer in ("killed", "beside"):
        known = acknowledged(writer)
        assert {id_ for _, id_ in known} <= set(ids), "an acknowledged version is lost"
        n, last = int(tip.dense[writer]), int(known[-1][0])
        assert last <= n <= last + 1, (writer, last, n)
        users = [f"{writer} {k}" for k in range(2 * n)]
        assert set(np.unique(tip.table("user").get(users))) == {n}
        expected = [[f"{writer} {k // 2 + 1}" if k % 2 else f"item {k // 2 + 1}"] for k in range(2 * n)]
        assert [had.tolist() for had in tip.consumed.of("user", users)] == expected
    assert len(log) == 1 + sum(int(tip.dense[writer]) for writer in ("killed", "beside"))
    assert store.verify(deep=True).problems == []

finished(fork(lambda: embstore.create(place + "/s", schema=SCHEMA)), 30)
random.seed(2)
beside = fork(lambda: write("beside"))
for number in range(kills):
    wanted = len(acknowledged("killed")) + 1 + number % 2
    killed(fork(lambda: write("killed")), random.uniform(0, 0.15), ready=lambda: len(acknowledged("killed")) >= wanted)
    more_of("beside", 2)
killed(beside, 0)
finished(fork(check), 60)
print("done")
"""
CREATIONS = """
def make(url):
    import embstore.store
    open(url + ".begun", "w").close()
    embstore.create(url, schema=SCHEMA)

def make_or_open(url):
    try:
        store = embstore.open(url)
    except EmbstoreError:
        store = embstore.create(url, schema=SCHEMA)
    with store.checkout() as work:
        work.append("user", [1])
        work.commit("x")
    assert store.verify(deep=True).problems == []
    assert [version.message for version in store.log()] == ["x", "create the store"]

for number in range(kills):
    url = f"{place}/s{number}"
    killed(fork(lambda: make(url)), 0.06 * number / kills, ready=lambda: os.path.exists(url + ".begun"))
    finished(fork(lambda: make_or_open(url)), 30)
print("done")
"""
INTERRUPTS = """
def interrupt():
    store = embstore.create(place + "/s", schema=SCHEMA)
    work = store.checkout()
    work.append("user", range(3000))
    tip = store.branches()["main"]
    random.seed(1)
    stopped, committing = 0, False

    def alarm(*_):
        if committing:
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, alarm)
    for number in range(kills):
        work.table("user").scatter(np.arange(3000), np.full((3000, 40), number))
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.001, 0.06))
        try:
            committing = True
            tip = work.commit(f"{number}").id
            committing = False
        except KeyboardInterrupt:
            stopped += 1
        committing = False
        assert store.verify(deep=True).problems == []
        if store.branches()["main"] != tip:  # interrupted when it was done: the checkout stands before it
            tip, work = store.branches()["main"], store.checkout()
            assert store.at().message == str(number)
            if "user" not in work.entities or work.entities["user"] == 0:
                work.append("user", range(3000))
    assert stopped > kills / 12, stopped
    work.table("user").scatter(np.arange(3000), np.full((3000, 40), 77))
    assert np.unique(work.commit("last").table("user").values()).tolist() == [77]
    assert store.verify(deep=True).problems == []

finished(fork(interrupt), 100)
print("done")
"""


@pytest.mark.parametrize(
    ("script", "kills"),
    [
        pytest.param(COMMITS, 50, id="commits"),
        pytest.param(BESIDE, 5, id="beside another writer"),
        pytest.param(BESIDE, 50, id="beside another writer, often", marks=[pytest.mark.soak, pytest.mark.timeout(1000)]),
        pytest.param(CREATIONS, 25, id="creations"),
        pytest.param(INTERRUPTS, 30, id="interrupts"),
    ],
)
def test_killed_at_any_moment(tmp_path: Path, script: str, kills: int) -> None:
    """No acknowledged version is lost, the tip is whole, no lock is stuck; a store half made can be made again."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", HEAD + script, str(tmp_path), str(at_most(kills))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr[-3000:]
