"""One Icechunk repository: its refs, its states, and the protocol by which a state becomes a version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

import icechunk

from embstore.errors import ConflictError, DamagedStoreError, NameExistsError
from embstore.names import is_name
from embstore.storage.arrays import Reader
from embstore.storage.documents import digest_change, digest_of
from embstore.storage.faults import reading, writing
from embstore.storage.hidden import check_visible, is_hidden
from embstore.storage.leases import Place, place_of
from embstore.storage.location import Location
from embstore.storage.loop import check_process
from embstore.storage.moving import ServedRefs
from embstore.storage.opening import open_engine
from embstore.storage.walking import Snapshot, first, walk
from embstore.storage.writer import Writer

TRUNK = "main"

if not icechunk.__version__.startswith("1."):
    check_process()  # icechunk 2 starts its threads when it is imported: from here on a fork would lack them

# What a commit says of the state that it wrote: a message, and what makes the metadata from the change of the documents' digest.
Described = tuple[str, Callable[[int], Mapping[str, Any]]]


class Repo:
    """A handle of one repository; valid in the process that opened it.

    Every call that moves a ref holds the store's lock: the engine's own check of a branch on a local file system is a
    check and then a rename, and loses acknowledged commits. In an object store there is no lock: the server itself compares
    and sets.
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

    @property
    def _served(self) -> ServedRefs | None:
        """Return the branches and tags of a store in an object store."""
        place = self.location.place
        return None if place is None else ServedRefs(self._engine, place)

    @property
    def _refs(self) -> icechunk.Repository | ServedRefs:
        """Return what moves branches and tags."""
        return self._served or self._engine

    def reader(self, snapshot_id: str) -> Reader:
        """Return the arrays of one state."""
        engine = self._engine
        with reading():
            return Reader(engine.readonly_session(snapshot_id=snapshot_id).store)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """Return what is kept of the state ``snapshot_id``."""
        return first(self.ancestry(snapshot_id), snapshot_id, referred=lambda: {*self.branches().values(), *self.tags().values()})

    def documents(self, snapshot_id: str) -> int:
        """Return the digest of all documents of a state."""
        engine = self._engine
        with reading():
            return digest_of(engine.readonly_session(snapshot_id=snapshot_id).store)

    def ancestry(self, snapshot_id: str) -> Iterator[Snapshot]:
        """Yield the state and those before it, newest first, without the engine's own empty first one."""
        n_seen = 0
        try:
            for snapshot in walk(self._engine, snapshot_id):
                n_seen += 1
                yield snapshot
        except DamagedStoreError:
            self.location.check_there()
            # What this handle has read before may lead to what somebody has expired and collected since.
            yield from islice(walk(self.reopened(), snapshot_id), n_seen, None)

    def branches(self) -> dict[str, str]:
        """Return the branches and the states they point to."""
        engine, served = self._engine, self._served
        with reading():
            if served is not None:
                return served.branches()
            found = {name: engine.lookup_branch(name) for name in sorted(engine.list_branches()) if not is_hidden(name)}
        if not found:
            self.location.check_there()
        return found

    def branch(self, name: object) -> str | None:
        """Return the state that a branch points to; None if there is no such branch."""
        if not isinstance(name, str):
            return None
        served = self._served
        if served is None or not is_name(name):
            return self.branches().get(name)
        with reading():
            return served.branch(name)

    def tags(self) -> dict[str, str]:
        """Return the tags and the states they name."""
        engine, served = self._engine, self._served
        with reading():
            if served is not None:
                return served.tags()
            return {name: engine.lookup_tag(name) for name in sorted(engine.list_tags())}

    def create_branch(self, name: str, snapshot_id: str) -> None:
        """Make a branch."""
        check_visible(name)
        self._move(lambda refs: refs.create_branch(name, snapshot_id))

    def move_branch(self, name: str, snapshot_id: str) -> None:
        """Point a branch elsewhere, whatever it points to now."""
        self._move(lambda refs: refs.reset_branch(name, snapshot_id))

    def forward_branch(self, name: str, snapshot_id: str, *, expected: str) -> None:
        """Point a branch elsewhere if it still points to ``expected``."""
        self._move(lambda refs: refs.reset_branch(name, snapshot_id, from_snapshot_id=expected))

    def delete_branch(self, name: str) -> None:
        """Delete a branch."""
        self._move(lambda refs: refs.delete_branch(name))

    def create_tag(self, name: str, snapshot_id: str) -> None:
        """Make a tag."""
        self._move(lambda refs: refs.create_tag(name, snapshot_id))

    def delete_tag(self, name: str) -> None:
        """Delete a tag; the engine never gives its name out again."""
        self._move(lambda refs: refs.delete_tag(name))

    def _move(self, change: Callable[[icechunk.Repository | ServedRefs], None]) -> None:
        refs = self._refs
        with self.location.lock(), writing():
            change(refs)
            self.sync()

    @property
    def leases(self) -> Place:
        """Return where the leases of the store are kept."""
        check_process()
        return place_of(self.location, lambda: self._engine)

    def reopened(self) -> icechunk.Repository:
        """Return the engine as one that has read nothing yet, and go on with it."""
        check_process()
        self.location.check_there()
        with reading():
            self._repository = open_engine(self.location.storage())
        return self._repository

    def sync(self) -> None:
        """Wait until all that was written is on the disk, where commits do."""
        if self.durable:
            self.location.sync()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the lock; in an object store only ask others to wait."""
        with self.location.lock() if self._served is None else self._served.first_in_line():
            yield

    def commit(self, branch: str, parent: str, write: Callable[[Writer], Described], *, create: bool = False) -> str:
        """Write a state and make it the tip of ``branch``, if that is still ``parent``; return its id.

        Under the lock: check the tip, write, flush, sync, move the branch, sync. The branch points to the old state until
        all of the new one is on the disk, so a crash at any moment leaves the old or the new version, whole. In an object
        store the same without lock and sync: who moves the branch second has lost.

        Parameters
        ----------
        write
            Is given the writer; returns the message, and what makes the metadata.
        create
            Make the branch at ``parent`` first; it goes again if writing fails, but in an object store, where others may
            have committed to it by then.

        Raises
        ------
        ConflictError
            If the branch has moved; nothing is written.
        StorageError
            If the disk refuses; the branch has not moved.
        """
        engine = self._engine
        if self._served is not None:
            self._served.let_pass()
        with self.location.lock():
            made = create and branch not in engine.list_branches()  # somebody may have made it since
            if made:
                check_visible(branch)
                with writing(), suppress(NameExistsError):  # somebody was faster: where it is now decides
                    self._refs.create_branch(branch, parent)
            try:
                return self._commit(engine, branch, parent, write)
            except BaseException:
                if made and self.location.place is None:
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
            self.sync()
            self._refs.reset_branch(branch, new, from_snapshot_id=parent)
            self.sync()
        return new
