"""Stores that the sections measure: one entity, one table with two slots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import embstore
from tools.bench.peers import SLOTS, Rows, schema
from tools.bench.workload import DIM, Floats, Ids


def user_store(folder: Path, ids: Ids) -> embstore.Store:
    """Make a store with a row for every id, without waiting for the disk; values and slots hold the same numbers."""
    store = embstore.create(folder, schema=schema({"user": "user"}), durability="none")
    vectors = np.random.default_rng(2).random((len(ids), DIM), np.float32)
    with store.checkout() as work:
        rows = work.append("user", ids, init={"user": vectors})
        for slot in SLOTS:
            work.table("user").slot(slot).scatter(rows, vectors)
        work.commit("base")
    return store


def stage(work: embstore.Checkout, rows: Rows, new_ids: Ids, vectors: Sequence[Floats]) -> None:
    """Stage new ids and, for them and for ``rows``, the vectors of values and slots (``rows`` first)."""
    n = len(rows)
    new = work.append("user", new_ids, init={"user": vectors[0][n:]})
    table = work.table("user")
    if n:
        table.scatter(rows, vectors[0][:n])
    both = np.concatenate([rows, new])
    for slot, values in zip(SLOTS, vectors[1:], strict=True):
        table.slot(slot).scatter(both, values)


def random_vectors(rng: np.random.Generator, n: int) -> list[Floats]:
    """Return vectors of ``n`` rows for values and slots."""
    return [rng.random((n, DIM), np.float32) for _ in range(1 + len(SLOTS))]
