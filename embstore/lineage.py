"""What a version records of its making."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from zlib import crc32

from embstore.errors import DamagedStoreError, InvalidInputError

_LIBRARIES = ("embstore", "icechunk", "numpy", "zarr")
_MOST_BYTES = 65_536


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


def version_record(parents: list[str], metadata: Mapping[str, Any], lineage: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stored beside a version's arrays and message."""
    record = {"parents": parents, "metadata": dict(metadata), "lineage": {**lineage, "libraries": library_versions()}}
    # As text: the engine keeps neither the order of keys nor large integers, and its files have no checksums.
    text = json.dumps(record)
    return {"embstore": text, "crc": crc32(text.encode())}


def parse_record(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``version_record`` put beside a version; empty where there is nothing of ours."""
    text = stored.get("embstore")
    if text is None:
        return {}
    if not isinstance(text, str) or stored.get("crc") != crc32(text.encode(errors="surrogatepass")):
        msg = "a version's lineage is not what was written; go back to an older version or a copy"
        raise DamagedStoreError(msg)
    record: dict[str, Any] = json.loads(text)
    return record


def check_message(message: object) -> None:
    """Raise InvalidInputError if ``message`` is no text that says something."""
    try:
        if isinstance(message, str) and message.strip() and message.encode():
            return
    except UnicodeEncodeError:
        pass
    msg = f"message {message!r}: say in text what this version is"
    raise InvalidInputError(msg)
