"""``embstore doctor``: what a store in a folder stands on, told to people and to programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import embstore
from embstore.doctor import examine, judged
from embstore.storage.health import FileSystem, file_system_of
from tests.cli_running import error_of, json_of, make_store, run, text_of

LOOKED_AT = ["file system", "lock", "sync", "store", "leases", "leftovers", "libraries"]


def _findings(place: Path) -> dict[str, dict[str, Any]]:
    """Return the findings by name, of a store where nothing is wrong."""
    told = json_of("doctor", place)
    assert (told["store"], told["ok"]) == (str(place), True)
    return {finding["what"]: finding for finding in told["findings"]}


def test_a_store_where_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check has its line, for people and for programs; the store stays as it is."""
    store = embstore.create(tmp_path / "s")
    before = (store.branches(), store.tags(), [made.id for made in store.log()])
    found = _findings(tmp_path / "s")
    assert list(found) == LOOKED_AT
    assert {found[what]["state"] for what in ("lock", "sync", "store", "leases", "leftovers", "libraries")} == {"ok"}
    assert found["store"]["data"] == {"versions": 1, "branches": 1, "tags": 0}
    assert found["file system"]["data"]["size"] == shutil.disk_usage(tmp_path).total
    assert found["libraries"]["data"]["icechunk"] == version("icechunk")
    monkeypatch.setenv("COLUMNS", "300")  # no line is folded
    lines = text_of("doctor", tmp_path / "s").splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["ok"] * (len(LOOKED_AT) - 1)
    assert (store.branches(), store.tags(), [made.id for made in store.log()]) == before
    assert str(examine(store.url)).count("\n") == len(LOOKED_AT) - 1


def test_what_is_worth_knowing(tmp_path: Path) -> None:
    """Who has the store open, holders that were killed, what no version leads to, and a store that waits for no disk."""
    store = make_store(tmp_path / "s")
    killed = f"import embstore, os; work = embstore.open({store.url!r}).checkout(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", killed], check=False)
    with store.checkout() as work:
        found = _findings(tmp_path / "s")
        work.discard()
    assert (found["sync"]["state"], found["sync"]["data"]["durable"]) == ("note", False)
    assert found["store"]["says"].startswith("5 versions, 2 branches, 1 tag;")
    assert f"by process {os.getpid()} on " in found["leases"]["says"]
    if sys.platform.startswith("linux"):  # elsewhere nobody can say that the other has ended
        assert [lease["alive"] for lease in found["leases"]["data"]["leases"]].count(False) == 1
        assert "1 of holders that are gone" in found["leases"]["says"]
    store.delete_tag("v1")
    store.branch("exp", move=True)
    lost = store.checkout("exp")
    lost.append("user", [77])
    lost.commit("lost")
    store.delete_branch("exp")
    left = _findings(tmp_path / "s")["leftovers"]
    assert (left["state"], left["data"]["snapshots"] >= 1, left["data"]["bytes"] > 0) == ("note", True, True)


def test_a_damaged_store(tmp_path: Path) -> None:
    """Damage of the newest version is told, with all else, and is the exit code."""
    store = make_store(tmp_path / "s")
    (tmp_path / "s" / "snapshots" / store.at().id).write_bytes(b"nothing")
    done = run("doctor", tmp_path / "s", "--json")
    findings = {finding["what"]: finding["state"] for finding in json.loads(done.stdout)["findings"]}
    assert (done.exit_code, findings["store"], findings["lock"], findings["libraries"]) == (6, "damaged", "ok", "ok")
    assert done.stderr.startswith(f"error: {tmp_path / 's'}: store")


def test_no_store(tmp_path: Path) -> None:
    """Where there is none, that is all that is said."""
    code, message = error_of("doctor", tmp_path / "s")
    assert (code, "nothing is there" in message) == (3, True)


def test_the_file_system_of_a_folder(tmp_path: Path) -> None:
    """Its room and, where the system tells it, its type."""
    here = file_system_of(tmp_path)
    assert 0 < here.free <= here.size
    if sys.platform.startswith("linux"):
        (kind,) = subprocess.run(
            ["stat", "--file-system", "--format=%T", str(tmp_path)], capture_output=True, text=True, check=True
        ).stdout.split()
        assert (here.kind or "").startswith(kind.partition("/")[0].removesuffix("fs")[:3])


GB = 10**9
JUDGED = [
    (FileSystem("ext4", 5 * GB, 9 * GB, 10**6), "ok", "ext4, 5.0 GB of 9.0 GB free"),
    (FileSystem(None, 5 * GB, 9 * GB, None), "ok", "of a type not known here, 5.0 GB of 9.0 GB free"),
    (FileSystem("nfs4", 5 * GB, 9 * GB, None), "note", "other machines may write to it"),
    (FileSystem("fuse.sshfs", 5 * GB, 9 * GB, None), "note", "other machines may write to it"),
    (FileSystem("tmpfs", 5 * GB, 9 * GB, 10**6), "note", "gone when the machine stops"),
    (FileSystem("tmpfs", GB // 10, 9 * GB, 10**6), "wrong", "it is full"),
    (FileSystem("xfs", 5 * GB, 9 * GB, 0), "wrong", "it is full"),
]


@pytest.mark.parametrize(("found", "state", "says"), JUDGED, ids=repr)
def test_what_is_said_of_a_file_system(found: FileSystem, state: str, says: str) -> None:
    """Networked and volatile ones are worth a word, a full one is wrong."""
    finding = judged(found)
    assert (finding.state, says in finding.says, finding.data["free"]) == (state, True, found.free)


STORAGE_OPTIONS = [
    (("s3://bucket/x", "--storage-option", "secret=hidden"), "a secret is no part of a command line"),
    (("az://bucket/x", "--storage-option", "account_key=hidden"), "a secret is no part of a command line"),
    (("s3://bucket/x", "--storage-option", "colour=hidden"), "--storage-option ['colour']: s3:// takes key, secret, token"),
    (("s3://bucket/x", "--storage-option", "hidden"), "give name=value"),
    (("s3://bucket/x", "--storage-option", "anon=true", "--storage-option", "anon=false"), "is there twice"),
    (("s3://bucket/x", "--storage-option", "anon=perhaps"), "'anon': a value of type str"),
    (("s3://bucket", "--storage-option", "anon=true"), "give a bucket and a prefix"),
    (("a-folder", "--storage-option", "anon=true"), "takes none"),
]


@pytest.mark.parametrize(("arguments", "says"), STORAGE_OPTIONS, ids=repr)
@pytest.mark.parametrize("verb", ["log", "init", "doctor"])
def test_wrong_storage_options(verb: str, arguments: tuple[str, ...], says: str) -> None:
    """Options of object stores are checked before anything is sent; a secret is not taken, and not repeated."""
    code, message = error_of(verb, *arguments)
    assert (code, says in message, "=hidden" in message and says != "give name=value") == (2, True, False)
