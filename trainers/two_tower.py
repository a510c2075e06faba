"""Two towers, one for users and one for items, for retrieval: ids and features become vectors whose product is the score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from embstore import Batch, Checkout, Schema, View
from trainers.columns import Column, columns_of, inputs, schema_of
from trainers.learned import Learned, load, n_rows, take
from trainers.loop import learning, scoring
from trainers.losses import softmax_loss
from trainers.nets import TwoTowerNet
from trainers.rehearsal import Rehearsal
from trainers.row_adam import row_adam_
from trainers.sampling import shuffled_batches
from trainers.settings import check_count, check_not_negative, check_sizes
from trainers.towers import FixedTower

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Rows = NDArray[np.int64]
F64 = NDArray[np.float64]
# Matrix products choose their order of adding by shape: in blocks of one height a user's vector has the same bits alone.
_FOLD_BLOCK = 24


@dataclass(frozen=True)
class TwoTower:
    """Two towers with a softmax over the items of a batch, corrected for how often each is in one (Yi et al. 2019).

    An item that nobody has had has a vector of its features, so that it can be recommended.

    Parameters
    ----------
    dim
        Length of the vectors of ids and categories, and of the towers' ends.
    hidden
        Sizes of the hidden layers of either tower; what they give is added to the sum of the columns' vectors. None: the sum
        alone.
    user_sparse, item_sparse
        Columns of features with one category.
    user_multi, item_multi
        Columns with several, each with how many there may be: ``(("genre", 6),)``. The mean of their vectors counts.
    user_dense, item_dense
        Columns of numbers. They are standardised by what is there when they first come; 0.0 counts as no value.
    rehearsal
        How many pairs from earlier fits are trained on again for each new one, drawn anew in every epoch.
    epochs
        Passes over the pairs that are given to one fit.
    lr, l2
        Learning rate of Adam, row-lazy for vectors; L2 of vectors, once for each step that a row takes.
    batch_size
        Pairs in a step.
    init_std
        Of new vectors.
    fold_steps, fold_lr, fold_l2
        Of ``fold_in``: Adam steps on the softmax over all items, with items, features and towers standing still.
    seed
        Of initial vectors and weights, and of the order.

    Raises
    ------
    InvalidInputError
        For settings out of range.
    """

    dim: int = 64
    hidden: tuple[int, ...] = (64,)
    user_sparse: tuple[str, ...] = ()
    user_multi: tuple[tuple[str, int], ...] = ()
    user_dense: tuple[str, ...] = ()
    item_sparse: tuple[str, ...] = ()
    item_multi: tuple[tuple[str, int], ...] = ()
    item_dense: tuple[str, ...] = ()
    rehearsal: float = 2.0
    epochs: int = 10
    lr: float = 0.003
    l2: float = 1e-5
    batch_size: int = 1024
    init_std: float = 0.05
    fold_steps: int = 40
    fold_lr: float = 0.1
    fold_l2: float = 0.1
    seed: int = 0
    name: ClassVar[str] = "two_tower"

    def __post_init__(self) -> None:
        for what in ("dim", "epochs", "batch_size", "fold_steps"):
            check_count(getattr(self, what), what)
        for what in ("rehearsal", "lr", "l2", "init_std", "fold_lr", "fold_l2"):
            check_not_negative(getattr(self, what), what)
        check_sizes(self.hidden, "hidden")
        self.schema()  # refuses columns and a seed that no table can have

    def schema(self) -> Schema:
        """Return the tables of features, and ``two_tower.<entity>`` ``[N, dim]``, with Adam's slots, of each entity.

        Entities are users, items and the categories of each sparse or multi-value column.
        """
        return schema_of(columns_of(self), self.name, self.dim, init_std=self.init_std, seed=self.seed)

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Train and stage epoch by epoch; the order depends on the seed and on how many epochs there have been."""
        columns, rehearsal = columns_of(self), Rehearsal(work, batch, share=self.rehearsal, seed=self.seed)
        with learning():
            net = self._net(work, columns)
            learned = Learned(work, net, self.name, columns, lr=self.lr, l2=self.l2, seed=self.seed)
        for epoch in learned.epochs(self.epochs):
            with learning():
                loss = self._epoch(learned, net, *rehearsal.pairs(epoch), epoch)
                learned.stage(epoch)
            yield {"loss": loss}

    def _epoch(self, learned: Learned, net: TwoTowerNet, users: Rows, items: Rows, epoch: int) -> float:
        """Take the steps of an epoch; return the mean loss of a pair."""
        shares, loss = np.bincount(items) / len(items), 0.0
        for at in shuffled_batches(len(users), batch_size=self.batch_size, seed=self.seed, epoch=epoch):
            loss += learned.step(_loss(learned, net, users[at], items[at], shares)) * len(at)
        return loss / len(users)

    def _net(self, view: View, columns: tuple[Column, ...]) -> TwoTowerNet:
        return TwoTowerNet(columns, n_rows(view, columns), dim=self.dim, hidden=self.hidden)

    def _loaded(self, view: View) -> TwoTowerNet:
        net = self._net(view, columns_of(self))
        load(view, net, self.name)
        return net

    def fold_in(self, work: Checkout, rows: Rows, batch: Batch) -> dict[str, float]:
        """Stage vectors for the ids of new users: Adam on the softmax of their own items among all, from each initial vector.

        Each user's loss is a sum over its own pairs, in float64 and blocks of one shape, so what a vector becomes depends on
        those pairs and the user's features alone, to the bit.
        """
        from scipy.sparse import csr_array

        with scoring():
            net, values = self._loaded(work), inputs(work, columns_of(self), self.name)
            live = work.ids("item").live_rows()
            items = net("item", take(values, net.columns["item"], live)).numpy().astype(np.float64)
            found = net.vectors(net.columns["user"], take(values, net.columns["user"], rows)).numpy().astype(np.float64)
            tower = FixedTower.of(net.layers_of("user"), net.columns["user"], self.dim)
        owners, owned = np.searchsorted(rows, batch.users), np.searchsorted(live, batch.items)
        n_padded = -(-len(rows) // _FOLD_BLOCK) * _FOLD_BLOCK
        pairs = csr_array((np.ones(len(batch)), (owners, owned)), shape=(n_padded, len(live)))
        vectors = np.zeros((n_padded, *found.shape[1:]))
        vectors[: len(rows)] = found
        loss = 0.0
        for start in range(0, n_padded, _FOLD_BLOCK):
            block = slice(start, start + _FOLD_BLOCK)
            loss += self._fold_block(vectors[block], tower, items, pairs[block])
        work.table(f"{self.name}.user").scatter(rows, vectors[: len(rows), 0].astype(np.float32))
        return {"loss": loss / len(batch)}

    def _fold_block(self, vectors: F64, tower: FixedTower, items: F64, pairs: csr_array) -> float:
        """Move the vectors of ids, the first of each user's columns, in place; return the loss before the last step."""
        counts, sums = np.asarray(pairs.sum(axis=1)), pairs @ items
        ids, rest = vectors[:, 0], tower.rest(vectors)
        nothing, none = np.zeros(len(items)), np.zeros(len(ids))
        first, second = np.zeros_like(ids), np.zeros_like(ids)
        steps, every = np.zeros(len(ids), np.int32), np.arange(len(ids))
        loss = none
        for _ in range(self.fold_steps):
            ends, back = tower.forward(ids, rest)
            loss, slope = softmax_loss(ends, items, bias=nothing, sums=sums, bias_sums=none, counts=counts)
            slope = back(slope) + ids * (self.fold_l2 * counts)[:, None]
            row_adam_(ids, every, slope, first, second, steps, lr=self.fold_lr)
        return float(loss.sum())

    def scores(self, view: View, user_rows: Rows) -> NDArray[Any]:
        """Return user times item vectors, float32 ``[len(user_rows), n_items]``; row -1 is a user of whom nothing is known.

        Raises
        ------
        InvalidInputError
            If the view was not trained with all of these columns.
        """
        values = inputs(view, columns_of(self), self.name)
        with scoring():
            net = self._loaded(view)
            users = net("user", take(values, net.columns["user"], user_rows))
            items = net("item", take(values, net.columns["item"], np.arange(len(view.ids("item")))))
            found: NDArray[Any] = (users @ items.T).numpy()
            return found


def _loss(learned: Learned, net: TwoTowerNet, users: Rows, items: Rows, shares: F64) -> Tensor:
    """Return the mean loss of a batch: each pair's item among all items of the batch.

    An item that is in the batch ``c`` times, and of which a share ``p`` of all pairs is, has its score raised by ``log(c / p)``:
    the same as ``c`` columns less ``log p`` each. The pair's own item counts once, however often others had it too.
    """
    (user_rows, mine), (item_rows, theirs) = (np.unique(rows, return_inverse=True) for rows in (users, items))
    ends = [_ends(learned, net, side, rows) for side, rows in (("user", user_rows), ("item", item_rows))]
    often = np.bincount(theirs)
    raised = np.log(often / shares[item_rows])
    raised_own = raised[theirs] - np.log(often[theirs])
    logits, own = ends[0][torch.from_numpy(mine)] @ ends[1].T, (torch.arange(len(items)), torch.from_numpy(theirs))
    with torch.no_grad():  # in place, for no gradient depends on what is added
        own_logits = logits[own] + torch.from_numpy(raised_own.astype(np.float32))
        logits += torch.from_numpy(raised.astype(np.float32))
        logits[own] = own_logits
    return cross_entropy(logits, own[1])


def _ends(learned: Learned, net: TwoTowerNet, side: str, rows: Rows) -> Tensor:
    at = torch.from_numpy(rows)
    ends: Tensor = net(side, {column.key: learned.inputs[column.key][at] for column in net.columns[side]})
    return ends
