"""Where a store is: a URL taken apart, its lock, and how its bytes reach the disk."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import icechunk
from filelock import FileLock, Timeout

from embstore.errors import InvalidInputError, StorageError, StoreNotFoundError
from embstore.storage.faults import reading
from embstore.storage.loop import check_process
from embstore.storage.object_store import SCHEMES, ObjectPlace, is_object_url
from embstore.storage.place_options import without_secrets

LOCK_NAME = "embstore.lock"
_GIVE = "give a path, file:///path, memory://name, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
_LOCK_SECONDS = 600.0
# Stores of memory:// live as long as the process; every handle of one name shares the storage and the lock.
_memory: dict[str, tuple[icechunk.Storage, threading.RLock]] = {}


class Location:
    """A place that can hold a store.

    Parameters
    ----------
    url
        A path, ``file://``, ``memory://name``, ``s3://bucket/prefix``, ``gs://`` or ``az://``.
    storage_options
        For object stores; none for a path and memory.

    Raises
    ------
    InvalidInputError
        For another scheme, a path of another machine, or options that the place does not take.
    """

    def __init__(self, url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> None:
        text = os.fspath(url) if isinstance(url, (str, os.PathLike)) else None
        if not isinstance(text, str) or not text:
            msg = f"store {url!r}: {_GIVE}"
            raise InvalidInputError(msg)
        self.path: Path | None = None
        self.place: ObjectPlace | None = None
        self.memory_name = ""
        if is_object_url(text):
            self.place = ObjectPlace(text, storage_options)
        elif storage_options:
            msg = f"storage_options {sorted(storage_options)}: a store in a folder or in memory takes none"
            raise InvalidInputError(msg)
        else:
            self.path, self.memory_name = _take_apart(text)

    @property
    def url(self) -> str:
        """Return where it is, without secrets."""
        if self.place is not None:
            return self.place.url
        return f"memory://{self.memory_name}" if self.path is None else str(self.path)

    @property
    def public_options(self) -> dict[str, Any] | None:
        """Return the storage options without secrets; None where the place takes none."""
        return None if self.place is None else self.place.public_options

    def elsewhere(self, url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Location:
        """Return another place, in the same kind of object store with the options of this one if none are given."""
        if storage_options is None and self.place is not None and str(url).startswith(f"{self.place.scheme}://"):
            return Location(url, self.place.options)
        return Location(url, storage_options)

    @property
    def in_memory(self) -> bool:
        """Return whether the store ends with the process."""
        return self.path is None and self.place is None

    def storage(self) -> icechunk.Storage:
        """Return the engine's storage for this place."""
        if self.place is not None:
            return self.place.storage
        if self.path is None:
            return self._memory_entry()[0]
        return icechunk.local_filesystem_storage(str(self.path))

    def _memory_entry(self) -> tuple[icechunk.Storage, threading.RLock]:
        name = self.memory_name
        if name not in _memory:
            _memory[name] = (icechunk.in_memory_storage(), threading.RLock())
        return _memory[name]

    def occupied(self) -> bool:
        """Return whether anything at all is there; in an object store, whether an Icechunk repository is.

        Raises
        ------
        StorageError
            If that cannot be seen: no permission, no such bucket, no answer.
        """
        if self.place is not None:
            storage = self.place.storage
            with reading():
                return self.place.answered(lambda: icechunk.Repository.exists_async(storage))
        if self.path is None:
            return self.memory_name in _memory
        try:
            return self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))
        except OSError as error:
            msg = f"{self.path}: cannot be looked into ({error.strerror}); check its permissions"
            raise StorageError(msg) from error

    def check_there(self) -> None:
        """Raise what tells why nothing is found in a folder: the engine makes it again, and what it may not read is not there.

        Raises
        ------
        StoreNotFoundError
            If the store is gone.
        StorageError
            If there is no permission to read in it.
        """
        if self.path is None:
            return
        for folder in (self.path, self.path / "snapshots"):
            if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
                msg = f"{folder}: cannot be looked into (no permission); check its permissions"
                raise StorageError(msg)
        if not os.path.isdir(self.path / "refs"):
            msg = f"store {self.url}: it is not there any more; open it where it is now, or make another"
            raise StoreNotFoundError(msg)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the one lock that every move of a branch or tag takes; a thread may take it again while it has it.

        A killed holder's lock is free at once. An object store has none: its server compares and sets in one step.

        Raises
        ------
        StoreNotFoundError
            If the store is gone; a lock file would make its folder again.
        StorageError
            If the lock file cannot be made, or another process holds the lock for ten minutes.
        ForkedError
            In a forked child, which would keep the lock from its parent while it hangs.
        """
        check_process()
        if self.path is None:
            with self._memory_entry()[1] if self.place is None else nullcontext():
                yield
            return
        self.check_there()
        lock = FileLock(self.path / LOCK_NAME, timeout=_LOCK_SECONDS, is_singleton=True)
        try:
            lock.acquire()
        except Timeout as error:
            msg = f"{lock.lock_file}: another process has held it for {_LOCK_SECONDS:.0f} s; wait for it or end it"
            raise StorageError(msg) from error
        except OSError as error:
            msg = f"{lock.lock_file}: cannot be locked ({error.strerror or error}); the store is read-only here"
            raise StorageError(msg) from error
        try:
            yield
        finally:
            lock.release()

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        if self.path is None or _sync_file_system(self.path):
            return
        for folder, _, files in os.walk(self.path):
            for name in [*files, "."]:
                _sync_one(os.path.join(folder, name))


def _take_apart(text: str) -> tuple[Path | None, str]:
    scheme, colon, _ = text.partition(":")
    if "://" not in text and colon and scheme.lower() in (*SCHEMES, "file", "memory"):
        msg = f"store {without_secrets(text)!r}: two slashes come after {scheme}:; {_GIVE}"
        raise InvalidInputError(msg)
    if "://" not in text:
        return Path(text).expanduser().absolute(), ""
    if text.startswith("memory://"):
        name = text.removeprefix("memory://")
        if not name:
            msg = f"store {text!r}: give the store in memory a name, memory://name"
            raise InvalidInputError(msg)
        return None, name
    try:
        parts = urlsplit(text)
    except ValueError:  # whose own words might show a password
        msg = f"store {without_secrets(text)!r}: {_GIVE}"
        raise InvalidInputError(msg) from None
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return Path(unquote(parts.path)).absolute(), ""
    msg = f"store {without_secrets(text)!r}: {_GIVE}"
    raise InvalidInputError(msg)


def _sync_file_system(path: Path) -> bool:
    """Sync the whole file system in one call where there is one (Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if syncfs(descriptor) != 0:
            msg = f"{path}: could not be synced to disk ({os.strerror(ctypes.get_errno())}); nothing was committed"
            raise StorageError(msg)
    finally:
        os.close(descriptor)
    return True


def _sync_one(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders; a staging file may be gone by now
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
