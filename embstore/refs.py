"""Which version a ref means: a branch, a tag, an id or its prefix, then ``~n`` or ``@date``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from embstore.errors import (
    AmbiguousRefError,
    DamagedStoreError,
    InvalidInputError,
    NameExistsError,
    NameSpentError,
    StorageError,
    UnknownRefError,
)
from embstore.lineage import parse_record, time_of
from embstore.storage.repo import Repo
from embstore.storage.walking import Snapshot

_REF = re.compile(r"(?P<start>[^~@\s]+?)(?:~(?P<back>\d{0,9})|@(?P<date>.+))?")
_WHOLE_ID = re.compile(r"[0-9A-HJKMNP-TV-Z]{20}")
_SHORTEST_PREFIX = 4


def resolve(repo: Repo, ref: object) -> Snapshot:
    """Return the state that ``ref`` means.

    Raises
    ------
    UnknownRefError
        If there is none.
    AmbiguousRefError
        If several versions begin with that prefix.
    InvalidInputError
        For a date that cannot be read.
    """
    match = _REF.fullmatch(ref) if isinstance(ref, str) else None
    if match is None:
        msg = f"ref {ref!r}: give a branch, a tag or a version id (4 characters or more), then ~n or @2026-11-01"
        raise UnknownRefError(msg)
    start = find(repo, match["start"])
    if match["back"] is not None:
        return _back(repo, start, int(match["back"] or 1), str(ref))
    if match["date"] is not None:
        return _at_date(repo, start, match["date"], str(ref))
    return repo.snapshot(start)


def find(repo: Repo, name: str) -> str:
    """Return the id of the version that a branch, tag, id or prefix means.

    Raises
    ------
    UnknownRefError
        If there is none.
    AmbiguousRefError
        If several versions begin with that prefix.
    """
    state = repo.branch(name) or repo.tags().get(name)
    if state is not None:
        return state
    if _WHOLE_ID.fullmatch(name):
        try:
            return repo.snapshot(name).id
        except (DamagedStoreError, UnknownRefError):  # no such version, not even one that no branch leads to
            pass
    found = _by_prefix(repo, name) if len(name) >= _SHORTEST_PREFIX else set()
    if len(found) > 1:
        msg = f"ref {name!r}: {len(found)} versions begin so ({', '.join(sorted(found)[:3])} …); give more characters"
        raise AmbiguousRefError(msg)
    if not found:
        known = ", ".join([*repo.branches(), *repo.tags()][:8])
        msg = f"ref {name!r}: no branch, tag or version is called so; there are {known}, and the ids that log shows"
        raise UnknownRefError(msg)
    return found.pop()


def _by_prefix(repo: Repo, prefix: str) -> set[str]:
    seen: set[str] = set()
    tips = [*repo.branches().values(), *repo.tags().values()]
    merged: list[str] = []
    for tip in tips:
        _see(repo, tip, seen, merged)
    while merged:
        with suppress(DamagedStoreError, UnknownRefError):  # it may be expired since
            _see(repo, merged.pop(), seen, merged)
    return {version_id for version_id in seen if version_id.upper().startswith(prefix.upper())}


def _see(repo: Repo, tip: str, seen: set[str], merged: list[str]) -> None:
    """Add the versions of a line of first parents to ``seen``, and what was merged into it to ``merged``."""
    for snapshot in repo.ancestry(tip):
        if snapshot.id in seen:
            return
        seen.add(snapshot.id)
        with suppress(DamagedStoreError):  # who asks for that version is told
            merged += parse_record(snapshot)["parents"][1:]


def _back(repo: Repo, start: str, steps: int, ref: str) -> Snapshot:
    n = -1
    for n, snapshot in enumerate(repo.ancestry(start)):
        if n == steps:
            return snapshot
    msg = f"ref {ref!r}: there are only {n} versions before it"
    raise UnknownRefError(msg)


def _at_date(repo: Repo, start: str, text: str, ref: str) -> Snapshot:
    until = _end_of(text)
    for snapshot in repo.ancestry(start):
        if time_of(parse_record(snapshot)) < until:
            return snapshot
    msg = f"ref {ref!r}: no version is that old; log shows their times"
    raise UnknownRefError(msg)


def _end_of(text: str) -> datetime:
    """Return the first moment after the date or time (a day is taken whole; without a zone it is UTC)."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"date {text!r}: give it as 2026-11-01 or 2026-11-01T12:30:00"
        raise InvalidInputError(msg) from error
    step = timedelta(days=1) if len(text) <= len("2026-11-01") else timedelta(microseconds=1)
    return min(in_utc(moment), datetime.max.replace(tzinfo=UTC) - step) + step


def in_utc(moment: datetime) -> datetime:
    """Return a moment in UTC, which is meant where it has no zone; one outside the calendar there is its first or last."""
    if moment.utcoffset() is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        end = datetime.min if moment.year == datetime.min.year else datetime.max
        return end.replace(tzinfo=UTC)


def check_free(name: str, kind: str, taken: Mapping[str, str]) -> None:
    """Raise NameExistsError if a branch or tag of that name exists."""
    if name in taken:
        msg = f"{kind} {name!r}: exists and is at {taken[name]}; take another name, or delete it first"
        raise NameExistsError(msg)


def check_known(name: object, kind: str, known: Mapping[str, str]) -> None:
    """Raise UnknownRefError if there is no branch or tag of that name."""
    if not isinstance(name, str) or name not in known:
        msg = f"{kind} {name!r}: there is {', '.join(known) or 'none'}"
        raise UnknownRefError(msg)


def make_tag(repo: Repo, name: str, version_id: str) -> None:
    """Make a tag.

    Raises
    ------
    NameSpentError
        If the name belonged to a tag that was deleted: the engine keeps a tombstone.
    """
    try:
        repo.create_tag(name, version_id)
    except StorageError as error:
        if "already exists" not in str(error):
            raise
        msg = f"tag {name!r}: the name belonged to a deleted tag and stays spent; take another, or a branch if it is to move"
        raise NameSpentError(msg) from error
