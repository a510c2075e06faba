"""Collecting garbage: what nothing leads to goes, and nothing else, whoever has the store open and whatever clocks say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import embstore
from embstore import Store, UnknownRefError
from embstore.collection import leases_of, leftovers
from embstore.storage import retention
from embstore.storage.leases import TIME_TO_LIVE, Folder, Lease
from tests.store.collecting import Schedule, abandon, content, files, grow, three_days
from tests.store.conftest import SCHEMA
from tests.store.s3_server import S3Server

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return where a store of three days is."""
    return three_days(tmp_path / "s")


@pytest.fixture
def days(place: Path) -> Store:
    """Return the store of three days."""
    return embstore.open(place)


def test_it_frees_what_nothing_leads_to(place: Path, days: Store) -> None:
    """A dry run tells what the other one frees: its bytes are what the files had. The rest is as it was."""
    kept = content(days.at("main~1"))
    lost = abandon(days)
    before = files(place)
    told = days.gc("0s")
    assert before == files(place)
    done = days.gc("0s", dry_run=False)
    gone = {name: size for name, size in before.items() if name not in files(place)}
    assert (told.counts, told.ok) == (done.counts, True)
    assert sum(gone.values()) == done.counts["bytes"]
    assert {kind: n for kind, n in done.counts.items() if kind in ("chunks", "manifests", "snapshots", "transactions")} == {
        kind: sum(name.startswith(f"{kind}/") for name in gone) for kind in ("chunks", "manifests", "snapshots", "transactions")
    }
    assert (kept, []) == (content(days.at()), days.verify().problems)
    with pytest.raises(UnknownRefError):
        embstore.open(place).at(lost)
    assert 0 == sum(leftovers(days.at().repo).values())
    assert (done.counts, []) == (done.to_dict()["counts"], done.to_dict()["leases"])


def test_what_is_young_stays(place: Path, days: Store) -> None:
    """Only what is older goes."""
    abandon(days)
    before = files(place)
    assert 0 == days.gc("1h", dry_run=False).counts["bytes"]
    assert before == files(place)
    assert leftovers(days.at().repo)["snapshots"] == 1
    for path in place.rglob("*"):
        os.utime(path, (time.time() - 7200,) * 2)
    assert 1 == days.gc("1h", dry_run=False).counts["snapshots"]


def test_a_pinned_version_stays(place: Path, days: Store) -> None:
    """As long as it is pinned; it is named in the report."""
    version = days.at()
    before = content(version)
    with version.pin():
        lost = abandon(days)
        for _ in range(2):
            report = embstore.open(place).gc("0s", dry_run=False)
        assert before == content(embstore.open(place).at(lost)) == content(version)
        assert [(lost, "reader", True)] == [(one["version"], one["holder"], one["alive"]) for one in report.leases]
        assert f"has kept {lost}" in str(report)
    assert 1 == days.gc("0s", dry_run=False).counts["snapshots"]


def test_an_open_checkout_stays(place: Path, days: Store) -> None:
    """What it reads stays, though its branch moves away, and so does what its holder has written but not yet committed."""
    with days.checkout() as work:
        expected = content(work.version)
        work.append("user", [1000, 1001])
        abandon(embstore.open(place))
        unfinished = place / "chunks" / "0123456789ABCDEFGHJG"
        unfinished.write_bytes(b"written by a worker of this checkout")
        report = embstore.open(place).gc("0s", dry_run=False)
        assert unfinished.exists()
        assert "an open checkout may have written it" in str(report)
        assert expected == content(work.version)
        version = work.commit("on a branch of its own", branch="own")
    assert {*expected["ids"]["user"], 1000, 1001} == set(version.ids("user").ids().tolist())
    assert [] == days.verify("own").problems
    assert 1 == days.gc("0s", dry_run=False).counts["chunks"]
    assert not unfinished.exists()


def test_what_is_older_than_an_open_checkout_goes(place: Path, days: Store) -> None:
    """A checkout is open for days, and what was garbage long before it began is collected meanwhile."""
    abandon(days)
    for path in place.rglob("*"):
        os.utime(path, (time.time() - 3 * 3600,) * 2)
    with days.checkout():
        grow(days, 7)
        assert 1 == days.gc("0s", dry_run=False).counts["snapshots"]


def test_a_checkout_whose_version_is_expired(days: Store) -> None:
    """It still has its version, and what it has staged is replayed on the tip that there is now."""
    work = days.checkout()
    work.table("user").scatter(work.append("user", [3, 1000]), np.full((2, 4), 9.0))
    for day in (3, 4):
        grow(days, day)
    days.expire("0s", dry_run=False)
    days.gc("0s", dry_run=False)
    version = work.commit("at last")
    assert ["at last", "day 4"] == [version.message for version in days.log()]
    assert [9.0, 9.0] == version.table("user").get([3, 1000])[:, 0].tolist()
    assert ([], 31) == (days.verify().problems, version.entities["user"])
    work.discard()


