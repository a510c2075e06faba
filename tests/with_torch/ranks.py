"""Processes that are the ranks of small jobs: started once for many tests, since each start imports torch anew."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch.distributed as dist

LOST, READY = "lost", "ready"
_PATIENCE_SECONDS = 200


@dataclass(frozen=True)
class Failure:
    """What a rank raised."""

    text: str


class Ranks:
    """A pool of spawned processes; those that died are started again when they are needed."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._running: dict[int, tuple[Any, Connection]] = {}
        self._starting: list[Connection] = []

    def _of(self, rank: int) -> Connection:
        if rank in self._running and not self._running[rank][0].is_alive():
            del self._running[rank]
        if rank not in self._running:
            mine, theirs = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._running[rank] = process, mine
            self._starting.append(mine)
        return self._running[rank][1]

    def run(self, n_ranks: int, act: Callable[..., Any], *args: Any, seconds: float = 60) -> list[Any]:
        """Return what ``act(*args)`` gave on each rank of a process group, LOST for one that died; raise what one raised."""
        with tempfile.TemporaryDirectory() as folder:
            pipes = [self._of(rank) for rank in range(n_ranks)]
            while self._starting:  # on a busy machine they are not ready at one time
                assert _result(self._starting.pop()) == READY
            for rank, pipe in enumerate(pipes):
                pipe.send((act, args, rank, n_ranks, Path(folder, "init").as_uri(), seconds))
            results = [_result(pipe) for pipe in pipes]
        failures = "\n".join(f"rank {rank}: {r.text}" for rank, r in enumerate(results) if isinstance(r, Failure))
        assert not failures, failures
        return results

    def close(self) -> None:
        """End all processes."""
        for process, pipe in self._running.values():
            pipe.close()
            process.join(_PATIENCE_SECONDS / 10)
            process.kill()


@contextmanager
def started() -> Iterator[Ranks]:
    """Yield a pool."""
    ranks = Ranks()
    try:
        yield ranks
    finally:
        ranks.close()


def _result(pipe: Connection) -> Any:
    try:
        assert pipe.poll(_PATIENCE_SECONDS), "a rank hangs"
        return pipe.recv()
    except (EOFError, ConnectionResetError):
        return LOST


def _serve(pipe: Connection) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    pipe.send(READY)
    while True:
        try:
            act, args, rank, n_ranks, place, seconds = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        dist.init_process_group("gloo", init_method=place, rank=rank, world_size=n_ranks, timeout=timedelta(seconds=seconds))
        try:
            result = act(*args)
        except BaseException:  # what pytest raises is no Exception
            result = Failure(traceback.format_exc())
        dist.destroy_process_group()
        pipe.send(result)
