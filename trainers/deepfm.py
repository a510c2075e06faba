"""A factorization machine and a deep net over ids and features (Guo et al. 2017): how likely a user is to like an item."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from embstore import Batch, Checkout, InvalidInputError, Schema, View
from trainers.columns import SIDES, Column, columns_of, inputs, schema_of
from trainers.histories import everybody
from trainers.learned import Learned, load, n_rows, take
from trainers.loop import learning, scoring
from trainers.nets import DeepFMNet, Dropout
from trainers.rehearsal import Rehearsal
from trainers.sampling import PairSet, shuffled_batches, uniform_negatives
from trainers.settings import check_count, check_not_negative, check_number, check_share, check_sizes

Rows = NDArray[np.int64]
Places = NDArray[np.int32] | Rows
Labelled = tuple[Places, Places, NDArray[np.float32]]
# What the hidden layers hold of so many pairs stays in the cache.
_BLOCK = 1 << 13


@dataclass(frozen=True)
class DeepFM:
    """DeepFM over users, items and their features, trained on labels or on negatives that are drawn.

    Parameters
    ----------
    dim
        Length of the vectors.
    hidden
        Sizes of the deep net's hidden layers.
    user_sparse, item_sparse
        Columns of features with one category.
    user_multi, item_multi
        Columns with several, each with how many there may be: ``(("genre", 6),)``. The mean of their vectors counts.
    user_dense, item_dense
        Columns of numbers. They are standardised by what is there when they first come; 0.0 counts as no value.
    threshold
        Pairs with this rating or more are liked, the others are not, and no negatives are drawn. None: ratings are not looked
        at, pairs are liked, and what is drawn is not.
    negatives
        Items drawn for each pair, uniformly, avoiding what the user has had; only without a threshold.
    rehearsal
        How many pairs from earlier fits are trained on again for each new one, drawn anew in every epoch; only without a
        threshold, since ratings are not stored.
    epochs
        Passes over the pairs that are given to one fit.
    lr, l2
        Learning rate of Adam, row-lazy for vectors; L2 of vectors, once for each step that a row takes.
    dropout
        Share of the deep net's inputs and hidden numbers that are dropped, to the nearest 1/256.
    batch_size
        Labelled pairs in a step.
    init_std
        Of new vectors.
    seed
        Of initial vectors and weights, order, negatives and dropout.

    Raises
    ------
    InvalidInputError
        For settings out of range.
    """

    dim: int = 16
    hidden: tuple[int, ...] = (128, 64, 32)
    user_sparse: tuple[str, ...] = ()
    user_multi: tuple[tuple[str, int], ...] = ()
    user_dense: tuple[str, ...] = ()
    item_sparse: tuple[str, ...] = ()
    item_multi: tuple[tuple[str, int], ...] = ()
    item_dense: tuple[str, ...] = ()
    threshold: float | None = None
    negatives: int = 2
    rehearsal: float = 1.0
    epochs: int = 10
    lr: float = 0.003
    l2: float = 1e-5
    dropout: float = 0.2
    batch_size: int = 2048
    init_std: float = 0.05
    seed: int = 0
    name: ClassVar[str] = "deepfm"

    def __post_init__(self) -> None:
        for what in ("dim", "negatives", "epochs", "batch_size"):
            check_count(getattr(self, what), what)
        for what in ("rehearsal", "lr", "l2", "init_std"):
            check_not_negative(getattr(self, what), what)
        check_share(self.dropout, "dropout")
        check_sizes(self.hidden, "hidden")
        if self.threshold is not None:
            check_number(self.threshold, "threshold")
        self.schema()  # refuses columns and a seed that no table can have

    def schema(self) -> Schema:
        """Return the tables of features, and ``deepfm.<entity>`` ``[N, dim + 1]``, with Adam's slots, of each entity.

        Entities are users, items and the categories of each sparse or multi-value column. The last number of a row is its
        first-order weight.
        """
        return schema_of(columns_of(self), self.name, self.dim + 1, init_std=self.init_std, seed=self.seed)

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Train and stage epoch by epoch; what is drawn depends on the seed and on how many epochs there have been.

        Raises
        ------
        InvalidInputError
            If there is a threshold, and the pairs have no ratings.
        """
        if self.threshold is not None and batch.ratings is None:
            msg = f"threshold {self.threshold!r}: these pairs have no ratings; name their column, or set no threshold"
            raise InvalidInputError(msg)
        columns, examples = columns_of(self), self._examples(work, batch)
        with learning():
            net = self._net(work, columns)
            learned = Learned(work, net, self.name, columns, lr=self.lr, l2=self.l2, seed=self.seed)
        for epoch in learned.epochs(self.epochs):
            with learning():
                loss = self._epoch(learned, net, examples(epoch), epoch)
                learned.stage(epoch)
            yield {"loss": loss}

    def _net(self, view: View, columns: tuple[Column, ...]) -> DeepFMNet:
        return DeepFMNet(columns, n_rows(view, columns), dim=self.dim, hidden=self.hidden)

    def _examples(self, work: Checkout, batch: Batch) -> Callable[[int], Labelled]:
        """Return what gives the users, items and labels of an epoch."""
        if self.threshold is not None:
            assert batch.ratings is not None
            labelled = batch.users, batch.items, (batch.ratings >= self.threshold).astype(np.float32)
            return lambda epoch: labelled
        live, had = work.ids("item").live_rows(), everybody(work)
        consumed = PairSet(had.indptr, np.searchsorted(live, had.indices), n_items=len(live))
        rehearsal = Rehearsal(work, batch, share=self.rehearsal, seed=self.seed)

        def draw(epoch: int) -> Labelled:
            users, items = rehearsal.pairs(epoch)
            drawn = uniform_negatives(consumed, users, n_negatives=self.negatives, seed=self.seed, epoch=epoch)
            labels = np.zeros(drawn.size + len(items), np.float32)
            labels[: len(items)] = 1
            return _joined(users, np.repeat(users, self.negatives)), _joined(items, live[drawn.ravel()]), labels

        return draw

    def _epoch(self, learned: Learned, net: DeepFMNet, labelled: Labelled, epoch: int) -> float:
        """Take the steps of an epoch; return the mean loss of a pair."""
        users, items, labels = map(torch.from_numpy, labelled)
        dropout, loss = Dropout(self.dropout, seed=self.seed, epoch=epoch), 0.0
        for places in shuffled_batches(len(users), batch_size=self.batch_size, seed=self.seed, epoch=epoch):
            at = torch.from_numpy(places)
            rows = dict(zip(SIDES, (users[at], items[at]), strict=True))
            values: dict[str, Tensor] = {c.key: learned.inputs[c.key][rows[c.side]] for c in net.columns}
            loss += learned.step(binary_cross_entropy_with_logits(net(values, dropout), labels[at])) * len(at)
        return loss / len(users)

    def scores(self, view: View, user_rows: Rows) -> NDArray[Any]:
        """Return the logits of liking, float32 ``[len(user_rows), n_items]``; row -1 is a user of whom nothing is known.

        Raises
        ------
        InvalidInputError
            If the view was not trained with all of these columns.
        """
        columns = columns_of(self)
        values = inputs(view, columns, self.name)
        users, items = ([column for column in columns if column.side == side] for side in SIDES)
        with scoring():
            net = self._net(view, columns)
            load(view, net, self.name)
            mine, theirs = take(values, users, user_rows), take(values, items, np.arange(len(view.ids("item"))))
            found: NDArray[Any] = net.scores(mine, theirs, block=_BLOCK).numpy()
            return found


def _joined(rows: Rows, others: Rows) -> NDArray[np.int32]:
    """Return both, in half the memory: no table has more rows than that."""
    return np.concatenate([rows, others], dtype=np.int32, casting="same_kind")
