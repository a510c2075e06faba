"""Keys of ids, initial vectors and row digests: pure functions of their input, in integer arithmetic.

``docs/format.md`` writes them down with test vectors. Float ``log`` and ``cos`` differ between builds of numpy, so normal
numbers are sums of uniform integers and one multiplication.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.initializers import Constant, Normal, Uniform, Zeros
from embstore.schema import TableSpec

U64 = NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BLOCK_VALUES = 1 << 16
_DIGEST_VALUES = 1 << 15


def mix(x: U64) -> U64:
    """Return the splitmix64 finalizer of each number (Steele, Lea and Flood 2014)."""
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def id_keys(ids: NDArray[Any]) -> NDArray[np.int64]:
    """Return a 64-bit key of each id: an int64 id is its own key, a string its hash.

    Parameters
    ----------
    ids
        int64[n] or object[n] of str.
    """
    if ids.dtype == np.int64:
        return ids
    blob, ends = utf8(ids)
    return _string_hash(blob, ends).view(np.int64)


def utf8(ids: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the utf-8 bytes of all strings one behind the other, and where each ends."""
    texts = ids.tolist()
    joined = "".join(texts)
    if joined.isascii():
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return np.frombuffer(joined.encode("ascii"), np.uint8), np.cumsum(lengths)
    encoded = [text.encode() for text in texts]
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum(lengths)


def _string_hash(blob: NDArray[np.uint8], ends: NDArray[np.int64]) -> U64:
    """Sum over 8-byte words of mix(word ^ mix(position)), then mix with the length; no Python loop over strings."""
    if len(ends) == 0:
        return np.empty(0, np.uint64)
    lengths = np.diff(ends, prepend=0)
    n_words = (lengths + 7) // 8
    first_word = np.cumsum(n_words) - n_words
    padded = np.zeros(int(n_words.sum()) * 8, np.uint8)
    padded[np.arange(len(blob)) + np.repeat(first_word * 8 - (ends - lengths), lengths)] = blob
    position = np.arange(len(padded) // 8) - np.repeat(first_word, n_words)
    words = padded.view("<u8") ^ mix((position + 1).astype(np.uint64) * _GOLDEN)
    return mix(np.add.reduceat(mix(words), first_word) + lengths.astype(np.uint64) * _GOLDEN)


def initial_vectors(spec: TableSpec, ids: NDArray[Any]) -> NDArray[Any]:
    """Return where the rows of ``ids`` start: a function of the table's name, its seed and each id alone.

    Parameters
    ----------
    ids
        int64[n] or object[n] of str.

    Returns
    -------
    ``[n, dim]``, or ``[n]`` where the table's dim is None, in the table's dtype.
    """
    shape = (len(ids),) if spec.dim is None else (len(ids), spec.dim)
    if isinstance(spec.init, Zeros):
        return np.zeros(shape, spec.dtype)
    if isinstance(spec.init, Constant):
        return np.full(shape, spec.init.value, spec.dtype)
    out = np.empty((len(ids), spec.dim or 1), spec.dtype)
    states = mix(id_keys(ids).view(np.uint64) ^ _table_key(spec))
    block = max(1, _BLOCK_VALUES // out.shape[1])
    for start in range(0, len(ids), block):
        out[start : start + block] = _draw(spec.init, states[start : start + block], out.shape[1], out.dtype)
    return out.reshape(shape)


def _table_key(spec: TableSpec) -> np.uint64:
    name = _string_hash(*utf8(np.array([spec.name], object)))
    seed = np.array([spec.seed], np.int64).view(np.uint64)
    return np.uint64(mix(name ^ mix(seed + _GOLDEN))[0])


def _draw(init: Normal | Uniform, states: U64, dim: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    steps = np.arange(1, dim + 1, dtype=np.uint64) * _GOLDEN
    bits = mix(states[:, None] + steps)
    if isinstance(init, Uniform):
        unit = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        spread: NDArray[Any] = (unit * (init.high - init.low) + init.low).astype(dtype)
        return spread
    total = (bits & np.uint64(0xFFFF)).astype(np.int64)
    for shift in (16, 32, 48):
        total += ((bits >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64)
    # The sum of four uniform 16-bit numbers has this standard deviation.
    scale = init.std / math.sqrt(4 * (65536**2 - 1) / 12)
    normal: NDArray[Any] = ((total - 2 * 65535).astype(np.float64) * scale).astype(dtype)
    return normal


def row_digests(rows: NDArray[Any]) -> U64:
    """Return a 64-bit digest of the bits of each row: equal rows have equal ones, others differ but for one in 2**32 or less.

    Parameters
    ----------
    rows
        ``[n, dim]`` of any dtype.
    """
    n, width = len(rows), rows[:1].nbytes
    out = np.empty(n, np.uint64)
    if n == 0:
        return out
    itemsize = next(size for size in (8, 4, 2, 1) if width % size == 0)
    words = np.ascontiguousarray(rows).reshape(n, -1).view(f"<u{itemsize}")
    weights = mix(np.arange(1, words.shape[1] + 1, dtype=np.uint64) * _GOLDEN) | np.uint64(1)
    block = max(1, _DIGEST_VALUES // words.shape[1])
    room = np.empty((2, min(n, block), words.shape[1]), np.uint64)  # used for every block, while it is in the cache
    for start in range(0, n, block):
        part = words[start : start + block]
        mixed, high = room[:, : len(part)]
        np.multiply(part, _GOLDEN, out=mixed)
        np.right_shift(mixed, np.uint64(32), out=high)
        np.bitwise_xor(mixed, high, out=mixed)
        np.matmul(mixed, weights, out=out[start : start + block])
    return out
