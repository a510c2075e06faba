"""What factor models share: tables, training by batches of users, folding in, scores. Settings are in `trainers.factors`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from embstore import Batch, Checkout, InvalidInputError, Schema, View
from trainers.factor_losses import Loss, find_loss
from trainers.factor_tables import LearnedSide, Side
from trainers.folding import Folding
from trainers.pairs import Pairs
from trainers.sampling import shuffled_batches
from trainers.settings import check_count

I64 = NDArray[np.int64]
Floats = NDArray[Any]
_USER, _ITEM = "user", "item"
_MOST_POWER = 8.0
# Of ratings. Biases and vectors share tables, so they share it too.
_MEAN = "factors.mean"


class FactorModel:
    """A score for each user and item by ``user vector · item vector + biases``, trained to lower a loss by its name.

    Users have a bias where the loss learns from ratings; where it compares items, one constant for a user changes nothing.
    """

    name: ClassVar[str]
    # Settings: fields of the frozen dataclasses that share this.
    epochs: int
    loss: str
    lr: float
    l2: float
    weight_power: float
    batch_size: int
    fold_steps: int
    fold_lr: float
    fold_l2: float
    seed: int

    def check(self) -> None:
        """Raise InvalidInputError for settings out of range."""
        find_loss(self.loss)
        for what in ("epochs", "batch_size", "fold_steps"):
            check_count(getattr(self, what), what)
        for what in ("lr", "l2", "fold_lr", "fold_l2"):
            check_number(getattr(self, what), what)
        check_number(self.weight_power, "weight_power", low=-_MOST_POWER)
        self.schema()  # refuses a seed that no table can have

    @property
    def learns_ratings(self) -> bool:
        """Return whether pairs must have ratings."""
        return self._loss.rated

    @property
    def _loss(self) -> Loss:
        return find_loss(self.loss)

    @property
    def _vectors(self) -> tuple[int, float]:
        """Return the length of vectors and the deviation of new ones; there are none unless a class says so."""
        return 0, 0.0

    @property
    def _sides(self) -> tuple[Side, Side]:
        rated, dim = self._loss.rated, self._vectors[0]
        return Side(_USER, dim, rated, other_bias=True), Side(_ITEM, dim, True, other_bias=rated)

    def schema(self) -> Schema:
        """Return the tables, with Adam's slots: ``user`` and ``item`` ``[N, dim]`` of vectors, ``item_bias`` ``[N]``.

        Biases alone have no vectors; where the loss learns from ratings there is ``user_bias`` ``[N]`` too.
        """
        return Schema(tuple(t for side in self._sides for t in side.specs(init_std=self._vectors[1], seed=self.seed)))

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Train and stage epoch by epoch, a batch of users with all their pairs at a time.

        The order of users depends on the seed and on how many epochs there have been.
        """
        users = np.unique(batch.users)
        pairs = self._pairs(batch, np.searchsorted(users, batch.users), batch.items, len(users), self.weight_power)
        offset = self._learn_mean(work, pairs)
        live = work.ids(_ITEM).live_rows()
        user, item = (LearnedSide(side, work) for side in self._sides)
        counter = f"{self.name}.epoch"
        first = int(work.dense[counter]) if counter in work.dense else 0
        for epoch in range(first, first + self.epochs):
            loss = 0.0
            for at in shuffled_batches(len(users), batch_size=self.batch_size, seed=self.seed, epoch=epoch):
                loss += self._step(user, item, users[at], pairs.take(at), live, offset)
            for side in (user, item):
                side.stage()
            work.dense[counter] = np.array(epoch + 1)
            yield {"loss": loss / float(pairs.weights.sum())}

    def _step(self, user: LearnedSide, item: LearnedSide, users: I64, pairs: Pairs, live: I64, offset: float) -> float:
        """Take one step on some users and the items that the loss looks at; return the loss before it, without L2."""
        items = live if self._loss.all_items else np.unique(pairs.columns)
        pairs = pairs.among(items)
        left, right = user.factors(users), item.factors(items)
        loss, slopes = self._loss.function(left, right, np.full(len(items), offset, left.dtype), pairs)
        by_user, by_item = slopes @ right, slopes.T @ left
        by_user += left * (self.l2 * pairs.sums(pairs.weights)).astype(left.dtype)[:, None]
        weights = np.bincount(pairs.columns, weights=pairs.weights, minlength=len(items))
        by_item += right * (self.l2 * weights).astype(left.dtype)[:, None]
        user.step(users, by_user, lr=self.lr)
        item.step(items, by_item, lr=self.lr)
        return float(loss.sum(dtype=np.float64))

    def fold_in(self, work: Checkout, rows: I64, batch: Batch, *, entity: str = _USER) -> dict[str, float]:
        """Stage vectors for new rows: Adam on the loss of their own pairs from each id's initial vector, all else standing still.

        Users can always be folded in; items where the loss looks at each pair by itself.
        """
        folding, side, n_pairs = self._folding(work, rows, batch, entity)
        loss = 0.0
        for _ in range(self.fold_steps):
            loss = folding.step()
        side.scatter(work, rows, folding.values)
        return {"loss": loss / n_pairs}

    def folding(self, work: Checkout, rows: I64, batch: Batch, *, entity: str = _USER) -> Iterator[int]:
        """Stage the same rows after every step of ``fold_in``, and yield how many there have been, without end."""
        folding, side, _ = self._folding(work, rows, batch, entity)
        for epoch in itertools.count(1):
            folding.step()
            side.scatter(work, rows, folding.values)
            yield epoch

    def _folding(self, work: Checkout, rows: I64, batch: Batch, entity: str) -> tuple[Folding, Side, float]:
        if entity == _ITEM and self._loss.all_items:
            msg = f"loss {self.loss!r} ranks items among all others, so a new one needs training: fold in users, or fit"
            raise InvalidInputError(msg)
        user, item = self._sides
        mine, other = (user, item) if entity == _USER else (item, user)
        owners, others = (batch.users, batch.items) if entity == _USER else (batch.items, batch.users)
        power = self.weight_power if entity == _USER else 0.0
        live = work.ids(other.entity).live_rows()
        pairs = self._pairs(batch, np.searchsorted(rows, owners), np.searchsorted(live, others), len(rows), power)
        fixed = other.factors(other.gather(work, live)).astype(np.float64)
        offset = mine.against_ones(fixed) + self._mean(work)
        start, against = mine.gather(work, rows), mine.learned(fixed)
        folding = Folding(start, against, offset, pairs, loss=self._loss.function, lr=self.fold_lr, l2=self.fold_l2)
        return folding, mine, float(pairs.weights.sum())

    def scores(self, view: View, user_rows: I64) -> Floats:
        """Return a score for each user and item, float32 ``[len(user_rows), n_items]``; row -1 is the mean user.

        They are ratings as they would be expected where the loss learns from ratings.
        """
        user, item = self._sides
        learned = np.empty((len(user_rows), user.width), np.float32)
        learned[user_rows >= 0] = user.gather(view, user_rows[user_rows >= 0])
        if (user_rows < 0).any():
            everybody = user.gather(view, view.ids(_USER).live_rows())
            learned[user_rows < 0] = everybody.sum(axis=0, dtype=np.float64) / max(1, len(everybody))
        items = item.factors(item.gather(view, np.arange(len(view.ids(_ITEM)))))
        found: Floats = user.factors(learned) @ items.T + np.float32(self._mean(view))
        return found

    def _pairs(self, batch: Batch, owners: I64, columns: I64, n_groups: int, power: float) -> Pairs:
        if self._loss.rated and batch.ratings is None:
            msg = (
                f"pairs without ratings: loss {self.loss!r} of trainer {self.name!r} learns from them; give pairs that have some"
            )
            raise InvalidInputError(msg)
        values = batch.ratings if self._loss.rated else None
        return Pairs.of(owners, columns, values, n_groups=n_groups, power=power)

    def _learn_mean(self, work: Checkout, pairs: Pairs) -> float:
        """Return the mean rating of the first pairs that this store was trained on, kept in an array."""
        if self._loss.rated and _MEAN not in work.dense:
            work.dense[_MEAN] = np.array(math.fsum(pairs.values) / len(pairs))
        return self._mean(work)

    def _mean(self, view: View) -> float:
        return float(view.dense[_MEAN]) if self._loss.rated and _MEAN in view.dense else 0.0


def check_number(value: object, what: str, *, low: float = 0.0) -> None:
    """Raise InvalidInputError for what is no number from ``low``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < np.inf:
        msg = f"{what} {value!r}: give a number of at least {low:g}"
        raise InvalidInputError(msg)
