"""Random lives of a store in which much is open while much is forgotten."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

import embstore
from embstore import Checkout, RefusedError, Store, Version
from embstore.storage.leases import Folder, Lease
from tests.store.conftest import SCHEMA

HOUR = 3600
# As a process of this machine that was killed: no process has run for longer than its machine.
_KILLED = Lease.begun("", "reader", writes=False).process.rpartition("/")[0] + "/0"


def content(version: Version) -> dict[str, Any]:
    """Return what a version holds, by id."""
    ids = {entity: sorted(version.ids(entity).ids().tolist()) for entity in version.entities}
    return {
        "ids": ids,
        "tables": {name: version.table(name).get(ids[name]).tobytes() for name in version.tables},
        "slots": version.table("user").slot("m").get(ids["user"]).tobytes(),
        "had": [had.tolist() for had in version.consumed.of("user", ids["user"])],
        "dense": {name: array.tolist() for name, array in version.dense.items()},
    }


def grow(store: Store, day: int, *, branch: str = "main") -> Version:
    """Commit a day."""
    with store.checkout(branch) as work:
        rows = work.append("user", range(5 * day, 5 * day + 10))
        work.table("user").scatter(rows, np.random.default_rng(day).standard_normal((len(rows), 4)))
        work.consumed.append(rows[:3], work.append("item", [f"thing {n}" for n in range(day, day + 3)]))
        return work.commit(f"day {day}")


def files(place: Path) -> dict[str, int]:
    """Return the files of a store that are no leases, and their sizes."""
    found = {path.relative_to(place).as_posix(): path.stat().st_size for path in place.rglob("*") if path.is_file()}
    return {name: size for name, size in found.items() if not name.startswith("leases/")}


def abandon(store: Store) -> str:
    """Move main back by a day; return the id of the version that nothing leads to now."""
    lost = store.at().id
    store.branch("main", at="main~1", move=True)
    return lost


def three_days(place: Path) -> Path:
    """Make a store of three days; return where it is."""
    store = embstore.create(place, schema=SCHEMA, durability="none")
    for day in range(3):
        grow(store, day)
    return place


class Schedule:
    """One random life: what is live is known at any time, and must read as it was.

    Parameters
    ----------
    place
        Where the store is made.
    seed
        All that happens follows from it.
    """

    def __init__(self, place: Path, seed: int) -> None:
        self.place = place
        self.rng = np.random.default_rng(seed)
        self.store = embstore.create(place, schema=SCHEMA, durability="none")
        self.contents: dict[str, dict[str, Any]] = {}
        self.written: dict[str, datetime] = {}
        self.checkouts: list[tuple[Checkout, list[int]]] = []
        self.pins: list[tuple[Version, ExitStack]] = []
        self.far_away: list[Lease] = []
        self.seen: set[Path] = set()
        self.next_name = 0
        self.horizon = datetime(1970, 1, 1, tzinfo=UTC)
        self.note(self.store.at())

    def note(self, version: Version) -> Version:
        """Remember what a version holds."""
        self.contents[version.id] = content(version)
        self.written[version.id] = version.repo.snapshot(version.id).written
        return version

    def run(self, n_steps: int) -> None:
        """Do ``n_steps`` things, looking at all that is live after each that deletes, and then collect all that is left."""
        acts: list[tuple[Callable[[], None], int]] = [
            (self.commit, 6),
            (self.open_checkout, 2),
            (self.end_checkout, 2),
            (self.pin, 2),
            (self.unpin, 1),
            (self.crash, 1),
            (self.lease_far_away, 1),
            (self.move_refs, 3),
            (self.merge, 1),
            (self.skew_files, 3),
            (self.expire, 2),
            (self.gc, 4),
        ]
        weights = np.array([weight for _, weight in acts], float)
        for number in self.rng.choice(len(acts), n_steps, p=weights / weights.sum()):
            if self.rng.random() < 0.3:
                self.store = embstore.open(self.place)
            acts[number][0]()
        self.end()

    def some(self, of: Any) -> Any:
        """Return one of several."""
        return of[int(self.rng.integers(len(of)))]

    def name(self, what: str) -> str:
        """Return a name that was never given."""
        self.next_name += 1
        return f"{what}{self.next_name}"

    def change(self, work: Checkout) -> list[int]:
        """Stage something; return the users that are new."""
        first = int(self.rng.integers(60))
        before = set(work.ids("user").ids().tolist())
        rows = work.append("user", range(first, first + 12))
        for column in (work.table("user"), work.table("user").slot("m")):
            column.scatter(rows, self.rng.standard_normal((len(rows), 4)))
        work.consumed.append(rows[:4], work.append("item", [f"thing {n}" for n in range(first, first + 4)]))
        work.dense["n"] = self.rng.standard_normal(int(self.rng.integers(300)))
        live = work.ids("user").ids().tolist()
        if self.rng.random() < 0.4:
            work.remove("user", [self.some(live)])
        return sorted(set(work.ids("user").ids().tolist()) - before)

    def commit(self) -> None:
        """Commit on some branch, or fold it."""
        branch = self.some(sorted(self.store.branches()))
        if self.rng.random() < 0.2:
            self.note(self.store.compact(branch))
            return
        with self.store.checkout(branch) as work:
            self.change(work)
            self.note(work.commit("a change"))

    def open_checkout(self) -> None:
        """Open one through a handle of its own and stage something."""
        work = embstore.open(self.place).checkout(self.some(sorted(self.store.branches())))
        self.checkouts.append((work, self.change(work)))

    def end_checkout(self) -> None:
        """Commit one to a branch of its own, or discard it."""
        if not self.checkouts:
            return
        work, new = self.checkouts.pop(int(self.rng.integers(len(self.checkouts))))
        if self.rng.random() < 0.7:
            version = self.note(work.commit("from long ago", branch=self.name("own")))
            assert set(new) <= set(version.ids("user").ids().tolist())
        work.discard()

    def reachable(self) -> set[str]:
        """Return the ids of all versions that branches and tags lead to, through merges of what is young enough too."""
        store = embstore.open(self.place)
        found: set[str] = set()
        begun = [*store.branches().values(), *store.tags().values()]
        for tip in begun:
            for version in store.log(tip):
                found.add(version.id)
                begun += [id_ for id_ in version.parents[1:] if id_ not in begun and self.written[id_] >= self.horizon]
        return found

    def pin(self) -> None:
        """Pin a version that is still reachable."""
        version = embstore.open(self.place).at(self.some(sorted(self.reachable())))
        stack = ExitStack()
        stack.enter_context(version.pin())
        self.pins.append((version, stack))

    def unpin(self) -> None:
        """Let one go."""
        if self.pins:
            self.pins.pop(int(self.rng.integers(len(self.pins))))[1].close()

    def crash(self) -> None:
        """Leave the lease of a process of this machine that was killed."""
        lease = Lease.begun(self.some(sorted(self.contents)), "checkout of 'main'", writes=True)
        Folder(self.place / "leases").add(replace(lease, process=_KILLED))

    def lease_far_away(self) -> None:
        """Take a lease on another machine, whose clock is up to an hour off; or give one back."""
        folder = Folder(self.place / "leases")
        if self.far_away and self.rng.random() < 0.5:
            folder.drop(self.far_away.pop())
            return
        now = datetime.now(UTC) + timedelta(seconds=self.rng.uniform(-HOUR, HOUR))
        process = "another-boot/pid:[1]/77/5"
        lease = replace(Lease.begun(self.some(sorted(self.reachable())), "reader", writes=False), since=now, process=process)
        folder.add(lease)
        os.utime(self.place / "leases" / f"{lease.name}.json", (now.timestamp(),) * 2)
        self.far_away.append(lease)

    def move_refs(self) -> None:
        """Make, move or delete a branch or tag."""
        branches, tags = sorted(self.store.branches()), sorted(self.store.tags())
        at = self.some(sorted(self.reachable()))
        act = self.rng.random()
        if act < 0.2:
            self.store.branch(self.name("branch"), at=at)
        elif act < 0.4:
            self.store.tag(self.name("tag"), at=at)
        elif act < 0.65:
            self.store.branch(self.some(branches), at=at, move=True)
        elif act < 0.85 and len(branches) > 1:
            self.store.delete_branch(self.some([branch for branch in branches if branch != "main"]))
        elif tags:
            self.store.delete_tag(self.some(tags))

    def merge(self) -> None:
        """Merge a branch into another, unless what both come from is expired."""
        branches = sorted(self.store.branches())
        with suppress(RefusedError):
            self.note(self.store.merge(self.some(branches), into=self.some(branches), on_conflict="ours"))

    def skew_files(self) -> None:
        """Date what is new by a clock that is up to an hour off, as that of another machine is."""
        off = self.rng.uniform(-HOUR, HOUR)
        new = {path for folder in ("chunks", "manifests", "snapshots") for path in self.place.glob(f"{folder}/*")} - self.seen
        for path in new:
            os.utime(path, (time.time() + off,) * 2)
        self.seen |= new

    def expire(self) -> None:
        """Forget what is older than some version; what is younger and was reachable stays so."""
        moment = self.some(sorted(self.written.values()))
        tags = [tag for tag in self.store.tags() if self.rng.random() < 0.2]
        kept_refs = [*self.store.branches(), *(tag for tag in self.store.tags() if tag not in tags)]
        young = {v.id for ref in kept_refs for v in self.store.log(ref) if self.written[v.id] >= moment}
        told = self.store.expire(moment, tags=tags)
        before = self.reachable()
        done = self.store.expire(moment, tags=tags, dry_run=False)
        self.horizon = max(self.horizon, moment)
        assert told.expired == done.expired
        assert young <= self.reachable()
        assert {version["id"] for version in done.expired} == before - self.reachable()
        self.check()

    def gc(self) -> None:
        """Collect what is old by some clock, and look at all that is live."""
        older_than = self.some(["0s", "0s", "20m", datetime.now(UTC) + timedelta(seconds=self.rng.uniform(-HOUR, HOUR))])
        told = self.store.gc(older_than)
        done = self.store.gc(older_than, dry_run=False)
        assert done.ok
        assert told.counts["bytes"] <= done.counts["bytes"]
        self.check()

    def live(self) -> set[str]:
        """Return the ids of all versions that may not be deleted."""
        held = {work.version.id for work, _ in self.checkouts} | {version.id for version, _ in self.pins}
        return self.reachable() | held | {lease.version for lease in self.far_away}

    def check(self) -> None:
        """Look at all that is live, through a new handle, and through those that hold something."""
        store = embstore.open(self.place)
        for id_ in sorted(self.live()):
            assert self.contents[id_] == content(store.at(id_))
            assert [] == store.verify(id_, deep=False).problems
        for version, _ in self.pins:
            assert self.contents[version.id] == content(version)
        for work, _ in self.checkouts:
            assert self.contents[work.version.id] == content(work.version)

    def end(self) -> None:
        """Let everything go: then all that no version needs is gone too, and the rest is whole."""
        for work, _ in self.checkouts:
            self.note(work.commit("at last", branch=self.name("own")))
            work.discard()
        for _, stack in self.pins:
            stack.close()
        for lease in self.far_away:
            Folder(self.place / "leases").drop(lease)
        self.checkouts, self.pins, self.far_away = [], [], []
        for path in self.place.rglob("*"):
            os.utime(path, (time.time() - HOUR,) * 2)
        self.store = embstore.open(self.place)
        self.store.gc("0s", dry_run=False)
        assert 0 == self.store.gc("0s").counts["bytes"]
        self.check()
        assert [] == [problem for ref in self.store.branches() for problem in self.store.verify(ref, deep=True).problems]
        kept = {path.name for path in (self.place / "snapshots").iterdir()}
        assert self.reachable() <= kept
        assert 1 + len(self.reachable()) == len(kept)
