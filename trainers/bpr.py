"""Matrix factorization that ranks what a user has had above what not (Rendle et al. 2009), in numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from embstore import Batch, Checkout, InvalidInputError, Normal, Schema, TableSpec, View, Zeros
from trainers.learned_arrays import LearnedTable, adam_slots
from trainers.losses import bpr_gradients, softmax_loss
from trainers.row_adam import check_correction, row_adam_
from trainers.sampling import PairSet, shuffled_batches, uniform_negatives
from trainers.settings import check_count, check_not_negative

Rows = NDArray[np.int64]
_EPOCH = "bpr.epoch"
# Matrix products choose their order of adding by shape: in blocks of one height a user's vector has the same bits alone.
_FOLD_BLOCK = 24


@dataclass(frozen=True)
class BPR:
    """Bayesian personalized ranking with an item bias and row-lazy Adam.

    Parameters
    ----------
    dim
        Length of the vectors.
    epochs
        Passes over the pairs that are given to one fit.
    lr, l2
        Learning rate of Adam; L2 for each occurrence of a row in a batch.
    negatives
        Items drawn for each pair, uniformly, avoiding what the user has had.
    batch_size
        Pairs in a step.
    correction
        Adam's bias correction: by each row's own steps (``"row"``) or not at all (``"none"``).
    lazy
        Leave rows without a gradient alone. False: every row moves at every step, as torch's Adam does, and every version is
        a full copy.
    init_std
        Of new vectors.
    fold_steps, fold_lr, fold_l2
        Of ``fold_in``: Adam steps on the softmax over all items, with items standing still.
    seed
        Of initial vectors, order and negatives.

    Raises
    ------
    InvalidInputError
        For settings out of range.
    """

    dim: int = 64
    epochs: int = 20
    lr: float = 0.01
    l2: float = 0.02
    negatives: int = 2
    batch_size: int = 2048
    correction: str = "row"
    lazy: bool = True
    init_std: float = 0.05
    fold_steps: int = 20
    fold_lr: float = 0.1
    fold_l2: float = 0.1
    seed: int = 0
    name: ClassVar[str] = "bpr"

    def __post_init__(self) -> None:
        check_correction(self.correction)
        for what in ("dim", "epochs", "negatives", "batch_size", "fold_steps"):
            check_count(getattr(self, what), what)
        for what in ("lr", "l2", "init_std", "fold_lr", "fold_l2"):
            check_not_negative(getattr(self, what), what)
        if not isinstance(self.lazy, bool):
            msg = f"lazy {self.lazy!r}: give True or False"
            raise InvalidInputError(msg)
        self.schema()  # refuses a seed that no table can have

    def schema(self) -> Schema:
        """Return the tables ``user`` and ``item`` ``[N, dim]`` and ``item_bias`` ``[N]``, each with Adam's slots."""
        start = Normal(self.init_std)
        return Schema(
            (
                TableSpec("user", "user", self.dim, slots=adam_slots(self.dim), init=start, seed=self.seed),
                TableSpec("item", "item", self.dim, slots=adam_slots(self.dim), init=start, seed=self.seed),
                TableSpec("item_bias", "item", None, slots=adam_slots(None), init=Zeros()),
            )
        )

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Train and stage epoch by epoch; order and negatives depend on the seed and on how many epochs there have been."""
        users, items, bias = (LearnedTable(work, name, lazy=self.lazy) for name in ("user", "item", "item_bias"))
        live, consumed = _live_items(work)
        first = int(work.dense[_EPOCH]) if _EPOCH in work.dense else 0
        for epoch in range(first, first + self.epochs):
            drawn = uniform_negatives(consumed, batch.users, n_negatives=self.negatives, seed=self.seed, epoch=epoch)
            wanted = np.concatenate([batch.items[:, None], live[drawn]], axis=1)
            loss = 0.0
            for at in shuffled_batches(len(batch), batch_size=self.batch_size, seed=self.seed, epoch=epoch):
                loss += self._step(batch.users[at], wanted[at], users, items, bias)
            for learned in (users, items, bias):
                learned.stage()
            work.dense[_EPOCH] = np.array(epoch + 1)
            yield {"loss": loss / drawn.size}

    def _step(self, users: Rows, wanted: Rows, user: LearnedTable, item: LearnedTable, bias: LearnedTable) -> float:
        found = bpr_gradients(users, wanted, user_table=user.values, item_table=item.values, item_bias=bias.values, l2=self.l2)
        user.step(found.user_rows, found.users, lr=self.lr, correction=self.correction)
        item.step(found.item_rows, found.items, lr=self.lr, correction=self.correction)
        bias.step(found.item_rows, found.biases, lr=self.lr, correction=self.correction)
        return found.loss

    def fold_in(self, work: Checkout, rows: Rows, batch: Batch) -> dict[str, float]:
        """Stage vectors for new users: Adam on the softmax of their own items among all, from each id's initial vector.

        Each user's loss is a sum over its own pairs, in float64 and blocks of one shape, so what a vector becomes depends on
        those pairs alone, to the bit.
        """
        live = work.ids("item").live_rows()
        items, bias = (work.table(name).gather(live).astype(np.float64) for name in ("item", "item_bias"))
        owners, owned = np.searchsorted(rows, batch.users), np.searchsorted(live, batch.items)
        shape = (-(-len(rows) // _FOLD_BLOCK) * _FOLD_BLOCK, len(live))
        pairs = csr_array((np.ones(len(batch)), (owners, owned)), shape=shape)
        vectors = np.zeros((shape[0], self.dim))
        vectors[: len(rows)] = work.table("user").gather(rows)
        loss = 0.0
        for start in range(0, len(vectors), _FOLD_BLOCK):
            block = slice(start, start + _FOLD_BLOCK)
            loss += self._fold_block(vectors[block], items, bias, pairs[block])
        work.table("user").scatter(rows, vectors[: len(rows)].astype(np.float32))
        return {"loss": loss / len(batch)}

    def _fold_block(
        self, vectors: NDArray[np.float64], items: NDArray[np.float64], bias: NDArray[np.float64], pairs: csr_array
    ) -> float:
        counts = np.asarray(pairs.sum(axis=1))
        sums, bias_sums = pairs @ items, pairs @ bias
        first, second = np.zeros_like(vectors), np.zeros_like(vectors)
        steps, every = np.zeros(len(vectors), np.int32), np.arange(len(vectors))
        loss = np.zeros(len(vectors))
        for _ in range(self.fold_steps):
            loss, slope = softmax_loss(vectors, items, bias=bias, sums=sums, bias_sums=bias_sums, counts=counts)
            slope += vectors * (self.fold_l2 * counts)[:, None]
            row_adam_(vectors, every, slope, first, second, steps, lr=self.fold_lr)
        return float(loss.sum())

    def scores(self, view: View, user_rows: Rows) -> NDArray[Any]:
        """Return user times item vectors plus item biases, float32 ``[len(user_rows), n_items]``; row -1 is the mean user."""
        users = view.table("user")
        vectors = np.empty((len(user_rows), self.dim), np.float32)
        vectors[user_rows >= 0] = users.gather(user_rows[user_rows >= 0])
        if (user_rows < 0).any():
            everybody = users.gather(view.ids("user").live_rows())
            vectors[user_rows < 0] = everybody.sum(axis=0, dtype=np.float64) / max(1, len(everybody))
        found: NDArray[Any] = vectors @ view.table("item").values().T + view.table("item_bias").values()
        return found


def _live_items(work: Checkout) -> tuple[Rows, PairSet]:
    """Return the rows of items that are not removed, and what users have had, in places among these."""
    live = work.ids("item").live_rows()
    had = work.consumed.to_csr()
    return live, PairSet(had.indptr, np.searchsorted(live, had.indices), n_items=len(live))
