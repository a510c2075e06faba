"""A full disk and a read-only one: refused with a word that helps, nothing lost, and the same checkout goes on.

Each test runs a script of its own in a private mount namespace, where a small file system is mounted.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import embstore
from embstore import Schema, Store, TableSpec

SCHEMA = Schema((TableSpec("user", "user", 64),))
HEAD = """
import os, sys
import numpy as np
import embstore
from embstore import Schema, TableSpec
from embstore.errors import StorageError

place = sys.argv[1]

def refused(act, *words):
    try:
        act()
    except StorageError as error:
        assert error.exit_code == 5
        assert any(word in str(error) for word in words), str(error)
        return
    raise AssertionError("not refused")

def whole(store, tip):
    for handle in (store, embstore.open(store.url)):
        assert handle.branches() == {"main": tip}, handle.branches()
        assert handle.verify(deep=True).problems == []
        values = handle.at().table("user").values()
        assert np.array_equal(values, np.repeat(np.arange(len(values), dtype=np.float32)[:, None], 64, axis=1))

def stage(work, n):
    first = len(work.ids("user"))
    numbers = np.arange(first, first + n)
    work.append("user", numbers, init={"user": np.repeat(numbers[:, None], 64, axis=1)})
"""
READ_ONLY = """
store = embstore.open(place)
tip = store.branches()["main"]
whole(store, tip)
assert [version.message for version in store.log()][-1] == "create the store"
assert len(store.diff("main~1").ids["user"].appended) == 100
work = store.checkout()
stage(work, 10)
for act in (
    lambda: work.commit("x"),
    lambda: work.commit("x", branch="other"),
    lambda: store.branch("new"),
    lambda: store.tag("new"),
    lambda: store.revert("main~1"),
):
    refused(act, "read-only", "refuses")
new = os.path.join(place, "new")
for act in (lambda: store.export(new), lambda: embstore.create(new)):
    refused(act, f"refuses to write or read {new} (read-only, or no permission)")
assert (len(work.ids("user")), store.tags()) == (110, {})
whole(store, tip)
print("done")
"""
FULL = """
store = embstore.create(os.path.join(place, "s"), schema=Schema((TableSpec("user", "user", 64),)))
work = store.checkout()
stage(work, 1000)
tip = work.commit("first").id
ballast = os.path.join(place, "ballast")
with open(ballast, "wb") as file:
    free = os.statvfs(place)
    file.write(bytes(int(free.f_bavail * free.f_bsize - (free.f_files > 1000) * 300_000)))
stage(work, 4000)
for _ in range(2):
    refused(lambda: work.commit("second"), "full")
    whole(store, tip)
refused(lambda: work.commit("second", branch="other"), "full")
whole(store, tip)
assert (work.dirty, len(work.table("user"))) == (True, 5000)
os.remove(ballast)
version = work.commit("second")
whole(store, version.id)
assert version.entities["user"] == 5000
print("done")
"""
FILLED = """
store = embstore.create(os.path.join(place, "s"), schema=Schema((TableSpec("user", "user", 64),)))
work = store.checkout()
tip, made = work.version.id, 0
while True:
    stage(work, 300)
    try:
        tip, made = work.commit("one more").id, made + 1
    except StorageError as error:
        assert "full" in str(error), str(error)
        break
assert made > 3, made
whole(store, tip)
assert store.at().entities["user"] == 300 * made
refused(lambda: store.export(os.path.join(place, "export")), "full")
print("done")
"""


FORBIDDEN = """
store = embstore.open(place)
os.chmod(os.path.join(place, "snapshots"), 0)
n_refused = 0
try:
    for act in (lambda: embstore.open(place), store.at, lambda: list(store.log()), store.checkout, lambda: store.branch("new")):
        try:
            act()
        except StorageError as error:  # some of it a newer engine can do without
            assert error.exit_code == 5 and "no permission)" in str(error), str(error)
            n_refused += 1
finally:
    os.chmod(os.path.join(place, "snapshots"), 0o755)
assert n_refused > 1, n_refused
whole(store, store.branches()["main"])
print("done")
"""
WITHOUT_PRIVILEGES = "setpriv --bounding-set -all"  # root, too, may then read only what its permissions say


def run_mounted(mount: str, place: Path, script: str, *, by: str = "") -> None:
    """Run ``script`` with ``place`` as its argument where ``mount`` has mounted a file system there, perhaps ``by`` a command."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        [
            "unshare",
            *user,
            "--mount",
            "sh",
            "-c",
            f'{mount} && exec {by} "$0" -c "$1" "$2"',
            sys.executable,
            HEAD + script,
            str(place),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr[-3000:]


@pytest.fixture
def prepared(tmp_path: Path) -> Store:
    """Return a store of 100 users, each with its number in all columns."""
    store = embstore.create(tmp_path / "s", schema=SCHEMA)
    work = store.checkout()
    work.append("user", range(100), init={"user": [[n] * 64 for n in range(100)]})
    work.commit("first")
    return store


def test_a_read_only_disk(prepared: Store) -> None:
    """Everything that reads works; everything that writes is refused, and what was staged stays."""
    place = Path(prepared.url)
    run_mounted(f"mount --bind '{place}' '{place}' && mount -o remount,bind,ro '{place}'", place, READ_ONLY)


def test_a_read_only_disk_without_a_lock_file(prepared: Store) -> None:
    """The same where no lock file was ever made, as in a copy."""
    place = Path(prepared.url)
    (place / "embstore.lock").unlink(missing_ok=True)
    run_mounted(f"mount --bind '{place}' '{place}' && mount -o remount,bind,ro '{place}'", place, READ_ONLY)


def test_a_full_disk(tmp_path: Path) -> None:
    """The commit is refused, twice; the tip is whole; with room again the same checkout commits the same work."""
    run_mounted(f"mount -t tmpfs -o size=6m tmpfs '{tmp_path}'", tmp_path, FULL)


def test_a_disk_that_becomes_full(tmp_path: Path) -> None:
    """Commit after commit until no room is left: the last acknowledged one is there, whole."""
    run_mounted(f"mount -t tmpfs -o size=6m tmpfs '{tmp_path}'", tmp_path, FILLED)


def test_a_disk_without_room_for_more_files(tmp_path: Path) -> None:
    """Bytes are free, but no files: the same."""
    run_mounted(f"mount -t tmpfs -o size=60m,nr_inodes=90 tmpfs '{tmp_path}'", tmp_path, FILLED)


def test_a_folder_that_may_not_be_read(prepared: Store) -> None:
    """It is told what is forbidden, not that versions are lost."""
    run_mounted("true", Path(prepared.url), FORBIDDEN, by=WITHOUT_PRIVILEGES)
