"""Writing chunked arrays of a state that nobody sees yet."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from icechunk.store import IcechunkStore
from numpy.typing import NDArray
from zarr.core.buffer import cpu

from embstore.storage.arrays import Reader, Rows, rows_by_chunk
from embstore.storage.chunks import WIDE_ROW_BYTES, ArrayMeta, content_crc, encode_chunk, even_height
from embstore.storage.faults import writing
from embstore.storage.loop import each, finish, start
from embstore.storage.stacking import Columns, joined, stacked_crc, stacked_meta

_WRITES_IN_FLIGHT = 4
# Arrays that wait to be written are held in memory.
_MOST_QUEUED_BYTES = 256 * 2**20


class _Raw(cpu.Buffer):
    """A buffer that hands its bytes on without copying them."""

    @classmethod
    def of(cls, raw: bytes) -> _Raw:
        buffer = cls(np.frombuffer(raw, np.dtype("B")))
        buffer.raw = raw
        return buffer

    raw: bytes

    def to_bytes(self) -> bytes:
        return self.raw


class Writer(Reader):
    """The same state while it is being written; nobody sees it before the branch moves.

    Everything is written in the background, in the order it was asked for; the caller makes the next array ready meanwhile.
    """

    def __init__(self, store: IcechunkStore) -> None:
        super().__init__(store)
        self._chunk_bytes: dict[str, int] = {}
        self._last: Future[None] | None = None
        self._written: set[str] = set()  # what is at these paths, or below the deleted ones, is not yet so in the store
        self._deleted: set[str] = set()
        self._queued_bytes = 0
        self._fresh: list[str] = []  # folders that only this commit has put anything in
        # Arrays of one path in two versions are the same array where they carry the same token.
        self.token = secrets.token_hex(4)

    def unique(self, folder: str, number: int) -> str:
        """Return a name for the ``number``-th of many in ``folder``, which no other commit gives: nothing is there yet."""
        name = f"{number:08d}-{self.token}"
        path = f"{folder}/{name}"
        if path not in self._documents:
            self._documents[path] = None
            self._fresh.append(f"{path}/")
        return name

    def set_group(self, path: str, attributes: Mapping[str, Any]) -> None:
        """Make or replace the group at ``path``."""
        self._put([(f"{path}/zarr.json" if path else "zarr.json", _group_document(attributes))])
        self._documents[path] = (None, dict(attributes))

    @property
    def written_bytes(self) -> int:
        """Return the bytes of all chunks; waits until they are written."""
        return self.bytes_below("")

    def bytes_below(self, prefix: str) -> int:
        """Return the bytes of the chunks whose keys begin with ``prefix``; waits until they are written."""
        self.settle()
        return sum(n_bytes for key, n_bytes in self._chunk_bytes.items() if key.startswith(prefix))

    def write(self, path: str, array: NDArray[Any], *, height: int | None = None, zstd: bool = False) -> None:
        """Write ``array`` at ``path``, where nothing is yet; by default in even chunks of at most 4 MiB."""
        self.write_all({path: array}, height=height, zstd=zstd)

    def write_all(self, arrays: Mapping[str, NDArray[Any] | Columns], *, height: int | None = None, zstd: bool = False) -> None:
        """Write several arrays in one round, documents first: a chunk without its array's document is refused.

        What is several arrays of one dtype and shape is written as one, in which they lie one behind the other.
        """
        metas: dict[str, ArrayMeta] = {}
        chunks: list[tuple[str, Callable[[], bytes]]] = []
        for path, given in arrays.items():
            array = given if isinstance(given, np.ndarray) else joined(given)
            if array is not None:
                metas[path] = self._new_meta(path, array, height, zstd)
                chunks += _chunks(path, metas[path], array, range(metas[path].n_chunks))
            else:
                metas[path] = self._stacked_meta(path, list(given))
                chunks += _stacked_chunks(path, metas[path], list(given))
        documents = [*self._missing_parents(arrays), *self._documents_of(metas)]
        self._put(documents, chunks, n_bytes=sum(meta.n_chunks * meta.chunk_bytes for meta in metas.values()))

    def replace_all(self, arrays: Mapping[str, NDArray[Any]], *, zstd: bool = False) -> None:
        """Write several arrays where others may be; chunks that the others have beyond those of the new ones go."""
        for path, array in arrays.items():
            before = self.meta(path)
            if before is not None and before.n_chunks > self._new_meta(path, array, None, zstd).n_chunks:
                self.delete(path)
        self.write_all(arrays, zstd=zstd)

    def _new_meta(self, path: str, array: NDArray[Any], height: int | None, zstd: bool) -> ArrayMeta:
        row_bytes = array[:1].nbytes if array.ndim and len(array) else 1
        height = height or even_height(len(array) if array.ndim else 1, row_bytes)
        content = {"content": content_crc(array)} if _has_content(path, row_bytes) else {}
        return ArrayMeta(array.shape, array.dtype.newbyteorder("<"), height, zstd, {"written": self.token, **content})

    def _stacked_meta(self, path: str, columns: Columns) -> ArrayMeta:
        meta = stacked_meta(columns, {"written": self.token})
        content = {"content": stacked_crc(columns, meta)} if _has_content(path, columns[0][:1].nbytes) else {}
        return replace(meta, attributes={**meta.attributes, **content})

    def append(self, path: str, array: NDArray[Any]) -> None:
        """Lengthen the array at ``path``; only its last chunk is written again."""
        (meta,) = self.metas([path])
        first = meta.n_rows // meta.height
        kept = meta.n_rows - first * meta.height
        tail = self.gather(path, np.arange(meta.n_rows - kept, meta.n_rows)) if kept else array[:0]
        grown = ArrayMeta((meta.n_rows + len(array), *meta.row_shape), meta.dtype, meta.height, meta.zstd, _of_part(meta))
        data = np.concatenate([tail, array]) if kept else array
        chunks = _chunks(path, grown, data, range(first, grown.n_chunks), offset=first * meta.height)
        self._put(self._documents_of({path: grown}), list(chunks), n_bytes=data.nbytes)

    def resize(self, path: str, n_rows: int) -> None:
        """Lengthen a sparse array with chunks that are not stored and read as zeros."""
        (meta,) = self.metas([path])
        grown = ArrayMeta((n_rows, *meta.row_shape), meta.dtype, meta.height, meta.zstd, _of_part(meta))
        self._put(self._documents_of({path: grown}))

    def scatter(self, path: str, rows: Rows, values: NDArray[Any], *, sparse: bool = False) -> None:
        """Replace ``rows`` of the array at ``path``, writing again only the chunks that hold them."""
        (meta,) = self.metas([path])
        groups = list(rows_by_chunk(rows, meta.height))
        changed: dict[int, NDArray[Any]] = {}

        def place(position: int, chunk: NDArray[Any]) -> None:
            index, positions = groups[position]
            changed[index] = chunk.copy()
            changed[index][rows[positions] - index * meta.height] = values[positions]

        self.chunks([(path, meta, index) for index, _ in groups], place, sparse=sparse)
        meta = replace(meta, attributes=_of_part(meta))
        chunks = [(meta.chunk_key(path, index), partial(encode_chunk, meta, chunk)) for index, chunk in changed.items()]
        self._put(self._documents_of({path: meta}), chunks, n_bytes=sum(chunk.nbytes for chunk in changed.values()))

    def copy(self, source: Reader, prefix: str) -> None:
        """Copy everything below ``prefix`` from another store, documents first."""
        if source.attributes(prefix) is None:
            return
        keys = [key for key in source.keys(prefix) if key.startswith(f"{prefix}/")]
        found: dict[str, bytes] = {}
        source.raw(keys, lambda key, raw: found.update({key: b"" if raw is None else raw.tobytes()}))
        documents = [(key, found[key]) for key in keys if key.endswith("/zarr.json")]
        chunks = [(key, partial(found.pop, key)) for key in keys if not key.endswith("/zarr.json")]
        self._put([*self._missing_parents([prefix]), *documents], chunks, n_bytes=sum(map(len, found.values())))

    def delete(self, path: str) -> None:
        """Delete the array or group at ``path`` and all below it."""

        async def remove() -> None:
            await self._store.delete_dir(path)

        self._deleted.add(path)
        self._queue(remove)
        for known in list(self._documents):
            if known == path or known.startswith(f"{path}/"):
                self._documents[known] = None

    def _missing_parents(self, paths: Iterable[str]) -> list[tuple[str, bytes]]:
        """Zarr has no implicit groups: every folder on the way to an array has its document."""
        names = [path.split("/") for path in paths]
        parents = list(dict.fromkeys("/".join(parts[:n]) for parts in names for n in range(1, len(parts))))
        self.load_documents(parents)
        missing = [parent for parent in parents if self._documents[parent] is None]
        self._documents.update((parent, (None, {})) for parent in missing)
        return [(f"{parent}/zarr.json", _group_document({})) for parent in missing]

    def _documents_of(self, metas: Mapping[str, ArrayMeta]) -> list[tuple[str, bytes]]:
        self._documents.update((path, (meta, dict(meta.attributes))) for path, meta in metas.items())
        return [(f"{path}/zarr.json", meta.document()) for path, meta in metas.items()]

    def _put(
        self, documents: Sequence[tuple[str, bytes]], chunks: Sequence[tuple[str, Callable[[], bytes]]] = (), *, n_bytes: int = 0
    ) -> None:
        """Write documents and then chunks, each of these encoded when its turn has come."""

        async def put(item: tuple[str, bytes]) -> None:
            await self._store.set(item[0], _Raw.of(item[1]))

        async def put_chunk(item: tuple[str, Callable[[], bytes]]) -> None:
            key, encoded = item[0], item[1]()
            await put((key, encoded))
            self._chunk_bytes[key] = len(encoded)

        async def put_all() -> None:
            await each(documents, put, in_flight=_WRITES_IN_FLIGHT)
            await each(chunks, put_chunk, in_flight=_WRITES_IN_FLIGHT)

        if self._queued_bytes and self._queued_bytes + n_bytes > _MOST_QUEUED_BYTES:
            self.settle()
        self._queued_bytes += n_bytes
        self._written.update(key.removesuffix("/zarr.json") for key, _ in documents)
        self._queue(put_all)

    def _queue(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do ``work`` when all before it is done; where that failed, not at all."""
        before = self._last

        async def in_turn() -> None:
            if before is not None:
                await asyncio.wrap_future(before)
            await work()

        self._last = start(in_turn())

    def settle(self) -> None:
        """Wait for what is still being written.

        Raises
        ------
        StorageError
            If it could not be written.
        """
        if self._last is not None:
            last, self._last = self._last, None
            self._written.clear()
            self._deleted.clear()
            self._queued_bytes = 0
            with writing():
                finish(last)

    def _settle_for(self, paths: Iterable[str]) -> None:
        """Wait if what is at one of ``paths`` is not yet as it will be."""
        for path in paths if self._last is not None else ():
            parts = path.split("/")
            if path in self._written or any("/".join(parts[:n]) in self._deleted for n in range(1, len(parts) + 1)):
                self.settle()
                return

    def load_documents(self, paths: Iterable[str]) -> None:
        """Look up what is at ``paths``, what was just deleted being gone."""
        missing = [path for path in paths if path not in self._documents]
        self._documents.update((path, None) for path in missing if path.startswith(tuple(self._fresh)))
        missing = [path for path in missing if path not in self._documents]
        self._settle_for(missing)
        super().load_documents(missing)

    def chunks(
        self, wanted: Sequence[tuple[str, ArrayMeta, int]], sink: Callable[[int, NDArray[Any]], None], *, sparse: bool = False
    ) -> None:
        """Give the rows of each wanted chunk to ``sink``, those just written too."""
        self._settle_for({path for path, _, _ in wanted})
        super().chunks(wanted, sink, sparse=sparse)


def _has_content(path: str, row_bytes: int) -> bool:
    """Return whether an array carries a checksum of the whole: wide rows of tables have digests."""
    return row_bytes < WIDE_ROW_BYTES or not path.startswith("tables/")


def _stacked_chunks(path: str, meta: ArrayMeta, columns: Columns) -> Iterator[tuple[str, Callable[[], bytes]]]:
    n_chunks = meta.n_chunks // len(columns)
    for position, column in enumerate(columns):
        first = position * n_chunks
        yield from _chunks(path, meta, column, range(first, first + n_chunks), offset=first * meta.height)


def _of_part(meta: ArrayMeta) -> dict[str, Any]:
    """Return the attributes of an array that is written in parts, and has no checksum of the whole."""
    return {name: value for name, value in meta.attributes.items() if name != "content"}


def _group_document(attributes: Mapping[str, Any]) -> bytes:
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}).encode()


def _chunks(
    path: str, meta: ArrayMeta, array: NDArray[Any], indices: Iterable[int], *, offset: int = 0
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    for index in indices:
        start, stop = meta.bounds(index)
        data = array[start - offset : stop - offset] if meta.shape else array
        yield meta.chunk_key(path, index), partial(encode_chunk, meta, data)
