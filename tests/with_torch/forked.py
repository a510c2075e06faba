"""New processes for the contracts of trainers that learn with torch, where it can be from one that has imported torch already."""

from __future__ import annotations

import functools
import multiprocessing
from typing import Any

from embstore.elsewhere import train_in_this_process

PRELOADED = ["embstore.elsewhere", "trainers.net_trainer", "trainers.learned"]


@functools.cache
def _processes() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Forked:
    """Goes before a contract of `embstore.testing`: torch is imported once for all of its processes."""

    def elsewhere(self, job: str) -> int:
        """Do a job in a new process; return its exit code."""
        process = _processes().Process(target=train_in_this_process, args=(job,))
        process.start()
        process.join()
        code: int = process.exitcode
        return code
