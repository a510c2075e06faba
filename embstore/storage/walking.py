"""What the engine keeps of a state beside its arrays, and the way from one state to those before it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import icechunk

from embstore.errors import DamagedStoreError, UnknownRefError
from embstore.storage.faults import reading

FIRST_SNAPSHOT = "1CECHNKREP0F1RSTCMT0"
_MISSING = ("not found", "no such file or directory", "nosuchkey", "specified key does not exist")


class MissingStateError(DamagedStoreError, UnknownRefError):
    """A state is not there: it never was, it is expired and its files are collected, or its file is lost."""


@dataclass(frozen=True)
class Snapshot:
    """What the engine keeps of one state beside its arrays.

    ``parent`` is None for the first one, and for one whose parent is expired.
    """

    id: str
    parent: str | None
    message: str
    metadata: Mapping[str, Any]
    written: datetime


def walk(engine: icechunk.Repository, snapshot_id: str) -> Iterator[Snapshot]:
    """Yield the state and those before it, newest first, without the engine's own empty first one.

    Raises
    ------
    DamagedStoreError
        If one of them cannot be read; MissingStateError if the first is not there.
    """
    with reading():
        wanted: str | None = snapshot_id
        for info in _infos(engine, snapshot_id):
            if info.id != wanted or (info.parent_id is None) != (info.id == FIRST_SNAPSHOT):
                msg = f"version {wanted}: its file is not what was written; go back to an older version or a copy"
                raise DamagedStoreError(msg)
            wanted = info.parent_id
            if wanted is None:
                return
            parent = None if wanted == FIRST_SNAPSHOT else wanted
            yield Snapshot(info.id, parent, info.message, info.metadata, info.written_at)


def first(snapshots: Iterator[Snapshot], snapshot_id: str, *, referred: Callable[[], Collection[str]]) -> Snapshot:
    """Return the first of what ``walk`` yields.

    Raises
    ------
    UnknownRefError
        If there is none. Where a branch or tag points to it (``referred`` tells), it is a DamagedStoreError.
    """
    try:
        found = next(snapshots, None)
    except MissingStateError as error:
        if snapshot_id in referred():
            raise
        raise UnknownRefError(str(error)) from error
    if found is None:
        msg = f"version {snapshot_id}: it is the engine's own, which holds nothing; take a later one"
        raise UnknownRefError(msg)
    return found


def _infos(engine: icechunk.Repository, snapshot_id: str) -> Iterator[Any]:
    try:
        infos = iter(engine.ancestry(snapshot_id=snapshot_id))
        first = next(infos, None)
    except Exception as error:
        if any(sign in str(error).lower() for sign in _MISSING):
            msg = f"version {snapshot_id} is not there: it is expired, or its file is lost; go back to an older version or a copy"
            raise MissingStateError(msg) from error
        raise
    if first is not None:
        yield first
        yield from infos
