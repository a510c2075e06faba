"""Workload W, the daily retrain: what the tables are, what a day brings, and what every peer must give back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.bench.figures import Settings

DIM = 64
COLUMNS = ("values", "exp_avg", "exp_avg_sq")
ROW_BYTES = len(COLUMNS) * DIM * 4 + 8
GROWTH = 0.01

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
# By entity and column; the ids of an entity are its column "ids".
State = Mapping[tuple[str, str], NDArray[Any]]


@dataclass(frozen=True)
class Entity:
    """How many rows an entity starts with, and which share of them a day changes."""

    rows: int
    changed: float


ENTITIES = {"user": Entity(1_000_000, 0.05), "item": Entity(100_000, 0.30)}


@dataclass(frozen=True)
class Edit:
    """What a day brings to one entity: changed rows, new ids, and the vectors of both in this order."""

    entity: str
    changed: NDArray[np.int64]
    new_ids: Ids
    vectors: Mapping[str, Floats]

    @property
    def n_rows(self) -> int:
        """Return the rows that are written."""
        return len(self.changed) + len(self.new_ids)

    @property
    def payload_bytes(self) -> int:
        """Return what must be written at the very least: the vectors and an id or row number of each."""
        return self.n_rows * ROW_BYTES


class Reference:
    """The state in memory, as a trainer would hold it; room for all days is taken at the start.

    User ids are random (as where they are hashed), item ids ascend.
    """

    def __init__(self, settings: Settings) -> None:
        self._rng = np.random.default_rng(0)
        self._n = {name: settings.rows(entity.rows) for name, entity in ENTITIES.items()}
        most = {name: int(n * (1 + GROWTH) ** (settings.days + 1)) + settings.days + 1 for name, n in self._n.items()}
        self._ids = {
            "user": distinct_ids(self._rng, most["user"]),
            "item": np.arange(most["item"], dtype=np.int64) + 1000,
        }
        self._room = {(name, column): np.zeros((n, DIM), np.float32) for name, n in most.items() for column in COLUMNS}
        for (name, _), array in self._room.items():
            self._rng.random(out=array[: self._n[name]], dtype=np.float32)

    @property
    def state(self) -> State:
        """Return all arrays, views of the room; ids too."""
        vectors = {key: array[: self._n[key[0]]] for key, array in self._room.items()}
        return {**vectors, **{(name, "ids"): ids[: self._n[name]] for name, ids in self._ids.items()}}

    @property
    def array_bytes(self) -> int:
        """Return the bytes of all arrays."""
        return sum(array.nbytes for array in self.state.values())

    def next_day(self) -> list[Edit]:
        """Return what a day brings, and bring it."""
        return [self._apply(self._edit(name)) for name in ENTITIES]

    def _edit(self, name: str) -> Edit:
        n = self._n[name]
        changed = self._rng.choice(n, int(n * ENTITIES[name].changed), replace=False)
        new_ids = self._ids[name][n : n + int(n * GROWTH)]
        shape = (len(changed) + len(new_ids), DIM)
        return Edit(name, changed, new_ids, {column: self._rng.random(shape, np.float32) for column in COLUMNS})

    def _apply(self, edit: Edit) -> Edit:
        n = self._n[edit.entity]
        self._n[edit.entity] = stop = n + len(edit.new_ids)
        for column, vectors in edit.vectors.items():
            room = self._room[edit.entity, column]
            room[edit.changed] = vectors[: len(edit.changed)]
            room[n:stop] = vectors[len(edit.changed) :]
        return edit

    def sample(self, n: int) -> tuple[Ids, Floats]:
        """Return random users and their vectors."""
        rows = self._rng.integers(0, self._n["user"], n)
        return self._ids["user"][rows], self._room["user", "values"][rows]

    def check(self, restored: State, *, who: str) -> None:
        """Raise AssertionError if one bit of what ``who`` gave back is wrong."""
        for key, array in self.state.items():
            assert_equal(restored[key], array, f"{who}: {' '.join(key)}")


def distinct_ids(rng: np.random.Generator, n: int) -> Ids:
    """Return ``n`` different random ids."""
    ids = rng.integers(0, 2**63 - 1, n)
    assert len(np.unique(ids)) == n
    return ids


def assert_equal(got: NDArray[Any], wanted: NDArray[Any], what: str) -> None:
    """Raise AssertionError if two arrays differ."""
    if not np.array_equal(got, wanted):
        msg = f"{what} is not what was stored"
        raise AssertionError(msg)
