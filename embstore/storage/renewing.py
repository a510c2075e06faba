"""One thread of the process that renews what is held, and gives back what its owners have forgotten."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from queue import Empty, SimpleQueue
from typing import Protocol

_SECONDS_BETWEEN = 600.0
_MOST_SECONDS_AT_EXIT = 5.0


class Renewable(Protocol):
    """Something that is held for some time."""

    def renew(self) -> None:
        """Tell that the holder is still there."""

    def release(self) -> None:
        """Give it back."""


_held: dict[int, Renewable] = {}
_numbers = count()
_forgotten: SimpleQueue[int] = SimpleQueue()
_guard = threading.Lock()
_pid: int | None = None
_thread: threading.Thread | None = None
_LAST = -1  # among the forgotten: the process ends


def keep_renewing(held: Renewable, owner: object) -> Callable[[], None]:
    """Renew ``held`` until what is returned is called, ``owner`` is garbage or the process ends."""
    _start_thread()
    key = next(_numbers)
    _held[key] = held
    # Garbage is found anywhere, even in the middle of a call of the engine: the thread does what is to be done.
    finalizer = weakref.finalize(owner, _forgotten.put, key)
    finalizer.atexit = False

    def release() -> None:
        finalizer.detach()
        _release(key)

    return release


def _release(key: int) -> None:
    held = _held.pop(key, None)
    if held is not None:
        held.release()


def _start_thread() -> None:
    """Start the thread if this process has none; a forked child begins without what its parent holds."""
    global _pid, _thread
    with _guard:
        if _pid != os.getpid():
            _pid = os.getpid()
            _held.clear()
            _thread = threading.Thread(target=_serve, name="embstore-leases", daemon=True)
            _thread.start()


def _serve() -> None:
    due = time.monotonic() + _SECONDS_BETWEEN
    while True:
        with suppress(Empty):
            key = _forgotten.get(timeout=max(0.0, due - time.monotonic()))
            if key == _LAST:
                return
            _release(key)
        if time.monotonic() >= due:
            due = time.monotonic() + _SECONDS_BETWEEN
            for held in list(_held.values()):
                held.renew()


def _release_all() -> None:
    """Give back what is held; but a process whose server is gone may end: then leases end with it, or with time."""
    until = time.monotonic() + _MOST_SECONDS_AT_EXIT
    for key in list(_held):
        if time.monotonic() < until:
            _release(key)
    if _thread is not None:  # Python would end it in the middle of the engine's own code, which aborts the process
        _forgotten.put(_LAST)
        _thread.join(max(0.0, until - time.monotonic()))


atexit.register(_release_all)
