"""Collecting garbage where something is wrong: nothing that is needed goes, whoever is killed and whatever is damaged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import embstore
from embstore import DamagedStoreError
from embstore.collection import leftovers
from tests.store.collecting import abandon, files, three_days

ROOT = Path(__file__).resolve().parents[2]


def test_a_collector_that_is_killed(tmp_path: Path) -> None:
    """Killed at random moments while it expires and collects, it leaves a whole store, and the next one goes on."""
    script = """
import sys, embstore
store = embstore.open(sys.argv[1])
print("begun", flush=True)
for day in range(1000):
    with store.checkout() as work:
        work.dense["n"] = [float(day)] * 500
        work.commit("again")
    store.expire("0s", dry_run=False)
    store.gc("0s", dry_run=False)
"""
    place = three_days(tmp_path / "s")
    users = embstore.open(place).at().ids("user").ids().tolist()
    rng = np.random.default_rng(5)
    for _ in range(3):
        collector = subprocess.Popen(
            [sys.executable, "-c", script, str(place)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert collector.stdout is not None
        assert "begun\n" == collector.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.5))
        collector.kill()
        collector.communicate()
        store = embstore.open(place)
        assert [] == [problem for version in store.log() for problem in store.verify(version.id).problems]
        assert users == store.at().ids("user").ids().tolist()
        assert {"main"} == store.branches().keys()
    store.expire("0s", dry_run=False)
    store.gc("0s", dry_run=False)
    assert (1, []) == (len(list(store.log())), [path.name for path in place.iterdir() if path.name.startswith(".")])
    assert 0 == sum(leftovers(store.at().repo).values())


@pytest.mark.parametrize(
    ("kind", "how"),
    [("snapshots", "gone"), ("snapshots", "another's"), ("manifests", "empty"), ("manifests", "another's"), ("chunks", "gone")],
)
def test_nothing_is_collected_from_a_damaged_store(tmp_path: Path, kind: str, how: str) -> None:
    """Where a version that stays is not whole, a dry run says so and nothing is deleted: what it lost may come back."""
    place = three_days(tmp_path / "s")
    abandon(embstore.open(place))
    needed = sorted(_needed(place, kind))
    victim, other = place / needed[0], place / needed[1]
    whole = victim.read_bytes()
    if how == "gone":
        victim.unlink()
    else:
        victim.write_bytes(b"" if how == "empty" else other.read_bytes())
    before = files(place)
    broken = embstore.open(place)
    with suppress(DamagedStoreError):  # where not even the log can be followed
        assert not broken.gc("0s").ok
    with pytest.raises(DamagedStoreError):
        broken.gc("0s", dry_run=False)
    assert before == files(place)
    victim.write_bytes(whole)
    assert 1 == embstore.open(place).gc("0s", dry_run=False).counts["snapshots"]
    assert [] == embstore.open(place).verify().problems


def _needed(place: Path, kind: str) -> set[str]:
    """Return the files of a kind that collecting leaves."""
    copy = place.parent / "copy"
    subprocess.run(["cp", "-r", str(place), str(copy)], check=True)
    embstore.open(copy).gc("0s", dry_run=False)
    return {name for name in files(copy) if name.startswith(f"{kind}/")} - {"snapshots/1CECHNKREP0F1RSTCMT0"}


WRITES = """
import sys
import embstore
store, first, made = embstore.open(sys.argv[1]), int(sys.argv[2]), 0
while made < int(sys.argv[3]):
    with store.checkout() as work:
        rows = work.append("user", [first + made])
        work.table("user").scatter(rows, [[float(first + made)] * 4])
        work.commit("one more")
    made += 1
"""
READS = """
import random, sys, time
import embstore
from embstore.errors import UnknownRefError
store, until, n_read = embstore.open(sys.argv[1]), time.monotonic() + 60, 0
while n_read < int(sys.argv[3]) and time.monotonic() < until:
    version = random.choice(list(embstore.open(sys.argv[1]).log())[:4])
    try:
        with version.pin():
            time.sleep(random.random() / 20)
            users = version.ids("user").ids()
            numbers = version.table("user").get(users[users >= 1000])
            assert (numbers[:, 0] == users[users >= 1000]).all()
            n_read += 1
    except UnknownRefError as error:
        assert "is expired" in str(error)
"""


def test_writers_and_readers_beside_a_collector(tmp_path: Path) -> None:
    """While processes commit and read what they have pinned, all that is old is forgotten over and over: nobody notices."""
    place, n = three_days(tmp_path / "s"), 12
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    others = [
        subprocess.Popen([sys.executable, "-c", script, str(place), str(first), str(n)], env=environment)
        for script, first in ((WRITES, 1000), (WRITES, 2000), (READS, 0))
    ]
    freed = 0
    while any(one.poll() is None for one in others):
        store = embstore.open(place)
        store.expire("0s", dry_run=False)
        freed += store.gc("0s", dry_run=False).counts["snapshots"]
    assert [0, 0, 0] == [one.wait() for one in others]
    version = embstore.open(place).at()
    new = [first + made for first in (1000, 2000) for made in range(n)]
    assert (set(), True) == (set(new) - set(version.ids("user").ids().tolist()), freed > 0)
    assert new == version.table("user").get(new)[:, 0].tolist()
    assert [] == embstore.open(place).verify(deep=True).problems
