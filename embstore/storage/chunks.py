"""One chunked array as bytes: its Zarr v3 document, its chunk keys, and each chunk with its checksum.

All arrays are cut along the first axis only. A chunk is little-endian bytes, zstd where that pays, then crc32c, so that
any Zarr reader opens it; we read and write whole chunks without zarr's pipeline, which copies each of them twice more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.errors import DamagedStoreError

CHUNK_BYTES = 4 * 1024 * 1024
# Rows narrower than this are cheaper to compare than to digest.
WIDE_ROW_BYTES = 128
_CRC_BYTES = 4


@dataclass(frozen=True)
class ArrayMeta:
    """What the document of one array says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    height: int  # rows a chunk
    zstd: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Return the length of the first axis; an array without axes is one row."""
        return self.shape[0] if self.shape else 1

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of one row."""
        return self.shape[1:]

    @property
    def n_chunks(self) -> int:
        """Return how many chunks hold the rows; none where a row holds nothing."""
        if 0 in self.row_shape:
            return 0
        return math.ceil(self.n_rows / self.height)

    @property
    def chunk_bytes(self) -> int:
        """Return the bytes of the rows of one chunk."""
        return self.height * math.prod(self.row_shape) * self.dtype.itemsize

    def chunk_key(self, path: str, index: int) -> str:
        """Return the key of chunk ``index`` of the array at ``path``."""
        if not self.shape:
            return f"{path}/c"
        return f"{path}/c/{index}" + "/0" * (len(self.shape) - 1)

    def bounds(self, index: int) -> tuple[int, int]:
        """Return the first row of chunk ``index`` and the one behind its last."""
        return index * self.height, min((index + 1) * self.height, self.n_rows)

    def document(self) -> bytes:
        """Return the ``zarr.json`` of the array."""
        little = {"name": "bytes", "configuration": {"endian": "little"}} if self.dtype.itemsize > 1 else {"name": "bytes"}
        zstd = [{"name": "zstd", "configuration": {"level": 1, "checksum": False}}] if self.zstd else []
        fill: object = {"f": "NaN", "b": False}.get(self.dtype.kind, 0)
        return json.dumps(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": self.shape,
                "data_type": self.dtype.name,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self._chunk_shape()}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "fill_value": fill,
                "codecs": [little, *zstd, {"name": "crc32c"}],
                "attributes": dict(self.attributes),
                "dimension_names": ["row", "column", "depth", "width", "rest"][: len(self.shape)]
                if len(self.shape) <= 5
                else None,
                "storage_transformers": [],
            }
        ).encode()

    def _chunk_shape(self) -> list[int]:
        return [self.height, *(max(n, 1) for n in self.row_shape)] if self.shape else []


def parse_document(raw: bytes, path: str) -> tuple[ArrayMeta | None, dict[str, Any]]:
    """Return the array a ``zarr.json`` describes (None: it is a group) and its attributes.

    Raises
    ------
    DamagedStoreError
        If it is not a document of ours.
    """
    try:
        data = json.loads(raw)
        attributes = data.get("attributes", {})
        if data["node_type"] == "group":
            return None, attributes
        shape = tuple(int(n) for n in data["shape"])
        chunk = data["chunk_grid"]["configuration"]["chunk_shape"]
        codecs = [codec["name"] for codec in data["codecs"]]
        dtype = np.dtype(data["data_type"]).newbyteorder("<")
        height = int(chunk[0]) if shape else 1
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        msg = f"{path}: its description cannot be read ({error}); go back to an older version or a copy"
        raise DamagedStoreError(msg) from error
    if codecs not in (["bytes", "crc32c"], ["bytes", "zstd", "crc32c"]) or height < 1:
        msg = f"{path}: written as {codecs} in chunks of {height} rows, which this format does not know"
        raise DamagedStoreError(msg)
    return ArrayMeta(shape, dtype, height, "zstd" in codecs, attributes), attributes


def even_height(n_rows: int, row_bytes: int, *, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Return the rows a chunk that split ``n_rows`` evenly into the fewest chunks of at most ``chunk_bytes``."""
    n_chunks = max(1, math.ceil(n_rows * row_bytes / chunk_bytes))
    return max(1, math.ceil(n_rows / n_chunks))


def encode_chunk(meta: ArrayMeta, data: NDArray[Any]) -> bytes:
    """Return the stored bytes of a chunk that begins with the rows ``data``."""
    import google_crc32c

    missing = meta.height - len(data) if meta.shape else 0
    raw = np.ascontiguousarray(data, meta.dtype).reshape(-1).view(np.uint8)
    parts: list[Any] = [raw.data]
    if missing > 0:
        parts.append(bytes(missing * math.prod(meta.row_shape) * meta.dtype.itemsize))
    if meta.zstd:
        from numcodecs.zstd import compress

        body = compress(b"".join(parts), 1, False)
        return b"".join((body, google_crc32c.value(body).to_bytes(_CRC_BYTES, "little")))
    crc = 0
    for part in parts:
        frozen = np.frombuffer(part, np.uint8)
        frozen.flags.writeable = False
        crc = google_crc32c.extend(crc, frozen)
    return b"".join((*parts, crc.to_bytes(_CRC_BYTES, "little")))


def content_crc(array: NDArray[Any], *, crc: int = 0) -> int:
    """Return a checksum of all numbers of an array: chunks that changed places fit their own, but not this.

    Parameters
    ----------
    crc
        That of what lies before it.
    """
    import google_crc32c

    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
    raw = raw.view()
    raw.flags.writeable = False
    found: int = google_crc32c.extend(crc, raw)
    return found


def checked_body(stored: NDArray[np.uint8], key: str) -> NDArray[np.uint8]:
    """Return the bytes of a chunk before its checksum.

    Raises
    ------
    DamagedStoreError
        If the checksum does not fit.
    """
    import google_crc32c

    body = stored[:-_CRC_BYTES]
    body.flags.writeable = False
    if len(stored) < _CRC_BYTES or google_crc32c.value(body).to_bytes(_CRC_BYTES, "little") != stored[-_CRC_BYTES:].tobytes():
        msg = f"{key}: checksum does not fit, the bytes on disk have changed; go back to an older version or a copy"
        raise DamagedStoreError(msg)
    return body


def decode_chunk(meta: ArrayMeta, stored: NDArray[np.uint8], key: str) -> NDArray[Any]:
    """Return all rows of a stored chunk, padding included: ``[height, *row_shape]``.

    Raises
    ------
    DamagedStoreError
        If the checksum does not fit or the length is not that of a chunk.
    """
    body = checked_body(stored, key)
    try:
        if meta.zstd:
            from numcodecs.zstd import decompress

            body = np.frombuffer(decompress(body), np.uint8)
        return body.view(meta.dtype).reshape(meta._chunk_shape() if meta.shape else ())
    except (ValueError, RuntimeError) as error:
        msg = f"{key}: {len(body)} bytes are no chunk of {meta.height} rows; go back to an older version or a copy"
        raise DamagedStoreError(msg) from error
