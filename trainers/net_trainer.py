"""The torch training loop that trainers share: restore, epochs of steps, stage; each part of it can be another alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embstore import Batch, Checkout, InvalidInputError, Rows, Schema, View
from trainers.loop import Run, learning, mixed, own_randomness, scoring
from trainers.sampling import shuffled_batches
from trainers.uncompiled import NetAdam, TableAdam

Metrics = dict[str, float]


class NetTrainer(ABC):
    """A net whose rows are tables, trained step by step; a subclass is a frozen dataclass of settings.

    ::

        restore net, optimizers and extras from the checkout
        for each epoch:
            for part in batches(run, epoch): step(run, part), which goes down the gradient of loss(run, part)
            stage what has changed, and yield the means of what the steps gave

    What is drawn in a step, dropout too, is a function of the seed and of how many steps there have been. So a training that is
    cut short between epochs and taken up in another process ends as the uninterrupted one, to the bit, if ``batches`` is a
    function of the seed and the epoch.

    Parameters
    ----------
    epochs
        Passes over the pairs that are given to one fit.
    lr, l2
        Learning rate of Adam, row-lazy for bound parameters; L2 of their rows, once for each step that a row takes.
    batch_size
        Pairs in a step.
    seed
        Of the order, the parameters and what is drawn.
    device
        Where the net is trained.
    precision, clip
        As `trainers.loop.Run` takes them.

    A subclass declares those of these that are to be settings, and its own.
    """

    name: ClassVar[str]
    epochs: int = 10
    lr: float = 1e-3
    l2: float = 0.0
    batch_size: int = 1024
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    clip: float | None = None

    @abstractmethod
    def schema(self) -> Schema:
        """Return the tables of the net, with the slots of their optimizers."""

    @abstractmethod
    def net(self, view: View) -> nn.Module:
        """Return a net for the rows that a view has (``len(view.ids("user"))``).

        Bound parameters start as their tables say, the others as they are made here, which torch's generators are seeded for.
        """

    @abstractmethod
    def bindings(self) -> Mapping[str, str | Rows]:
        """Return the table of each parameter with rows, as `embstore.bind` takes them: ``{"users.weight": "my.user"}``."""

    @abstractmethod
    def loss(self, run: Run, part: Any) -> Tensor:
        """Return the loss of one part of an epoch, as ``batches`` gives it."""

    def optimizers(self, net: nn.Module) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers by name: row-lazy Adam for parameters bound on axis 0 (their gradients are sparse), else Adam.

        Parameters that need no gradient are left out, so they stay.
        """
        lazy = {name for name, rows in self.bindings().items() if not isinstance(rows, Rows) or rows.axis == 0}
        learned = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
        rows = [parameter for name, parameter in learned if name in lazy]
        others = [parameter for name, parameter in learned if name not in lazy]
        found: dict[str, torch.optim.Optimizer] = {}
        if rows:
            found["rows"] = TableAdam(rows, self.lr, weight_decay=self.l2)
        if others:
            found["net"] = NetAdam(others, lr=self.lr)
        return found

    def extra(self, run: Run) -> dict[str, Any]:
        """Return what else has a state that a version keeps, by name: schedulers, averages. There are none."""
        return {}

    def prepare(self, work: Checkout, batch: Batch) -> Any:
        """Return what all epochs need of the pairs, to be ``run.data``: the pairs."""
        return batch

    def batches(self, run: Run, epoch: int) -> Iterable[Any]:
        """Return the parts of an epoch, in an order that is a function of the seed and the epoch: so many pairs each."""
        pairs: Batch = run.batch
        for at in shuffled_batches(len(pairs), batch_size=self.batch_size, seed=self.seed, epoch=epoch):
            ratings, times = (None if column is None else column[at] for column in (pairs.ratings, pairs.times))
            yield Batch(pairs.users[at], pairs.items[at], ratings, times)

    def step(self, run: Run, part: Any) -> Metrics:
        """Go down the gradient of the loss of one part, with all optimizers; return figures of it."""
        with run.autocast():
            loss = self.loss(run, part)
        return {"loss": run.descend(loss)}

    def epoch(self, run: Run, epoch: int) -> Metrics:
        """Take the steps of an epoch; return the means of their figures."""
        means: dict[str, list[float]] = {}
        for part in self.batches(run, epoch):
            for what, value in self.take(run, part).items():
                means.setdefault(what, []).append(value)
        return {what: float(np.mean(values)) for what, values in means.items()}

    def take(self, run: Run, part: Any) -> Metrics:
        """Take one step, with what it draws seeded, and count it."""
        run.seed_step()
        found = self.step(run, part)
        run.steps += 1
        return found

    def train(self, work: Checkout, batch: Batch) -> Iterator[Metrics]:
        """Train and stage epoch by epoch, going on where the checkout is."""
        with learning(), own_randomness():
            run = self.begin(work, batch)
        for _ in range(self.epochs):
            with learning(), own_randomness():
                run.net.train()
                found = self.epoch(run, run.epoch)
                run.epoch += 1
                run.stage()
            yield found

    def begin(self, work: Checkout, batch: Batch) -> Run:
        """Return a training that is where the checkout is."""
        run = Run(work, batch, name=self.name, seed=self.seed, device=self.device, precision=self.precision, clip=self.clip)
        run.data = self.prepare(work, batch)
        run.net = self._seeded_net(work).to(run.device)
        run.optimizers = self.optimizers(run.net)
        run.restore(self.bindings(), self.extra(run))
        return run

    def _seeded_net(self, view: View) -> nn.Module:
        torch.manual_seed(mixed(self.seed, 1 << 62))
        return self.net(view)

    def loaded(self, view: View) -> Any:
        """Return the net that a view holds, ready to score.

        Raises
        ------
        InvalidInputError
            If the view lacks one of its arrays.
        """
        with scoring(), own_randomness():
            net = self._seeded_net(view)
            self._load(view, net)
        return net.eval()

    def _load(self, view: View, net: nn.Module) -> None:
        every = {**dict(net.named_parameters(remove_duplicate=False)), **dict(net.named_buffers(remove_duplicate=False))}
        bound = {id(every[name]): Rows(rows) if isinstance(rows, str) else rows for name, rows in self.bindings().items()}
        kept, once = net.state_dict(), {**dict(net.named_parameters()), **dict(net.named_buffers())}
        for name, tensor in once.items():
            if id(tensor) in bound:
                self._load_rows(view, name, tensor, bound[id(tensor)])
            elif name in kept:
                tensor.copy_(torch.from_numpy(self._dense(view, f"model.{self.name}.{name}")))

    def _load_rows(self, view: View, name: str, tensor: Tensor, rows: Rows) -> None:
        by_row = tensor.movedim(rows.axis, 0)
        values = torch.from_numpy(view.table(rows.table).values())
        by_row[rows.first :].copy_(values.view(by_row[rows.first :].shape))
        if rows.first:
            leading = torch.from_numpy(self._dense(view, f"rows.{self.name}.{name}"))
            by_row[: rows.first].copy_(leading.view(by_row[: rows.first].shape))

    def _dense(self, view: View, name: str) -> NDArray[Any]:
        if name not in view.dense:
            msg = f"no array {name!r}: trainer {self.name!r} was not trained with this net; fit first, or set what was set then"
            raise InvalidInputError(msg)
        found: NDArray[Any] = view.dense[name]
        return found
