"""Writing chunked arrays of a state that nobody sees yet."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from icechunk.store import IcechunkStore
from numpy.typing import NDArray
from zarr.core.buffer import cpu

from embstore.storage.arrays import Reader, Rows, rows_by_chunk
from embstore.storage.chunks import ArrayMeta, encode_chunk, even_height
from embstore.storage.faults import writing
from embstore.storage.loop import each, run

_WRITES_IN_FLIGHT = 4


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
    """The same state while it is being written; nobody sees it before the branch moves."""

    def __init__(self, store: IcechunkStore) -> None:
        super().__init__(store)
        self.written_bytes = 0
        # Arrays of one path in two versions are the same array where they carry the same token.
        self.token = secrets.token_hex(4)

    def unique(self, number: int) -> str:
        """Return a name for the ``number``-th of many, which no other commit gives."""
        return f"{number:08d}-{self.token}"

    def set_group(self, path: str, attributes: Mapping[str, Any]) -> None:
        """Make or replace the group at ``path``."""
        data = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
        self._put([(f"{path}/zarr.json" if path else "zarr.json", json.dumps(data).encode())])
        self._documents[path] = (None, dict(attributes))

    def write(self, path: str, array: NDArray[Any], *, height: int | None = None, zstd: bool = False) -> None:
        """Write ``array`` at ``path``, where nothing is yet; by default in even chunks of at most 4 MiB."""
        row_bytes = array[:1].nbytes if array.ndim and len(array) else 1
        height = height or even_height(len(array) if array.ndim else 1, row_bytes)
        meta = ArrayMeta(array.shape, array.dtype.newbyteorder("<"), height, zstd, {"written": self.token})
        self._make_parents(path)
        self._set_meta(path, meta)
        self._put(_encoded(path, meta, array, range(meta.n_chunks)))

    def append(self, path: str, array: NDArray[Any]) -> None:
        """Lengthen the array at ``path``; only its last chunk is written again."""
        (meta,) = self.metas([path])
        first = meta.n_rows // meta.height
        kept = meta.n_rows - first * meta.height
        tail = self.gather(path, np.arange(meta.n_rows - kept, meta.n_rows)) if kept else array[:0]
        grown = ArrayMeta((meta.n_rows + len(array), *meta.row_shape), meta.dtype, meta.height, meta.zstd, meta.attributes)
        self._set_meta(path, grown)
        data = np.concatenate([tail, array]) if kept else array
        self._put(_encoded(path, grown, data, range(first, grown.n_chunks), offset=first * meta.height))

    def resize(self, path: str, n_rows: int) -> None:
        """Lengthen a sparse array with chunks that are not stored and read as zeros."""
        (meta,) = self.metas([path])
        self._set_meta(path, ArrayMeta((n_rows, *meta.row_shape), meta.dtype, meta.height, meta.zstd, meta.attributes))

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
        self._put((meta.chunk_key(path, index), encode_chunk(meta, chunk)) for index, chunk in changed.items())

    def copy(self, source: Reader, prefix: str) -> None:
        """Copy everything below ``prefix`` from another store, documents first."""
        keys = [key for key in source.keys(prefix) if key.startswith(f"{prefix}/")]
        found: dict[str, bytes] = {}
        source.raw(keys, lambda key, raw: found.update({key: b"" if raw is None else raw.tobytes()}))
        self._make_parents(f"{prefix}/array")
        self._put((key, found[key]) for key in keys if key.endswith("/zarr.json"))
        self._put((key, found[key]) for key in keys if not key.endswith("/zarr.json"))

    def delete(self, path: str) -> None:
        """Delete the array or group at ``path`` and all below it."""

        async def remove() -> None:
            await self._store.delete_dir(path)

        with writing():
            run(remove())
        for known in list(self._documents):
            if known == path or known.startswith(f"{path}/"):
                self._documents[known] = None

    def _make_parents(self, path: str) -> None:
        """Zarr has no implicit groups: every folder on the way to an array has its document."""
        names = path.split("/")[:-1]
        for parent in ["/".join(names[:n]) for n in range(1, len(names) + 1)]:
            if self.attributes(parent) is None:
                self.set_group(parent, {})

    def _set_meta(self, path: str, meta: ArrayMeta) -> None:
        self._put([(f"{path}/zarr.json", meta.document())])
        self._documents[path] = (meta, dict(meta.attributes))

    def _put(self, items: Iterable[tuple[str, bytes]]) -> None:
        async def put(item: tuple[str, bytes]) -> None:
            key, raw = item
            await self._store.set(key, _Raw.of(raw))
            if not key.endswith("zarr.json"):
                self.written_bytes += len(raw)

        with writing():
            run(each(items, put, in_flight=_WRITES_IN_FLIGHT))


def _encoded(
    path: str, meta: ArrayMeta, array: NDArray[Any], indices: Iterable[int], *, offset: int = 0
) -> Iterator[tuple[str, bytes]]:
    for index in indices:
        start, stop = meta.bounds(index)
        data = array[start - offset : stop - offset] if meta.shape else array
        yield meta.chunk_key(path, index), encode_chunk(meta, data)
