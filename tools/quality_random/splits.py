"""Random splits of MovieLens-100k as files that every system reads: two tenths of every user's pairs are held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embstore import Interactions

NAME = "split"
PARTS = ("train", "valid", "test")
N_USERS, N_ITEMS = 943, 1_682
_HEADER = "user_id:token\titem_id:token"
I64 = NDArray[np.int64]


def write(folder: Path, parts: tuple[Interactions, ...]) -> None:
    """Write train, valid and test as RecBole's atomic files ``split/split.<part>.inter``."""
    (folder / NAME).mkdir(parents=True, exist_ok=True)
    for part, pairs in zip(PARTS, parts, strict=True):
        rows = np.column_stack([pairs.user_ids, pairs.item_ids])
        np.savetxt(_path(folder, part), rows, fmt="%d", delimiter="\t", header=_HEADER, comments="")


def read(folder: Path, part: str) -> tuple[I64, I64]:
    """Return the users and items of a part; without pandas, whose import would count in the memory that is measured."""
    users, items = np.loadtxt(_path(folder, part), dtype=np.int64, delimiter="\t", skiprows=1, unpack=True)
    return users, items


def _path(folder: Path, part: str) -> Path:
    return folder / NAME / f"{NAME}.{part}.inter"
