"""One entity as stored: its ids in row order, which rows are removed, and the index from key to row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.initial import id_keys, utf8
from embstore.names import IdType
from embstore.normalize import id_type_of
from embstore.storage.arrays import Reader, Rows
from embstore.storage.index import Run, add_run, drop_rows, equal_pairs
from embstore.storage.writer import Writer

Ids = NDArray[Any]
LIVE, REMOVED = 0, 1
_ID_HEIGHT = 32_768  # a commit writes the last chunk anew, and two where it crosses into the next
_BYTE_HEIGHT = 262_144
_STATE_HEIGHT = 1_048_576
_MOST_SMALL_CHUNKS = 16


@dataclass
class EntityState:
    """What the attributes of an entity's group say."""

    id_type: IdType | None = None
    n_rows: int = 0
    n_removed: int = 0
    runs: list[Run] = field(default_factory=list)
    next_run: int = 1
    made: str = ""  # a token of the commit that added the entity: one dropped and added again is another

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> EntityState:
        """Return the state that ``to_json`` gave; an empty one for None."""
        if not data:
            return cls()
        runs = [Run.from_json(run) for run in data["runs"]]
        return cls(data["id_type"], data["rows"], data["removed"], runs, data["next_run"], data["made"])

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON data."""
        return {
            "id_type": self.id_type,
            "rows": self.n_rows,
            "removed": self.n_removed,
            "runs": [run.to_json() for run in self.runs],
            "next_run": self.next_run,
            "made": self.made,
        }


class StagedIds:
    """Ids that a checkout has appended and rows it has removed; shared by all maps that it gave out."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.ids: Ids = np.empty(0, object)
        self.removed: set[int] = set()
        self._keys = self._order = np.empty(0, np.int64)

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was appended or removed."""
        return len(self.ids) == 0 and not self.removed

    def append(self, ids: Ids) -> None:
        """Add ids that nobody has yet."""
        self.ids = ids if len(self.ids) == 0 else np.concatenate([self.ids, ids])
        keys = np.concatenate([self._keys[np.argsort(self._order)], id_keys(ids)])
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def find(self, keys: NDArray[np.int64]) -> tuple[Rows, Rows]:
        """Return all pairs (position in the sorted ``keys``, position among the appended ids) of equal keys."""
        positions, slots = equal_pairs(self._keys, keys)
        return positions, self._order[slots]


def entity_paths(entity: str) -> list[str]:
    """Return where the arrays of an entity lie that a commit may touch."""
    path = f"entities/{entity}"
    arrays = ("state", "index", "changed", "ids", "ids/values", "ids/bytes", "ids/ends")
    return [path, *(f"{path}/{array}" for array in arrays)]


def write_ids(writer: Writer, entity: str, id_type: IdType | None, staged: StagedIds) -> None:
    """Write what ``staged`` holds to the entity; makes it where it is missing."""
    path = f"entities/{entity}"
    state = EntityState.from_json(writer.attributes(path))
    first = state.n_rows
    state.made = state.made or writer.token
    state.id_type = state.id_type or id_type or id_type_of(staged.ids)
    gone = np.array(sorted(staged.removed), np.int64)
    if len(staged.ids):
        _write_appended(writer, path, state, staged.ids, gone[gone >= first] - first)
    old_gone = gone[gone < first]
    if len(old_gone):
        _blank(writer, path, state, old_gone)
        state.runs, state.next_run = drop_rows(writer, f"{path}/index", state.runs, old_gone, number=state.next_run)
    if len(gone):
        if writer.meta(f"{path}/changed") is not None:  # of an earlier commit, perhaps with these ids
            writer.delete(f"{path}/changed")
        _mark_removed(writer, f"{path}/state", gone, state.n_rows)
        state.n_removed += len(gone)
    writer.set_group(path, state.to_json())


def _mark_removed(writer: Writer, path: str, gone: Rows, n_rows: int) -> None:
    """Mark rows; the array is made, and lengthened, when it is needed."""
    if writer.meta(path) is None:
        writer.write(path, np.empty(0, np.uint8), height=_STATE_HEIGHT, zstd=True)
    writer.resize(path, n_rows)
    writer.scatter(path, gone, np.full(len(gone), REMOVED, np.uint8), sparse=True)


def write_changed(writer: Writer, entity: str, rows: Rows, ids: Ids) -> None:
    """Record which old rows a commit wrote, and their ids, so that a diff need not look them up among all."""
    writer.replace_all({f"entities/{entity}/changed": np.concatenate([rows, ids])}, zstd=True)


def read_changed(reader: Reader, entity: str) -> tuple[Rows, Ids]:
    """Return what ``write_changed`` recorded."""
    (both,) = reader.read([f"entities/{entity}/changed"])
    rows, ids = np.split(both, 2)
    return rows, ids


def _write_appended(writer: Writer, path: str, state: EntityState, ids: Ids, gone: Rows) -> None:
    live = np.ones(len(ids), bool)
    live[gone] = False
    rows = state.n_rows + np.flatnonzero(live)
    keys = id_keys(ids[live])
    if state.id_type == "int64":
        _lengthen(writer, f"{path}/ids/values", np.where(live, ids, 0).astype(np.int64), _ID_HEIGHT)
    else:
        kept = ids.copy()
        kept[~live] = ""
        blob, ends = utf8(kept)
        before = writer.meta(f"{path}/ids/bytes")
        offset = before.n_rows if before else 0
        _lengthen(writer, f"{path}/ids/bytes", blob, _BYTE_HEIGHT)
        _lengthen(writer, f"{path}/ids/ends", ends + offset, _ID_HEIGHT)
    state.n_rows += len(ids)
    state.runs, state.next_run = add_run(writer, f"{path}/index", state.runs, keys, rows, number=state.next_run)


def _lengthen(writer: Writer, path: str, array: NDArray[Any], height: int) -> None:
    """Append to an array whose chunks grow with it: a few ids take little room, and millions few requests."""
    meta = writer.meta(path)
    if meta is None:
        writer.write(path, array, height=min(height, max(64, len(array))))
    elif meta.height < height and meta.n_rows + len(array) > _MOST_SMALL_CHUNKS * meta.height:
        (before,) = writer.read([path])
        writer.delete(path)
        writer.write(path, np.concatenate([before, array]), height=min(height, len(before) + len(array)))
    else:
        writer.append(path, array)


def _blank(writer: Writer, path: str, state: EntityState, rows: Rows) -> None:
    """Overwrite the stored bytes of removed ids."""
    if state.id_type == "int64":
        writer.scatter(f"{path}/ids/values", rows, np.zeros(len(rows), np.int64))
        return
    where, _ = byte_positions(writer, path, rows)
    writer.scatter(f"{path}/ids/bytes", where, np.zeros(len(where), np.uint8))


def byte_positions(reader: Reader, path: str, rows: Rows) -> tuple[Rows, Rows]:
    """Return where the bytes of the ids of ``rows`` lie, one id behind the other, and how many each has."""
    ends = reader.gather(f"{path}/ids/ends", rows)
    starts = reader.gather(f"{path}/ids/ends", np.maximum(rows - 1, 0))
    starts[rows == 0] = 0
    lengths = ends - starts
    first = np.cumsum(lengths) - lengths
    return np.repeat(starts - first, lengths) + np.arange(int(lengths.sum())), lengths
