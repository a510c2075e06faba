"""A store: its refs, its versions, and what is done with them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from embstore import maintenance
from embstore.branching import Branching
from embstore.checkout import Checkout
from embstore.conflicts import OnConflict
from embstore.diff import Diff
from embstore.errors import UnknownRefError
from embstore.founding import found, open_repo
from embstore.history import ancestors, blame, compare
from embstore.lineage import check_message
from embstore.merge import Merge
from embstore.refs import resolve
from embstore.replay import replay
from embstore.retaining import Retaining
from embstore.schema import Schema
from embstore.storage.location import Location
from embstore.storage.records import RecordState
from embstore.storage.repo import TRUNK
from embstore.verify import Report, verify
from embstore.version import Version


def create(
    url: str | os.PathLike[str],
    *,
    schema: Schema | None = None,
    storage_options: Mapping[str, Any] | None = None,
    durability: Literal["full", "none"] = "full",
) -> Store:
    """Make a store and its first, empty version.

    Parameters
    ----------
    url
        A path, ``file://``, ``memory://name`` (lives in this process), ``s3://bucket/prefix``, ``gs://…`` or ``az://…``.
    schema
        Entities and tables; more can be added in any later version.
    storage_options
        For object stores, as in fsspec and pandas: ``key``, ``secret``, ``endpoint_url``, ``region`` …
        (``docs/object-storage.md``). Where no credentials are given, they are found as the tools of that cloud find them.
    durability
        ``"full"``: a commit returns when all of it is on the disk. ``"none"``: without waiting; a power failure may take it.

    Raises
    ------
    StoreExistsError
        If anything is there.
    InvalidInputError
        For another kind of URL, another durability, or a schema that is none.
    StorageError
        If the place cannot be written, or is behind a server that ignores the conditions of a write.
    """
    return Store(found(Location(url, storage_options), Schema() if schema is None else schema, durability))


def open(url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> Store:  # noqa: A001
    """Open a store.

    Raises
    ------
    StoreNotFoundError
        If nothing is there.
    NotAStoreError
        If something else is there, or a store of a newer format.
    InvalidInputError
        For another kind of URL, or an option that it does not take.
    StorageError
        If the place cannot be reached or read.
    """
    return Store(open_repo(Location(url, storage_options)))


def open_version(url: str, version_id: str, storage_options: Mapping[str, Any] | None = None) -> Version:
    """Return a version of a store by its id: what unpickling one does, with the credentials that are found there."""
    return open(url, storage_options=storage_options).at(version_id)


class Store(Branching, Retaining):
    """A handle of one store; use it in the process that opened it."""

    @property
    def url(self) -> str:
        """Return where the store is."""
        return self._repo.url

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def _version(self, version_id: str) -> Version:
        return Version(self._repo, self._repo.snapshot(version_id), reopen=open_version)

    def at(self, ref: str = TRUNK) -> Version:
        """Return the version that ``ref`` means: a branch, a tag, an id or 4 of its characters; then ``~n`` or ``@date``.

        Raises
        ------
        UnknownRefError
            If there is none.
        AmbiguousRefError
            If several versions begin so.
        """
        return Version(self._repo, resolve(self._repo, ref), reopen=open_version)

    def log(self, ref: str = TRUNK, *, all: bool = False) -> Iterator[Version]:  # noqa: A002
        """Yield the version and those before it, newest first: along first parents, or with ``all`` every ancestor.

        Raises
        ------
        UnknownRefError
            If there is no such version.
        """
        start = self.at(ref)
        if all:
            return ancestors(start, self._version)
        return (Version(self._repo, s, reopen=open_version) for s in self._repo.ancestry(start.id))

    def checkout(self, branch: str = TRUNK) -> Checkout:
        """Return a writable copy of a branch's tip.

        Raises
        ------
        UnknownRefError
            If there is no such branch (a tag or an id cannot be written to).
        """
        tip = self._repo.branch(branch)
        while tip is not None:
            work = Checkout(self._repo, branch, self._version(tip), find_version=self._version)
            tip = self._repo.branch(branch)
            if tip == work.version.id:  # still, after its lease was taken
                return work
            work.discard()
        msg = f"branch {branch!r}: there are {', '.join(self.branches())}; make it with store.branch({branch!r})"
        raise UnknownRefError(msg)

    def diff(self, base: str, target: str = TRUNK) -> Diff:
        """Return what turns ``base`` into ``target``.

        Raises
        ------
        UnknownRefError
            If one of them is missing.
        """
        before, after = self.at(base), self.at(target)
        return Diff(compare(before, after, self._version), before, after)

    def merge(self, source: str, *, into: str = TRUNK, on_conflict: OnConflict = "fail", message: str | None = None) -> Version:
        """Bring what ``source`` has changed since both were one into a branch, row by row and keyed by id.

        The version has two parents. Where the branch has all of the source already, it stays and its tip is returned. Where
        nothing has happened on the branch since the source left it, it moves to the source, unless a ``message`` asks for a
        version of its own.

        Parameters
        ----------
        source
            A branch, a tag or any other ref.
        into
            The branch: "ours". "Theirs" is the source.
        on_conflict
            As for `Checkout.commit`.
        message
            For people; ``"merge <source>"``.

        Raises
        ------
        ConflictError
            If both changed a row or an array without rows, and ``on_conflict`` does not decide; nothing is written.
        SchemaMismatchError
            If both added a table, slot or entity of one name that are not the same.
        UnknownRefError
            If there is no such version or branch.
        InvalidInputError
            For an ``on_conflict`` or message that cannot be used.
        """
        with self.at(source).pin() as version:
            return Merge(self._repo, self._version, version, source, into, on_conflict, message).land()

    def revert(self, ref: str, *, branch: str = TRUNK, message: str | None = None) -> Version:
        """Commit to ``branch`` a version that is equal to ``ref`` by id; ids appended since become tombstones.

        It costs what changed since; the versions between stay in the log.

        Raises
        ------
        UnknownRefError
            If there is no such version or branch.
        ConflictError
            If the branch moves meanwhile.
        InvalidInputError
            For a message that says nothing.
        """
        if message is not None:
            check_message(message)
        target = self.at(ref)
        with self.checkout(branch) as work:
            comparison = compare(work.version, target, self._version)
            replay(comparison.changes(), work)
            kept = _kept_segments(work.version, target)
            if kept is not None and comparison.target_rows_stay:
                work.consumed.truncate(kept)
            work.lineage["reverted_to"] = target.id
            return work.commit_here(f"revert to {ref}" if message is None else message, metadata=target.metadata)

    def compact(self, branch: str = TRUNK) -> Version:
        """Fold every table and merge index and record, as a version with an empty diff; the tip, where nothing is to be done.

        Raises
        ------
        UnknownRefError
            If there is no such branch.
        ConflictError
            If the branch moves meanwhile.
        """
        with self.checkout(branch) as work:
            if not maintenance.needs_compaction(work.version):
                return work.version
            return self._version(maintenance.compact(self._repo, branch, work.version))

    def verify(self, ref: str = TRUNK, *, deep: bool = True) -> Report:
        """Check one version, and no other: its invariants, and with ``deep`` the checksum of every chunk.

        Raises
        ------
        UnknownRefError
            If there is no such version.
        """
        return verify(self.at(ref), deep=deep)

    def blame(self, entity: str, id: object, *, table: str | None = None) -> list[Version]:  # noqa: A002
        """Return the versions that changed an id's rows (of one table, or of all), newest first; the last appended it.

        Raises
        ------
        UnknownIdError
            If the entity does not have the id.
        UnknownNameError
            If there is no such entity or table, or the table is another entity's.
        """
        return blame(self.at(), entity, id, table=table, find=self._version)

    def export(
        self,
        url: str | os.PathLike[str],
        *,
        ref: str = TRUNK,
        slots: bool = True,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Store:
        """Write one version, without its log, to a new store; ``slots=False`` leaves optimizer state out, for serving.

        Without ``storage_options`` a place in the same kind of object store is reached as this store is.

        Raises
        ------
        StoreExistsError
            If anything is there.
        UnknownRefError
            If there is no such version.
        """
        with self.at(ref).pin() as version:
            location = self._repo.location.elsewhere(url, storage_options)
            return Store(maintenance.export(version, location, slots=slots))


def _kept_segments(tip: Version, target: Version) -> int | None:
    """Return how many of the tip's consumed segments make up the target's record; None if they do not begin with them."""
    now, then = ([s.name for s in RecordState.read(v.reader).segments] for v in (tip, target))
    return len(then) if now[: len(then)] == then else None
