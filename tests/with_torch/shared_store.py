"""A store of twelve users, and a checkout of it that the ranks of a test share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

import embstore
from embstore import Schema, SlotSpec, Store, TableSpec


def twelve(folder: Path) -> Store:
    """Return the store, in a folder."""
    schema = Schema(
        (TableSpec("user", "user", 4, slots=(SlotSpec("m", 4),)), TableSpec("item", "item", 2)), {"user": "int64", "item": "str"}
    )
    store = embstore.create(folder / "s", schema=schema, durability="none")
    with store.checkout() as work:
        work.append("user", range(12))
        work.append("item", ["a"])
        work.consumed.append([0, 1], [0, 0])
        work.dense["w"] = [1.0]
        work.commit("twelve")
    return store


def on_ranks(url: str, act: Callable[..., Any], *args: Any) -> Any:
    """Run ``act(shard, *args)`` on this rank, in a checkout with a new user, a new item and a changed row."""
    store, work = embstore.open(url), None
    if torch.distributed.get_rank() == 0:
        work = store.checkout()
        work.append("user", [99], init={"user": [[1, 2, 3, 4]]})
        work.append("item", ["ü €"])
        work.table("user").scatter([0], [[5, 6, 7, 8]])
        work.remove("user", [11])
        work.dense["note"] = np.float32(2)
        work.consumed.append([2], [1], times=[5])
    with embstore.share(store, work, timeout=timedelta(seconds=60)) as shard:
        return act(shard, *args)
