"""Columns of one dtype and shape that lie one behind the other in one array: few objects for a small commit.

They share one chunk if that is enough for all; else each begins with a chunk of its own, and what lies between them is zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.storage.chunks import CHUNK_BYTES, ArrayMeta, content_crc, even_height

Columns = Sequence[NDArray[Any]]


def joined(columns: Columns) -> NDArray[Any] | None:
    """Return the array in which columns lie, if they are one or share a chunk."""
    if len(columns) == 1:
        return columns[0]
    return np.concatenate(columns) if sum(column.nbytes for column in columns) <= CHUNK_BYTES else None


def stacked_meta(columns: Columns, attributes: dict[str, Any]) -> ArrayMeta:
    """Return the array in which columns lie that do not share a chunk."""
    one = columns[0]
    height = even_height(len(one), one[:1].nbytes)
    step = math.ceil(len(one) / height) * height
    return ArrayMeta((step * len(columns), *one.shape[1:]), one.dtype.newbyteorder("<"), height, False, attributes)


def stacked_crc(columns: Columns, meta: ArrayMeta) -> int:
    """Return the checksum of all numbers of the array ``meta`` in which columns lie."""
    n_between = meta.n_rows // len(columns) - len(columns[0])
    between, crc = np.zeros((n_between, *meta.row_shape), meta.dtype), 0
    for column in columns:
        crc = content_crc(between, crc=content_crc(column, crc=crc))
    return crc


def first_row(meta: ArrayMeta, position: int, n_columns: int) -> int:
    """Return the row that the column behind ``position`` others begins with."""
    return position * (meta.n_rows // n_columns)


def parts(meta: ArrayMeta, first: int, n_rows: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield the chunks that hold the ``n_rows`` rows from ``first``: index, which rows of the chunk, which of all they are."""
    for index in range(first // meta.height, math.ceil((first + n_rows) / meta.height)):
        start, stop = meta.bounds(index)
        low, high = max(start, first), min(stop, first + n_rows)
        yield index, slice(low - start, high - start), slice(low - first, high - first)
