"""A factor model trained by one rank or several: users by rank, items on all of them; run as a script or by ``torchrun``.

``python sharded_job.py STORE FOLDER MESSAGE`` trains three steps from the newest version and leaves what it ended with.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

import embstore
from embstore import Schema, Store, TableSpec, Version

N_USERS, N_ITEMS, DIM = 600, 200, 16
SCHEMA = Schema((TableSpec("user", "user", DIM), TableSpec("item", "item", DIM)), {"user": "int64", "item": "str"})


def train(store: Store, folder: Path, message: str) -> Version:
    """Train from the newest version, commit once on all ranks, and save what this rank has in memory."""
    work = None
    if not dist.is_initialized() or dist.get_rank() == 0:
        work = store.checkout()
        work.append("user", range(1000, 1000 + N_USERS))
        work.append("item", [f"film {n}" for n in range(N_ITEMS)])
    with embstore.share(store, work) as shard:
        users = shard.ids_of_rank("user")
        model = nn.ModuleDict({"user": nn.Embedding(len(users), DIM), "item": nn.Embedding(N_ITEMS, DIM), "top": nn.Linear(1, 1)})
        nn.init.ones_(model["top"].weight)
        nn.init.zeros_(model["top"].bias)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        binding = embstore.bind(shard, model, optimizer, {"user.weight": "user", "item.weight": "item"})
        binding.restore({"user": users})
        for step in range(3):
            _step(model, optimizer, np.asarray(users), step)
        binding.stage()
        version = shard.commit(message)
        _save(folder / f"{message}-{shard.rank}.npz", users, model, optimizer)
        binding.restore({"user": users})  # from the version that all ranks have made, where nothing is to be staged
        binding.stage()
        assert not shard.dirty
    return version


def _step(model: nn.ModuleDict, optimizer: torch.optim.Optimizer, users: np.ndarray, step: int) -> None:
    """Fit every user's number of every tenth item; gradients of what all ranks have are summed."""
    optimizer.zero_grad()
    items = torch.arange(step, N_ITEMS, 10)
    wanted = torch.from_numpy(np.cos(users[:, None] * items.numpy())).float()
    scores = model["user"].weight @ model["item"](items).T
    ((model["top"](scores.reshape(-1, 1)).reshape(scores.shape) - wanted) ** 2).sum().backward()
    if dist.is_initialized():
        for param in (model["item"].weight, *model["top"].parameters()):
            dist.all_reduce(param.grad)
    optimizer.step()


def _save(path: Path, users: np.ndarray, model: nn.ModuleDict, optimizer: torch.optim.Optimizer) -> None:
    arrays = {"users": users, "top": model["top"].weight.detach().numpy()}
    for name in ("user", "item"):
        weight = model[name].weight
        state = {key: value.numpy() for key, value in optimizer.state[weight].items()}
        arrays |= {name: weight.detach().numpy(), **{f"{name} {key}": value for key, value in state.items()}}
    np.savez(path, **arrays)


if __name__ == "__main__":
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    torch.manual_seed(0)
    train(embstore.open(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    if dist.is_initialized():
        dist.destroy_process_group()
