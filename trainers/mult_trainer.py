"""What Mult-VAE and Mult-DAE share: users are what they have had, and item rows are tables at either end of the net; in numpy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from embstore import Batch, Checkout, InvalidInputError, NonFiniteError, Normal, Schema, TableSpec, View, Zeros
from trainers.factor_losses import softmax
from trainers.histories import RowMatrix, SparseRows, histories, normalized
from trainers.learned_arrays import LearnedArrays, LearnedTable, adam_slots, load_arrays
from trainers.mult_nets import Codes, MultNet, Shape, as_matrix, back_to_rows, slope_of_code, spread_of, start_of, thinned
from trainers.pairs import Pairs
from trainers.plateau import Plateau
from trainers.sampling import dropout, normals, shuffled_batches, starting_normals
from trainers.settings import check_count, check_not_negative, check_share, check_sizes

Rows = NDArray[np.int64]
Floats = NDArray[Any]
Metrics = dict[str, float]
_SELECTION = "ndcg@100"


@dataclass(frozen=True)
class Histories:
    """Users of a fit.

    Parameters
    ----------
    inputs
        All that each has had, ``[n_users, n_items]``, rows of length 1.
    targets
        What is to be found of each: the pairs of the fit, with columns as places in ``live``.
    live
        Rows of items that are not removed, ascending.
    """

    inputs: SparseRows
    targets: Pairs
    live: Rows


@dataclass(frozen=True)
class Step:
    """One of a training.

    Parameters
    ----------
    epoch, number
        Which it is: of all epochs of the store, and in its epoch.
    kl_weight
        How much the divergence counts.
    lr
        Learning rate.
    """

    epoch: int
    number: int
    kl_weight: float
    lr: float


class _Learned:
    """A net in memory, with what its optimizer knows of it."""

    def __init__(self, trainer: MultTrainer, work: Checkout) -> None:
        shapes = trainer.shape.arrays
        drawn = {name: starting_normals(shapes[name], seed=trainer.seed, number=i) for i, name in enumerate(shapes)}
        self.rows_in, self.rows_out, self.bias = (LearnedTable(work, name) for name in trainer.tables)
        self.arrays = LearnedArrays(work, trainer.name, {name: start_of(shapes[name], drawn[name]) for name in shapes})
        self.net = MultNet(trainer.shape, self.rows_in.values, self.rows_out.values, self.bias.values, self.arrays.values)

    def stage(self) -> None:
        """Stage what took a step since the last call."""
        for learned in (self.rows_in, self.rows_out, self.bias, self.arrays):
            learned.stage()


class MultTrainer:
    """A net of histories; a subclass is a frozen dataclass with these settings."""

    name: ClassVar[str]
    has_variance: ClassVar[bool]
    # Settings: fields of the frozen dataclasses that share this.
    hidden: tuple[int, ...]
    dim: int
    epochs: int
    lr: float
    l2: float
    batch_size: int
    dropout: float
    plateau: float | None
    plateau_patience: int
    init_std: float
    seed: int
    # Setting of one of them.
    noise: float = 0.0

    def check(self) -> None:
        """Raise InvalidInputError for settings out of range."""
        for what in ("dim", "epochs", "batch_size", "plateau_patience"):
            check_count(getattr(self, what), what)
        for what in ("lr", "l2", "init_std", "noise"):
            check_not_negative(getattr(self, what), what)
        check_share(self.dropout, "dropout")
        if self.plateau is not None:
            check_share(self.plateau, "plateau")
        check_sizes(self.hidden, "hidden")
        self.schema()  # refuses a seed that no table can have

    @property
    def shape(self) -> Shape:
        """Return the shape of the net."""
        return Shape(self.hidden, self.dim, self.has_variance)

    @property
    def tables(self) -> tuple[str, str, str]:
        """Return the names of the tables of items: the rows that go in, those that come out, and the biases."""
        return f"{self.name}.input", f"{self.name}.output", f"{self.name}.bias"

    def schema(self) -> Schema:
        """Return ``<name>.input`` and ``<name>.output``, a row for each item at either end of the net, and ``<name>.bias``."""
        widths = (self.shape.inner[0], self.shape.outer[-1], None)
        return Schema(tuple(self._table(name, dim) for name, dim in zip(self.tables, widths, strict=True)))

    def _table(self, name: str, dim: int | None) -> TableSpec:
        start = Zeros() if dim is None else Normal(self.init_std)
        return TableSpec(name, "item", dim, slots=adam_slots(dim), init=start, seed=self.seed)

    def kl_weight(self, step: int, *, n_steps: int) -> float:
        """Return how much the KL divergence counts in a step; ``n_steps`` are in an epoch."""
        return 0.0

    def prepare(self, work: Checkout, batch: Batch) -> Histories:
        """Return the histories of the users of these pairs."""
        users, live = np.unique(batch.users), work.ids("item").live_rows()
        owners, columns = np.searchsorted(users, batch.users), np.searchsorted(live, batch.items)
        targets = Pairs.of(owners, columns, None, n_groups=len(users))
        return Histories(normalized(SparseRows.of(histories(work, users))), targets, live)

    def train(self, work: Checkout, batch: Batch) -> Iterator[Metrics]:
        """Train and stage epoch by epoch, going on where the checkout is.

        The order of users and all that is drawn depend on the seed and on how many epochs there have been.
        """
        data, learned = self.prepare(work, batch), _Learned(self, work)
        first, steps = (self._stored(work, what) for what in ("epoch", "step"))
        n_steps = -(-len(data.inputs) // self.batch_size)
        for epoch in range(first, first + self.epochs):
            plateau = self._plateau(work)
            lr = self.lr * (plateau.share if plateau else 1)
            means: dict[str, list[float]] = {}
            parts = shuffled_batches(len(data.inputs), batch_size=self.batch_size, seed=self.seed, epoch=epoch)
            for number, part in enumerate(parts):
                step = Step(epoch, number, self.kl_weight(steps, n_steps=n_steps), lr)
                for what, value in self._step(learned, data, part, step).items():
                    means.setdefault(what, []).append(value)
                steps += 1
            learned.stage()
            self._stage_progress(work, plateau, epoch=epoch + 1, step=steps)
            yield {what: float(np.mean(values)) for what, values in means.items()}

    def _stored(self, work: Checkout, what: str) -> int:
        name = f"{self.name}.{what}"
        return int(work.dense[name]) if name in work.dense else 0

    def _plateau(self, work: Checkout) -> Plateau | None:
        """Return what is left of the learning rate after the last validation; None where none is to be gone by."""
        if self.plateau is None:
            return None
        found, judged = (
            Plateau(self.plateau, self.plateau_patience, work.dense.get(f"{self.name}.plateau")),
            f"{self.name}.judged",
        )
        if judged in work.dense:
            found.see(float(work.dense[judged]))
        return found

    def _stage_progress(self, work: Checkout, plateau: Plateau | None, **counts: int) -> None:
        for what, count in counts.items():
            work.dense[f"{self.name}.{what}"] = np.array(count)
        if f"{self.name}.judged" in work.dense:
            del work.dense[f"{self.name}.judged"]
        if plateau and plateau.state is not None:
            work.dense[f"{self.name}.plateau"] = plateau.state

    def judged(self, work: Checkout, metrics: Mapping[str, float]) -> None:
        """Stage how good an epoch was on held-out pairs; the next epoch begins by going by it.

        Raises
        ------
        InvalidInputError
            If there is no NDCG@100 among the figures that a plateau is to be found by.
        """
        if self.plateau is None:
            return
        if _SELECTION not in metrics:
            msg = f"plateau {self.plateau!r}: no {_SELECTION!r} among {', '.join(metrics)}; validate with it, or set no plateau"
            raise InvalidInputError(msg)
        work.dense[f"{self.name}.judged"] = np.array(metrics[_SELECTION])

    def _step(self, learned: _Learned, data: Histories, part: Rows, step: Step) -> Metrics:
        """Go down the gradient of the loss of some users; return the loss before it, and what it is made of."""
        net, items = learned.net, None if len(data.live) == len(learned.bias.values) else data.live
        given = as_matrix(self._thinned(data.inputs.take(part), step), len(learned.bias.values))
        codes = net.encode(given)
        spread = self._spread(codes, step)
        decoded = net.decode(codes.mean if spread is None else codes.mean + spread, items)
        losses, slopes = softmax(decoded.scores, data.targets.take(part))
        slopes /= len(part)
        divergence = float(codes.divergence.mean(dtype=np.float64))
        loss = float(losses.mean(dtype=np.float64)) + step.kl_weight * divergence
        self._check_finite(loss, step)
        gradients, slope = net.back_to_code(decoded, slopes, net.rows_out if items is None else net.rows_out[items])
        slope = slope_of_code(codes, slope, spread=spread, kl_weight=step.kl_weight)
        inner, slope = net.back_to_input(codes, slope)
        learned.rows_out.step(data.live, gradients.pop("rows_out"), lr=step.lr, l2=self.l2)
        learned.bias.step(data.live, gradients.pop("bias"), lr=step.lr, l2=self.l2)
        learned.rows_in.step(*back_to_rows(given, slope), lr=step.lr, l2=self.l2)
        learned.arrays.step({**inner, **gradients}, lr=step.lr)
        return {"loss": loss, "kl": divergence, "kl_weight": step.kl_weight} if self.has_variance else {"loss": loss}

    def _thinned(self, rows: SparseRows, step: Step) -> SparseRows:
        if not self.dropout:
            return rows
        factors = dropout(rows.data.shape, self.dropout, seed=self.seed, epoch=step.epoch, step=step.number)
        return thinned(rows, factors)

    def _spread(self, codes: Codes, step: Step) -> Floats | None:
        """Return what is added to the mean codes; None: nothing."""
        if codes.log_variance is None or not self.noise:
            return None
        drawn = normals(codes.mean.shape, seed=self.seed, epoch=step.epoch, step=step.number)
        return spread_of(codes, drawn, noise=self.noise)

    def _check_finite(self, loss: float, step: Step) -> None:
        if not math.isfinite(loss):
            where = f"trainer {self.name!r}, epoch {step.epoch}, step {step.number}"
            msg = f"{where}: loss is {loss}; nothing has moved, try a smaller learning rate and look at the data"
            raise NonFiniteError(msg)

    def fold_in(self, work: Checkout, rows: Rows, batch: Batch) -> Metrics:
        """Do nothing: new users are encoded from what they have had, and have no rows of their own."""
        return {}

    def scores(self, view: View, user_rows: Rows) -> Floats:
        """Return logits of items, float32 ``[len(user_rows), n_items]``, from all that each user has had.

        Row -1 is a user who has had nothing.
        """
        return self._scores(view, normalized(SparseRows.of(histories(view, user_rows))))

    def scores_from(self, view: View, had: RowMatrix) -> Floats:
        """Return logits of items for whoever has had some, ``[n, n_items]``, float32 ones; they need not be users of the view."""
        return self._scores(view, normalized(had))

    def _scores(self, view: View, given: SparseRows) -> Floats:
        rows_in, rows_out, bias = (view.table(name).values() for name in self.tables)
        net = MultNet(self.shape, rows_in, rows_out, bias, load_arrays(view, self.name, self.shape.arrays))
        return net.scores(as_matrix(given, len(bias)))
