"""Which process holds something, and whether it is still there."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_START_FIELD = 19  # of /proc/<pid>/stat, counted after the name, which may hold anything


def this_process() -> str:
    """Return a name of this process that no other has, on any machine and after any restart; empty where none can be had."""
    return _name_of(os.getpid())


def is_here(name: str) -> bool:
    """Return whether a process with this name would be seen from here: it is of this machine, start and set of processes."""
    place = _place()
    return place is not None and name.startswith(f"{place}/")


def is_running(name: str) -> bool:
    """Return whether the process with this name, which is of here, still runs."""
    return _name_of(int(name.split("/")[-2])) == name


def _name_of(pid: int) -> str:
    place, start = _place(), _start(pid)
    return f"{place}/{pid}/{start}" if place and start else ""


@cache
def _place() -> str | None:
    """Return what this start of the machine and this set of processes is called (Linux); a container has a set of its own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _start(pid: int) -> str | None:
    """Return when a process started, in ticks since the machine did; None if there is none, or it has ended unnoticed."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[_START_FIELD]
