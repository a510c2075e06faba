"""One of several who work on one store: random steps, each checked against the model that all of them share.

``python -m tests.store.actor URL`` reads requests from standard input and answers on standard output, both pickled: a request
is the model so far and the number that the next steps follow from, the answer the model after them.
"""

from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from tests.store.agreement import assert_store_agrees
from tests.store.model import ITEM, USER, StoreModel
from tests.store.pair import LATE_SLOTS, LATE_TABLES, numbers
from tests.store.sharing import Shared

POLICIES = ("fail", "ours", "theirs")
BRANCHES = ("main", "side")
_FIRST_OWN = 40


class Actor:
    """A process's checkout, and the steps that it may take."""

    def __init__(self, pair: Shared) -> None:
        self.pair = pair
        self.seed, self.rng = 0, np.random.default_rng()

    def step(self, model: StoreModel, seed: int) -> StoreModel:
        """Take one step on the store as ``model`` has it; return what it has then."""
        self.pair.model, self.seed, self.rng = model, seed, np.random.default_rng(seed)
        steps: list[tuple[float, Callable[[], None]]] = [
            (3, self.append),
            (4, self.scatter),
            (1, self.remove),
            (2, self.consume),
            (1, self.dense),
            (0.5, self.evolve),
            (4, self.commit),
            (1, self.rebase),
            (1, self.merge),
            (0.5, self.checkout),
            (0.3, self.revert),
            (0.3, self.compact),
        ]
        weights = np.array([weight for weight, _ in steps])
        steps[self.rng.choice(len(steps), p=weights / weights.sum())][1]()
        return self.pair.model

    def _some(self, of: Any, most: int = 4) -> list[Any]:
        return [of[i] for i in self.rng.permutation(len(of))[: self.rng.integers(0, most + 1)]]

    def _one(self, of: Any) -> Any:
        return of[self.rng.integers(len(of))]

    def append(self) -> None:
        """Append ids that others may append too, and one that nobody else does."""
        entity = self._one([USER, ITEM])
        ids = [*self.rng.integers(0, _FIRST_OWN, 4).tolist(), _FIRST_OWN + self.seed]
        seed = self._one([None, None, 7])
        self.pair.append(entity, [str(i) for i in ids] if entity == ITEM else ids, init_seed=seed)

    def scatter(self) -> None:
        """Change rows of a table or slot."""
        table = self.pair.staged.tables[self._one(sorted(self.pair.staged.tables))]
        ids = self._some(self.pair.live(table.spec.entity))
        self.pair.scatter(table.spec.name, self._one(sorted(table.columns)), ids, int(self.rng.integers(1_000)))

    def remove(self) -> None:
        """Remove an id that will not come again."""
        entity = self._one([USER, ITEM])
        self.pair.remove(entity, self._some([id_ for id_ in self.pair.live(entity) if int(id_) >= _FIRST_OWN], 1))

    def consume(self) -> None:
        """Record pairs at times that nobody else has."""
        users, items = self._some(self.pair.live(USER)), self._some(self.pair.live(ITEM))
        pairs = list(zip(users, items, strict=False))
        self.pair.consume(pairs, self.rng.random(len(pairs)).tolist(), replace=False)

    def dense(self) -> None:
        """Assign an array without rows, or delete one."""
        name = self._one(["w", "v"])
        if name in self.pair.staged.dense and self.rng.random() < 0.2:
            self.pair.delete_dense(name)
        else:
            self.pair.set_dense(name, numbers(int(self.rng.integers(1_000)), (2,), "float32"))

    def evolve(self) -> None:
        """Add a table or slot."""
        if self.rng.random() < 0.5:
            self.pair.add_table(self._one(LATE_TABLES))
        else:
            self.pair.add_slot(*self._one(LATE_SLOTS))

    def commit(self) -> None:
        """Commit, whoever did meanwhile; what conflicts goes to a branch of its own, and the next begins anew."""
        self.pair.land({"seed": int(self.rng.integers(9))}, self._policies())
        if self.rng.random() < 0.5 or self.pair.branch not in BRANCHES:
            self.checkout()

    def _policies(self) -> dict[str, str]:
        return {"rows": self._one(POLICIES), "dense": self._one(POLICIES)}

    def rebase(self) -> None:
        """Go on from the newest version of the branch."""
        self.pair.rebase(self._policies())

    def merge(self) -> None:
        """Merge one branch into the other."""
        source, into = self.rng.permutation(BRANCHES).tolist()
        self.pair.merge(source, into, self._policies())

    def checkout(self) -> None:
        """Leave what is staged and begin anew."""
        self.pair.work.discard()
        self.pair.checkout(self._one(BRANCHES))

    def revert(self) -> None:
        """Go back by one version."""
        branch = self._one(BRANCHES)
        target = self.pair.model.versions[self.pair.model.branches[branch]].parents[:1]
        if target:
            self.pair.revert(target[0], target[0], branch)

    def compact(self) -> None:
        """Compact a branch."""
        self.pair.compact(self._one(BRANCHES))


def send(stream: IO[bytes], message: object) -> None:
    """Write one message."""
    data = pickle.dumps(message)
    stream.write(struct.pack("<Q", len(data)) + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message; None at the end."""
    head = stream.read(8)
    return pickle.loads(stream.read(struct.unpack("<Q", head)[0])) if head else None


def main() -> None:
    """Answer until nobody asks."""
    stream, sys.stdout = sys.stdout.buffer, sys.stderr
    actor = None
    while (request := receive(sys.stdin.buffer)) is not None:
        model, seed = request
        actor = actor or Actor(Shared(sys.argv[1], model))
        model = actor.step(model, seed) if seed is not None else model
        if seed is None:
            actor.pair.model = model
            actor.pair.check_all()
            assert_store_agrees(actor.pair.store, model)
        send(stream, model)


if __name__ == "__main__":
    main()
