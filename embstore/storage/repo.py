"""One Icechunk repository: its refs, its states, and the protocol by which a state becomes a version."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import icechunk

from embstore.errors import (
    ConflictError,
    DamagedStoreError,
    NotAStoreError,
    StoreExistsError,
    StoreNotFoundError,
    UnknownRefError,
)
from embstore.storage.arrays import Reader
from embstore.storage.documents import digest_change, digest_of
from embstore.storage.faults import reading, writing
from embstore.storage.location import LOCK_NAME, Location
from embstore.storage.loop import check_process
from embstore.storage.writer import Writer

TRUNK = "main"
_FIRST_SNAPSHOT = "1CECHNKREP0F1RSTCMT0"
_LEFTOVERS = {"chunks", "config.yaml", LOCK_NAME, "manifests", "refs", "snapshots", "transactions"}

if not icechunk.__version__.startswith("1."):
    check_process()  # icechunk 2 starts its threads when it is imported: from here on a fork would lack them

# What a commit says of the state that it wrote: a message, and what makes the metadata from the change of the documents' digest.
Described = tuple[str, Callable[[int], Mapping[str, Any]]]


@dataclass(frozen=True)
class Snapshot:
    """What the engine keeps of one state beside its arrays; the parent of the first is None."""

    id: str
    parent: str | None
    message: str
    metadata: Mapping[str, Any]


class Repo:
    """A handle of one repository; valid in the process that opened it.

    Every call that moves a ref holds the store's lock: the engine's own check of a branch on a local file system is a
    check and then a rename, and loses acknowledged commits.
    """

    def __init__(self, repository: icechunk.Repository, location: Location) -> None:
        self._repository = repository
        self.location = location
        self.durable = not location.in_memory

    @property
    def url(self) -> str:
        """Return where the store is, without secrets."""
        return self.location.url

    @property
    def _engine(self) -> icechunk.Repository:
        check_process()
        return self._repository

    def reader(self, snapshot_id: str) -> Reader:
        """Return the arrays of one state."""
        engine = self._engine
        with reading():
            return Reader(engine.readonly_session(snapshot_id=snapshot_id).store)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """Return what is kept of the state ``snapshot_id``."""
        found = next(self.ancestry(snapshot_id), None)
        if found is None:
            msg = f"version {snapshot_id}: it is the engine's own, which holds nothing; take a later one"
            raise UnknownRefError(msg)
        return found

    def documents(self, snapshot_id: str) -> int:
        """Return the digest of all documents of a state."""
        engine = self._engine
        with reading():
            return digest_of(engine.readonly_session(snapshot_id=snapshot_id).store)

    def ancestry(self, snapshot_id: str) -> Iterator[Snapshot]:
        """Yield the state and those before it, newest first, without the engine's own empty first one."""
        engine = self._engine
        with reading():
            wanted: str | None = snapshot_id
            for info in engine.ancestry(snapshot_id=snapshot_id):
                if info.id != wanted or (info.parent_id is None) != (info.id == _FIRST_SNAPSHOT):
                    msg = f"version {wanted}: its file is not what was written; go back to an older version or a copy"
                    raise DamagedStoreError(msg)
                wanted = info.parent_id
                if wanted is None:
                    return
                yield Snapshot(info.id, None if wanted == _FIRST_SNAPSHOT else wanted, info.message, info.metadata)

    def branches(self) -> dict[str, str]:
        """Return the branches and the states they point to."""
        engine = self._engine
        with reading():
            return {name: engine.lookup_branch(name) for name in sorted(engine.list_branches())}

    def tags(self) -> dict[str, str]:
        """Return the tags and the states they name."""
        engine = self._engine
        with reading():
            return {name: engine.lookup_tag(name) for name in sorted(engine.list_tags())}

    def create_branch(self, name: str, snapshot_id: str) -> None:
        """Make a branch."""
        self._move(lambda engine: engine.create_branch(name, snapshot_id))

    def move_branch(self, name: str, snapshot_id: str) -> None:
        """Point a branch elsewhere, whatever it points to now."""
        self._move(lambda engine: engine.reset_branch(name, snapshot_id))

    def delete_branch(self, name: str) -> None:
        """Delete a branch."""
        self._move(lambda engine: engine.delete_branch(name))

    def create_tag(self, name: str, snapshot_id: str) -> None:
        """Make a tag."""
        self._move(lambda engine: engine.create_tag(name, snapshot_id))

    def delete_tag(self, name: str) -> None:
        """Delete a tag; the engine never gives its name out again."""
        self._move(lambda engine: engine.delete_tag(name))

    def _move(self, change: Callable[[icechunk.Repository], None]) -> None:
        engine = self._engine
        with self.location.lock(), writing():
            change(engine)
            self._sync()

    def _sync(self) -> None:
        if self.durable:
            self.location.sync()

    def commit(self, branch: str, parent: str, write: Callable[[Writer], Described], *, create: bool = False) -> str:
        """Write a state and make it the tip of ``branch``, if that is still ``parent``; return its id.

        Under the lock: check the tip, write, flush, sync, move the branch, sync. The branch points to the old state until
        all of the new one is on the disk, so a crash at any moment leaves the old or the new version, whole.

        Parameters
        ----------
        write
            Is given the writer; returns the message, and what makes the metadata.
        create
            Make the branch at ``parent`` first; it goes again if writing fails.

        Raises
        ------
        ConflictError
            If the branch has moved; nothing is written.
        StorageError
            If the disk refuses; the branch has not moved.
        """
        engine = self._engine
        with self.location.lock():
            made = create and branch not in engine.list_branches()  # somebody may have made it since
            if made:
                with writing():
                    engine.create_branch(branch, parent)
            try:
                return self._commit(engine, branch, parent, write)
            except BaseException:
                if made:
                    with suppress(Exception):
                        engine.delete_branch(branch)
                raise

    def _commit(
        self,
        engine: icechunk.Repository,
        branch: str,
        parent: str,
        write: Callable[[Writer], Described],
    ) -> str:
        with reading():
            session = engine.writable_session(branch)
        if session.snapshot_id != parent:
            msg = f"branch {branch!r} has moved from {parent} to {session.snapshot_id} since this checkout was made"
            raise ConflictError(msg)
        writer = Writer(session.store)
        try:
            message, described = write(writer)
        finally:
            writer.settle()
        with writing():
            change = digest_change(engine.readonly_session(snapshot_id=parent).store, session)
            new: str = session.flush(message, metadata=dict(described(change)))
            self._sync()
            engine.reset_branch(branch, new, from_snapshot_id=parent)
            self._sync()
        return new


