"""Matrix factorization by alternating least squares for implicit feedback (Hu, Koren and Volinsky 2008), in numpy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from embstore import Batch, Checkout, Schema, TableSpec, View, Zeros
from trainers.least_squares import Block, Whitened, blocks, pair_counts
from trainers.settings import check_count, check_positive

Rows = NDArray[np.int64]
# A digest of the record that was trained on, and whether in sweeps over everybody or as an increment.
_STATE = "als.state"
_SWEEPS, _INCREMENT = 0, 1


@dataclass(frozen=True)
class ALS:
    """Alternating least squares: all that a user has not had counts as 0, what the user has had as 1 with more confidence.

    The first fit sweeps over all users and items ``epochs`` times, a later one is an *increment*, one epoch: it solves for the
    users of its pairs, for items that have no vector yet, and for these users again; then ``half_sweeps`` times for the items of
    its pairs and their users in turn. Either goes by all that the store has as consumed; ratings do not count.

    Parameters
    ----------
    dim
        Length of the vectors.
    epochs
        Sweeps over all users and items in the first fit.
    l2
        Added for each vector to what is to be small.
    alpha
        A pair that occurs n times has the confidence ``1 + alpha * n``.
    half_sweeps
        In an increment, over the items and users of its pairs, items first.
    steps
        Of conjugate gradients for a row in a half-sweep.
    init_std
        Of the items' vectors before the first sweep.
    seed
        Of these.

    Raises
    ------
    InvalidInputError
        For settings out of range.
    """

    dim: int = 64
    epochs: int = 15
    l2: float = 20.0
    alpha: float = 10.0
    half_sweeps: int = 2
    steps: int = 3
    init_std: float = 0.1
    seed: int = 0
    name: ClassVar[str] = "als"

    def __post_init__(self) -> None:
        for what, least in (("dim", 1), ("epochs", 1), ("half_sweeps", 0), ("steps", 1)):
            check_count(getattr(self, what), what, least=least)
        for what in ("l2", "alpha", "init_std"):
            check_positive(getattr(self, what), what)
        self.schema()  # refuses a seed that no table can have

    def schema(self) -> Schema:
        """Return the tables ``user`` and ``item`` ``[N, dim]``; a row without pairs is zero."""
        return Schema(tuple(TableSpec(name, name, self.dim, init=Zeros(), seed=self.seed) for name in ("user", "item")))

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Train and stage epoch by epoch: in sweeps over everybody, or what the pairs of ``batch`` touch."""
        if len(batch) == 0:
            return
        counts = _counts(work)
        users, items = _Side(work, "user", counts), _Side(work, "item", counts.T.tocsr())
        seen = _digest(counts)
        state = work.dense[_STATE].tolist() if _STATE in work.dense else None
        if state is None:
            users.values[:], items.values[:] = 0, items.start(self.init_std, seed=self.seed)
        if state in (None, [seen, _SWEEPS]):
            yield from self._sweeps(work, users, items, seen=seen)
        elif state[0] != seen:
            yield self._increment(work, batch, users, items, seen=seen)

    def _sweeps(self, work: Checkout, users: _Side, items: _Side, *, seen: int) -> Iterator[dict[str, float]]:
        of_users, of_items = users.blocks(self), items.blocks(self)
        for _ in range(self.epochs):
            self._half_sweep(users, items, of_users)
            loss = self._half_sweep(items, users, of_items)
            _stage(work, users, items, state=(seen, _SWEEPS))
            yield {"loss": loss}

    def _increment(self, work: Checkout, batch: Batch, users: _Side, items: _Side, *, seen: int) -> dict[str, float]:
        touched = np.unique(batch.items)
        of_users, of_items = users.blocks(self, np.unique(batch.users)), items.blocks(self, touched)
        loss = self._half_sweep(users, items, of_users)
        new = touched[~items.values[touched].any(axis=1)]
        if len(new):
            self._half_sweep(items, users, items.blocks(self, new))
            loss = self._half_sweep(users, items, of_users)
        for half in range(self.half_sweeps):
            sides = (items, users, of_items) if half % 2 == 0 else (users, items, of_users)
            loss = self._half_sweep(*sides)
        _stage(work, users, items, state=(seen, _INCREMENT))
        return {"loss": loss}

    def _half_sweep(self, side: _Side, other: _Side, some: list[Block]) -> float:
        """Improve the rows of some blocks, and return their loss for each of their pairs."""
        loss = Whitened(other.values, self.l2).improve(side.values, some, steps=self.steps)
        return loss / max(1, sum(int((block.weights > 0).sum()) for block in some))

    def fold_in(self, work: Checkout, rows: Rows, batch: Batch, *, entity: str = "user") -> dict[str, float]:
        """Stage vectors for new users, or items, that solve the equations of their own pairs; the other side stands still.

        What a vector becomes depends on those pairs alone, to the bit.
        """
        mine, theirs = (batch.users, batch.items) if entity == "user" else (batch.items, batch.users)
        others = work.table("item" if entity == "user" else "user").values()
        counts = pair_counts(np.searchsorted(rows, mine), theirs, shape=(len(rows), len(others)))
        vectors = np.zeros((len(rows), self.dim), np.float32)
        some = blocks(counts, np.arange(len(rows)), alpha=self.alpha, dim=self.dim)
        loss = Whitened(others, self.l2).solve(vectors, some)
        work.table(entity).scatter(rows, vectors)
        return {"loss": loss / counts.nnz}

    def scores(self, view: View, user_rows: Rows) -> NDArray[Any]:
        """Return user times item vectors, float32 ``[len(user_rows), n_items]``; row -1 is the mean user."""
        users = view.table("user")
        vectors = np.empty((len(user_rows), self.dim), np.float32)
        vectors[user_rows >= 0] = users.gather(user_rows[user_rows >= 0])
        if (user_rows < 0).any():
            everybody = users.gather(view.ids("user").live_rows())
            vectors[user_rows < 0] = everybody.sum(axis=0, dtype=np.float64) / max(1, len(everybody))
        found: NDArray[Any] = vectors @ view.table("item").values().T
        return found


