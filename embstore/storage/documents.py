"""A digest of what the engine's own files say of a state: which groups and arrays there are, and the document of each.

The engine puts no checksum on those files. The digest is a sum of one number for each document, so that it does not depend on
their order and a commit looks only at those that it changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from icechunk import Session
from icechunk.store import IcechunkStore
from zarr.core.buffer import default_buffer_prototype

from embstore.storage.faults import reading
from embstore.storage.loop import run

_DOCUMENT = "zarr.json"


def digest_of(store: IcechunkStore) -> int:
    """Return the digest of every document of a state."""

    async def total() -> int:
        return await _total(store, [key async for key in store.list_prefix("") if key.split("/")[-1] == _DOCUMENT])

    with reading():
        return run(total()) % 2**64


def digest_change(parent: IcechunkStore, session: Session) -> int:
    """Return what the changes of ``session`` add to the digest of the state it began with."""
    status = session.status()
    updated = [*status.updated_groups, *status.updated_arrays]
    gone = [*updated, *status.deleted_groups, *status.deleted_arrays]
    there = [*updated, *status.new_groups, *status.new_arrays]

    async def change() -> int:
        return await _total(session.store, map(_key, there)) - await _total(parent, map(_key, gone))

    with reading():
        return run(change())


def _key(path: str) -> str:
    return f"{path}/{_DOCUMENT}".lstrip("/")


async def _total(store: IcechunkStore, keys: Iterable[str]) -> int:
    """Return the sum over the documents at ``keys``; one call of the engine fetches all ten times faster than a call each."""
    wanted = sorted(keys)
    found = await store.get_partial_values(default_buffer_prototype(), [(key, None) for key in wanted])
    texts = [b"" if buffer is None else buffer.to_bytes() for buffer in found]
    return sum(
        int.from_bytes(blake2b(key.encode() + b"\0" + text, digest_size=8).digest(), "little")
        for key, text in zip(wanted, texts, strict=True)
    )
