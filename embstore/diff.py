"""What turns one version into another, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embstore.changes import ConsumedChanges
from embstore.columns import TableRows, column_of
from embstore.compare import ChangedRows, Comparison
from embstore.entity import Ids
from embstore.rowless import consumed_changes, dense_changes
from embstore.schema import TableSpec, is_another
from embstore.storage.arrays import Reader, Rows
from embstore.version import Version

if TYPE_CHECKING:
    import pandas as pd

_MOST_SHOWN = 5


@dataclass(frozen=True)
class IdsDiff:
    """Ids of one entity that only the target has (``appended``) or only the base (``removed``)."""

    appended: Ids
    removed: Ids


class TableDiff:
    """The rows of one table whose bits differ, of ids that both versions have.

    ``changed_rows`` are those of the target.
    """

    def __init__(self, base: TableRows | None, target: TableRows | None, changed: Mapping[str, ChangedRows]) -> None:
        self._base, self._target = base, target
        self._changed = changed

    @property
    def status(self) -> str:
        """Return ``"added"``, ``"deleted"``, ``"replaced"`` (another table of this name) or ``"kept"``."""
        if self._base is None or self._target is None:
            return "added" if self._base is None else "deleted"
        return "replaced" if is_another(self._base.spec, self._target.spec) else "kept"

    @property
    def spec(self) -> TableSpec:
        """Return the table's spec, of the target where it has it."""
        side = self._target or self._base
        assert side is not None
        return side.spec

    @property
    def n_rows(self) -> tuple[int, int]:
        """Return the rows before and after, tombstones too."""
        return len(self._base.idmap) if self._base else 0, len(self._target.idmap) if self._target else 0

    @property
    def changed_rows(self) -> Rows:
        """Return the rows of the target that differ, int64[n]."""
        changed = self._changed.get("values")
        return changed.target_rows if changed else np.empty(0, np.int64)

    @cached_property
    def changed_ids(self) -> Ids:
        """Return the ids of ``changed_rows``."""
        return self._target.idmap.at(self.changed_rows) if self._target else np.empty(0, object)

    @property
    def slots(self) -> dict[str, int]:
        """Return how many rows of each slot that both have differ."""
        return {name.removeprefix("slots/"): len(rows) for name, rows in self._changed.items() if name != "values"}

    @cached_property
    def _before_after(self) -> tuple[NDArray[Any], NDArray[Any]]:
        if self.status != "kept" or not len(self.changed_rows) or self._base is None or self._target is None:
            nothing = np.empty((0, self.spec.dim or 1))
            return nothing, nothing
        column = column_of(self.spec)
        before = self._base.gather(column, self._changed["values"].base_rows)
        after = self._target.gather(column, self.changed_rows)
        shape = (len(before), -1)
        return before.reshape(shape).astype(np.float64), after.reshape(shape).astype(np.float64)

    @cached_property
    def drift(self) -> NDArray[np.float64]:
        """Return how far each changed row has moved (L2), float64[n]."""
        before, after = self._before_after
        with np.errstate(over="ignore", invalid="ignore"):
            moved: NDArray[np.float64] = np.linalg.norm(after - before, axis=1)
        return moved

    @cached_property
    def cosine(self) -> NDArray[np.float64]:
        """Return the cosine distance of each changed row from before (0: same direction, 1: also where one is zero)."""
        before, after = (_directions(rows) for rows in self._before_after)
        none = ~(before.any(axis=1) & after.any(axis=1))
        return np.where(none, 1.0, 1 - np.einsum("ij,ij->i", before, after))

    def to_frame(self) -> pd.DataFrame:
        """Return id, drift, cosine, norm_before and norm_after of each changed row, the furthest first."""
        import pandas as pd

        before, after = self._before_after
        frame = pd.DataFrame(
            {
                "id": self.changed_ids,
                "drift": self.drift,
                "cosine": self.cosine,
                "norm_before": np.linalg.norm(before, axis=1),
                "norm_after": np.linalg.norm(after, axis=1),
            }
        )
        return frame.sort_values("drift", ascending=False, kind="stable", ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, JSON-ready."""
        furthest = np.argsort(-self.drift, kind="stable")[:_MOST_SHOWN]
        n = len(self.drift)
        return {
            "status": self.status,
            "rows_before": self.n_rows[0],
            "rows_after": self.n_rows[1],
            "changed": n,
            "drift_mean": float(self.drift.mean()) if n else 0.0,
            "drift_max": float(self.drift.max()) if n else 0.0,
            "cosine_mean": float(self.cosine.mean()) if n else 0.0,
            "cosine_max": float(self.cosine.max()) if n else 0.0,
            "moved_most": [
                {"id": i, "drift": float(d)}
                for i, d in zip(self.changed_ids[furthest].tolist(), self.drift[furthest], strict=True)
            ],
            "slots": self.slots,
        }


class Diff:
    """What turns ``base`` into ``target``. Every entity and table of either has its entry; drifts are read when asked for."""

    def __init__(self, comparison: Comparison, base: Version, target: Version) -> None:
        self.base, self.target = base, target
        self.ids = {e: IdsDiff(comparison.appended(e), comparison.removed(e)) for e in comparison.entities()}
        names = sorted({*base.tables, *target.tables})
        self.tables = {name: _table_diff(comparison, name) for name in names}

    @property
    def slots(self) -> dict[str, dict[str, int]]:
        """Return how many rows of each slot differ, by table."""
        return {name: table.slots for name, table in self.tables.items()}

    @cached_property
    def dense(self) -> dict[str, str]:
        """Return which arrays without rows are ``"added"``, ``"changed"`` or ``"deleted"``."""
        changed = dense_changes(self.base, self.target)
        return {
            name: "deleted" if array is None else "changed" if name in self.base.dense else "added"
            for name, array in sorted(changed.items())
        }

    @cached_property
    def consumed(self) -> ConsumedChanges:
        """Return what became of the consumed record."""
        return consumed_changes(self.base, self.target)

    @property
    def metadata(self) -> dict[str, tuple[Any, Any]]:
        """Return what differs of the callers' metadata: key -> (before, after)."""
        before, after = self.base.metadata, self.target.metadata
        return {k: (before.get(k), after.get(k)) for k in sorted({*before, *after}) if before.get(k) != after.get(k)}

    @cached_property
    def _bytes(self) -> tuple[int, int]:
        return count_bytes(self.base.reader, self.target.reader)

    @property
    def bytes_new(self) -> int:
        """Return the bytes of the target's arrays that the base has not."""
        return self._bytes[0]

    @property
    def bytes_shared(self) -> int:
        """Return the bytes of the target's arrays that the base has too."""
        return self._bytes[1]

    @property
    def is_empty(self) -> bool:
        """Return whether the two are equal by id."""
        return not (
            any(len(ids.appended) or len(ids.removed) for ids in self.ids.values())
            or any(len(t.changed_rows) or any(t.slots.values()) or t.status != "kept" for t in self.tables.values())
            or self.dense
            or not self._consumed_equal
            or self.base.schema != self.target.schema
        )

    @property
    def _consumed_equal(self) -> bool:
        if self.consumed.is_empty:
            return True
        if self.consumed.n_before != self.consumed.n_after:
            return False
        if self.consumed.n_before == 0:  # there may be no users, or no items
            return True
        before, after = _records_by_id(self.base), _records_by_id(self.target)
        same_pairs = np.array_equal(before[0], after[0]) and np.array_equal(before[1], after[1])
        return same_pairs and np.array_equal(before[2], after[2], equal_nan=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, JSON-ready."""
        return {
            "base": self.base.id,
            "target": self.target.id,
            "ids": {e: {"appended": ids.appended.tolist(), "removed": ids.removed.tolist()} for e, ids in self.ids.items()},
            "tables": {name: table.to_dict() for name, table in self.tables.items()},
            "dense": self.dense,
            "consumed": {"before": self.consumed.n_before, "after": self.consumed.n_after},
            "metadata": {key: {"before": a, "after": b} for key, (a, b) in self.metadata.items()},
            "bytes_new": self.bytes_new,
            "bytes_shared": self.bytes_shared,
        }

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def _table_diff(comparison: Comparison, name: str) -> TableDiff:
    base, target = comparison.base, comparison.target
    return TableDiff(
        base.table_rows(name) if name in base.tables else None,
        target.table_rows(name) if name in target.tables else None,
        comparison.rows.get(name, {}),
    )


def _directions(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows of length one; a row of zeros, or one that is not finite, has no direction and stays zero."""
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    usable = np.isfinite(largest) & (largest > 0)
    scaled = np.where(usable, rows, 0) / np.where(usable, largest, 1)  # so that squares of large numbers stay finite
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    directions: NDArray[np.float64] = scaled / np.where(norms > 0, norms, 1)
    return directions


def _records_by_id(version: Version) -> tuple[Ids, Ids, NDArray[Any]]:
    records = version.consumed.records()
    return version.ids("user").at(records.users), version.ids("item").at(records.items), records.times


def _lines(diff: Diff) -> Iterator[str]:
    yield f"{diff.base.id} -> {diff.target.id}"
    for entity, ids in diff.ids.items():
        yield f"{entity}: {len(ids.appended)} appended, {len(ids.removed)} removed"
    for name, table in diff.tables.items():
        d = table.to_dict()
        yield (
            f"{name}: {d['rows_before']} -> {d['rows_after']} rows, {d['changed']} changed"
            f" (drift mean {d['drift_mean']:.4g}, max {d['drift_max']:.4g})"
        )
        yield from (f"  slot {slot}: {n} changed" for slot, n in table.slots.items())
    yield from (f"dense {name}: {what}" for name, what in diff.dense.items())
    yield f"consumed: {diff.consumed.n_before} -> {diff.consumed.n_after} pairs"
    yield from (f"metadata {key}: {before!r} -> {after!r}" for key, (before, after) in diff.metadata.items())
    yield f"bytes: {diff.bytes_new} new, {diff.bytes_shared} shared"


def count_bytes(base: Reader, target: Reader) -> tuple[int, int]:
    """Return the bytes of ``target``'s chunks that ``base`` has not, and that it has."""
    keys = [key for key in target.keys("") if not key.endswith("zarr.json")]
    sizes = target.stored_bytes(keys)
    new = sum(size for key, size in sizes.items() if not _shared(key, base, target))
    return new, sum(sizes.values()) - new


def _shared(key: str, base: Reader, target: Reader) -> bool:
    path, _, coordinates = key.rpartition("/c/")
    path = path or key.removesuffix("/c")
    mine, theirs = target.meta(path), base.meta(path)
    if mine is None or theirs is None or mine.attributes.get("written") != theirs.attributes.get("written"):
        return False
    if mine.shape == theirs.shape:
        return True
    # Arrays that grow keep their full chunks.
    return (int(coordinates.split("/")[0]) + 1) * mine.height <= theirs.n_rows
