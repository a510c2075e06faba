"""Schedulers go on where they stopped; the base learning rate and their settings stay the caller's."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

import embstore
from embstore import Store
from embstore.errors import SchemaMismatchError

Make = Callable[[torch.optim.Optimizer], Any]

MAKERS: dict[str, Make] = {
    "step": lambda o: schedulers.StepLR(o, step_size=2, gamma=0.3),
    "multi-step": lambda o: schedulers.MultiStepLR(o, [1, 4], gamma=0.3),
    "exponential": lambda o: schedulers.ExponentialLR(o, gamma=0.7),
    "cosine": lambda o: schedulers.CosineAnnealingLR(o, T_max=9),
    "cosine-restarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, T_0=2, T_mult=2),
    "lambda": lambda o: schedulers.LambdaLR(o, lambda epoch: 0.9**epoch),
    "plateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=1, factor=0.5),
    "linear": lambda o: schedulers.LinearLR(o, total_iters=6),
    "one-cycle": lambda o: schedulers.OneCycleLR(o, max_lr=1.0, total_steps=12),
    "cyclic": lambda o: schedulers.CyclicLR(o, base_lr=0.1, max_lr=1.0, step_size_up=3, cycle_momentum=True),
    "sequential": lambda o: schedulers.SequentialLR(
        o, [schedulers.ConstantLR(o, factor=0.1, total_iters=2), schedulers.ExponentialLR(o, gamma=0.9)], milestones=[2]
    ),
    "chained": lambda o: schedulers.ChainedScheduler([schedulers.ExponentialLR(o, gamma=0.9), schedulers.StepLR(o, step_size=3)]),
}
# Rates that a run with another base rate has at the same count are another multiple of it, but for rounding.
PROPORTIONAL = [
    "step",
    "multi-step",
    "exponential",
    "cosine",
    "cosine-restarts",
    "lambda",
    "plateau",
    "linear",
    "sequential",
    "chained",
]


class Run:
    """A small module, its optimizer and a scheduler."""

    def __init__(self, kind: str, *, lr: float = 0.1) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)
        groups = [{"params": [self.model.weight]}, {"params": [self.model.bias], "lr": lr / 2}]
        self.optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9)
        self.scheduler = MAKERS[kind](self.optimizer)

    def epoch(self, number: int) -> None:
        """Take one step, then one of the scheduler; a metric that stops getting better for one that looks at it."""
        self.optimizer.zero_grad()
        (self.model(torch.full((2, 3), 0.1 * number)) ** 2).sum().backward()
        self.optimizer.step()
        if isinstance(self.scheduler, schedulers.ReduceLROnPlateau):
            self.scheduler.step(max(1.0, 3.0 - number))
        else:
            self.scheduler.step()

    def options(self) -> list[tuple[Any, ...]]:
        """Return what the scheduler drives, by group."""
        return [(group["lr"], group["momentum"]) for group in self.optimizer.param_groups]

    def weights(self) -> list[list[float]]:
        """Return all numbers of the module."""
        return [p.flatten().tolist() for p in self.model.parameters()]


def _save(store: Store, run: Run) -> None:
    with store.checkout() as work:
        embstore.bind(work, run.model, run.optimizer, {}, extra={"scheduler": run.scheduler}).stage()
        work.commit("saved")


def _resume(store: Store, run: Run) -> None:
    with store.checkout() as work:
        embstore.bind(work, run.model, run.optimizer, {}, extra={"scheduler": run.scheduler}).restore()


def _new_store() -> Store:
    return embstore.create(f"memory://{uuid.uuid4()}")


@pytest.mark.parametrize("n_before", [1, 5])
@pytest.mark.parametrize("kind", MAKERS)
def test_resumed_schedule_equals_uninterrupted(kind: str, n_before: int) -> None:
    """With the same base rate every later rate and weight has the bits of a run without a stop."""
    store, whole = _new_store(), Run(kind)
    with store.checkout() as work:
        binding = embstore.bind(work, whole.model, whole.optimizer, {}, extra={"scheduler": whole.scheduler})
        for number in range(n_before):
            whole.epoch(number)
        binding.stage()
        work.commit("saved")
    resumed = Run(kind)
    _resume(store, resumed)
    assert resumed.options() == whole.options()
    assert resumed.scheduler.get_last_lr() == whole.scheduler.get_last_lr()
    for number in range(n_before, n_before + 5):
        whole.epoch(number)
        resumed.epoch(number)
        assert resumed.options() == whole.options()
        assert resumed.weights() == whole.weights()


@pytest.mark.parametrize("kind", PROPORTIONAL)
def test_another_base_rate_goes_on_at_the_same_place(kind: str) -> None:
    """A caller who halves the base rate has, then and later, half the rates of the stored run's schedule."""
    store, whole = _new_store(), Run(kind)
    for number in range(5):
        whole.epoch(number)
    with store.checkout() as work:
        late = embstore.bind(work, whole.model, whole.optimizer, {}, extra={"scheduler": whole.scheduler})
        late.stage()
        work.commit("saved")
    halved = Run(kind, lr=0.05)
    _resume(store, halved)
    for number in range(5, 10):
        rates = [[lr for lr, _ in run.options()] for run in (halved, whole)]
        if kind == "plateau":  # bound after training: the groups' first rates are known by the optimizer's default alone
            rates = [each[:1] for each in rates]
        assert rates[0] == pytest.approx([lr / 2 for lr in rates[1]], rel=1e-12)
        halved.epoch(number)
        whole.epoch(number)


