"""The engine's own expiry and collection, told what else must stay.

The engine keeps what branches and tags lead to along its own parents, of which a state has one. What leases hold and what was
merged in is shown to it as hidden branches for as long as it works.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import icechunk

from embstore.storage.faults import reading, writing
from embstore.storage.hidden import EXPIRED, KEPT, is_hidden
from embstore.storage.location import LOCK_NAME, Location
from embstore.storage.repo import Repo
from embstore.storage.walking import FIRST_SNAPSHOT, MissingStateError, Snapshot, walk

# Twice what the clocks of two machines may differ by.
CLOCK_MARGIN = timedelta(hours=2)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BESIDE = ".expiring-"
_STAGING_FOLDERS = ("chunks", "manifests", "refs", "snapshots", "transactions")


@dataclass(frozen=True)
class Freed:
    """What a collection deletes: objects by kind, files that killed writers left half written, and the bytes of all of them."""

    chunks: int = 0
    manifests: int = 0
    snapshots: int = 0
    transactions: int = 0
    unfinished: int = 0
    bytes: int = 0
    failed: int = 0


@contextmanager
def retention(repo: Repo) -> Iterator[Retention]:
    """Hold the store's lock and give what expires and collects; when it is left, what it wrote is on the disk."""
    with repo.location.lock():
        yield Retention(repo.reopened(), repo.location)
        repo.sync()
        repo.reopened()


class Retention:
    """What decides on how long states stay; to be used under the store's lock.

    Parameters
    ----------
    engine
        One that has read nothing yet: what others have rewritten must not be in a cache of it.
    location
        Of the store.
    """

    def __init__(self, engine: icechunk.Repository, location: Location) -> None:
        self._engine = engine
        self._location = location

    def line(self, snapshot_id: str) -> Iterator[Snapshot]:
        """Yield the state and those before it, newest first; each is read when it is asked for."""
        return walk(self._engine, snapshot_id)

    def find(self, snapshot_id: str) -> Snapshot | None:
        """Return a state; None if it is not there."""
        try:
            return next(walk(self._engine, snapshot_id), None)
        except MissingStateError:
            return None

    def now(self) -> datetime:
        """Return the time by the clock that dates objects; where that cannot be asked, so early that it is past there too."""
        path = self._location.path
        if path is not None:
            os.utime(path / LOCK_NAME)
            return datetime.fromtimestamp((path / LOCK_NAME).stat().st_mtime, UTC)
        return datetime.now(UTC) if self._location.in_memory else datetime.now(UTC) - CLOCK_MARGIN

    def founded(self) -> datetime:
        """Return when the store was made."""
        with reading():
            written: datetime = self._engine.lookup_snapshot(FIRST_SNAPSHOT).written_at
        return written

    def expired_before(self) -> datetime:
        """Return the latest moment before which versions were expired."""
        with reading():
            moments = [int(name.removeprefix(EXPIRED)) for name in self._hidden(EXPIRED)]
        return _EPOCH + timedelta(microseconds=max(moments, default=0))

    def _hidden(self, kind: str) -> list[str]:
        return [name for name in self._engine.list_branches() if is_hidden(name) and name.startswith(kind)]

    def expire(self, older_than: datetime, roots: Iterable[str]) -> None:
        """Cut every line where all that follows is older; the newest of a line stays.

        The oldest that stays is written anew, without a parent.
        """
        with writing():
            if older_than <= self.founded():
                return  # nothing is older than the store; the engine would take its own first state for one that stays
            before = self._hidden(EXPIRED)
            horizon = max(_EPOCH, min(older_than, datetime.now(UTC)))
            moment = f"{EXPIRED}{(horizon - _EPOCH) // timedelta(microseconds=1):020d}"
            with self._rooted(roots):
                if self._location.path is None:
                    self._engine.expire_snapshots(older_than)
                else:
                    _expire_beside(self._location.path, older_than)
            if moment > max(before, default=""):
                self._engine.create_branch(moment, FIRST_SNAPSHOT)
                for name in before:
                    self._engine.delete_branch(name)

    def collect(self, older_than: datetime, roots: Iterable[str], *, dry_run: bool) -> Freed:
        """Delete objects that are older and that no branch, tag or root leads to."""
        with writing(), self._rooted(roots):
            summary = self._engine.garbage_collect(older_than, dry_run=dry_run)
            unfinished = list(self._unfinished(older_than))
            sizes = [path.stat().st_size for path in unfinished]
            for path in unfinished if not dry_run else ():
                path.unlink(missing_ok=True)
        return Freed(
            summary.chunks_deleted,
            summary.manifests_deleted,
            summary.snapshots_deleted,
            summary.transaction_logs_deleted,
            len(unfinished),
            summary.bytes_deleted + sum(sizes),
            getattr(summary, "objects_failed_to_delete", 0),  # icechunk 1 does not count them
        )

    @contextmanager
    def _rooted(self, roots: Iterable[str]) -> Iterator[None]:
        for name in self._hidden(KEPT):  # of somebody who was killed here
            self._engine.delete_branch(name)
        names = [f"{KEPT}{root}" for root in roots]
        try:
            for name in names:
                self._engine.create_branch(name, name.removeprefix(KEPT))
            yield
        finally:
            for name in names:
                with suppress(Exception):  # swept by the next one
                    self._engine.delete_branch(name)

    def _unfinished(self, older_than: datetime) -> Iterator[Path]:
        """Yield the files that the engine writes beside those they are to become; it never lists them."""
        for folder in _STAGING_FOLDERS if self._location.path is not None else ():
            for path in (self._location.path / folder).rglob("*#*"):  # type: ignore[operator]
                if path.is_file() and datetime.fromtimestamp(path.stat().st_mtime, UTC) < older_than:
                    yield path


def _expire_beside(store: Path, older_than: datetime) -> None:
    """Let the engine expire in a copy of what it looks at, and put what it wrote in place when that is on the disk.

    It would write over the old file and leave the rest to the file system: after a power failure, some have neither.
    """
    for left in store.glob(f"{_BESIDE}*"):  # by somebody who was killed here
        shutil.rmtree(left)
    with TemporaryDirectory(prefix=_BESIDE, dir=store) as folder:
        copy = Path(folder)
        shutil.copytree(store / "refs", copy / "refs")
        if (store / "config.yaml").exists():
            shutil.copy(store / "config.yaml", copy)
        shutil.copytree(store / "snapshots", copy / "snapshots")
        icechunk.Repository.open(icechunk.local_filesystem_storage(folder)).expire_snapshots(older_than)
        for path in (copy / "snapshots").iterdir():
            stored = store / "snapshots" / path.name
            if path.read_bytes() != stored.read_bytes():
                with path.open("r+b") as file:
                    os.fsync(file.fileno())
                path.replace(stored)
