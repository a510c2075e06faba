"""Making the repository of a store, and opening it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import icechunk

from embstore.errors import ConflictError, NotAStoreError, StoreExistsError, StoreNotFoundError
from embstore.storage.conditional import check_conditional_writes
from embstore.storage.faults import reading, writing
from embstore.storage.location import LOCK_NAME, Location
from embstore.storage.loop import check_process, run
from embstore.storage.opening import begin, open_engine
from embstore.storage.repo import TRUNK, Described, Repo
from embstore.storage.walking import FIRST_SNAPSHOT
from embstore.storage.writer import Writer

_LEFTOVERS = {"chunks", "config.yaml", LOCK_NAME, "manifests", "refs", "snapshots", "transactions"}
# What the engine says where a prefix is not empty, or where another has made the first branch at the same moment.
_TAKEN = ("clean prefixes", "conflict")


def create(location: Location) -> Repo:
    """Make an empty repository and return it.

    Raises
    ------
    StoreExistsError
        If anything is there, but for what an interrupted making left.
    StorageError
        If the place cannot be written, or is behind a server that ignores the conditions of a write.
    """
    check_process()
    icechunk.set_logs_filter("error")
    if location.occupied() and not _is_unfinished(location):
        msg = f"store {location.url}: something is there already; open it, or take another place"
        raise StoreExistsError(msg)
    with writing():
        if location.path is not None:
            location.path.mkdir(parents=True, exist_ok=True)
        if not _has_trunk(location):
            if location.path is not None:
                _sweep(location.path)
            _begin(location)
        if location.place is not None:
            check_conditional_writes(location.place)
        return Repo(open_engine(location.storage()), location)


def commit_first(repo: Repo, write: Callable[[Writer], Described]) -> None:
    """Write the first version of a store that was just made.

    Raises
    ------
    StoreExistsError
        If somebody else has done so meanwhile.
    """
    try:
        repo.commit(TRUNK, FIRST_SNAPSHOT, write)
    except ConflictError as error:
        msg = f"store {repo.url}: somebody else has just made one there; open it, or take another place"
        raise StoreExistsError(msg) from error


def _begin(location: Location) -> None:
    try:
        if location.place is None:
            run(begin(location.storage()))
        else:
            location.place.answered(lambda: begin(location.storage()))
    except Exception as error:
        if location.place is None or not any(sign in str(error).lower() for sign in _TAKEN):
            raise
        msg = f"store {location.url}: something is there, or has just been put there; take another prefix"
        raise StoreExistsError(msg) from error


def _has_trunk(location: Location) -> bool:
    """Return whether an Icechunk repository of format 1 is there."""
    if location.path is None:
        return icechunk.Repository.exists(location.storage())
    return (location.path / "refs" / f"branch.{TRUNK}" / "ref.json").is_file()


def _is_unfinished(location: Location) -> bool:
    """Return whether all that is there was left by somebody who was killed before the first version of a store."""
    if _has_trunk(location):
        try:
            repo = Repo(open_engine(location.storage()), location)
            return next(repo.ancestry(repo.branches()[TRUNK]), None) is None
        except Exception:
            return False
    return location.path is not None and location.path.is_dir() and _holds_nothing(location.path)


def _holds_nothing(path: Path) -> bool:
    """Return whether a folder has only beginnings of a repository: no ref, no chunk, no snapshot but the engine's first."""
    names = {entry.name for entry in path.iterdir()}
    snapshots = {entry.name.partition("#")[0] for entry in (path / "snapshots").glob("*")}
    refs = list((path / "refs").glob("*/ref.json"))
    return names <= _LEFTOVERS and snapshots <= {FIRST_SNAPSHOT} and not refs and not any((path / "chunks").glob("*"))


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
        msg = f"store {location.url}: nothing is there; make one with create (embstore init), or check where it should be"
        raise StoreNotFoundError(msg)
    with reading():
        if not _has_trunk(location):
            msg = f"store {location.url}: this is no embstore store; check the path"
            raise NotAStoreError(msg)
        return Repo(open_engine(location.storage()), location)