def test_plateau_knows_the_base_rates_of_groups() -> None:
    """Bound before training, each group's rate follows the caller's for that group."""
    store, run = _new_store(), Run("plateau")
    with store.checkout() as work:
        binding = embstore.bind(work, run.model, run.optimizer, {}, extra={"scheduler": run.scheduler})
        for number in range(6):
            run.epoch(number)
        binding.stage()
        work.commit("saved")
    assert [lr for lr, _ in run.options()] == [0.05, 0.025]
    other = Run("plateau")
    other.optimizer.param_groups[1]["lr"] = 0.2
    _resume(store, other)
    assert [lr for lr, _ in other.options()] == pytest.approx([0.05, 0.1], rel=1e-12)


def test_minimum_of_a_cosine_is_kept() -> None:
    """With a new base rate the formula decides, so the minimum stays what the caller's scheduler says."""
    store = _new_store()
    runs = {lr: Run("cosine", lr=lr) for lr in (0.1, 0.05)}
    for run in runs.values():
        run.scheduler = schedulers.CosineAnnealingLR(run.optimizer, T_max=6, eta_min=0.01)
        for number in range(4):
            run.epoch(number)
    _save(store, runs[0.1])
    resumed = Run("cosine", lr=0.05)
    resumed.scheduler = schedulers.CosineAnnealingLR(resumed.optimizer, T_max=6, eta_min=0.01)
    _resume(store, resumed)
    assert [lr for lr, _ in resumed.options()] == pytest.approx([lr for lr, _ in runs[0.05].options()], rel=1e-12)


def test_settings_are_the_callers() -> None:
    """A schedule made longer or steeper on resume is so; only the count is the store's."""
    store, run = _new_store(), Run("step")
    for number in range(3):
        run.epoch(number)
    _save(store, run)
    longer = Run("step")
    longer.scheduler = schedulers.StepLR(longer.optimizer, step_size=4, gamma=0.5)
    _resume(store, longer)
    state = longer.scheduler.state_dict()
    assert (state["last_epoch"], state["step_size"], state["gamma"]) == (3, 4, 0.5)
    stored = json.loads(store.at().dense["extra.scheduler"].tobytes())
    assert stored["counted"] == {"_step_count": 4, "last_epoch": 3}


def test_rates_that_are_tensors() -> None:
    """A learning rate that lives in a tensor is changed in place."""
    store = _new_store()
    runs = []
    for _ in range(2):
        model = nn.Linear(3, 1)
        adam = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1), capturable=False, foreach=False)
        runs.append((model, adam, schedulers.ExponentialLR(adam, gamma=0.5)))
    model, adam, scheduler = runs[0]
    adam.step()
    scheduler.step()
    with store.checkout() as work:
        embstore.bind(work, model, adam, {}, extra={"s": scheduler}).stage()
        work.commit("saved")
    model, adam, scheduler = runs[1]
    rate = adam.param_groups[0]["lr"]
    with store.checkout() as work:
        embstore.bind(work, model, adam, {}, extra={"s": scheduler}).restore()
    assert adam.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.05)


def test_another_number_of_groups_or_parts() -> None:
    """A scheduler that cannot be what was stored is refused."""
    store = _new_store()
    _save(store, Run("sequential"))
    other = Run("step")
    with pytest.raises(SchemaMismatchError, match="stored with 2 schedulers in it, now 0"):
        _resume(store, other)
    other.optimizer.add_param_group({"params": nn.Parameter(torch.zeros(1))})
    other.model.register_parameter("more", other.optimizer.param_groups[2]["params"][0])
    with pytest.raises(SchemaMismatchError, match="stored for 2 parameter groups, now 3"):
        _resume(store, other)


@pytest.mark.parametrize("joins_late", [False, True])
@pytest.mark.parametrize("kind", ["step", "exponential", "plateau"])
def test_a_group_that_came_after_the_binding(kind: str, joins_late: bool) -> None:
    """Its rate goes on where it was, whether the resumed run has it from the start or again only later."""
    store = _new_store()
    run, resumed = Run(kind), Run(kind)
    more = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    with store.checkout() as work:
        run.model.register_parameter("more", more[0])
        binding = embstore.bind(work, run.model, run.optimizer, {}, extra={"scheduler": run.scheduler})
        run.epoch(0)
        run.optimizer.add_param_group({"params": more[0], "lr": 0.02})
        for number in range(1, 5):
            run.epoch(number)
        binding.stage()
        work.commit("saved")
    resumed.model.register_parameter("more", more[1])
    group = {"params": more[1], "lr": 0.02}
    with store.checkout() as work:
        if not joins_late:
            resumed.optimizer.add_param_group(group)
            resumed.scheduler = MAKERS[kind](resumed.optimizer)
        binding = embstore.bind(work, resumed.model, resumed.optimizer, {}, extra={"scheduler": resumed.scheduler})
        if joins_late:
            resumed.optimizer.add_param_group(group)
        binding.restore()
    assert resumed.options() == run.options()


class Warmup(schedulers.LRScheduler):
    """A stranger's scheduler with a count of its own."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.seen = 0
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        """Return rates that rise with the count."""
        self.seen += 1
        return [base * min(1.0, self.seen / 10) for base in self.base_lrs]


def test_schedulers_of_strangers_keep_what_they_count() -> None:
    """Of a scheduler that torch does not have, all is stored but the rates."""
    store, whole, resumed = _new_store(), Run("step"), Run("step")
    for run in (whole, resumed):
        run.scheduler = Warmup(run.optimizer)
    for number in range(3):
        whole.epoch(number)
    _save(store, whole)
    _resume(store, resumed)
    for number in range(3, 6):
        assert resumed.options() == whole.options()
        whole.epoch(number)
        resumed.epoch(number)