def _counts(work: Checkout) -> csr_array[Any]:
    """Return how often each user has had each item, in rows."""
    records = work.consumed.records()
    return pair_counts(records.users, records.items, shape=(len(work.ids("user")), len(work.ids("item"))))


def _digest(counts: csr_array[Any]) -> int:
    """Return 64 bits of what was consumed, whatever rows without pairs there are behind the last."""
    n_rows = int(np.flatnonzero(np.diff(counts.indptr)).max()) + 1
    parts = (counts.indptr[: n_rows + 1], counts.indices, counts.data)
    text = b"".join(part.astype(np.int64).tobytes() for part in parts)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def _stage(work: Checkout, users: _Side, items: _Side, *, state: tuple[int, int]) -> None:
    users.stage()
    items.stage()
    work.dense[_STATE] = np.array(state)


class _Side:
    """The vectors of users or items in memory, and how often each was paired with which of the other side."""

    def __init__(self, work: Checkout, entity: str, counts: csr_array[Any]) -> None:
        self._table = work.table(entity)
        self._counts = counts
        self.values = self._table.values()
        self._staged = self.values.copy()

    def blocks(self, trainer: ALS, rows: Rows | None = None) -> list[Block]:
        """Return ``rows`` in blocks to be solved for; None: all."""
        chosen = np.arange(len(self.values)) if rows is None else rows
        return blocks(self._counts, chosen, alpha=trainer.alpha, dim=trainer.dim)

    def start(self, std: float, *, seed: int) -> NDArray[np.float32]:
        """Return where vectors start that have pairs, drawn uniformly; the others are zero."""
        # The raw numbers of a bit generator are the same in all versions of numpy, what is made of them need not be.
        raw = np.random.PCG64(seed % (1 << 64)).random_raw(self.values.size).reshape(self.values.shape)
        vectors = ((raw >> np.uint64(11)) * 2.0**-52 - 1) * (std * 3**0.5)
        vectors[np.diff(self._counts.indptr) == 0] = 0
        return vectors.astype(np.float32)

    def stage(self) -> None:
        """Stage the rows whose bits changed since the last call."""
        changed = (self.values.view(np.uint32) != self._staged.view(np.uint32)).any(axis=1)
        rows = np.flatnonzero(changed)
        self._staged[rows] = self.values[rows]
        self._table.scatter(rows, self.values[rows])
