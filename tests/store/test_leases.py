"""Leases: taken, renewed and given back, and judged right when their holder is no more."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import embstore
from embstore import DamagedStoreError, InvalidInputError, Schema, StorageError, Store, UnknownRefError
from embstore.storage.leases import TIME_TO_LIVE, Folder, Held, HiddenBranches, Lease, Place
from tests.store.conftest import SCHEMA

ROOT = Path(__file__).resolve().parents[2]
HOLDS = """
import sys, time
import embstore
store = embstore.open(sys.argv[1])
work = store.checkout()
pinned = store.at("main~1").pin()
pinned.__enter__()
print("held", flush=True)
{then}
"""


@pytest.fixture(params=["a folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, url: str) -> Store:
    """Return a store of two versions whose leases are files, and one whose are hidden branches."""
    store = embstore.create(tmp_path / "s" if request.param == "a folder" else url, schema=SCHEMA, durability="none")
    with store.checkout() as work:
        work.append("user", [1])
        work.commit("first")
    return store


def leases(store: Store) -> list[Lease]:
    """Return the leases that others see."""
    return store.at().repo.leases.all()


def until(holds: Callable[[], bool]) -> None:
    """Wait for what happens in the background."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_checkout_holds_one_until_it_is_closed(place: Store) -> None:
    """It has the version that the checkout began with, also after a commit, and who holds it; no branch is seen."""
    base = place.at().id
    work = place.checkout()
    (lease,) = leases(place)
    assert (base, "checkout of 'main'", os.getpid(), True) == (lease.version, lease.holder, lease.pid, lease.writes)
    assert lease.is_held(datetime.now(UTC) + timedelta(days=99))  # this process is still there
    assert {"main"} == place.branches().keys()
    work.append("user", [2])
    work.commit("second")
    assert [base] == [lease.version for lease in leases(place)]
    work.discard()
    assert [] == leases(place)


def test_every_way_out_gives_it_back(place: Store) -> None:
    """The end of a with-block, an exception, or nobody having the checkout any more."""
    with place.checkout():
        assert 1 == len(leases(place))
    assert [] == leases(place)
    with pytest.raises(ZeroDivisionError), place.checkout() as work:
        work.append("user", [5])
        raise ZeroDivisionError
    assert [] == leases(place)
    work = place.checkout()
    work.append("user", [6])
    del work
    gc.collect()
    until(lambda: leases(place) == [])


def test_a_pinned_version(place: Store) -> None:
    """A pin holds a lease that says that nothing is written; pins of one version are independent of each other."""
    version = place.at("main~1")
    with version.pin() as pinned, version.pin():
        assert pinned is version
        assert [(version.id, "reader", False)] * 2 == [(lease.version, lease.holder, lease.writes) for lease in leases(place)]
    assert [] == leases(place)


def test_what_is_expired(place: Store) -> None:
    """A version that nothing leads to any more can be pinned, and exported, until it is collected; through any handle."""
    version = place.at("main~1")
    place.expire("0s", dry_run=False)
    with version.pin():
        place.gc("0s", dry_run=False)
        assert (version.id, 0) == (
            place.export(f"{place.url}-copy", ref=version.id).at().lineage["exported_from"],
            len(version.dense),
        )
    place.gc("0s", dry_run=False)
    with pytest.raises(UnknownRefError, match="is expired and collected"), version.pin():
        pass
    assert [] == leases(place)


def test_reading_takes_no_lease(place: Store) -> None:
    """Versions, logs, diffs and look-ups hold nothing."""
    assert [1] == place.at().ids("user").ids().tolist()
    assert 2 == len(list(place.log()))
    assert 1 == len(place.diff("main~1").ids["user"].appended)
    assert [] == leases(place)


@pytest.mark.parametrize("kind", [Folder, HiddenBranches])
def test_places(tmp_path: Path, url: str, kind: type[Folder] | type[HiddenBranches]) -> None:
    """What is added is there until it is dropped; a renewal keeps all but its time; dropping twice does nothing."""
    store = embstore.create(url, schema=Schema())
    place: Place = Folder(tmp_path) if kind is Folder else HiddenBranches(store.at().repo.reopened)
    lease = Lease.begun(store.at().id, "a reader of 'x.y'", writes=False)
    other = replace(lease, name="0" * 32, since=lease.since - timedelta(days=1))
    place.add(lease)
    place.add(other)
    assert {lease, other} == {replace(one, renewed=lease.renewed) for one in place.all()}
    renewed = place.renew(place.renew(lease))
    found = {one.name: one for one in place.all()}
    assert (2, lease) == (len(found), replace(found[lease.name], renewed=lease.renewed))
    assert found[lease.name].renewed >= lease.renewed
    assert {"main"} == store.branches().keys()
    for one in (renewed, renewed, other):
        place.drop(one)
    assert [] == place.all()


def test_a_renewal_of_what_somebody_deleted(tmp_path: Path) -> None:
    """A lease whose file was deleted is written again."""
    (tmp_path / "s").mkdir()
    place = Folder(tmp_path / "s" / "leases")
    held = Held(place, Lease.begun("1" * 20, "reader", writes=False))
    for path in (tmp_path / "s" / "leases").iterdir():
        path.unlink()
    held.renew()
    assert ["1" * 20] == [lease.version for lease in place.all()]
    held.release()
    assert [] == place.all()


