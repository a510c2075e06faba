"""The module, the data and the optimizers that the tests of bindings share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import embstore
from embstore import Binding, Checkout, Schema, Store, TableSpec
from trainers.optim import RowAdam

DIM = 8
TABLES = {"user.weight": "user", "item.weight": "item"}
USERS = [f"u{i}" for i in range(30)]
ITEMS = list(range(1000, 1020))
Make = Callable[[Iterable[Any]], torch.optim.Optimizer]

DENSE: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "adam-amsgrad": lambda p: torch.optim.Adam(p, lr=0.05, amsgrad=True),
    "adam-fused": lambda p: torch.optim.Adam(p, lr=0.05, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "rmsprop-centered-momentum": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.9),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.05),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.05),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.05),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.05),
}
SPARSE: dict[str, Make] = {
    "sparse-adam": lambda p: torch.optim.SparseAdam(list(p), lr=0.05),
    "row-adam": lambda p: RowAdam(p, lr=0.05),
    "sparse-sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sparse-adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1),
}
CASES = [*DENSE, *SPARSE]
# What a row without training has in an entry of the state, where that is not 0.
FILLS = {("adagrad", "sum"): 0.1, ("sparse-adagrad", "sum"): 0.1, ("rprop", "step_size"): 0.05}


class Net(nn.Module):
    """Two towers; with a head where gradients are dense."""

    def __init__(self, n_users: int, n_items: int, *, sparse: bool = False, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(n_users)
        self.user = nn.Embedding(n_users, DIM, sparse=sparse, dtype=dtype)
        self.item = nn.Embedding(n_items, DIM, sparse=sparse, dtype=dtype)
        self.head = None if sparse else nn.Linear(DIM, 1, dtype=dtype)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return a score for each pair."""
        both = self.user(users) * self.item(items)
        return both.sum(1) if self.head is None else self.head(both)[:, 0]


class Run:
    """A module with its optimizer, and where ids lie in it."""

    def __init__(self, case: str, users: Sequence[str], items: Sequence[int]) -> None:
        self.case, self.users, self.items = case, list(users), list(items)
        self.model = Net(len(users), len(items), sparse=case in SPARSE)
        self.optimizer = (SPARSE | DENSE)[case](self.model.parameters())

    def epoch(self, number: int, *, n_pairs: int = 16) -> None:
        """Take two steps on pairs that are a function of the number and the ids."""
        rng = np.random.default_rng(number)
        for _ in range(2):
            users, items = rng.integers(len(self.users), size=n_pairs), rng.integers(len(self.items), size=n_pairs)
            wanted = torch.from_numpy(rng.normal(size=n_pairs)).to(self.model.user.weight.dtype)
            self.optimizer.zero_grad()
            scores = self.model(torch.from_numpy(users), torch.from_numpy(items))
            ((scores - wanted) ** 2).mean().backward()
            with torch.sparse.check_sparse_tensor_invariants():  # without a choice torch warns
                self.optimizer.step()

    def bind(self, work: Checkout, **options: Any) -> Binding:
        """Bind both towers."""
        return embstore.bind(work, self.model, self.optimizer, TABLES, **options)

    def bits(self) -> dict[str, bytes]:
        """Return the bits of all that training changes."""
        found = {name: bits(p) for name, p in self.model.named_parameters()}
        for name, p in self.model.named_parameters():
            found |= {f"{name}.{key}": bits(value) for key, value in self.optimizer.state.get(p, {}).items()}
        return found

    def types(self) -> dict[str, tuple[type, Any]]:
        """Return the type of each entry of the optimizer's state."""
        named = {f"{name}.{key}": v for name, p in self.model.named_parameters() for key, v in self.optimizer.state[p].items()}
        return {
            name: (type(v), (v.dtype, v.shape, v.stride()) if isinstance(v, torch.Tensor) else None) for name, v in named.items()
        }


def bits(value: Any) -> bytes:
    """Return the bits of a tensor or number."""
    array: np.ndarray[Any, Any] = value.detach().view(torch.uint8).numpy() if _is_half(value) else np.asarray(_plain(value))
    return array.tobytes()


def _is_half(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype is torch.bfloat16


def _plain(value: Any) -> Any:
    return value.detach().numpy() if isinstance(value, torch.Tensor) else value


def new_store(url: str | Path, *, dtype: str = "float32") -> Store:
    """Return a store with both tables and the first ids."""
    tables = tuple(TableSpec(name, name, DIM, dtype) for name in ("user", "item"))
    store = embstore.create(url, schema=Schema(tables, {"user": "str", "item": "int64"}), durability="none")
    with store.checkout() as work:
        work.append("user", USERS)
        work.append("item", ITEMS)
        work.commit("first ids")
    return store


def train_and_commit(store: Store, run: Run, epochs: Iterable[int]) -> None:
    """Restore a run, train it and commit it."""
    with store.checkout() as work:
        binding = run.bind(work)
        binding.restore()
        for number in epochs:
            run.epoch(number)
        binding.stage()
        work.commit("trained")


@pytest.mark.parametrize("case", CASES)
def test_case_learns(case: str) -> None:
    """Each optimizer changes every parameter of the module, so that equal bits mean something."""
    run = Run(case, USERS, ITEMS)
    before = run.bits()
    run.epoch(0, n_pairs=200)
    assert {name for name, _ in run.model.named_parameters() if run.bits()[name] == before[name]} == set()
