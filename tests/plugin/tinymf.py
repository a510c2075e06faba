"""A small matrix factorization in numpy, with everything a trainer may keep: vectors, slots, a counter and a generator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from embstore import Batch, Checkout, Normal, Schema, SlotSpec, TableSpec, View

SIDES = ("user", "item")
CHUNK = 16


@dataclass(frozen=True)
class TinyMF:
    """Logistic loss on each pair and one drawn item, by Adagrad.

    Parameters
    ----------
    dim
        Numbers in a vector.
    epochs
        How often all pairs are seen.
    lr
        Adagrad's step.
    l2
        Ridge of the least squares that fold in new ids.
    seed
        Of the order of pairs, the drawn items and the initial vectors.
    """

    dim: int = 4
    epochs: int = 3
    lr: float = 0.1
    l2: float = 0.1
    seed: int = 0
    name: ClassVar[str] = "tinymf"

    def schema(self) -> Schema:
        """Return two tables, each with Adagrad's sum of squares."""
        slots = (SlotSpec("sum", self.dim, fill=0.1),)
        return Schema(tuple(TableSpec(f"tinymf.{e}", e, self.dim, slots=slots, init=Normal(0.1), seed=self.seed) for e in SIDES))

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Train epoch by epoch; the generator goes on where the last training left it."""
        vectors = {e: work.table(f"tinymf.{e}").values() for e in SIDES}
        sums = {e: work.table(f"tinymf.{e}").slot("sum").values() for e in SIDES}
        items = work.ids("item").rows(work.ids("item").ids())
        for _ in range(self.epochs):
            random = _generator(work, self.seed)
            order, drawn = random.permutation(len(batch)), random.choice(items, len(batch))
            loss = 0.0
            for start in range(0, len(batch), CHUNK):
                chosen = order[start : start + CHUNK]
                loss += self._step(vectors, sums, batch.users[chosen], batch.items[chosen], target=1.0)
                loss += self._step(vectors, sums, batch.users[chosen], drawn[chosen], target=0.0)
            touched = {"user": np.unique(batch.users), "item": np.unique([*batch.items, *drawn])}
            for entity, rows in touched.items():
                work.table(f"tinymf.{entity}").scatter(rows, vectors[entity][rows])
                work.table(f"tinymf.{entity}").slot("sum").scatter(rows, sums[entity][rows])
            work.dense["tinymf.random"] = _state(random)
            work.dense["tinymf.epochs"] = work.dense.get("tinymf.epochs", np.zeros((), np.int64)) + 1
            yield {"loss": loss / len(batch)}

    def _step(
        self,
        vectors: dict[str, NDArray[np.float32]],
        sums: dict[str, NDArray[np.float32]],
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        *,
        target: float,
    ) -> float:
        """Take one step on these pairs, and return the sum of their losses before it."""
        u, v = vectors["user"][users], vectors["item"][items]
        chance = 1 / (1 + np.exp(-(u * v).sum(axis=1)))
        error = (chance - target)[:, None]
        for entity, rows, gradient in (("user", users, error * v), ("item", items, error * u)):
            touched, places = np.unique(rows, return_inverse=True)
            total = np.zeros((len(touched), self.dim), np.float32)
            np.add.at(total, places, gradient)
            sums[entity][touched] += total * total
            vectors[entity][touched] -= self.lr * total / np.sqrt(sums[entity][touched])
        return float(-np.log(chance if target else 1 - chance).sum())

    def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch, *, entity: str = "user") -> dict[str, float]:
        """Solve ridge regression for each new row by itself."""
        mine, theirs = (batch.users, batch.items) if entity == "user" else (batch.items, batch.users)
        other = work.table("tinymf.item" if entity == "user" else "tinymf.user")
        for row in rows:
            known = other.gather(np.sort(theirs[mine == row])).astype(np.float64)
            vector = np.linalg.solve(known.T @ known + self.l2 * np.eye(self.dim), known.sum(axis=0))
            work.table(f"tinymf.{entity}").scatter([row], vector[None])
        return {"rows": len(rows)}

    def scores(self, view: View, user_rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the products of vectors: ``[len(user_rows), n_items]``; row -1 is the mean of all users."""
        table = view.table("tinymf.user")
        users = np.empty((len(user_rows), self.dim))
        users[user_rows >= 0] = table.gather(user_rows[user_rows >= 0])
        users[user_rows < 0] = table.get(view.ids("user").ids()).astype(np.float64).mean(axis=0)
        return users @ view.table("tinymf.item").values().astype(np.float64).T


def _generator(work: Checkout, seed: int) -> np.random.Generator:
    random = np.random.Generator(np.random.PCG64(seed))
    if "tinymf.random" in work.dense:
        words = [int(word) for word in work.dense["tinymf.random"]]
        state = {"state": words[0] | words[1] << 64, "inc": words[2] | words[3] << 64}
        random.bit_generator.state = {"bit_generator": "PCG64", "state": state, "has_uint32": words[4], "uinteger": words[5]}
    return random


def _state(random: np.random.Generator) -> NDArray[np.uint64]:
    stored = random.bit_generator.state
    halves = [half for number in stored["state"].values() for half in (number % 2**64, number >> 64)]
    return np.array([*halves, stored["has_uint32"], stored["uinteger"]], np.uint64)
