"""The training loop that torch trainers share: its contract, each part of it replaced alone, precision, memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import embstore
from embstore import Batch, InvalidInputError, View
from embstore.testing import KilledTrainingContract, TrainerContract, example_interactions
from tests.examples import new_store, state_of
from tests.retrain_semantics import RetrainSemantics
from tests.with_torch.forked import Forked
from tests.with_torch.small_net import Small
from trainers.loop import Run
from trainers.net_trainer import NetTrainer

PAIRS = example_interactions()
ROOT = Path(__file__).resolve().parents[2]


class TestSmall(Forked, TrainerContract):
    """A small net with dropout keeps the contract."""

    trainer = Small()


class TestSmallHalf(Forked, TrainerContract, KilledTrainingContract):
    """So it does in float16, with scaled losses and clipped gradients, and killed on the way."""

    trainer = Small(precision="float16", clip=0.5)


class TestSmallRetrained(RetrainSemantics):
    """It grows, and counts steps by row."""

    trainer = Small(dropout=0.0)


@dataclass(frozen=True)
class Squared(Small):
    """Another loss alone."""

    def loss(self, run: Run, part: Batch) -> Tensor:
        """Return the mean squared distance from 1."""
        logits: Tensor = run.net(run.tensor(part.users), run.tensor(part.items))
        return (logits - 1).square().mean()


@dataclass(frozen=True)
class Whole(Small):
    """Other parts of an epoch alone: all pairs at once, which count as one step."""

    def batches(self, run: Run, epoch: int) -> Iterator[Batch]:
        """Yield all pairs."""
        yield run.batch


@dataclass(frozen=True)
class Twice(Small):
    """Another step alone: two descents, and a figure of its own."""

    def step(self, run: Run, part: Batch) -> dict[str, float]:
        """Go down twice, with one optimizer each."""
        first = run.descend(self.loss(run, part), "rows")
        return {"loss": first, "after": run.descend(self.loss(run, part), "net")}


@dataclass(frozen=True)
class Halved(Small):
    """Another epoch alone: the first two parts only."""

    def epoch(self, run: Run, epoch: int) -> dict[str, float]:
        """Take two steps."""
        parts = self.batches(run, epoch)
        return {"loss": sum(self.take(run, next(iter(parts)))["loss"] for _ in range(2))}


@dataclass(frozen=True)
class Descending(Small):
    """Another optimizer for the layer alone."""

    def optimizers(self, net: nn.Module) -> dict[str, torch.optim.Optimizer]:
        """Put momentum in place of Adam."""
        found = super().optimizers(net)
        return found | {"net": torch.optim.SGD(found["net"].param_groups[0]["params"], lr=self.lr, momentum=0.9)}


@dataclass(frozen=True)
class Scheduled(Small):
    """Another extra alone, stepped at the end of an epoch."""

    def extra(self, run: Run) -> dict[str, Any]:
        """Return a scheduler of the layer's rate."""
        run.data = torch.optim.lr_scheduler.ExponentialLR(run.optimizers["net"], 0.5)
        return {"schedule": run.data}

    def epoch(self, run: Run, epoch: int) -> dict[str, float]:
        """Train, and lower the rate."""
        found = super().epoch(run, epoch)
        run.data.step()
        return found | {"lr": float(run.optimizers["net"].param_groups[0]["lr"])}


@pytest.mark.parametrize(
    ("trainer", "steps", "figures"),
    [
        (Squared(), 10, {"loss"}),
        (Whole(), 2, {"loss"}),
        (Twice(), 10, {"loss", "after"}),
        (Halved(), 4, {"loss"}),
        (Descending(), 10, {"loss"}),
        (Scheduled(), 10, {"loss", "lr"}),
    ],
    ids=lambda value: value.name if isinstance(value, NetTrainer) else "",
)
def test_each_part_can_be_another(trainer: Small, steps: int, figures: set[str]) -> None:
    """One method replaced changes what it is there for, and an epoch, a commit and an epoch still equal two epochs."""
    whole = embstore.fit(new_store(), trainer, PAIRS, message="two epochs")
    store = new_store()
    with store.checkout() as work:
        parts = [embstore.training.stage_pairs(work, trainer, PAIRS.ordered())]
        list(replace(trainer, epochs=1).train(work, parts[0]))
        work.commit("one epoch")
    with store.checkout() as work:
        again = list(replace(trainer, epochs=1).train(work, PAIRS.ordered().to_batch(work)))
        work.commit("another")
    assert state_of(store.at()) == state_of(whole)
    assert (int(whole.dense["small.step"]), int(whole.dense["small.epoch"])) == (steps, 2)
    assert [set(found) for found in again] == [figures]
    plain = embstore.fit(new_store(), Small(), PAIRS, message="plain")
    assert state_of(plain)["small.user"] != state_of(whole)["small.user"] or trainer != Small()


