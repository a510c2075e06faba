"""One event loop in a background thread, on which all storage requests run.

Icechunk answers asynchronously; a loop of our own works too where the caller runs one (notebooks).
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from embstore.errors import ForkedError

T = TypeVar("T")
Request = TypeVar("Request")

_MOST_SECONDS_TO_SETTLE = 5.0
_guard = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_pid: int | None = None


def check_process() -> None:
    """Raise ForkedError in a child forked after the engine had started: its threads are not there, every request would hang."""
    global _pid
    if _pid is None:
        _pid = os.getpid()
    if _pid != os.getpid():
        msg = (
            f"process {os.getpid()} was forked from {_pid} after that one had begun to use the storage engine, which does not "
            "survive a fork; start processes with the 'spawn' or 'forkserver' method"
        )
        raise ForkedError(msg)


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop
    check_process()
    with _guard:
        if _loop is None or _loop.is_closed():
            _loop = _settled_at_exit(asyncio.new_event_loop())
            threading.Thread(target=_loop.run_forever, name="embstore-io", daemon=True).start()
        return _loop


def _settled_at_exit(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """Return ``loop``, so that Python ends only when no thread of the engine is still handing over a result.

    Such a thread gives the interpreter lock away to wake the loop, and then wants it back. If Python is ending by then, it ends
    the thread (up to 3.13), in the middle of the engine's own code, and that aborts the process after all its work was done.
    """
    hand_over = loop.call_soon_threadsafe
    inside: set[int] = set()

    def noted(*arguments: Any, context: Any = None) -> asyncio.Handle:
        inside.add(threading.get_ident())
        try:
            return hand_over(*arguments, context=context)
        finally:
            inside.discard(threading.get_ident())

    def settle() -> None:
        deadline = time.monotonic() + _MOST_SECONDS_TO_SETTLE
        while inside and os.getpid() == _pid and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.005)  # for the last one to leave our code

    loop.call_soon_threadsafe = noted  # type: ignore[assignment,method-assign]
    atexit.register(settle)
    return loop


def start(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start ``work`` on the loop; ``finish`` waits for it."""
    return asyncio.run_coroutine_threadsafe(work, _running_loop())


def finish(future: Future[T]) -> T:
    """Return the result of what was started; an interrupt cancels it first."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` on the loop and return its result."""
    return finish(start(work))


async def each(requests: Sequence[Request], do: Callable[[Request], Coroutine[Any, Any, None]], *, in_flight: int) -> None:
    """Do every request, at most ``in_flight`` at a time; after a failure none is left under way."""
    if len(requests) <= 1:
        for request in requests:
            await do(request)
        return
    queue = iter(requests)

    async def worker() -> None:
        for request in queue:
            await do(request)

    workers = [asyncio.ensure_future(worker()) for _ in range(min(in_flight, len(requests)))]
    try:
        await asyncio.gather(*workers)
    except BaseException:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        raise
