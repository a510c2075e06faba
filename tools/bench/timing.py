"""Clocks and the manners of measuring on a machine that is not alone."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

PAGE_BYTES = 4096


class Stopwatch:
    """Seconds by the name of what was done."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add the seconds of a block under ``name``."""
        start = time.perf_counter()
        yield
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)

    def median(self, name: str) -> float:
        """Return the median of ``name``."""
        return median(self.seconds[name])

    def best(self, name: str) -> float:
        """Return the least of ``name``."""
        return min(self.seconds[name])

    def cell(self, name: str) -> str:
        """Return median and minimum of ``name`` for people."""
        return f"{self.median(name):.3f} ({self.best(name):.3f})" if name in self.seconds else "-"


def settle(n_bytes: int) -> None:
    """Make ready for a measurement: no garbage, no dirty pages of others, and ``n_bytes`` of memory that is really there.

    A virtual machine hands freed memory back to its host, and taking it again costs more than what is measured.
    """
    gc.collect()
    os.sync()
    touched = np.empty(n_bytes, np.uint8)
    touched[::PAGE_BYTES] = 1


def alternate(
    tasks: Mapping[str, Callable[[], None]], *, times: int, watch: Mapping[str, Stopwatch], name: str, n_bytes: int = 0
) -> None:
    """Time every task in turn, ``times`` times, so that all see the same noise."""
    for _ in range(times):
        for key, task in tasks.items():
            settle(n_bytes)
            with watch[key].time(name):
                task()


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below ``folder``."""
    return sum(
        entry.stat().st_size for at, _, _ in os.walk(folder) for entry in os.scandir(at) if entry.is_file(follow_symlinks=False)
    )


def run_python(*arguments: str) -> str:
    """Run this interpreter in a fresh process; return what it printed.

    Raises
    ------
    RuntimeError
        If it failed.
    """
    return run_command([sys.executable, *arguments])


def run_command(command: list[str]) -> str:
    """Run a command; return what it printed.

    Raises
    ------
    RuntimeError
        If it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}"
        raise RuntimeError(msg)
    return done.stdout


def note(text: str) -> None:
    """Tell what is being done."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
