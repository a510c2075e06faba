"""What a torch training loop is made of, whatever it trains: modes, seeds, and a descent that can be taken up again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embstore import Batch, Binding, Checkout, InvalidInputError, NonFiniteError, Rows, bind

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
_GOLDEN, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


@contextmanager
def learning() -> Iterator[None]:
    """Compute with gradients, as nothing but the trainer says: one thread, float32, no autocast; then all is as before."""
    with _undisturbed(), torch.enable_grad():
        yield


@contextmanager
def scoring() -> Iterator[None]:
    """Compute without gradients, as nothing but the trainer says: one thread, float32, no autocast; then all is as before."""
    with _undisturbed(), torch.no_grad():
        yield


@contextmanager
def _undisturbed() -> Iterator[None]:
    # The order of additions depends on the number of threads.
    before = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    try:
        with ExitStack() as modes:
            modes.enter_context(torch.inference_mode(False))
            for device in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
                modes.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_default_dtype(before[1])


@contextmanager
def own_randomness() -> Iterator[None]:
    """Leave torch's generators as they were, whatever is drawn inside."""
    before, others = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        torch.set_rng_state(before)
        if others:
            torch.cuda.set_rng_state_all(others)


def mixed(*numbers: int) -> int:
    """Return a seed of 63 bits for some whole numbers in their order (splitmix64, Steele, Lea and Flood 2014)."""
    key = 0
    for number in numbers:
        key = (key + number * _GOLDEN + 1) & _MASK
        key = (key ^ key >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        key = (key ^ key >> 27) * 0x94D049BB133111EB & _MASK
        key ^= key >> 31
    return key >> 1


class Run:
    """One training: the net and its optimizers restored from a checkout, how far they are, and one descent after the other.

    Attributes
    ----------
    work, batch
        What is trained, and on which pairs in rows.
    data
        What the trainer's ``prepare`` made of them.
    net, optimizers, binding
        The net, its optimizers by name, and what ties both to the checkout.
    epoch, steps
        How many epochs and steps lie before the one that runs now, those of earlier trainings too: dense arrays ``<name>.epoch``
        and ``<name>.step``.
    generator
        Seeded anew for each step by the trainer's seed and the number of the step; so are torch's own generators, which dropout
        draws from.
    device
        Where the net is.
    resumed
        What the training goes on from; None for a first one.

    Parameters
    ----------
    name
        Of the trainer: arrays are ``model.<name>.…`` and ``optim.<optimizer>.<name>.…``.
    seed
        Of all that is drawn.
    precision
        ``"float32"``; ``"bfloat16"`` or ``"float16"``: losses are computed in it where torch deems that safe. float16 needs its
        losses scaled; the scale is kept in the version.
    clip
        The largest norm that the gradients of one descent may have together; None: any.
    """

    def __init__(
        self,
        work: Checkout,
        batch: Batch,
        *,
        name: str,
        seed: int,
        device: str = "cpu",
        precision: str = "float32",
        clip: float | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            msg = f"precision {precision!r}: use one of {', '.join(PRECISIONS)}"
            raise InvalidInputError(msg)
        self.work, self.batch = work, batch
        self.data: Any = None
        self.net: Any = None  # the trainer's nn.Module, whose attributes a type checker cannot know
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.epoch, self.steps = (self._stored(f"{name}.{what}") for what in ("epoch", "step"))
        self.resumed: str | None = None
        self._name, self._seed, self._clip = name, seed, clip
        self._autocast = PRECISIONS[precision]
        self.scaler = torch.amp.GradScaler(self.device.type) if precision == "float16" else None

    def _stored(self, name: str) -> int:
        return int(self.work.dense[name]) if name in self.work.dense else 0

    def restore(self, bindings: Mapping[str, str | Rows], extra: Mapping[str, Any]) -> None:
        """Tie net, optimizers and extras to the checkout, and load what it has of them."""
        kept = {f"{self._name}.{key}": value for key, value in extra.items()}
        if self.scaler is not None:
            kept[f"{self._name}.scaler"] = self.scaler
        bound = {f"{self._name}.{parameter}": rows for parameter, rows in bindings.items()}
        self.binding: Binding = bind(self.work, nn.ModuleDict({self._name: self.net}), self.optimizers, bound, extra=kept)
        self.binding.restore()
        if self.epoch or self.steps:
            self.resumed = f"{self._name} at epoch {self.epoch}, step {self.steps}, of version {self.work.version.id}"

    def stage(self) -> None:
        """Stage what has changed: rows, slots, arrays, and how many epochs and steps there have been."""
        self.binding.stage()
        self.work.dense[f"{self._name}.epoch"] = np.array(self.epoch)
        self.work.dense[f"{self._name}.step"] = np.array(self.steps)

    def seed_step(self) -> None:
        """Seed all that is drawn in the step that comes now."""
        seed = mixed(self._seed, self.steps)
        torch.manual_seed(seed)
        self.generator.manual_seed(seed)

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute in the trainer's precision, in a ``with`` block."""
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast, cache_enabled=False)

    def tensor(self, array: Any) -> Tensor:
        """Return a numpy array on the net's device."""
        return torch.from_numpy(array).to(self.device)

    def descend(self, loss: Tensor, *names: str) -> float:
        """Go down the gradient of a loss with some optimizers, all if none is named; return the loss.

        A loss that is not finite is refused before anything moves. Gradients are unscaled before they are clipped, and clipped
        all together; afterwards there are none, so that they take no room in the next forward pass, nor when rows are staged.

        Raises
        ------
        NonFiniteError
            For a loss, or gradients that are to be clipped, with NaN or infinity.
        InvalidInputError
            If there is no optimizer of such a name.
        """
        value = loss.item()
        self._check_finite(value, "loss")
        chosen = self._chosen(names)
        self._drop_gradients()
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        moving = [optimizer for optimizer in chosen if gradients_of([optimizer])]
        if self.scaler is None:
            self._clip_gradients(moving)
            for optimizer in moving:
                optimizer.step()
        else:
            self._step_scaled(moving, self.scaler)
        self._drop_gradients()
        return value

    def _drop_gradients(self) -> None:
        for parameter in self.net.parameters():
            parameter.grad = None

    def _chosen(self, names: Sequence[str]) -> list[torch.optim.Optimizer]:
        unknown = sorted(set(names) - set(self.optimizers))
        if unknown:
            msg = f"optimizer {unknown[0]!r}: there are {', '.join(self.optimizers) or 'none'}"
            raise InvalidInputError(msg)
        return [self.optimizers[name] for name in names or self.optimizers]

    def _step_scaled(self, optimizers: Sequence[torch.optim.Optimizer], scaler: torch.amp.GradScaler) -> None:
        # Gradients that overflow at this scale are the scaler's to see: it leaves the step out and lowers the scale.
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        if self._clip is not None:
            clip_gradients(gradients_of(optimizers), self._clip)
        for optimizer in optimizers:
            scaler.step(optimizer)
        if optimizers:
            scaler.update()

    def _clip_gradients(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        if self._clip is not None:
            self._check_finite(clip_gradients(gradients_of(optimizers), self._clip), "norm of the gradients")

    def _check_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            where = f"trainer {self._name!r}, epoch {self.epoch}, step {self.steps}"
            msg = f"{where}: {what} is {value}; nothing has moved, try a smaller learning rate and look at the data"
            raise NonFiniteError(msg)


def gradients_of(optimizers: Sequence[torch.optim.Optimizer]) -> list[nn.Parameter]:
    """Return the parameters of some optimizers that have a gradient, each once."""
    found = {id(p): p for o in optimizers for group in o.param_groups for p in group["params"] if p.grad is not None}
    return list(found.values())


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> float:
    """Scale gradients so that their norm, all together, is at most ``largest``; return the norm that they had.

    Of a sparse gradient the rows count that it adds up to: one that comes twice is one row.
    """
    parts = [_rows_added_up(parameter) for parameter in parameters]
    norm = math.sqrt(sum(float(part.double().square().sum()) for part in parts))
    if norm > largest:
        for part in parts:
            part.mul_(largest / norm)
    return norm


def _rows_added_up(parameter: nn.Parameter) -> Tensor:
    """Return the numbers of a gradient; those of a sparse one have one row for each that it has."""
    grad = parameter.grad
    assert grad is not None
    if not grad.is_sparse:
        return grad
    rows, place = torch.unique(grad._indices()[0], return_inverse=True)
    values = grad._values()
    total = values.new_zeros((len(rows), *values.shape[1:])).index_add_(0, place, values)
    parameter.grad = torch.sparse_coo_tensor(rows[None], total, grad.shape, is_coalesced=True, check_invariants=False)
    return total
