"""Fit an autoencoder once in a process of its own; print its peak memory in tables of items.

``python -m tests.with_torch.one_fit TRAINER FOLDER``
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import embstore
from embstore import Interactions
from tools.quality_random.ours import peak_mb

N_USERS, N_ITEMS, WIDTH = 200, 20_000, 300
TABLES_MB = 2 * N_ITEMS * WIDTH * 4 / 2**20


def main() -> None:
    """Train for two epochs, all items being in both tables, and commit."""
    random = np.random.default_rng(0)
    items = np.concatenate([np.arange(N_ITEMS), random.integers(0, N_ITEMS, 40 * N_USERS)])
    pairs = Interactions(np.arange(len(items)) % N_USERS, items)
    store = embstore.create(Path(sys.argv[2]) / "store", durability="none")
    trainer, before = embstore.find_trainer(sys.argv[1])(hidden=(WIDTH,), epochs=2, batch_size=50), peak_mb()
    embstore.fit(store, trainer, pairs, message="fit")
    sys.stdout.write(f"{(peak_mb() - before) / TABLES_MB}\n")


if __name__ == "__main__":
    main()
