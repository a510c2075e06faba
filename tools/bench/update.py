"""Commits that change rows, and very small tables: what do they cost on the disk?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import embstore
from tools.bench.figures import Figure, Result, Settings
from tools.bench.made import random_vectors, stage, user_store
from tools.bench.timing import folder_bytes, note
from tools.bench.workload import DIM, ROW_BYTES

N_LARGE = 1_000_000
N_DAILY = 200_000
N_SMALL = 943  # the users of MovieLens-100k


def run(settings: Settings) -> Result:
    """Measure one large update, days of updates and new rows, and one small table."""
    large, daily = settings.rows(N_LARGE), settings.rows(N_DAILY)
    small_bytes = _small(settings.folder / "small")
    figures = [
        Figure(f"5 % of {large:,} rows: bytes / payload", _one(settings.folder / "large", large), "x", 1.1),
        Figure(f"ten days on {daily:,} rows: bytes / payload", _days(settings.folder / "daily", daily), "x", 1.15),
        Figure(f"{N_SMALL} rows without slots on the disk", small_bytes / 1e3, "kB"),
        Figure(f"{N_SMALL} rows without slots / their vectors", small_bytes / (N_SMALL * DIM * 4), "x"),
    ]
    return Result("update: rows x 64 with two slots; a day changes 5 % of them and adds 1 %", figures)


def _one(folder: Path, n_rows: int) -> float:
    note(f"update: {n_rows:,} rows")
    store = user_store(folder, np.arange(n_rows))
    before = folder_bytes(folder)
    payload = _update(store, n_rows, np.random.default_rng(5), n_new=0)
    return (folder_bytes(folder) - before) / payload


def _days(folder: Path, n_rows: int) -> float:
    note(f"update: ten days on {n_rows:,} rows")
    rng = np.random.default_rng(6)
    store = user_store(folder, np.arange(n_rows))
    before, payload = folder_bytes(folder), 0
    for _ in range(10):
        n_new = n_rows // 100
        payload += _update(store, n_rows, rng, n_new=n_new)
        n_rows += n_new
    return (folder_bytes(folder) - before) / payload


def _update(store: embstore.Store, n_rows: int, rng: np.random.Generator, *, n_new: int) -> int:
    """Change a random 5 % of the rows and add ``n_new``; return the bytes that this must write."""
    rows = rng.choice(n_rows, n_rows // 20, replace=False)
    with store.checkout() as work:
        stage(work, rows, np.arange(n_rows, n_rows + n_new), random_vectors(rng, len(rows) + n_new))
        work.commit("a day")
    return (len(rows) + n_new) * ROW_BYTES


def _small(folder: Path) -> int:
    store = embstore.create(folder, schema=embstore.Schema((embstore.TableSpec("user", "user", DIM),)), durability="none")
    with store.checkout() as work:
        work.append("user", np.arange(N_SMALL))
        work.commit("base")
    return folder_bytes(folder)
