"""Plain data and arrays between the ranks of a process group of torch; nothing is pickled."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from embstore import errors
from embstore.errors import EmbstoreError, InvalidInputError, LostRankError, RefusedError

Array = NDArray[Any]
T = TypeVar("T")
Message = tuple[Any, Iterator[Array]]


class Wire:
    """Messages between the ranks of a group; rank 0 leads.

    Parameters
    ----------
    group
        With gloo or another backend for memory of the host; None: every rank of the job. Where torch.distributed was not begun,
        there is one rank and nothing is sent.

    Raises
    ------
    InvalidInputError
        If the group cannot send memory of the host.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        alone = not (dist.is_available() and dist.is_initialized())
        self.rank = 0 if alone else dist.get_rank(group)
        self.n_ranks = 1 if alone else dist.get_world_size(group)
        self._group = group
        backends = "" if alone else str(dist.get_backend_config(group))
        if self.n_ranks > 1 and "cpu:" not in backends:
            msg = f"process group with {backends}: rows are sent from the host's memory; give a group with gloo"
            raise InvalidInputError(msg)

    @classmethod
    def of_all(cls, timeout: timedelta) -> Wire:
        """Return one between all ranks of the job, for itself; every rank calls this.

        Raises
        ------
        InvalidInputError
            If the timeout is none.
        """
        if not isinstance(timeout, timedelta):
            msg = f"timeout {timeout!r}: give a datetime.timedelta, such as timedelta(minutes=30)"
            raise InvalidInputError(msg)
        begun = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        return cls(dist.new_group(backend="gloo", timeout=timeout) if begun else None)

    @property
    def others(self) -> range:
        """Return the ranks that rank 0 leads."""
        return range(1, self.n_ranks)

    def send(self, to: int, data: object, arrays: Iterable[Array] = ()) -> None:
        """Send JSON data and arrays to a rank.

        Raises
        ------
        LostRankError
            If the rank is not there any more.
        """
        given = list(arrays)
        described = {"data": data, "arrays": [[array.dtype.str, array.shape] for array in given]}
        header = np.frombuffer(bytearray(json.dumps(described).encode()), np.uint8)
        with _with_rank(to):
            for array in (np.array([len(header)]), header, *given):
                if array.size:
                    dist.send(_as_tensor(array), group=self._group, dst=self._global(to))

    def receive(self, source: int) -> Message:
        """Return what a rank sent: its data, and its arrays, each received when it is asked for. All of them have to be.

        Raises
        ------
        LostRankError
            If the rank is not there any more.
        """
        (length,) = self._array(source, np.dtype(np.int64), (1,))
        described = json.loads(self._array(source, np.dtype(np.uint8), (int(length),)).tobytes())
        arrays = (self._array(source, np.dtype(dtype), tuple(shape)) for dtype, shape in described["arrays"])
        return described["data"], arrays

    def _array(self, source: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        out = np.empty(shape, dtype)
        with _with_rank(source):
            if out.size:
                dist.recv(_as_tensor(out), group=self._group, src=self._global(source))
        return out

    def _global(self, rank: int) -> int:
        return rank if self._group is None else dist.get_global_rank(self._group, rank)

    def gather(self, take: Callable[[int, Any, Iterator[Array]], None]) -> None:
        """Hand what every other rank sends to rank 0 to ``take``, one rank after the other.

        Where that fails, the rest is received all the same, since ranks wait until they are heard, and then the error goes on.
        """
        failed: Exception | None = None
        for rank in self.others:
            try:
                data, arrays = self.receive(rank)
                try:
                    if failed is None:
                        take(rank, data, arrays)
                finally:
                    deque(arrays, 0)
            except Exception as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def tell(self, data: object, arrays: Sequence[Array] = ()) -> LostRankError | None:
        """Send the same from rank 0 to every other one; return the error of one that is not there any more.

        It is not raised: those that were told go on, and have to be heard before they can be told of it.
        """
        lost: LostRankError | None = None
        for rank in self.others:
            try:
                self.send(rank, data, arrays)
            except LostRankError as error:
                lost = error
        return lost

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Tell the other ranks of an error of rank 0 inside the block, which goes on; they wait with ``answer``."""
        try:
            yield
        except BaseException as error:
            self.tell({"error": told(error)})
            raise

    def answer(self) -> Message:
        """Return what rank 0 has told.

        Raises
        ------
        EmbstoreError
            Of the class that was raised there.
        """
        data, arrays = self.receive(0)
        if "error" in data:
            raise untold(data["error"], 0)
        return data, arrays

    def agree(self, attempt: Callable[[], T]) -> T:
        """Do the same on every rank and return the result; where one fails, all of them raise an error, and soon."""
        results: list[T] = []
        failed: Exception | None = None
        try:
            results.append(attempt())
        except Exception as error:
            failed = error
        if self.rank:
            self.send(0, told(failed) if failed else None)
            try:
                self.answer()
            except EmbstoreError as error:
                raise failed or error from None
        else:
            with self.leading():
                self.gather(lambda rank, data, _: _raise(untold(data, rank)) if data else None)
                if failed:
                    raise failed
            self.tell({})
        return results[0]


def _raise(error: Exception) -> None:
    raise error


def _as_tensor(array: Array) -> torch.Tensor:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return torch.from_numpy(flat if flat.flags.writeable else flat.copy())


@contextmanager
def _with_rank(rank: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        msg = f"rank {rank} is lost or too late ({reason}); this job is over, begin again from the last version"
        raise LostRankError(msg) from error


def told(error: BaseException) -> list[str]:
    """Return an error as JSON data."""
    return [type(error).__name__, str(error)]


def untold(data: list[str], rank: int) -> EmbstoreError:
    """Return the error that ``told`` told of, on another rank."""
    name, message = data
    if not message.startswith("rank "):  # rank 0 tells of what others have told it
        message = f"rank {rank}: {message}"
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, EmbstoreError):
        return kind(message)
    return RefusedError(f"{message} ({name})")
