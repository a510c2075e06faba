"""What Icechunk raises, told in our errors.

Its exceptions come in many unrelated classes, and a damaged file may even end in a Rust panic, which is no ``Exception``;
so the message decides, and what is left over is damage where we were reading and a refusal where we were writing.
An object store may refuse for reasons of its own, none of which is damage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from embstore.errors import DamagedStoreError, EmbstoreError, StorageError

_FULL = ("no space left", "os error 28", "disk quota", "os error 122")
_FORBIDDEN = ("permission denied", "os error 13", "read-only file system", "os error 30")
_REFUSED_PATH = re.compile(r"Unable to \w+ (?:dir|file) (.+?): ")
# What object stores and the way there say, by what is to be done about it; the first that fits counts.
_REMOTE: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "the bucket does not exist ({sign}); make it, or check the URL",
        ("nosuchbucket", "specified bucket does not exist", "containernotfound", "specified container does not exist"),
    ),
    (
        "no credentials were found ({sign}); give them in storage_options or set them up where the tools of that cloud look "
        "(environment, profile), or pass anon=True if the bucket is public",
        ("loading credentials", "no providers in chain", "credentialsnotloaded", "error performing token request"),
    ),
    (
        "the region is missing or wrong ({sign}); give region in storage_options, or set it in the environment",
        ("region must be set", "missing region", "permanentredirect", "authorizationheadermalformed"),
    ),
    (
        "the server does not accept these credentials ({sign}); check them, or give others",
        ("signaturedoesnotmatch", "invalidaccesskeyid", "expiredtoken", "invalidtoken", "authenticationfailed", "401 unauth"),
    ),
    (
        "the server does not allow it ({sign}); check the credentials and what they may do",
        ("accessdenied", "authorizationfailure", "403 forbidden", "necessary privileges"),
    ),
    (
        "the server cannot be reached, or fails ({sign}); check endpoint_url and the network, and try again",
        (
            *("dns error", "connection refused", "connection reset", "timed out", "slowdown", "serviceunavailable"),
            *("internalerror", "500 internal", "502 bad gateway", "503 service", "dispatch failure", "error sending request"),
        ),
    ),
)


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
        place = _place(error, text)
        return StorageError(
            f"the file system refuses to write or read {place} (read-only, or no permission); the store is as it was"
        )
    for said, signs in _REMOTE:
        at = next((at for at in map(text.lower().find, signs) if at >= 0), None)
        if at is not None:
            return StorageError(f"storage: {said.format(sign=re.split(r'[^A-Za-z0-9 ]', text[at:], maxsplit=1)[0].strip())}")
    if otherwise is DamagedStoreError and "not found" in text.lower():
        what = f"{what}; what is expired while it is read must be pinned"
    return otherwise(f"storage {what} ({first[:300]})")


def _place(error: BaseException, text: str) -> str:
    """Return the path that was refused, where the error knows it."""
    found = _REFUSED_PATH.search(text)
    return str(getattr(error, "filename", None) or (found[1] if found else "here"))