def test_who_is_held_to_be_there() -> None:
    """Of this machine, who runs; of others, who has renewed within a day, whatever clocks differ by."""
    now = datetime.now(UTC)
    mine = Lease.begun("1" * 20, "reader", writes=False)
    old = replace(mine, renewed=now - 99 * TIME_TO_LIVE)
    place, pid, start = mine.process.rsplit("/", 2)
    hour = timedelta(hours=1)
    assert sys.platform != "linux" or place
    assert old.is_held(now) == bool(mine.process)
    if mine.process:
        assert not replace(mine, process=f"{place}/{pid}/{int(start) + 1}").is_held(now)
        assert not replace(mine, process=f"{place}/{2**22 + 1}/{start}").is_held(now)
    for elsewhere in ("", "another-boot/pid:[1]/77/5"):
        others = replace(mine, process=elsewhere)
        assert replace(others, renewed=now - TIME_TO_LIVE + 2 * hour).is_held(now)
        assert replace(others, renewed=now + 2 * hour).is_held(now)
        assert not replace(others, renewed=now - TIME_TO_LIVE).is_held(now)


@pytest.mark.parametrize("then", ["time.sleep(60)", "sys.exit(3)", "work.discard()"])
def test_a_holder_that_ends(tmp_path: Path, then: str) -> None:
    """Who ends of his own will leaves none; the leases of one that is killed are of nobody at once."""
    store = embstore.create(tmp_path / "s", schema=SCHEMA, durability="none")
    with store.checkout() as work:
        work.append("user", [1])
        work.commit("first")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS.format(then=then), str(tmp_path / "s")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert "held\n" == holder.stdout.readline()
    if "sleep" in then:
        assert [True, True] == [lease.is_held(datetime.now(UTC)) for lease in leases(store)]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert [False, False] == [lease.is_held(datetime.now(UTC)) for lease in leases(store)]
    holder.communicate()
    assert (2 if "sleep" in then else 0) == len(leases(store))


def test_a_forked_child_gives_nothing_back(tmp_path: Path) -> None:
    """What the parent holds is the parent's, also when a child of it ends."""
    script = """
import os, sys
import embstore
store = embstore.open(sys.argv[1])
work = store.checkout()
if os.fork() == 0:
    work = None
    sys.exit()
os.wait()
print(len(os.listdir(sys.argv[1] + "/leases")))
"""
    embstore.create(tmp_path / "s", schema=Schema(), durability="none")
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "s")]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert ("1\n", 0) == (done.stdout, done.returncode), done.stderr
    assert [] == leases(embstore.open(tmp_path / "s"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": 1}', "null"])
def test_a_file_that_is_no_lease(tmp_path: Path, text: str) -> None:
    """Nothing is forgotten where it is not known who reads; a file that somebody is still writing is none yet."""
    store = embstore.create(tmp_path / "s", schema=Schema(), durability="none")
    with store.checkout():
        (tmp_path / "s" / "leases" / ".1").write_text("{")
        assert 1 == len(leases(store))
    (tmp_path / "s" / "leases" / "a.json").write_text(text)
    for verb in (store.expire, store.gc):
        for dry_run in (True, False):
            with pytest.raises(DamagedStoreError, match=r"a\.json: no lease"):
                verb("0s", dry_run=dry_run)
    with store.checkout() as work:
        work.add_entity("user")
        work.commit("goes on")


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    """Checkouts and pins work without a lease; what forgets is refused."""
    place = tmp_path / "s"
    store = embstore.create(place, schema=SCHEMA, durability="none")
    (place / "leases").write_text("in the way")  # as unwritable as a read-only disk, for whoever runs the tests
    with store.checkout() as work, store.at().pin() as version:
        work.append("user", [1])
        assert 0 == version.entities["user"]
        work.discard()
    lock = place / "embstore.lock"
    lock.unlink()
    lock.mkdir()
    for verb in (store.expire, store.gc):
        with pytest.raises(StorageError):
            verb("0s")


def test_many_threads(place: Store) -> None:
    """Leases of many threads at once are as many, and all come back."""
    counts: list[int] = []
    barrier = threading.Barrier(8)

    def hold() -> None:
        barrier.wait()
        for _ in range(5):
            with place.checkout(), place.at().pin():
                counts.append(len(leases(place)))
        barrier.wait()

    threads = [threading.Thread(target=hold) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (40, True, []) == (len(counts), max(counts) <= 16, leases(place))


def test_a_lease_is_a_file_that_people_can_read(tmp_path: Path) -> None:
    """It says who has which version open, on which machine, and since when."""
    store = embstore.create(tmp_path / "s", schema=Schema(), durability="none")
    with store.checkout():
        (path,) = (tmp_path / "s" / "leases").glob("*.json")
        data = json.loads(path.read_text(encoding="utf-8"))
    assert (path.stem, store.at().id, os.getpid()) == (data["name"], data["version"], data["pid"])
    assert abs(datetime.fromisoformat(data["since"]) - datetime.now(UTC)) < timedelta(minutes=5)


def test_names_that_are_the_stores_own(place: Store) -> None:
    """Nobody can make a branch that no list would show; any other name is free."""
    for name in ("kept." + "A" * 20, "expired." + "1" * 20, "lease." + "a" * 32 + ".x"):
        with pytest.raises(InvalidInputError, match="the store's own"):
            place.branch(name)
        with pytest.raises(InvalidInputError, match="the store's own"), place.checkout() as work:
            work.add_entity("thing")
            work.commit("x", branch=name)
    for name in ("kept", "lease.a", "expired.2026"):
        place.branch(name)
    assert {"main", "kept", "lease.a", "expired.2026"} == place.branches().keys()
