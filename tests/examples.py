"""Small pairs, stores and a trainer, for the tests of training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import embstore
from embstore import Batch, Checkout, Interactions, Schema, SlotSpec, Store, TableSpec, View, Zeros

DAY_1 = Interactions([3, 1, 1, 2, 2, 3], ["b", "a", "c", "b", "a", "d"], times=[6, 1, 4, 2, 3, 5])
DAY_2 = Interactions([4, 1, 4], ["a", "e", "b"], times=[9, 8, 7])
HELD_OUT = Interactions([1, 2], ["d", "d"])
_names = itertools.count()


def new_store() -> Store:
    """Return an empty store in memory."""
    return embstore.create(f"memory://example-{next(_names)}")


def state_of(view: View) -> dict[str, Any]:
    """Return all that a training changes: ids, records, values and slots of every row, arrays; comparable bit by bit."""
    state: dict[str, Any] = {entity: view.ids(entity).ids().tolist() for entity in view.entities}
    state["consumed"] = [items.tolist() for items in view.consumed.of("user", state["user"])]
    state |= {name: view.dense[name].tobytes() for name in view.dense}
    for name in view.tables:
        table = view.table(name)
        state[name] = [column.values().tobytes() for column in (table, *table.slots.values())]
    return state


def crash_after(epoch: int) -> Callable[[int, Mapping[str, float]], None]:
    """Return what interrupts a training once this epoch is over, for ``progress``."""

    def crash(now: int, metrics: Mapping[str, float]) -> None:
        if now == epoch:
            raise KeyboardInterrupt

    return crash


@dataclass(frozen=True)
class Scripted:
    """Gives item d the scores of a script, epoch by epoch, and counts epochs in a slot and in an array.

    Other items score 0, 1, 2 … by row. From epoch ``late`` on it also writes the row of item c, which it left alone before.
    It cannot fold in.
    """

    script: tuple[float, ...] = (0.0,)
    epochs: int = 1
    late: int = 100
    name: ClassVar[str] = "scripted"

    def schema(self) -> Schema:
        """Return a number for each item."""
        return Schema((TableSpec("score", "item", None, slots=(SlotSpec("seen", None),), init=Zeros()),))

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Write the next scores."""
        for _ in range(self.epochs):
            epoch = int(work.dense.get("epoch", 0)) + 1
            score = self.script[(epoch - 1) % len(self.script)]
            table, row = work.table("score"), work.ids("item").rows(["d"])
            table.scatter(row, np.array([score]))
            table.slot("seen").scatter(row, np.array([float(epoch)]))
            if epoch >= self.late:
                table.scatter(work.ids("item").rows(["c"]), np.array([-1.0]))
            work.dense["epoch"] = np.array(epoch)
            yield {"score": score}

    def scores(self, view: View, user_rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the same scores for all."""
        values = view.table("score").values() + np.arange(len(view.ids("item")))
        return np.tile(values, (len(user_rows), 1))
