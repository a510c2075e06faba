"""Forgetting versions: a log ends above what is older than asked for, and nothing leads there any more."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from embstore.errors import InvalidInputError
from embstore.lineage import trained_by
from embstore.reaching import EVER, Reach, reach
from embstore.refs import check_known, in_utc
from embstore.storage.repo import Repo
from embstore.storage.retention import retention
from embstore.verify import Report

_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
Age = datetime | timedelta | str


def moment_of(older_than: Age, now: datetime) -> datetime:
    """Return the moment that ``older_than`` means: itself, or as long before ``now`` as it says (``"30d"``).

    Raises
    ------
    InvalidInputError
        For anything else, and for an age below zero.
    """
    age = _age_of(older_than) if isinstance(older_than, str) else older_than
    if isinstance(age, datetime):
        return in_utc(age)
    if not isinstance(age, timedelta) or age < timedelta(0):
        msg = f"older_than {older_than!r}: give a datetime, a timedelta that is not negative, or a text such as '30d' or '12h'"
        raise InvalidInputError(msg)
    return now - min(age, now - datetime(1970, 1, 1, tzinfo=UTC))


def _age_of(text: str) -> timedelta | None:
    match = _AGE.fullmatch(text.strip())
    return timedelta(seconds=min(float(match[1]) * _SECONDS[match[2]], 1e11)) if match else None


@dataclass(frozen=True)
class Expiry(Report):
    """What ``expire`` did, or would do.

    Parameters
    ----------
    expired
        Versions that no log shows any more, newest first: id, time and message.
    tags
        Names of tags that were dropped.
    notes
        What is lost with them, a line each.
    """

    expired: list[dict[str, str]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report, JSON-ready."""
        return {**super().to_dict(), "expired": self.expired, "tags": self.tags, "notes": self.notes}

    def __str__(self) -> str:
        versions = [f"{version['id']}  {version['time'][:19]}  {version['message']}" for version in self.expired]
        return "\n".join([super().__str__(), *versions, *self.notes])


def expire(repo: Repo, older_than: Age, *, dry_run: bool, tags: Collection[str] = ()) -> Expiry:
    """Forget versions that are older, but for what branches and other tags point to.

    Raises
    ------
    UnknownRefError
        If there is no such tag.
    InvalidInputError
        For an age that cannot be read, and for tags that are no list.
    DamagedStoreError
        If a version cannot be read; nothing is forgotten then.
    """
    if isinstance(tags, str) or not isinstance(tags, Collection):
        msg = f"tags {tags!r}: give a list of names"
        raise InvalidInputError(msg)
    with retention(repo) as keeper:
        moment = moment_of(older_than, datetime.now(UTC))
        for tag in tags:
            check_known(tag, "tag", repo.tags())
        branches = repo.branches()
        staying = [*branches.values(), *(version for tag, version in repo.tags().items() if tag not in tags)]
        since = keeper.expired_before()
        before = reach(keeper, [*branches.values(), *repo.tags().values()], merged_since=since)
        kept_since = moment if moment > keeper.founded() else EVER
        after = reach(keeper, staying, merged_since=max(since, moment), kept_since=kept_since)
        leased = {lease.version for lease in repo.leases.all() if lease.is_held(datetime.now(UTC)) and keeper.find(lease.version)}
        report = _report(moment, before, after, branches, tags, dry_run=dry_run)
        if not dry_run:
            for tag in dict.fromkeys(tags):
                repo.delete_tag(tag)
            keeper.expire(moment, sorted({*after.merged, *leased}))  # what is leased stays, but not what came before it
    return report


def _report(
    moment: datetime, before: Reach, after: Reach, branches: dict[str, str], tags: Collection[str], *, dry_run: bool
) -> Expiry:
    gone = [snapshot for id_, snapshot in before.snapshots.items() if id_ not in after.snapshots]
    gone.sort(key=lambda snapshot: snapshot.written, reverse=True)
    expired = [{"id": s.id, "time": s.written.isoformat(), "message": s.message} for s in gone]
    notes = [
        f"branch {name!r}: which trainer made it is only told by versions that {'would be' if dry_run else 'are'} expired; "
        "name it from now on, or compact first"
        for name, tip in branches.items()
        if trained_by(tip, before.ancestry) and not trained_by(tip, after.ancestry)
    ]
    title = f"expire versions before {moment.isoformat(timespec='seconds')}{' (dry run)' if dry_run else ''}"
    counts = {"expired": len(expired), "kept": len(after.snapshots), "tags dropped": len(set(tags))}
    return Expiry(title, [], counts, expired, sorted(set(tags)), notes)
