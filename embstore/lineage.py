"""What a version records of its making."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol
from zlib import crc32

from embstore.errors import DamagedStoreError, InvalidInputError, UnknownRefError

_LIBRARIES = ("embstore", "icechunk", "numpy", "zarr")
_MOST_BYTES = 65_536
_DIGESTS = 2**64


class Kept(Protocol):
    """What the engine keeps of a version beside its arrays."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def parent(self) -> str | None:
        """The version before it; None for the first one."""

    @property
    def message(self) -> str:
        """What its author said."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What we gave the engine to keep."""


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that write a store."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree that is not installed
            found[name] = "unknown"
    return found


def checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return ``metadata`` as JSON gives it back.

    Raises
    ------
    InvalidInputError
        If it is no mapping with JSON data of at most 64 KiB.
    """
    try:
        text = json.dumps(dict(metadata or {}), allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"metadata: {error}; give a mapping of strings, finite numbers, lists and mappings"
        raise InvalidInputError(msg) from error
    if len(text) > _MOST_BYTES:
        msg = f"metadata: {len(text)} bytes; at most {_MOST_BYTES}, put large things into dense arrays"
        raise InvalidInputError(msg)
    data: dict[str, Any] = json.loads(text)
    return data


def version_record(
    message: str, parents: list[str], metadata: Mapping[str, Any], lineage: Mapping[str, Any], *, documents: int = 0
) -> tuple[str, Callable[[int], dict[str, Any]]]:
    """Return the message, and what makes the record that is stored beside it.

    Parameters
    ----------
    documents
        Digest of the first parent's documents; what the commit adds to it is given to what is returned.
    """
    record = {
        "message": message,
        "time": datetime.now(UTC).isoformat(),
        "parents": parents,
        "metadata": dict(metadata),
        "lineage": {**lineage, "libraries": library_versions()},
    }

    def stored(change: int) -> dict[str, Any]:
        # As text: the engine keeps neither the order of keys nor large integers, and its files have no checksums.
        text = json.dumps(record | {"documents": (documents + change) % _DIGESTS})
        return {"embstore": text, "crc": crc32(text.encode())}

    return message, stored


def is_ours(kept: Kept) -> bool:
    """Return whether embstore wrote a version, whatever became of it since."""
    return "embstore" in kept.metadata or "crc" in kept.metadata


def parse_record(kept: Kept) -> dict[str, Any]:
    """Return what ``version_record`` put beside a version.

    Raises
    ------
    DamagedStoreError
        If it is not what was written, or the engine's own message or parent are not.
    """
    text = kept.metadata.get("embstore")
    if not isinstance(text, str) or kept.metadata.get("crc") != crc32(text.encode(errors="surrogatepass")):
        msg = f"version {kept.id}: its record is not what was written; go back to an older version or a copy"
        raise DamagedStoreError(msg)
    record: dict[str, Any] = json.loads(text)
    if kept.message != record["message"] or (kept.parent and [kept.parent] != record["parents"][:1]):
        msg = f"version {kept.id}: its message or parent is not what was written; go back to an older version or a copy"
        raise DamagedStoreError(msg)
    return record


def lineages(start: str, ancestry: Callable[[str], Iterable[Kept]]) -> Iterator[dict[str, Any]]:
    """Yield the lineages of a version and those before it, newest first; what comes before a revert is what it reverted to.

    They end where that is expired.
    """
    following: str | None = start
    while following is not None:
        versions, following = ancestry(following), None
        with suppress(UnknownRefError):
            for kept in versions:
                lineage: dict[str, Any] = parse_record(kept)["lineage"]
                yield lineage
                if "reverted_to" in lineage:
                    following = lineage["reverted_to"]
                    break


def trained_by(start: str, ancestry: Callable[[str], Iterable[Kept]]) -> dict[str, Any]:
    """Return ``trainer`` and ``settings`` of the newest lineage that names them; nothing where none does."""
    found = next((lineage for lineage in lineages(start, ancestry) if "trainer" in lineage), {})
    return {what: found[what] for what in ("trainer", "settings") if found}


def time_of(record: Mapping[str, Any]) -> datetime:
    """Return when a version was committed (UTC)."""
    return datetime.fromisoformat(record["time"])


def check_message(message: object) -> None:
    """Raise InvalidInputError if ``message`` is no text that says something."""
    try:
        if isinstance(message, str) and message.strip() and message.encode():
            return
    except UnicodeEncodeError:
        pass
    msg = f"message {message!r}: say in text what this version is"
    raise InvalidInputError(msg)
