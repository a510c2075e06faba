"""Leases: who has a version open, so that nothing of it is collected.

In a folder a lease is a file, ``leases/<uuid>.json``; anywhere else it is a hidden branch, ``lease.<uuid>.<the same as text>``,
which points to the version. A holder takes its lease first and looks then whether the version is still reachable: so whoever
collects has seen the one or the other. A thread renews the leases of a process while it lives. The lease of a process of this
machine ends with it; any other ends a day after its last renewal, which is far more than clocks differ by.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import icechunk

from embstore.errors import DamagedStoreError
from embstore.storage.faults import reading
from embstore.storage.hidden import LEASE
from embstore.storage.location import Location
from embstore.storage.moving import ServedRefs
from embstore.storage.object_store import ObjectPlace
from embstore.storage.processes import is_here, is_running, this_process
from embstore.storage.renewing import keep_renewing

FOLDER = "leases"
TIME_TO_LIVE = timedelta(days=1)


@dataclass(frozen=True)
class Lease:
    """Who has which version open.

    Parameters
    ----------
    version
        The version that stays.
    holder
        What has it open, for people.
    writes
        Whether objects that nothing points to yet may be the holder's.
    since, renewed
        By the holder's clock; in a folder, ``renewed`` is by the file system's.
    process
        A name that no other process has; empty where none can be had.
    """

    name: str
    version: str
    holder: str
    writes: bool
    since: datetime
    renewed: datetime
    host: str
    pid: int
    process: str

    @classmethod
    def begun(cls, version: str, holder: str, *, writes: bool) -> Lease:
        """Return a new lease of this process."""
        now = datetime.now(UTC)
        return cls(uuid.uuid4().hex, version, holder, writes, now, now, socket.gethostname(), os.getpid(), this_process())

    def is_held(self, now: datetime) -> bool:
        """Return whether its holder is still there."""
        if self.process and is_here(self.process):
            return is_running(self.process)
        return now - self.renewed < TIME_TO_LIVE

    def to_json(self) -> dict[str, Any]:
        """Return the lease as JSON data."""
        return {**asdict(self), "since": self.since.isoformat(), "renewed": self.renewed.isoformat()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Lease:
        """Return the lease that ``to_json`` gave."""
        times = {what: datetime.fromisoformat(data[what]) for what in ("since", "renewed")}
        return cls(**{**data, **times})


class Place(Protocol):
    """Where leases are kept. What cannot be written is let be: a store that is read-only here can still be read."""

    def add(self, lease: Lease) -> None:
        """Keep a lease."""

    def renew(self, lease: Lease) -> Lease:
        """Note that its holder is still there; return it as it is now."""

    def drop(self, lease: Lease) -> None:
        """Forget it."""

    def all(self) -> list[Lease]:
        """Return every lease, also of holders that are no more."""


class Folder:
    """Leases as files, made whole in one step; a renewal sets the time of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _file(self, lease: Lease) -> Path:
        return self._path / f"{lease.name}.json"

    def add(self, lease: Lease) -> None:
        """Write the file."""
        with suppress(OSError):
            self._path.mkdir(exist_ok=True)
            begun = self._path / f".{lease.name}"
            begun.write_text(json.dumps(lease.to_json()), encoding="utf-8")
            begun.rename(self._file(lease))

    def renew(self, lease: Lease) -> Lease:
        """Set the time of the file; write it again if somebody has deleted it."""
        try:
            os.utime(self._file(lease))
        except OSError:
            self.add(lease)
        return lease

    def drop(self, lease: Lease) -> None:
        """Delete the file."""
        with suppress(OSError):
            self._file(lease).unlink()

    def all(self) -> list[Lease]:
        """Read every file.

        Raises
        ------
        DamagedStoreError
            If one is no lease.
        """
        found = []
        for path in sorted(self._path.glob("[!.]*.json")):
            try:
                renewed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                found.append(replace(Lease.from_json(json.loads(path.read_text(encoding="utf-8"))), renewed=renewed))
            except FileNotFoundError:  # its holder has just closed
                continue
            except (OSError, ValueError, TypeError, KeyError) as error:
                msg = f"{path}: no lease of a version ({error}); delete it if nobody has the store open"
                raise DamagedStoreError(msg) from error
        return found


class HiddenBranches:
    """Leases as branches; a renewal makes another branch and deletes the one before it."""

    def __init__(self, engine: Callable[[], icechunk.Repository], place: ObjectPlace | None = None) -> None:
        self._engine = engine
        self._place = place

    def _refs(self) -> icechunk.Repository | ServedRefs:
        """Return what makes branches; with a server it does not wait for ever."""
        return self._engine() if self._place is None else ServedRefs(self._engine(), self._place)

    def add(self, lease: Lease) -> None:
        """Make the branch."""
        with suppress(Exception):
            self._refs().create_branch(_branch_of(lease), lease.version)

    def renew(self, lease: Lease) -> Lease:
        """Make another branch, with the time of now."""
        renewed = replace(lease, renewed=datetime.now(UTC))
        self.add(renewed)
        self.drop(lease)
        return renewed

    def drop(self, lease: Lease) -> None:
        """Delete the branch."""
        with suppress(Exception):
            self._refs().delete_branch(_branch_of(lease))

    def all(self) -> list[Lease]:
        """Read the names of the branches; of one lease the newest."""
        with reading():
            names = [name for name in self._engine().list_branches() if name.startswith(LEASE)]
        found = sorted((lease for name in names if (lease := _lease_of(name))), key=lambda lease: lease.renewed)
        return list({lease.name: lease for lease in found}.values())


def _branch_of(lease: Lease) -> str:
    text = json.dumps(lease.to_json()).encode()
    return f"{LEASE}{lease.name}.{base64.urlsafe_b64encode(text).decode().rstrip('=')}"


def _lease_of(branch: str) -> Lease | None:
    """Return the lease that a branch stands for; None if it is a branch of a caller."""
    text = branch.rpartition(".")[2]
    try:
        return Lease.from_json(json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))))
    except (ValueError, TypeError, KeyError):
        return None


def place_of(location: Location, engine: Callable[[], icechunk.Repository]) -> Place:
    """Return where the leases of the store at ``location`` are kept."""
    return HiddenBranches(engine, location.place) if location.path is None else Folder(location.path / FOLDER)


class Held:
    """A lease of this process, until ``release``, or until nobody refers to its owner any more."""

    def __init__(self, place: Place, lease: Lease) -> None:
        self._place = place
        self._lease = lease
        place.add(lease)

    def renew(self) -> None:
        """Tell that the holder is still there."""
        self._lease = self._place.renew(self._lease)

    def release(self) -> None:
        """Give it back; a forked child has none to give."""
        if self._lease.pid == os.getpid():
            self._place.drop(self._lease)


def take(place: Place, version: str, holder: str, *, owner: object, writes: bool) -> Callable[[], None]:
    """Keep ``version`` until what is returned is called, ``owner`` is garbage or the process ends."""
    return keep_renewing(Held(place, Lease.begun(version, holder, writes=writes)), owner)
