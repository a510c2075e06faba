"""Which versions branches and tags lead to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from embstore.errors import StorageError
from embstore.lineage import parse_record
from embstore.storage.repo import Repo
from embstore.storage.retention import Retention
from embstore.storage.walking import Snapshot


@dataclass(frozen=True)
class Reach:
    """What some tips lead to: along first parents as far as lines are kept, and through what was merged in.

    ``merged`` are second parents from which lines begin that are kept too.
    """

    snapshots: dict[str, Snapshot]
    merged: list[str]

    def ancestry(self, snapshot_id: str) -> Iterator[Snapshot]:
        """Yield a state and those before it, as far as they are kept."""
        following: str | None = snapshot_id
        while following in self.snapshots:
            yield self.snapshots[following]
            following = self.snapshots[following].parent


def reach(
    keeper: Retention,
    tips: Iterable[str],
    *,
    merged_since: datetime,
    cut: Callable[[list[Snapshot]], list[Snapshot]] | None = None,
) -> Reach:
    """Return what ``tips`` lead to; second parents count where they are no older than ``merged_since``."""
    found = Reach({}, [])
    begun = list(dict.fromkeys(tips))
    for tip in begun:
        line = keeper.line(tip)
        for snapshot in cut(line) if cut else line:
            if snapshot.id in found.snapshots:
                continue
            found.snapshots[snapshot.id] = snapshot
            for parent in parse_record(snapshot)["parents"][1:]:
                merged = None if parent in begun else keeper.find(parent)
                if merged is not None and merged.written >= merged_since:
                    begun.append(parent)
                    found.merged.append(parent)
    return found


def is_reachable(repo: Repo, version_id: str) -> bool:
    """Return whether a branch or tag leads to a version, as others see it now: a handle may have read what is gone."""
    keeper = Retention(repo.reopened(), repo.location)
    tips = {*repo.branches().values(), *repo.tags().values()}
    if version_id in tips or any(snapshot.id == version_id for tip in tips for snapshot in repo.ancestry(tip)):
        return True
    return version_id in reach(keeper, tips, merged_since=keeper.expired_before()).snapshots


def can_stay(repo: Repo, version_id: str) -> bool:
    """Return whether a version for which a lease was just taken stays: nobody has begun to collect what only it holds.

    Who collects in a folder has the lock. In an object store there is none: what no branch or tag leads to may be on its way out.
    """
    if is_reachable(repo, version_id):
        return True
    keeper = Retention(repo.reopened(), repo.location)
    try:
        with repo.location.lock():
            return keeper.find(version_id) is not None
    except StorageError:  # read-only: neither a lease nor a lock can be had
        return keeper.find(version_id) is not None
