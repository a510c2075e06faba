"""Whether a store stands on firm ground: file system, lock and sync, or the server; libraries, leases and leftovers."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from embstore.collection import leases_of, leftovers
from embstore.errors import DamagedStoreError, EmbstoreError, StorageError
from embstore.founding import open_repo
from embstore.lineage import library_versions
from embstore.storage.conditional import check_conditional_writes
from embstore.storage.health import FileSystem, file_system_of, lock_excludes, seconds_to_sync
from embstore.storage.location import Location
from embstore.storage.repo import TRUNK, Repo
from embstore.store import Store

State = Literal["ok", "note", "wrong", "damaged"]
_LEAST_BYTES = 256 * 1024**2
_LEAST_FILES = 1_000
_SINGULAR = {"versions": "version", "branches": "branch", "tags": "tag"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    what
        Its name.
    state
        ``"ok"``; ``"note"``: as it may be, but worth knowing; ``"wrong"``: to be mended before anybody commits;
        ``"damaged"``: the store itself.
    says
        What was found, and what to do about it.
    data
        The same for programs.
    """

    what: str
    state: State
    says: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Examination:
    """What ``examine`` found."""

    url: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.wrong

    @property
    def wrong(self) -> list[str]:
        """Return the names of what is wrong."""
        return [finding.what for finding in self.findings if finding.state in ("wrong", "damaged")]

    @property
    def is_damaged(self) -> bool:
        """Return whether the store itself is not whole."""
        return any(finding.state == "damaged" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the findings, JSON-ready."""
        return {"store": self.url, "ok": self.ok, "findings": [asdict(finding) for finding in self.findings]}

    def __str__(self) -> str:
        return "\n".join(f"{finding.state:8}{finding.what:20}{finding.says}" for finding in self.findings)


def examine(url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> Examination:
    """Look at a store and what it stands on; its versions, branches and tags stay as they are.

    In an object store a few small objects are written below its prefix, in ``conditional-writes/``.

    Raises
    ------
    StoreNotFoundError, NotAStoreError
        If there is none.
    StorageError
        If it cannot be reached.
    """
    repo = open_repo(Location(url, storage_options))
    checks = [*_checks_of(repo.location), _check_store, _check_leases, _check_leftovers, _check_libraries]
    return Examination(repo.url, tuple(_guarded(check, repo) for check in checks))


Check = Callable[[Repo], Finding]


def _checks_of(location: Location) -> tuple[Check, ...]:
    if location.place is not None:
        return (_check_conditional_writes,)
    return () if location.path is None else (_check_file_system, _check_lock, _check_sync)


def _guarded(check: Check, repo: Repo) -> Finding:
    try:
        return check(repo)
    except EmbstoreError as error:
        what = check.__name__.removeprefix("_check_").replace("_", " ")
        if repo.location.place is not None and "does not allow it" in str(error):  # who only reads has no need of it
            return Finding(what, "note", f"not looked at, for these credentials may only read ({error})")
        return Finding(what, "damaged" if isinstance(error, DamagedStoreError) else "wrong", str(error))


def _check_file_system(repo: Repo) -> Finding:
    return judged(file_system_of(_folder(repo)))


def judged(found: FileSystem) -> Finding:
    """Return what is to be said of a file system."""
    says = f"{found.kind or 'of a type not known here'}, {_gigabytes(found.free)} of {_gigabytes(found.size)} free"
    data = {**asdict(found), "networked": found.is_networked, "volatile": found.is_volatile}
    state: State = "note" if found.is_networked or found.is_volatile else "ok"
    if found.is_volatile:
        says += "; all of it is gone when the machine stops"
    if found.is_networked:
        says += "; other machines may write to it: the lock must hold between them too, which is not tried here"
    if found.free < _LEAST_BYTES or (found.free_files is not None and found.free_files < _LEAST_FILES):
        state, says = "wrong", f"{says}; it is full: free some room, or the next commit is refused"
    return Finding("file system", state, says, data)


def _check_lock(repo: Repo) -> Finding:
    if lock_excludes(repo.location):
        return Finding("lock", "ok", "keeps other processes of this machine out")
    return Finding("lock", "wrong", "keeps no other process out, so that commits are lost; take another file system")


def _check_sync(repo: Repo) -> Finding:
    seconds = seconds_to_sync(repo.location)
    says, data = f"works, in {seconds * 1000:.1f} ms", {"seconds": seconds, "durable": repo.durable}
    if repo.durable:
        return Finding("sync", "ok", says, data)
    return Finding("sync", "note", f"{says}, but this store was made not to wait for it: a power failure may take commits", data)


def _check_conditional_writes(repo: Repo) -> Finding:
    place = repo.location.place
    if place is not None:
        check_conditional_writes(place)
    return Finding("conditional writes", "ok", "the server heeds If-None-Match and If-Match")


def _check_store(repo: Repo) -> Finding:
    store = Store(repo)
    report = store.verify(TRUNK, deep=False)
    n_versions = sum(1 for _ in repo.ancestry(repo.branches()[TRUNK]))
    data = {"versions": n_versions, "branches": len(store.branches()), "tags": len(store.tags())}
    if not report.ok:
        return Finding("store", "damaged", f"{TRUNK} is not whole: {report.problems[0]}; the verb verify says more", data)
    says = ", ".join(f"{n:,} {what if n != 1 else _SINGULAR[what]}" for what, n in data.items())
    return Finding(
        "store", "ok", f"{says}; the newest of {TRUNK} is whole as far as its descriptions go (verify --deep reads all)", data
    )


def _check_leases(repo: Repo) -> Finding:
    leases = leases_of(repo.leases.all())
    gone = sum(not lease["alive"] for lease in leases)
    data = {"leases": leases}
    if not leases:
        return Finding("leases", "ok", "nobody has it open", data)
    told = [f"{lease['holder']} by process {lease['pid']} on {lease['host']}" for lease in leases if lease["alive"]]
    told += [f"{gone} of holders that are gone, which gc clears away"] if gone else []
    return Finding("leases", "note" if gone else "ok", "; ".join(told), data)


def _check_leftovers(repo: Repo) -> Finding:
    found = leftovers(repo)
    n_objects = sum(n for what, n in found.items() if what not in ("bytes", "failed"))
    if not n_objects:
        return Finding("leftovers", "ok", "none", found)
    says = f"{n_objects:,} objects of {found['bytes'] / 1e6:.1f} MB that no version leads to; the verb gc deletes old ones"
    return Finding("leftovers", "note", says, found)


def _check_libraries(_: Repo) -> Finding:
    versions = {"python": platform.python_version(), **library_versions()}
    return Finding("libraries", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()), versions)


def _folder(repo: Repo) -> Path:
    path = repo.location.path
    if path is None:
        msg = f"store {repo.url}: it is in no folder"
        raise StorageError(msg)
    return path


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.1f} GB"
