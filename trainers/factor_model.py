"""What factor models share: tables, training by batches of users, folding in, scores. Settings are in `trainers.factors`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from embstore import Batch, Checkout, InvalidInputError, Schema, View
from trainers.activations import find_activation
from trainers.factor_losses import Loss, find_loss
from trainers.factor_tables import LearnedSide, Side
from trainers.folding import Folding
from trainers.milestones import check_milestones, lr_at
from trainers.minibatches import Batching, UserBatch
from trainers.pairs import Pairs
from trainers.sampling import dropout
from trainers.settings import check_count, check_not_negative, check_number, check_share

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
    # Settings of some of them.
    confidence: float = 0.0
    activation: str = "none"
    dropout: float = 0.0
    negative_sampling: bool = False
    num_sampling_users: int = 0
    lr_milestones: tuple[int, ...] = ()

    def check(self) -> None:
        """Raise InvalidInputError for settings out of range."""
        find_loss(self.loss)
        for what in ("epochs", "batch_size", "fold_steps"):
            check_count(getattr(self, what), what)
        for what in ("lr", "l2", "fold_lr", "fold_l2"):
            check_not_negative(getattr(self, what), what)
        check_number(self.weight_power, "weight_power", least=-_MOST_POWER)
        check_not_negative(self.confidence, "confidence")
        check_share(self.dropout, "dropout")
        find_activation(self.activation)
        check_milestones(self.lr_milestones)
        if self._batching.negative_sampling and not self._loss.all_items:
            msg = f"negative_sampling with loss {self.loss!r}: it learns from what there is, without negatives; leave it out"
            raise InvalidInputError(msg)
        self.schema()  # refuses a seed that no table can have

    @property
    def learns_ratings(self) -> bool:
        """Return whether pairs must have ratings."""
        return self._loss.rated

    @property
    def _loss(self) -> Loss:
        return find_loss(self.loss).trusted(self.confidence)

    @property
    def _batching(self) -> Batching:
        return Batching(self.batch_size, self.negative_sampling, self.num_sampling_users)

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

        The order of users, and what is dropped, depend on the seed and on how many epochs there have been.
        """
        users = np.unique(batch.users)
        pairs = self._pairs(batch, np.searchsorted(users, batch.users), batch.items, len(users), self.weight_power)
        offset = self._learn_mean(work, pairs)
        every = work.ids(_ITEM).live_rows() if self._loss.all_items else None
        user, item = (LearnedSide(side, work) for side in self._sides)
        counter = f"{self.name}.epoch"
        first = int(work.dense[counter]) if counter in work.dense else 0
        for epoch in range(first, first + self.epochs):
            loss, lr = 0.0, lr_at(self.lr, self.lr_milestones, epoch)
            for number, part in enumerate(self._batching.batches(pairs, every, seed=self.seed, epoch=epoch)):
                kept = self._kept(len(part.users), epoch, number)
                loss += self._step(user, item, users[part.users], part, offset=offset, kept=kept, lr=lr)
            for side in (user, item):
                side.stage()
            work.dense[counter] = np.array(epoch + 1)
            yield {"loss": loss / float(pairs.weights.sum())}

    def _step(
        self, user: LearnedSide, item: LearnedSide, users: I64, part: UserBatch, *, offset: float, kept: Floats | None, lr: float
    ) -> float:
        """Take one step on some users and the items that the loss looks at; return the loss before it, without L2."""
        items, pairs = part.items, part.pairs
        own, right = user.factors(users), item.factors(items)
        left, slope = self._seen(own, kept)
        loss, slopes = self._loss.function(left, right, np.full(len(items), offset, left.dtype), pairs)
        by_user, by_item = slopes @ right, slopes.T @ left
        if slope is not None:
            by_user *= slope
        by_user += own * (self.l2 * pairs.sums(pairs.weights)).astype(own.dtype)[:, None]
        weights = np.bincount(pairs.columns, weights=pairs.weights, minlength=len(items))
        by_item += right * (self.l2 * weights).astype(own.dtype)[:, None]
        user.step(users, by_user, lr=lr)
        item.step(items, by_item, lr=lr)
        return float(loss.sum(dtype=np.float64))

    def _seen(self, rows: Floats, kept: Floats | None = None) -> tuple[Floats, Floats | None]:
        """Return rows of users with their vectors as scores take them, and the slope of each number; None: 1.

        Vectors are the first columns. ``kept`` is what they are multiplied by, as `trainers.sampling.dropout` gives it.
        """
        if self.activation == "none" and kept is None:
            return rows, None
        activation, vectors = find_activation(self.activation), np.s_[:, : self._vectors[0]]
        found, slope, factor = rows.copy(), np.ones_like(rows), 1 if kept is None else kept
        found[vectors] = activation.function(rows[vectors])
        slope[vectors] = activation.slope(found[vectors]) * factor
        found[vectors] *= factor
        return found, slope

    def _kept(self, n_users: int, epoch: int, step: int) -> Floats | None:
        """Return what vectors of so many users are multiplied by in a step; None: nothing is dropped."""
        shape = (n_users, self._vectors[0])
        return dropout(shape, self.dropout, seed=self.seed, epoch=epoch, step=step) if self.dropout else None

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
        if entity == _ITEM:
            fixed = self._seen(fixed)[0]
        offset = mine.against_ones(fixed) + self._mean(work)
        start, against = mine.gather(work, rows), mine.learned(fixed)
        seen = self._seen if entity == _USER else as_it_is
        folding = Folding(start, against, offset, pairs, loss=self._loss.function, seen=seen, lr=self.fold_lr, l2=self.fold_l2)
        return folding, mine, float(pairs.weights.sum())

    def scores(self, view: View, user_rows: I64) -> Floats:
        """Return a score for each user and item, float32 ``[len(user_rows), n_items]``; row -1 is the mean user.

        They are ratings as they would be expected where the loss learns from ratings.
        """
        user, item = self._sides
        learned = np.empty((len(user_rows), user.width), np.float32)
        learned[user_rows >= 0] = self._seen(user.gather(view, user_rows[user_rows >= 0]))[0]
        if (user_rows < 0).any():
            everybody = self._seen(user.gather(view, view.ids(_USER).live_rows()))[0]
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


def as_it_is(rows: Floats) -> tuple[Floats, None]:
    """Return rows and no slope: the loss sees them as they are."""
    return rows, None
