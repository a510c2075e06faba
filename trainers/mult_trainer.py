"""What Mult-VAE and Mult-DAE share: users are what they have had, and item rows are tables at either end of the net."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from embstore import Batch, Checkout, InvalidInputError, Normal, Schema, SlotSpec, TableSpec, View, Zeros
from trainers.autoencoder_nets import SparseInput
from trainers.histories import RowMatrix, SparseRows, histories, normalized
from trainers.loop import Run, one_thread
from trainers.mult_nets import MultNet, Sampler, multinomial_loss, thinned
from trainers.net_trainer import Metrics, NetTrainer
from trainers.pairs import Pairs
from trainers.sampling import shuffled_batches
from trainers.settings import check_count, check_not_negative, check_share, check_sizes

Rows = NDArray[np.int64]
_SELECTION = "ndcg@100"


@dataclass
class Histories:
    """Users of a fit.

    Attributes
    ----------
    inputs
        All that each has had, ``[n_users, n_items]``, rows of length 1.
    targets
        What is to be found of each: the pairs of the fit, ``[n_users, len(live)]``, ones.
    live
        Rows of items that are not removed, ascending.
    schedules
        Of learning rates.
    """

    inputs: SparseRows
    targets: SparseRows
    live: Tensor
    schedules: dict[str, ReduceLROnPlateau] = field(default_factory=dict)


class MultTrainer(NetTrainer):
    """A net of histories; a subclass is a frozen dataclass with these settings, and says what its net is.

    Parameters
    ----------
    hidden, dim
        Sizes of the layers between the items and the code, outermost first, and of the code.
    dropout
        Share of what users have had that is left out of the input, drawn anew in each step.
    plateau, plateau_patience
        Multiply the learning rate by ``plateau`` when so many validations in a row were no better; None: it stays.
    init_std
        Of new rows of items.
    """

    has_variance: ClassVar[bool]
    hidden: tuple[int, ...] = (600,)
    dim: int = 200
    dropout: float = 0.5
    plateau: float | None = None
    plateau_patience: int = 10
    init_std: float = 0.03

    def __post_init__(self) -> None:
        for what in ("dim", "epochs", "batch_size", "plateau_patience"):
            check_count(getattr(self, what), what)
        for what in ("lr", "l2", "init_std"):
            check_not_negative(getattr(self, what), what)
        check_share(self.dropout, "dropout")
        if self.plateau is not None:
            check_share(self.plateau, "plateau")
        check_sizes(self.hidden, "hidden")
        self.schema()  # refuses a seed that no table can have

    def schema(self) -> Schema:
        """Return ``<name>.input`` and ``<name>.output``, a row for each item at either end of the net, and ``<name>.bias``."""
        code = 2 * self.dim if self.has_variance else self.dim
        widths = {"input": (*self.hidden, code)[0], "output": (*self.hidden, self.dim)[0], "bias": None}
        return Schema(tuple(self._table(what, dim) for what, dim in widths.items()))

    def _table(self, what: str, dim: int | None) -> TableSpec:
        slots = (SlotSpec("exp_avg", dim), SlotSpec("exp_avg_sq", dim), SlotSpec("step", None, "int32"))
        start = Zeros() if dim is None else Normal(self.init_std)
        return TableSpec(f"{self.name}.{what}", "item", dim, slots=slots, init=start, seed=self.seed)

    def net(self, view: View) -> MultNet:
        """Return the net for the items of a view."""
        return MultNet(len(view.ids("item")), self.hidden, self.dim, has_variance=self.has_variance)

    def bindings(self) -> Mapping[str, str]:
        """Return the tables of the rows of items."""
        tables = {"encoder.rows": "input", "decoder.rows": "output", "decoder.bias": "bias"}
        return {parameter: f"{self.name}.{what}" for parameter, what in tables.items()}

    def prepare(self, work: Checkout, batch: Batch) -> Histories:
        """Return the histories of the users of these pairs."""
        users, live = np.unique(batch.users), work.ids("item").live_rows()
        owners, columns = np.searchsorted(users, batch.users), np.searchsorted(live, batch.items)
        targets = SparseRows.of(Pairs.of(owners, columns, None, n_groups=len(users)))
        return Histories(normalized(SparseRows.of(histories(work, users))), targets, torch.from_numpy(live))

    def extra(self, run: Run) -> dict[str, Any]:
        """Return the schedules of the learning rates, one for each optimizer."""
        if self.plateau is not None:
            options: dict[str, Any] = {"mode": "max", "factor": self.plateau, "patience": self.plateau_patience}
            run.data.schedules = {f"plateau.{name}": ReduceLROnPlateau(o, **options) for name, o in run.optimizers.items()}
        return dict(run.data.schedules)

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

    def batches(self, run: Run, epoch: int) -> Iterable[Rows]:
        """Return places of users."""
        return shuffled_batches(len(run.data.inputs), batch_size=self.batch_size, seed=self.seed, epoch=epoch)

    def epoch(self, run: Run, epoch: int) -> Metrics:
        """Let the learning rates follow the last validation, and take the steps of an epoch."""
        judged = f"{self.name}.judged"
        if judged in run.work.dense:
            for schedule in run.data.schedules.values():
                schedule.step(float(run.work.dense[judged]))
            del run.work.dense[judged]
        return super().epoch(run, epoch)

    def reconstruction(self, run: Run, part: Rows, sample: Sampler | None = None) -> tuple[Tensor, Tensor]:
        """Return the loss of what some users had, and the mean KL divergence of their codes."""
        data: Histories = run.data
        given = SparseInput(thinned(data.inputs.take(part), self.dropout, run.generator))
        scores, divergence = run.net(given, data.live, sample)
        return multinomial_loss(scores, data.targets.take(part)), divergence.mean()

    def fold_in(self, work: Checkout, rows: Rows, batch: Batch) -> Metrics:
        """Do nothing: new users are encoded from what they have had, and have no rows of their own."""
        return {}

    def scores(self, view: View, user_rows: Rows) -> NDArray[Any]:
        """Return logits of items, float32 ``[len(user_rows), n_items]``, from all that each user has had.

        Row -1 is a user who has had nothing.
        """
        return self._scores(view, normalized(SparseRows.of(histories(view, user_rows))))

    def scores_from(self, view: View, had: RowMatrix) -> NDArray[Any]:
        """Return logits of items for whoever has had some, ``[n, n_items]``, float32 ones; they need not be users of the view."""
        return self._scores(view, normalized(had))

    def _scores(self, view: View, given: SparseRows) -> NDArray[Any]:
        with one_thread(), torch.no_grad():
            net = cast("MultNet", self.loaded(view))
            found, _ = net(SparseInput(given), torch.arange(len(view.ids("item"))))
            scores: NDArray[Any] = found.numpy()
            return scores