@pytest.mark.parametrize("skew", [-3600, 3600])
def test_clocks_that_differ_by_an_hour(place: Path, days: Store, skew: int) -> None:
    """The clock of a holder is an hour off, and that of the files an hour to the other side."""
    version = days.at()
    folder = Folder(place / "leases")
    moment = datetime.now(UTC) + timedelta(seconds=skew)
    lease = Lease("f" * 32, version.id, "checkout of 'main'", True, moment, moment, "another", 1, "a-machine/far-away/1/1")
    folder.add(lease)
    os.utime(place / "leases" / f"{lease.name}.json", (moment.timestamp(),) * 2)
    before = content(version)
    abandon(days)
    unfinished = place / "chunks" / "0123456789ABCDEFGHJG"
    unfinished.write_bytes(b"written by a worker of this checkout")
    os.utime(unfinished, (time.time() - skew,) * 2)
    days.gc("0s", dry_run=False)
    assert unfinished.exists()
    assert before == content(version)


def test_holders_that_are_no_more(place: Path, days: Store) -> None:
    """A process of this machine that was killed holds nothing; one of another holds for a day; neither is there for ever."""
    script = "import sys, os, embstore\nwork = embstore.open(sys.argv[1]).checkout()\nos._exit(1)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script, str(place)], env=environment, check=False, timeout=120)
    (killed,) = days.at().repo.leases.all()
    assert [False] == [one["alive"] for one in leases_of([killed])]
    version, folder = days.at(), Folder(place / "leases")
    elsewhere = replace(killed, name="e" * 32, process="a-machine/far-away/1/1", writes=False)
    folder.add(elsewhere)
    abandon(days)
    days.gc("0s", dry_run=False)
    assert [elsewhere.name] == [lease.name for lease in folder.all()]
    assert [] == days.verify(version.id).problems
    os.utime(place / "leases" / f"{elsewhere.name}.json", (time.time() - TIME_TO_LIVE.total_seconds(),) * 2)
    assert (0, 2) == (days.gc("0s").counts["unfinished"], len(files(place / "leases")) + 1)
    assert 1 == days.gc("0s", dry_run=False).counts["snapshots"]
    assert [] == folder.all()


def test_what_killed_writers_left(place: Path, days: Store) -> None:
    """Files that were never finished are freed too, once they are old enough."""
    for folder, age in (("chunks", 3), ("manifests", 3), ("refs/branch.main", 3), ("snapshots", 0)):
        path = place / folder / "ABC#1"
        path.write_bytes(b"12345")
        os.utime(path, (time.time() - age * 3600,) * 2)
    report = days.gc("2h", dry_run=False)
    assert (3, 15) == (report.counts["unfinished"], report.counts["bytes"])
    assert ["snapshots/ABC#1"] == [name for name in files(place) if "#" in name]


def test_what_a_killed_collector_left(place: Path, days: Store) -> None:
    """Its own branches are seen by nobody, and go with the next one."""
    repo = days.at().repo
    engine, lost = repo.reopened(), abandon(days)
    engine.create_branch(f"kept.{lost}", lost)
    days.expire("30d", dry_run=False)
    assert ({"main"}, 1) == (days.branches().keys(), days.gc("0s", dry_run=False).counts["snapshots"])
    assert ["main"] == [name for name in repo.reopened().list_branches() if not name.startswith("expired.")]


def test_in_an_object_store(s3: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are branches that nobody sees, and what is younger than two hours stays; else all is as in a folder."""
    store = embstore.create(s3_url, schema=SCHEMA, storage_options=s3.options())
    for day in range(3):
        grow(store, day)
    again = embstore.open(s3_url, storage_options=s3.options())
    version = again.at("main~1")
    before = content(version)
    with store.checkout() as work, version.pin():
        assert ["checkout of 'main'", "reader"] == sorted(lease.holder for lease in store.at().repo.leases.all())
        assert {"main"} == again.branches().keys()
        store.expire("0s", dry_run=False)
        work.discard()
        assert 0 == again.gc("0s", dry_run=False).counts["bytes"]
        monkeypatch.setattr(retention, "CLOCK_MARGIN", timedelta(0))
        time.sleep(1.5)  # the server dates what it stores by the second
        assert 2 == again.gc("0s", dry_run=False).counts["snapshots"]
        assert before == content(version)
    assert 1 == again.gc("0s", dry_run=False).counts["snapshots"]
    assert ([], [], ["day 2"]) == (
        store.at().repo.leases.all(),
        store.verify().problems,
        [version.message for version in embstore.open(s3_url, storage_options=s3.options()).log()],
    )


@pytest.mark.parametrize("seed", range(8))
def test_schedules(tmp_path: Path, seed: int) -> None:
    """Checkouts, readers, holders that crash or are far away, clocks an hour off: no live object is deleted."""
    Schedule(tmp_path / "s", seed).run(12)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 150))
def test_fifty_schedules(tmp_path: Path, seed: int) -> None:
    """The same, longer and fifty times."""
    Schedule(tmp_path / "s", seed).run(45)
