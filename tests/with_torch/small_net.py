"""A small net over users and items, for the tests of the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embstore import Batch, Normal, Schema, TableSpec, View
from trainers.loop import Run, scoring
from trainers.net_trainer import NetTrainer

SIDES = ("user", "item")


class PairNet(nn.Module):
    """Vectors of a user and an item, some of their products dropped, and a layer that weighs the rest."""

    def __init__(self, n_users: int, n_items: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.users = nn.Embedding(n_users, dim, sparse=True)
        self.items = nn.Embedding(n_items, dim, sparse=True)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(dim, 1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the logits of pairs, [n]."""
        products: Tensor = self.head(self.drop(self.users(users) * self.items(items)))
        return products[:, 0]


@dataclass(frozen=True)
class Small(NetTrainer):
    """Pairs are liked, pairs with an item drawn are not."""

    dim: int = 4
    dropout: float = 0.2
    epochs: int = 2
    lr: float = 0.01
    batch_size: int = 32
    seed: int = 0
    precision: str = "float32"
    clip: float | None = None
    name: ClassVar[str] = "small"

    def schema(self) -> Schema:
        """Return the tables of users and items; their slots come with the optimizer."""
        return Schema(tuple(TableSpec(f"small.{e}", e, self.dim, init=Normal(0.1), seed=self.seed) for e in SIDES))

    def net(self, view: View) -> nn.Module:
        """Return the net for the rows of ``view``."""
        return PairNet(len(view.ids("user")), len(view.ids("item")), self.dim, self.dropout)

    def bindings(self) -> dict[str, str]:
        """Return the tables of both matrices."""
        return {"users.weight": "small.user", "items.weight": "small.item"}

    def loss(self, run: Run, part: Batch) -> Tensor:
        """Return the mean logistic loss of the pairs and as many drawn ones."""
        users, items = run.tensor(part.users), run.tensor(part.items)
        live = run.tensor(run.work.ids("item").live_rows())
        drawn = live[torch.randint(len(live), items.shape, generator=run.generator)]
        logits = run.net(torch.cat([users, users]), torch.cat([items, drawn]))
        labels = torch.cat([torch.ones(len(items)), torch.zeros(len(items))])
        return nn.functional.binary_cross_entropy_with_logits(logits, labels)

    def scores(self, view: View, user_rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the logits of all items for some users; row -1 is the mean user."""
        with scoring():
            net = self.loaded(view)
            table = net.users.weight
            users = torch.where(torch.from_numpy(user_rows >= 0)[:, None], table[user_rows], table.mean(0))
            found: NDArray[Any] = ((users * net.head.weight) @ net.items.weight.T + net.head.bias).numpy()
            return found
