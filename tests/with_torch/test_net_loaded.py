"""Nets whose rows lie elsewhere in their parameters, and nets that are loaded to score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import embstore
from embstore import Batch, InvalidInputError, Normal, Rows, Schema, TableSpec, View
from embstore.testing import TrainerContract, example_interactions
from tests.examples import new_store
from tests.with_torch.forked import Forked
from tests.with_torch.small_net import Small
from trainers.loop import Run
from trainers.net_trainer import NetTrainer

PAIRS = example_interactions()


class Across(nn.Module):
    """An item's vectors as columns of a layer that is used twice, three leading rows of users, and a running mean."""

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__()
        self.users = nn.Embedding(n_users + 3, 2, sparse=True)
        self.encode = nn.Linear(n_items, 2, bias=False)
        self.decode = nn.Linear(n_items, 2, bias=False)
        self.decode.weight = self.encode.weight
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the products of the vectors of pairs, and move the mean."""
        found = (self.users(users) * self.encode.weight.T[items]).sum(1)
        self.mean = 0.9 * self.mean + 0.1 * found.detach().mean()
        return found


@dataclass(frozen=True)
class Transposed(NetTrainer):
    """Trains `Across`."""

    epochs: int = 2
    lr: float = 0.01
    name: ClassVar[str] = "transposed"

    def schema(self) -> Schema:
        """Return a table for each side."""
        return Schema(tuple(TableSpec(f"transposed.{e}", e, 2, init=Normal(0.1)) for e in ("user", "item")))

    def net(self, view: View) -> nn.Module:
        """Return the net."""
        return Across(len(view.ids("user")), len(view.ids("item")))

    def bindings(self) -> dict[str, str | Rows]:
        """Bind columns, and rows after three leading ones."""
        return {"users.weight": Rows("transposed.user", first=3), "encode.weight": Rows("transposed.item", axis=1)}

    def loss(self, run: Run, part: Batch) -> Tensor:
        """Let leading row 0 take part in every step."""
        users = run.tensor(np.append(part.users + 3, 0))
        found: Tensor = run.net(users, run.tensor(np.append(part.items, 0)))
        return (found - 1).square().mean()

    def scores(self, view: View, user_rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the products."""
        net = self.loaded(view)
        with torch.no_grad():
            found: NDArray[Any] = (net.users.weight[torch.from_numpy(user_rows) + 3] @ net.decode.weight).numpy()
            return found


class TestTransposed(Forked, TrainerContract):
    """Rows may lie on another axis and begin later."""

    trainer = Transposed()


def test_loaded_net_is_the_trained_one() -> None:
    """Rows of tables, leading rows, arrays, shared parameters and buffers are what they were in the training."""
    kept: list[Any] = []

    @dataclass(frozen=True)
    class Kept(Transposed):
        def begin(self, work: embstore.Checkout, batch: Batch) -> Run:
            run = super().begin(work, batch)
            kept.append(run.net)
            return run

    version = embstore.fit(new_store(), Kept(), PAIRS, message="fit")
    loaded = Kept().loaded(version)
    assert (loaded.training, float(loaded.mean) != 0) == (False, True)
    assert loaded.decode.weight is loaded.encode.weight
    trained = kept[0].state_dict()
    assert [name for name, tensor in loaded.state_dict().items() if not torch.equal(tensor, trained[name])] == []


def test_net_that_was_not_trained_cannot_be_loaded() -> None:
    """What is missing is named."""
    store = new_store()
    with store.checkout() as work:
        embstore.training.stage_pairs(work, Small(), PAIRS.ordered())
        version = work.commit("ids alone")
    with pytest.raises(InvalidInputError, match=r"no array 'model.small.head.weight': trainer 'small' was not trained"):
        Small().loaded(version)