def test_rate_of_a_schedule_goes_on() -> None:
    """Its count is in the version: after two epochs and one more the rate is an eighth of what was asked for."""
    store = new_store()
    embstore.fit(store, Scheduled(), PAIRS, message="two epochs")
    version = embstore.fit(store, Scheduled(epochs=1, lr=0.08), PAIRS, message="one more, begun at another rate")
    assert version.lineage["metrics"]["lr"] == pytest.approx(0.01)


def test_what_is_drawn_depends_on_the_seed_and_the_step_alone() -> None:
    """Nothing is taken from torch's generators as they are, and they are left as they were; so is the number of threads."""
    states = []
    for seed, threads in ((1, 1), (2, 2)):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        before = torch.get_rng_state()
        states.append(state_of(embstore.fit(new_store(), Small(), PAIRS, message="fit")))
        assert (torch.get_num_threads(), bool((torch.get_rng_state() == before).all())) == (threads, True)
    assert states[0] == states[1]
    assert states[0] != state_of(embstore.fit(new_store(), Small(seed=1), PAIRS, message="fit"))


def test_removed_ids_take_no_part() -> None:
    """Their rows are nobody's: where some are gone, two epochs and an epoch twice are still the same, to the bit."""
    states = []
    for epochs in ((2,), (1, 1)):
        store = new_store()
        gone = embstore.fit(store, Small(), PAIRS, message="fit").ids("item").ids()[:3]
        with store.checkout() as work:
            work.remove("item", gone)
            work.commit("some are gone")
        left = PAIRS.take(~np.isin(PAIRS.item_ids.astype(str), gone.astype(str)))
        for n in epochs:
            with store.checkout() as work:
                list(Small(epochs=n).train(work, left.ordered().to_batch(work)))
                work.commit("go on")
        states.append(state_of(store.at()))
    assert states[0] == states[1]


@dataclass(frozen=True)
class Frozen(Small):
    """A layer that stays as it began."""

    def net(self, view: View) -> nn.Module:
        """Return the net, its layer without gradients."""
        net: Any = super().net(view)
        net.head.requires_grad_(requires_grad=False)
        return net  # type: ignore[no-any-return]


def test_parameters_without_gradient_stay() -> None:
    """They are no optimizer's, but part of the version; thawed later they are trained from where they are."""
    store = new_store()
    versions = [embstore.fit(store, trainer, PAIRS, message="fit") for trainer in (Frozen(epochs=1), Frozen(), Small())]
    first, second, thawed = (version.dense["model.small.head.weight"] for version in versions)
    assert (first.tobytes() == second.tobytes(), first.tobytes() == thawed.tobytes()) == (True, False)
    assert [name for name in versions[1].dense if name.startswith("optim.")] == []
    assert versions[2].dense["optim.net.small.head.weight.step"] == 10


def test_precision_that_is_none_is_refused() -> None:
    """The known ones are named."""
    with pytest.raises(InvalidInputError, match="precision 'half': use one of float32, bfloat16, float16"):
        embstore.fit(new_store(), Small(precision="half"), PAIRS, message="fit")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_is_near(precision: str) -> None:
    """Losses computed in less than float32 are near those in float32; all parameters stay float32."""
    wide, narrow = (
        embstore.fit(new_store(), Small(precision=each, epochs=5), PAIRS, message="fit") for each in ("float32", precision)
    )
    assert wide.lineage["metrics"]["loss"] != narrow.lineage["metrics"]["loss"]
    assert narrow.lineage["metrics"]["loss"] == pytest.approx(wide.lineage["metrics"]["loss"], abs=0.01)
    assert {narrow.table("small.user").values().dtype, narrow.dense["model.small.head.weight"].dtype} == {np.dtype("float32")}


def test_run_says_what_it_goes_on_from() -> None:
    """A first training goes on from nothing; the next one names epoch, step and version."""
    store = new_store()
    with store.checkout() as work:
        batch = embstore.training.stage_pairs(work, Small(), PAIRS.ordered())
        assert Small().begin(work, batch).resumed is None
        list(Small().train(work, batch))
        version = work.commit("two epochs")
    with store.checkout() as work:
        assert Small().begin(work, batch).resumed == f"small at epoch 2, step 10, of version {version.id}"


_FIT = """
import sys
import numpy as np
import embstore
from embstore import Interactions
from tools.bench.fresh import peak_bytes
from tests.with_torch.small_net import Small

columns = np.loadtxt(sys.argv[1], skiprows=1)
pairs = Interactions(columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64), times=columns[:, 3])
store = embstore.create(sys.argv[2], durability="none")
embstore.fit(store, Small(dim=64, epochs=1, batch_size=2048, precision="float16", clip=10.0), pairs, message="fit")
print("torch._dynamo" in sys.modules, peak_bytes() >> 20)
"""


def test_memory_of_a_fit_on_movielens(tmp_path: Path, data_dir: Path) -> None:
    """100,000 pairs and 64 numbers a row take at most 320 MB in all, torch's own 180 among them, and not its compiler."""
    file = data_dir / "ml-100k" / "ml-100k.inter"
    command = [sys.executable, "-c", _FIT, str(file), str(tmp_path / "store")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    compiler, peak = done.stdout.split()
    assert compiler == "False"
    assert int(peak) <= 320
