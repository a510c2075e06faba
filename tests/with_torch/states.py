"""State dicts for tests of checkpoints, and the store that they are saved to."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import embstore
from embstore import Schema, Store, TableSpec
from embstore.dcp import Column, StoreReader, StoreWriter

N, DIM = 101, 8
TABLES = {
    "model.emb.weight": "item",
    "optim.state.emb.weight.exp_avg": Column("item", "exp_avg"),
    "optim.state.emb.weight.exp_avg_sq": Column("item", "exp_avg_sq"),
}
State = dict[str, Any]


def items(folder: Path) -> Store:
    """Return a store with 101 items."""
    schema = Schema((TableSpec("item", "item", DIM), TableSpec("bias", "item", None)), {"item": "int64"})
    store = embstore.create(folder / "s", schema=schema, durability="none")
    with store.checkout() as work:
        work.append("item", range(1000, 1000 + N))
        work.commit("items")
    return store


def save(state: State, writer: StoreWriter, **options: Any) -> Any:
    """Save from one process, without the warning that it is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcp.save(state, storage_writer=writer, no_dist=True, **options)


def load(state: State, reader: StoreReader, **options: Any) -> None:
    """Load in one process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(state, storage_reader=reader, no_dist=True, **options)


def full(seed: int) -> State:
    """Return a state dict with a bit of everything."""
    made = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=made)

    weights = {"emb.weight": random(N, DIM), "top.weight": random(6, 5), "half": random(7, 3).bfloat16(), "none": random(0, 4)}
    entry = {"step": torch.tensor(float(seed)), "exp_avg": random(N, DIM), "exp_avg_sq": random(N, DIM)}
    groups = [{"lr": 0.1 * seed, "betas": (0.9, 0.999), "amsgrad": False, "foreach": None, "params": ["emb.weight"]}]
    loop = {
        "epoch": seed,
        "name": "ä\0",
        "best": float("inf"),
        "seen": [1, [2.5, None]],
        "mask": random(9) > 0,
        "by id": {"7": 1},
    }
    return {"model": weights, "optim": {"state": {"emb.weight": entry}, "param_groups": groups}, "loop": loop}


def sharded(state: Any, mesh: Any) -> Any:
    """Return the same with every matrix over all ranks: rows, or columns of some."""
    if isinstance(state, dict):
        return {key: sharded_item(key, value, mesh) for key, value in state.items()}
    return state


def sharded_item(key: str, value: Any, mesh: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dim() == 2:
        return distribute_tensor(value, mesh, [Shard(1 if key in ("top.weight", "exp_avg_sq") else 0)])
    return sharded(value, mesh)


def flat(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value, tensors as their type and bytes."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from flat(value, f"{path}.{key}")
    elif isinstance(state, torch.Tensor):
        whole = state.full_tensor() if isinstance(state, DTensor) else state
        yield path, (str(whole.dtype), tuple(whole.shape), whole.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    else:
        yield path, repr(state)
