"""Reading and writing chunked arrays of one state of a repository."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from icechunk.store import IcechunkStore
from numpy.typing import NDArray
from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import BufferPrototype, cpu, default_buffer_prototype

from embstore.errors import DamagedStoreError, EmbstoreError
from embstore.storage.chunks import ArrayMeta, decode_chunk, parse_document
from embstore.storage.faults import reading
from embstore.storage.loop import each, run

Rows = NDArray[np.int64]
# About one a core: more requests in flight only multiply live buffers and page faults.
_READS_IN_FLIGHT = 3
_SMALL_READS_IN_FLIGHT = 16
_SMALL_BYTES = 512 * 1024


class _Stored(cpu.Buffer):
    """A buffer, or None for what is not stored."""

    @classmethod
    def from_bytes(cls, bytes_like: bytes | None) -> cpu.Buffer | None:  # type: ignore[override]
        return None if bytes_like is None else super().from_bytes(bytes_like)


_PROTOTYPE = BufferPrototype(_Stored, default_buffer_prototype().nd_buffer)


class Reader:
    """The arrays and attributes of one state; nothing here changes it."""

    def __init__(self, store: IcechunkStore) -> None:
        self._store = store
        self._documents: dict[str, tuple[ArrayMeta | None, dict[str, Any]] | None] = {}

    def attributes(self, path: str) -> dict[str, Any] | None:
        """Return the attributes of the group or array at ``path``; None if there is none."""
        self.load_documents([path])
        found = self._documents[path]
        return None if found is None else found[1]

    def meta(self, path: str) -> ArrayMeta | None:
        """Return what the array at ``path`` is; None if there is none."""
        self.load_documents([path])
        found = self._documents[path]
        return None if found is None else found[0]

    def metas(self, paths: Sequence[str]) -> list[ArrayMeta]:
        """Return what each of the arrays at ``paths`` is, looked up in one round.

        Raises
        ------
        DamagedStoreError
            If one is missing.
        """
        self.load_documents(paths)
        metas = []
        for path in paths:
            found = self._documents[path]
            if found is None or found[0] is None:
                msg = f"{path}: the array is missing; go back to an older version or a copy"
                raise DamagedStoreError(msg)
            metas.append(found[0])
        return metas

    def load_documents(self, paths: Iterable[str]) -> None:
        """Look up what is at ``paths`` in one round; later questions about them cost nothing."""
        missing = [path for path in dict.fromkeys(paths) if path not in self._documents]
        if missing:
            keys = [(f"{path}/zarr.json" if path else "zarr.json", None) for path in missing]
            with reading():  # in one call of the engine: a call each takes ten times as long
                found = run(self._store.get_partial_values(_PROTOTYPE, keys))
            for path, raw in zip(missing, found, strict=True):
                self._documents[path] = None if raw is None else parse_document(raw.to_bytes(), path)

    def keys(self, prefix: str = "") -> list[str]:
        """Return every key below ``prefix``, sorted."""

        async def collect() -> list[str]:
            return [key async for key in self._store.list_prefix(prefix)]

        with reading():
            return sorted(run(collect()))

    def stored_bytes(self, keys: Iterable[str]) -> dict[str, int]:
        """Return the size of each of ``keys`` in bytes."""
        sizes: dict[str, int] = {}

        async def size(key: str) -> None:
            sizes[key] = await self._store.getsize(key)

        with reading():
            run(each(list(keys), size, in_flight=_SMALL_READS_IN_FLIGHT))
        return sizes

    def raw(self, keys: Iterable[str], sink: Callable[[str, NDArray[np.uint8] | None], None]) -> None:
        """Give the stored bytes of each of ``keys`` to ``sink`` (None where there are none), in any order."""

        async def get(key: str) -> None:
            buffer = await self._store.get(key, default_buffer_prototype())
            sink(key, None if buffer is None else _as_bytes(buffer))

        with reading():
            run(each(list(keys), get, in_flight=_READS_IN_FLIGHT))

    def without_object(self, keys: Sequence[str]) -> list[str]:
        """Return what is wrong, a line each, with those of ``keys`` for which no byte can be had."""
        first_byte = RangeByteRequest(0, 1)

        async def are_all_there() -> bool:
            found = await self._store.get_partial_values(_PROTOTYPE, [(key, first_byte) for key in keys])
            return all(found)

        with suppress(Exception):
            if run(are_all_there()):
                return []
        return [problem for key in keys if (problem := self._problem_with(key, first_byte))]  # one by one, to tell which

    def _problem_with(self, key: str, wanted: RangeByteRequest) -> str | None:
        async def get() -> None:
            await self._store.get(key, _PROTOTYPE, wanted)

        try:
            with reading():
                run(get())
        except EmbstoreError as error:
            return f"{key}: {error}"
        return None

    def chunks(
        self, wanted: Sequence[tuple[str, ArrayMeta, int]], sink: Callable[[int, NDArray[Any]], None], *, sparse: bool = False
    ) -> None:
        """Give the rows of each wanted chunk (path, meta, index) to ``sink(position in wanted, rows)``, in any order.

        Raises
        ------
        DamagedStoreError
            If a chunk is missing (unless ``sparse``: then it is zeros) or its checksum does not fit.
        """

        async def get(position: int) -> None:
            path, meta, index = wanted[position]
            key = meta.chunk_key(path, index)
            buffer = await self._store.get(key, default_buffer_prototype())
            if buffer is None and not sparse:
                msg = f"{key}: the chunk is missing; go back to an older version or a copy"
                raise DamagedStoreError(msg)
            start, stop = meta.bounds(index)
            if buffer is None:
                sink(position, np.zeros((stop - start, *meta.row_shape), meta.dtype))
                return
            rows = decode_chunk(meta, _as_bytes(buffer), key)
            sink(position, rows[: stop - start] if meta.shape else rows)

        with reading():
            run(each(range(len(wanted)), get, in_flight=_in_flight(wanted)))

    def read(self, paths: Sequence[str], *, sparse: bool = False) -> list[NDArray[Any]]:
        """Return the arrays at ``paths``, all fetched in one round."""
        metas = self.metas(paths)
        arrays = [np.empty(meta.shape, meta.dtype) for meta in metas]
        wanted = [(path, meta, i) for path, meta in zip(paths, metas, strict=True) for i in range(meta.n_chunks)]
        targets = [(array, meta, i) for array, meta in zip(arrays, metas, strict=True) for i in range(meta.n_chunks)]

        def place(position: int, rows: NDArray[Any]) -> None:
            array, meta, index = targets[position]
            if meta.shape:
                array[slice(*meta.bounds(index))] = rows
            else:
                array[...] = rows

        self.chunks(wanted, place, sparse=sparse)
        return arrays

    def gather(self, path: str, rows: Rows, *, sparse: bool = False) -> NDArray[Any]:
        """Return ``rows`` (any order, repeats allowed) of the array at ``path``, reading only chunks that hold them."""
        (meta,) = self.metas([path])
        out = np.empty((len(rows), *meta.row_shape), meta.dtype)
        groups = list(rows_by_chunk(rows, meta.height))

        def place(position: int, chunk: NDArray[Any]) -> None:
            index, positions = groups[position]
            out[positions] = chunk[rows[positions] - index * meta.height]

        self.chunks([(path, meta, index) for index, _ in groups], place, sparse=sparse)
        return out


def _in_flight(wanted: Sequence[tuple[str, ArrayMeta, int]]) -> int:
    largest = max((meta.chunk_bytes for _, meta, _ in wanted), default=0)
    return _READS_IN_FLIGHT if largest > _SMALL_BYTES else _SMALL_READS_IN_FLIGHT


def rows_by_chunk(rows: Rows, height: int) -> Iterator[tuple[int, Rows]]:
    """Yield each chunk's index with the positions in ``rows`` of the rows that it holds."""
    if len(rows) == 0:
        return
    index = rows // height
    if np.all(index[1:] >= index[:-1]):
        order = np.arange(len(rows))
    else:
        order = np.argsort(index, kind="stable")
        index = index[order]
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        yield int(index[start]), order[start:stop]


def _as_bytes(buffer: Any) -> NDArray[np.uint8]:
    data: NDArray[np.uint8] = np.asarray(buffer.as_numpy_array()).view(np.uint8)
    return data
