"""A model of one's own over users and items, for the tests of reconstruction: the one of docs/trainers/recoder.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from embstore import Schema, View
from trainers.autoencoder_nets import SparseInput, chosen
from trainers.reconstruction import Reconstruction


class UserItemNet(nn.Module):
    """The product of a user's and an item's vector."""

    def __init__(self, n_users: int, n_items: int, dim: int) -> None:
        super().__init__()
        self.users = nn.Parameter(torch.zeros(n_users, dim))
        self.items = nn.Parameter(torch.zeros(n_items, dim))

    def forward(self, given: SparseInput, users: Tensor, items: Tensor) -> Tensor:
        """Return the scores of some items for some users."""
        return chosen(self.users, users) @ chosen(self.items, items).T


@dataclass(frozen=True)
class UserItem(Reconstruction):
    """Factorizes what users have had."""

    dim: int = 8
    epochs: int = 2
    lr: float = 0.05
    l2: float = 0.0
    batch_size: int = 7
    negative_sampling: bool = False
    num_sampling_users: int = 0
    lr_milestones: tuple[int, ...] = ()
    seed: int = 0
    name: ClassVar[str] = "user_item"

    def schema(self) -> Schema:
        """Return a table of users and one of items."""
        return Schema(tuple(self.table(f"user_item.{entity}", entity, self.dim, init_std=0.1) for entity in ("user", "item")))

    def net(self, view: View) -> nn.Module:
        """Return the net for the rows of a view."""
        return UserItemNet(len(view.ids("user")), len(view.ids("item")), self.dim)

    def bindings(self) -> dict[str, str]:
        """Return the tables of both parameters."""
        return {"users": "user_item.user", "items": "user_item.item"}
