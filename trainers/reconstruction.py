"""Trainers whose nets give back what users have had: a net, its tables and the name of a loss are all that one needs.

They take the place of Recoder (Moussawi 2018, arXiv 1809.00999), whose models give back a matrix of users by items.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from embstore import Batch, Checkout, InvalidInputError, Normal, SlotSpec, TableSpec, View, Zeros
from trainers.autoencoder_nets import SparseInput
from trainers.factor_losses import Loss, OfScores, find_loss
from trainers.histories import SparseRows, histories
from trainers.loop import Run, scoring
from trainers.milestones import check_milestones, lr_at
from trainers.minibatches import Batching, UserBatch
from trainers.net_trainer import Metrics, NetTrainer
from trainers.pairs import Pairs
from trainers.settings import check_count, check_not_negative
from trainers.uncompiled import NetAdam, TableAdam

I64 = NDArray[np.int64]
TARGETS = ("had", "new")
# Users whose scores are held in memory for the mean over all.
_BLOCK = 256


@dataclass(frozen=True)
class Matrix:
    """What is to be given back.

    Parameters
    ----------
    users
        int64[n], their rows.
    had, pairs
        All that each has had, and what is to be found, of n groups; columns are rows of items.
    """

    users: I64
    had: Pairs
    pairs: Pairs


class Reconstruction(NetTrainer):
    """A net from users, and what they have had, to scores of items; a subclass is a frozen dataclass of settings.

    The net is called with ``(given, users, items)``: a `trainers.autoencoder_nets.SparseInput` of what some users have had, with
    rows of length 1, their rows int64[n], ascending, and the rows of items that are scored, int64[m], ascending. It returns
    ``[n, m]``.

    Parameters
    ----------
    loss
        ``"logistic"``, of each item by itself, had or not; ``"mse"``, of 1 for what a user has had and 0 for all else;
        ``"softmax"`` (or ``"logloss"``), of a user's items among all. A sum over items, a mean over the users of a batch.
    confidence
        Of ``"mse"``: what a user has had counts ``1 + confidence`` times.
    target
        What a user's scores are to give back: all that the user has had, ``"had"``, or the pairs of the fit, ``"new"``.
    negative_sampling, num_sampling_users
        Score in a step what any of its users has had, in place of all items; or any of so many users, a multiple of
        ``batch_size``, whose batches then share these items.
    sparse
        Row-lazy Adam for rows of tables, which leaves those without a gradient alone. False: Adam moves every row at every step.
    lr, l2
        Learning rate of Adam; L2 of all but biases, once for each step, of rows of tables once for each step that they take.
    lr_milestones
        After so many epochs, those of earlier fits too, all learning rates fall to a tenth, each time.
    batch_size
        Users in a step.
    """

    loss: str = "logistic"  # type: ignore[assignment]  # a name takes the place of the method
    confidence: float = 0.0
    target: str = "had"
    negative_sampling: bool = False
    num_sampling_users: int = 0
    sparse: bool = True
    lr_milestones: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise InvalidInputError for settings out of range."""
        check_count(self.epochs, "epochs")
        for what in ("lr", "l2", "confidence"):
            check_not_negative(getattr(self, what), what)
        check_milestones(self.lr_milestones)
        self._batching()
        self._of_scores()
        for what, known in {"target": TARGETS, "sparse": (True, False)}.items():
            if getattr(self, what) not in known:
                msg = f"{what} {getattr(self, what)!r}: give {' or '.join(map(repr, known))}"
                raise InvalidInputError(msg)
        self.schema()  # refuses a seed that no table can have

    def table(self, name: str, entity: str, dim: int | None, *, init_std: float = 0.0) -> TableSpec:
        """Return a table with the slots of the optimizer that this trains with."""
        moments = (SlotSpec("exp_avg", dim), SlotSpec("exp_avg_sq", dim))
        slots = (*moments, SlotSpec("step", None, "int32")) if self.sparse else moments
        return TableSpec(name, entity, dim, slots=slots, init=Normal(init_std) if init_std else Zeros(), seed=self.seed)

    def optimizers(self, net: nn.Module) -> dict[str, torch.optim.Optimizer]:
        """Return row-lazy Adam for parameters with a table, Adam for the others; without ``sparse`` Adam for all."""
        learned = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
        tables = set(self.bindings()) if self.sparse else set()
        rows, others = ([p for name, p in learned if (name in tables) == in_table] for in_table in (True, False))
        found: dict[str, torch.optim.Optimizer] = {}
        if rows:
            found["rows"] = TableAdam(self._groups(rows), self.lr)
        if others:
            found["net"] = NetAdam(self._groups(others), lr=self.lr)
        return found

    def _groups(self, parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
        by_decay = {decay: [p for p in parameters if (p.ndim > 1) == bool(decay)] for decay in {self.l2, 0.0}}
        by_decay = by_decay if self.l2 else {0.0: list(parameters)}
        return [{"params": some, "weight_decay": decay} for decay, some in sorted(by_decay.items()) if some]

    def prepare(self, work: Checkout, batch: Batch) -> Matrix:
        """Return what the users of these pairs have had, and what is to be found."""
        users = np.unique(batch.users)
        had = histories(work, users)
        new = Pairs.of(np.searchsorted(users, batch.users), batch.items, None, n_groups=len(users))
        return Matrix(users, had, had if self.target == "had" else new)

    def batches(self, run: Run, epoch: int) -> Iterable[UserBatch]:
        """Return the batches of users of an epoch."""
        every = run.work.ids("item").live_rows()
        return self._batching().batches(run.data.pairs, every, seed=self.seed, epoch=epoch)

    def epoch(self, run: Run, epoch: int) -> Metrics:
        """Take the steps of an epoch, at its learning rate."""
        for optimizer in run.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = lr_at(self.lr, self.lr_milestones, epoch)
        return super().epoch(run, epoch)

    def step(self, run: Run, part: UserBatch) -> Metrics:
        """Go down the gradient of the loss of some users."""
        data: Matrix = run.data
        users, items = (torch.from_numpy(rows) for rows in (data.users[part.users], part.items))
        with run.autocast():
            scores = run.net(_of_length_1(data.had.take(part.users)), users, items)
        loss = reconstruction_loss(scores.float(), part.pairs, self._of_scores())
        return {"loss": run.descend(loss)}

    def scores(self, view: View, user_rows: I64) -> NDArray[Any]:
        """Return the scores of all items, float32 ``[len(user_rows), n_items]``; row -1 is the mean over all users."""
        known = user_rows >= 0
        with scoring():
            net = self.loaded(view)
            found = np.empty((len(user_rows), len(view.ids("item"))), np.float32)
            found[known] = self._scores(net, view, user_rows[known])
            if not known.all():
                found[~known] = self.nobody(net, view)
        return found

    def nobody(self, net: nn.Module, view: View) -> NDArray[Any]:
        """Return the scores of nobody in particular, ``[n_items]``: the mean over all users."""
        users, total = view.ids("user").live_rows(), np.zeros(len(view.ids("item")))
        for start in range(0, len(users), _BLOCK):
            total += self._scores(net, view, users[start : start + _BLOCK]).sum(axis=0, dtype=np.float64)
        return total / max(1, len(users))

    def _scores(self, net: nn.Module, view: View, users: I64) -> NDArray[Any]:
        given = _of_length_1(histories(view, users))
        found: NDArray[Any] = net(given, torch.from_numpy(users), torch.arange(len(view.ids("item")))).numpy()
        return found

    def _batching(self) -> Batching:
        return Batching(self.batch_size, self.negative_sampling, self.num_sampling_users)

    def _of_scores(self) -> OfScores:
        loss: Loss = find_loss(self.loss).trusted(self.confidence)
        if loss.of_scores is None:
            msg = f"loss {self.loss!r}: it looks at a user's own items alone; use another one"
            raise InvalidInputError(msg)
        return loss.of_scores


def _of_length_1(had: Pairs) -> SparseInput:
    """Return what some users have had, with rows of length 1."""
    sizes = np.diff(had.ends)
    values = np.repeat(np.maximum(sizes, 1) ** -0.5, sizes).astype(np.float32)
    return SparseInput(SparseRows(had.ends, had.columns, values))


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, pairs: Pairs, of_scores: OfScores) -> Tensor:
        loss, slopes = of_scores(scores.numpy().copy(), pairs)
        ctx.save_for_backward(torch.from_numpy(slopes))
        return torch.tensor(loss.sum(dtype=np.float64) / len(loss), dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * (slope / len(slopes)), None, None


def reconstruction_loss(scores: Tensor, pairs: Pairs, of_scores: OfScores) -> Tensor:
    """Return the mean over users of a loss of `trainers.factor_losses`.

    Parameters
    ----------
    scores
        float32 ``[n, m]``.
    pairs
        Of n groups, with columns below m.
    of_scores
        The loss.
    """
    return cast("Tensor", _Loss.apply(scores, pairs, of_scores))  # type: ignore[no-untyped-call]