def create(location: Location) -> Repo:
    """Make an empty repository and return it.

    Raises
    ------
    StoreExistsError
        If anything is there, but for what an interrupted making left.
    StorageError
        If the place cannot be written.
    """
    check_process()
    icechunk.set_logs_filter("error")
    if location.occupied() and not _is_unfinished(location):
        msg = f"store {location.url}: something is there already; open it, or take another place"
        raise StoreExistsError(msg)
    with writing():
        if location.path is not None:
            location.path.mkdir(parents=True, exist_ok=True)
        # Format 1 is read and written by icechunk 1.x and 2.x alike, and only 2.x can be told which.
        takes_version = "spec_version" in inspect.signature(icechunk.Repository.create).parameters
        format_1: dict[str, Any] = {"spec_version": 1} if takes_version else {}
        if not _has_trunk(location):
            if location.path is not None:
                _sweep(location.path)
            icechunk.Repository.create(location.storage(), **format_1)
        return Repo(_opened(location), location)


def _has_trunk(location: Location) -> bool:
    """Return whether an Icechunk repository of format 1 is there."""
    if location.path is None:
        return icechunk.Repository.exists(location.storage())
    return (location.path / "refs" / f"branch.{TRUNK}" / "ref.json").is_file()


def _is_unfinished(location: Location) -> bool:
    """Return whether all that is there was left by somebody who was killed before the first version of a store."""
    if _has_trunk(location):
        try:
            repo = Repo(_opened(location), location)
            return next(repo.ancestry(repo.branches()[TRUNK]), None) is None
        except Exception:
            return False
    return location.path is not None and location.path.is_dir() and _holds_nothing(location.path)


def _holds_nothing(path: Path) -> bool:
    """Return whether a folder has only beginnings of a repository: no ref, no chunk, no snapshot but the engine's first."""
    names = {entry.name for entry in path.iterdir()}
    snapshots = {entry.name.partition("#")[0] for entry in (path / "snapshots").glob("*")}
    refs = list((path / "refs").glob("*/ref.json"))
    return names <= _LEFTOVERS and snapshots <= {_FIRST_SNAPSHOT} and not refs and not any((path / "chunks").glob("*"))


def _sweep(path: Path) -> None:
    """Remove the beginnings of a repository: the engine makes one in an empty folder only."""
    for name in _LEFTOVERS - {LOCK_NAME}:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)


def open_(location: Location) -> Repo:
    """Open the repository at ``location``.

    Raises
    ------
    StoreNotFoundError
        If nothing is there.
    NotAStoreError
        If it is no Icechunk repository of format 1.
    """
    check_process()
    icechunk.set_logs_filter("error")
    if not location.occupied():
        msg = f"store {location.url}: nothing is there; make one with create (embstore init), or check the path"
        raise StoreNotFoundError(msg)
    with reading():
        if not _has_trunk(location):
            msg = f"store {location.url}: this is no embstore store; check the path"
            raise NotAStoreError(msg)
        return Repo(_opened(location), location)


def _opened(location: Location) -> icechunk.Repository:
    """Open without the engine's guess at what will be read first: it compiles a pattern for every array of every session."""
    preload = icechunk.ManifestPreloadConfig(max_total_refs=0, preload_if=icechunk.ManifestPreloadCondition.false())
    config = icechunk.RepositoryConfig(manifest=icechunk.ManifestConfig(preload=preload))
    return icechunk.Repository.open(location.storage(), config=config)
