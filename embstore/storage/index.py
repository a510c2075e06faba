"""Sorted runs of keys: from an id's key to its row without reading all ids.

Each commit that appends ids writes one run. The first key of every chunk is in the attributes, so a look-up reads only
chunks that its keys fall in. More than eight runs are merged, newest first, so that a key is rewritten a logarithmic
number of times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.storage.arrays import Reader, Rows
from embstore.storage.chunks import ArrayMeta, even_height
from embstore.storage.writer import Writer

MOST_RUNS = 8
_CHUNK_BYTES = 512 * 1024
Keys = NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """Sorted keys of one commit, or of several merged; ``firsts`` are the first keys of its chunks."""

    name: str
    n_keys: int
    firsts: tuple[int, ...]
    last: int

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON data."""
        return {"name": self.name, "keys": self.n_keys, "firsts": list(self.firsts), "last": self.last}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Run:
        """Return the run that ``to_json`` gave."""
        return cls(data["name"], data["keys"], tuple(data["firsts"]), data["last"])


def find(reader: Reader, path: str, runs: Sequence[Run], keys: Keys) -> tuple[Rows, Rows]:
    """Return every pair (position in ``keys``, row) whose key is stored; a key may have several rows (strings collide).

    Parameters
    ----------
    keys
        Sorted int64[n].
    """
    wanted, owners = _chunks_to_read(reader, path, runs, keys)
    found: dict[str, list[tuple[Rows, Rows]]] = {}

    def place(position: int, chunk: Keys) -> None:
        # Searched as it arrives, while it is in the cache; equal keys of two chunks are found in each of them.
        _, meta, index = wanted[position]
        first = int(np.searchsorted(keys, chunk[0], "left"))
        last = int(np.searchsorted(keys, chunk[-1], "right"))
        positions, slots = equal_pairs(chunk, keys[first:last])
        if len(positions):
            found.setdefault(owners[position], []).append((positions + first, slots + index * meta.height))

    reader.chunks(wanted, place)
    pairs = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for name, matches in found.items():
        slots = np.concatenate([slots for _, slots in matches])
        rows = reader.gather(f"{path}/{name}/rows", slots).astype(np.int64)
        pairs.append((np.concatenate([positions for positions, _ in matches]), rows))
    return np.concatenate([positions for positions, _ in pairs]), np.concatenate([rows for _, rows in pairs])


def _chunks_to_read(
    reader: Reader, path: str, runs: Sequence[Run], keys: Keys
) -> tuple[list[tuple[str, ArrayMeta, int]], list[str]]:
    wanted: list[tuple[str, ArrayMeta, int]] = []
    owners: list[str] = []
    near = [i for i, run in enumerate(runs) if len(keys) and keys[0] <= run.last and keys[-1] >= run.firsts[0]]
    metas = reader.metas([f"{path}/{runs[i].name}/keys" for i in near])
    for i, meta in zip(near, metas, strict=True):
        firsts = np.array(runs[i].firsts, np.int64)
        inside = keys[(keys >= firsts[0]) & (keys <= runs[i].last)]
        # Equal keys may begin at the end of the chunk before the one whose first key they equal.
        low = np.maximum(np.searchsorted(firsts, inside, "left") - 1, 0)
        high = np.searchsorted(firsts, inside, "right") - 1
        for index in np.union1d(low, high):
            wanted.append((f"{path}/{runs[i].name}/keys", meta, int(index)))
            owners.append(runs[i].name)
    return wanted, owners


def equal_pairs(stored: Keys, keys: Keys) -> tuple[Rows, Rows]:
    """Return all pairs (position in ``keys``, position in ``stored``) of equal keys; both are sorted."""
    low, high = np.searchsorted(stored, keys, "left"), np.searchsorted(stored, keys, "right")
    counts = high - low
    positions = np.repeat(np.arange(len(keys)), counts)
    within = np.arange(len(positions)) - np.repeat(np.cumsum(counts) - counts, counts)
    return positions, np.repeat(low, counts) + within


def add_run(writer: Writer, path: str, runs: list[Run], keys: Keys, rows: Rows, *, number: int) -> tuple[list[Run], int]:
    """Write the keys of new rows as one more run, merge where there are too many; return the runs and the next number."""
    if len(keys):
        runs = [*runs, _write(writer, path, writer.unique(path, number), keys, rows)]
        number += 1
    if len(runs) <= MOST_RUNS:
        return runs, number
    count, size = 1, runs[-1].n_keys
    while count < len(runs) and (count < 2 or runs[-count - 1].n_keys <= 2 * size):
        count += 1
        size += runs[-count].n_keys
    merged, number = merge_runs(writer, path, runs[-count:], number=number)
    return [*runs[:-count], *merged], number


def merge_runs(writer: Writer, path: str, runs: list[Run], *, number: int) -> tuple[list[Run], int]:
    """Write ``runs`` as one; return it in a list and the next number."""
    if len(runs) < 2:
        return runs, number
    keys, rows = read_runs(writer, path, runs)
    for run in runs:
        writer.delete(f"{path}/{run.name}")
    return [_write(writer, path, writer.unique(path, number), keys, rows)], number + 1


def drop_rows(writer: Writer, path: str, runs: list[Run], rows: Rows, *, number: int) -> tuple[list[Run], int]:
    """Write again, without these rows, every run that holds one of them; return the runs and the next number."""
    kept: list[Run] = []
    for run in runs:
        run_keys, run_rows = read_runs(writer, path, [run])
        stays = ~np.isin(run_rows, rows)
        if stays.all():
            kept.append(run)
            continue
        writer.delete(f"{path}/{run.name}")
        if stays.any():
            kept.append(_write(writer, path, writer.unique(path, number), run_keys[stays], run_rows[stays]))
            number += 1
    return kept, number


def read_runs(reader: Reader, path: str, runs: Sequence[Run]) -> tuple[Keys, Rows]:
    """Return all keys of ``runs``, sorted, and their rows."""
    if not runs:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    arrays = reader.read([f"{path}/{run.name}/{what}" for what in ("keys", "rows") for run in runs])
    keys, rows = np.concatenate(arrays[: len(runs)]), np.concatenate(arrays[len(runs) :]).astype(np.int64)
    order = np.lexsort((rows, keys))
    return keys[order], rows[order]


def _write(writer: Writer, path: str, name: str, keys: Keys, rows: Rows) -> Run:
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    height = even_height(len(keys), 8, chunk_bytes=_CHUNK_BYTES)
    writer.write_all({f"{path}/{name}/keys": keys, f"{path}/{name}/rows": rows.astype(np.int32)}, height=height)
    return Run(name, len(keys), tuple(keys[::height].tolist()), int(keys[-1]))
