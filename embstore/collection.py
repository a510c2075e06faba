"""Deleting what no version needs any more, and who is in the way of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from embstore.errors import DamagedStoreError, EmbstoreError
from embstore.expiry import Age, moment_of
from embstore.reaching import Reach, reach
from embstore.storage.leases import Lease
from embstore.storage.repo import Repo
from embstore.storage.retention import CLOCK_MARGIN, Freed, Retention, retention
from embstore.verify import Report, verify_metadata
from embstore.version import Version

Find = Callable[[str], Version]


@dataclass(frozen=True)
class Collected(Report):
    """What ``gc`` did, or would do: ``counts`` has the objects that were deleted, by kind, and their bytes.

    Parameters
    ----------
    leases
        Who has a version open, and since when.
    notes
        What it left because of them.
    """

    leases: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report, JSON-ready."""
        return {**super().to_dict(), "leases": self.leases, "notes": self.notes}

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *self.notes])


@dataclass(frozen=True)
class Kept:
    """What stays, and what of it the engine must be shown: it knows branches, tags and first parents only."""

    reach: Reach
    roots: list[str]


def _kept(repo: Repo, keeper: Retention, held: Sequence[Lease] = ()) -> Kept:
    refs = [*repo.branches().values(), *repo.tags().values()]
    since = keeper.expired_before()
    found = reach(keeper, refs, merged_since=since)
    leased = {lease.version for lease in held} - found.snapshots.keys()
    there = sorted(version for version in leased if keeper.find(version) is not None)
    if there:
        found = reach(keeper, [*refs, *there], merged_since=since)
    return Kept(found, [*found.merged, *there])


def _check(kept: Kept, find: Find, seen: dict[str, list[str]]) -> list[str]:
    """Return what is wrong with the versions that stay; ``seen`` has those that were looked at, and gets the others."""
    for id_ in kept.reach.snapshots:
        if id_ not in seen:
            seen[id_] = [f"version {id_}: {problem}" for problem in verify_metadata(find(id_))]
    return [problem for id_ in kept.reach.snapshots for problem in seen[id_]]


def collect(repo: Repo, older_than: Age, *, dry_run: bool, find: Find) -> Collected:
    """Delete objects that are older and that no branch, tag, lease or version leads to.

    What a checkout that is open may have written is left, and everything if a version that stays is not whole: the engine
    takes what it cannot follow for garbage.

    Raises
    ------
    DamagedStoreError
        If a version that stays is not whole (a dry run reports it); nothing is deleted then.
    InvalidInputError
        For an age that cannot be read.
    """
    seen: dict[str, list[str]] = {}
    with suppress(EmbstoreError):  # most of it while others go on, who may expire what is being looked at
        _check(_kept(repo, Retention(repo.reopened(), repo.location)), find, seen)
    with retention(repo) as keeper:
        leases = repo.leases.all()
        now = keeper.now()
        held = [lease for lease in leases if lease.is_held(datetime.now(UTC))]
        asked = min(moment_of(older_than, now), now)
        moment = min([asked, *(lease.since - CLOCK_MARGIN for lease in held if lease.writes)])
        kept = _kept(repo, keeper, held)
        problems = _check(kept, find, seen)
        if problems and not dry_run:
            msg = f"store {repo.url}: {problems[0]} ({len(problems)} problems); nothing was deleted; expire it or move its branch"
            raise DamagedStoreError(msg)
        freed = keeper.collect(moment, kept.roots, dry_run=dry_run) if not problems else Freed()
        for lease in leases if not dry_run else ():
            if lease not in held:
                repo.leases.drop(lease)
    return _report(asked, moment, freed, kept, held, problems, dry_run=dry_run)


def _report(
    asked: datetime, moment: datetime, freed: Freed, kept: Kept, held: Sequence[Lease], problems: list[str], *, dry_run: bool
) -> Collected:
    title = f"gc of what is older than {_told(asked)}{' (dry run)' if dry_run else ''}"
    counts = {what: n for what, n in asdict(freed).items() if what != "failed"}
    notes = [f"{one.holder}, process {one.pid} on {one.host}, has kept {one.version} since {_told(one.since)}" for one in held]
    if moment < asked:
        notes.append(f"what is younger than {_told(moment)} was left: an open checkout may have written it")
    if freed.failed:
        problems = [*problems, f"{freed.failed} objects could not be deleted; try again later"]
    return Collected(title, problems, {**counts, "versions kept": len(kept.reach.snapshots)}, leases_of(held), notes)


def _told(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def leases_of(leases: Sequence[Lease]) -> list[dict[str, Any]]:
    """Return who has which version open, JSON-ready: its age in seconds, and whether the holder is still there."""
    now = datetime.now(UTC)
    return [
        {
            "holder": lease.holder,
            "version": lease.version,
            "host": lease.host,
            "pid": lease.pid,
            "since": lease.since.isoformat(),
            "age": (now - lease.since).total_seconds(),
            "alive": lease.is_held(now),
        }
        for lease in leases
    ]


def leftovers(repo: Repo) -> dict[str, int]:
    """Return how many objects nothing leads to, by kind, and their bytes, whatever their age.

    Raises
    ------
    StorageError
        If the store is read-only here.
    DamagedStoreError
        If a version that stays cannot be followed.
    """
    with retention(repo) as keeper:
        now = datetime.now(UTC)
        kept = _kept(repo, keeper, [lease for lease in repo.leases.all() if lease.is_held(now)])
        return asdict(keeper.collect(keeper.now(), kept.roots, dry_run=True))
