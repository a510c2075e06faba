"""What a store stands on: the file system, its lock, its sync."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from embstore.storage.location import LOCK_NAME, Location

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORKED = ("9p", "afs", "beegfs", "ceph", "cifs", "gfs", "glusterfs", "gpfs", "lustre", "nfs", "ocfs", "smb", "virtiofs")
_VOLATILE = ("ramfs", "tmpfs")
_SECONDS_FOR_A_PROCESS = 60
# Says whether the lock is taken, as a process of its own that knows nothing but the file.
_TRY_TO_LOCK = """
import sys
from filelock import FileLock, Timeout
try:
    FileLock(sys.argv[1], timeout=0).acquire()
except Timeout:
    print("taken")
else:
    print("free")
"""


@dataclass(frozen=True)
class FileSystem:
    """Where a folder is.

    Parameters
    ----------
    kind
        Such as ext4; None where the system does not say.
    free, size
        In bytes.
    free_files
        How many more files it can hold; None where it does not count them.
    """

    kind: str | None
    free: int
    size: int
    free_files: int | None

    @property
    def is_networked(self) -> bool:
        """Return whether other machines may write to it too; one in user space may be anything."""
        return self.kind is not None and self.kind.startswith((*_NETWORKED, "fuse"))

    @property
    def is_volatile(self) -> bool:
        """Return whether it is gone when the machine stops."""
        return self.kind in _VOLATILE


def file_system_of(path: Path) -> FileSystem:
    """Return the file system of a folder."""
    usage = shutil.disk_usage(path)
    files = os.statvfs(path) if hasattr(os, "statvfs") else None
    return FileSystem(_kind_of(path), usage.free, usage.total, files.f_favail if files and files.f_files else None)


def _kind_of(path: Path) -> str | None:
    """Return the type of the file system whose mount point is nearest above ``path`` (Linux)."""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    here, best, found = path.resolve(), -1, None
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = Path(before.split(" ")[4].replace("\\040", " ").replace("\\134", "\\"))
        if here.is_relative_to(mount) and len(mount.parts) >= best:  # of several on one point the last is seen
            best, found = len(mount.parts), after.split(" ")[0]
    return found


def lock_excludes(location: Location) -> bool:
    """Return whether another process is kept out while this one holds the store's lock, and is let in afterwards.

    Raises
    ------
    StorageError
        If the lock cannot be taken at all.
    """
    if location.path is None:
        return True
    file = location.path / LOCK_NAME
    with location.lock():
        while_held = _other_process_sees(file)
    return (while_held, _other_process_sees(file)) == ("taken", "free")


def _other_process_sees(file: Path) -> str:
    command = [sys.executable, "-c", _TRY_TO_LOCK, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_FOR_A_PROCESS, check=False)
    return done.stdout.strip() or done.stderr.strip()


def seconds_to_sync(location: Location) -> float:
    """Return how long it takes until a small new file is on the disk.

    Raises
    ------
    StorageError
        If the file system refuses.
    """
    begun = time.perf_counter()
    location.sync()
    return time.perf_counter() - begun
