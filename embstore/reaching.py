"""Which versions branches and tags lead to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import takewhile

from embstore.errors import StorageError
from embstore.lineage import parse_record
from embstore.storage.repo import Repo
from embstore.storage.retention import Retention
from embstore.storage.walking import Snapshot

EVER = datetime.min.replace(tzinfo=UTC)


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


class _Lines:
    """The lines of first parents, of which each state is read once.

    Parameters
    ----------
    keeper
        Of the store.
    kept_since
        What is older goes below the oldest of a line that is not; of one that is all older its newest stays.
    """

    def __init__(self, keeper: Retention, kept_since: datetime) -> None:
        self._keeper = keeper
        self._kept_since = kept_since
        self._read: dict[str, Snapshot] = {}
        self._last: dict[str, str | None] = {}  # of the line that begins with a state: the oldest that is not older

    def kept(self, tip: str) -> Iterator[Snapshot]:
        """Yield a state and what stays of those before it; the last has no parent."""
        self._follow(tip)
        last = self._last[tip] or tip
        following = tip
        while following != last:
            yield self._read[following]
            following = str(self._read[following].parent)
        yield replace(self._read[last], parent=None)

    def _follow(self, tip: str) -> None:
        """Read a line down to what was read before."""
        new = list(takewhile(lambda snapshot: snapshot.id not in self._read, self._keeper.line(tip)))
        self._read.update((snapshot.id, snapshot) for snapshot in new)
        last = self._last.get(new[-1].parent or "") if new else None
        for snapshot in reversed(new):
            last = last or (snapshot.id if snapshot.written >= self._kept_since else None)
            self._last[snapshot.id] = last


def reach(keeper: Retention, tips: Iterable[str], *, merged_since: datetime, kept_since: datetime = EVER) -> Reach:
    """Return what ``tips`` lead to, cut where it is older than ``kept_since``.

    Second parents count where they are no older than ``merged_since``.
    """
    found, lines = Reach({}, []), _Lines(keeper, kept_since)
    begun = list(dict.fromkeys(tips))
    for tip in begun:
        for snapshot in lines.kept(tip):
            if snapshot.id in found.snapshots:
                break  # what is below was found with it
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
