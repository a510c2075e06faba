"""What Icechunk raises, told in our errors.

Its exceptions come in many unrelated classes, and a damaged file may even end in a Rust panic, which is no ``Exception``;
so the message decides, and what is left over is damage where we were reading and a refusal where we were writing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from embstore.errors import DamagedStoreError, EmbstoreError, StorageError

_FULL = ("no space left", "os error 28", "disk quota", "os error 122")
_FORBIDDEN = ("permission denied", "os error 13", "read-only file system", "os error 30")


@contextmanager
def reading() -> Iterator[None]:
    """Turn what fails inside into DamagedStoreError, or StorageError where the file system refuses."""
    with _translated(DamagedStoreError, "cannot be read; go back to an older version or a copy"):
        yield


@contextmanager
def writing() -> Iterator[None]:
    """Turn what fails inside into StorageError."""
    with _translated(StorageError, "could not be written; the store is as it was"):
        yield


@contextmanager
def _translated(otherwise: type[EmbstoreError], what: str) -> Iterator[None]:
    try:
        yield
    except (EmbstoreError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise _told(error, otherwise, what) from error


def _told(error: BaseException, otherwise: type[EmbstoreError], what: str) -> EmbstoreError:
    text = str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    if any(sign in text.lower() for sign in _FULL):
        return StorageError("the disk is full; free some room and try again, the store is as it was")
    if any(sign in text.lower() for sign in _FORBIDDEN):
        return StorageError("the file system refuses to write or read here (read-only, or no permission); the store is as it was")
    return otherwise(f"storage {what} ({first[:300]})")
