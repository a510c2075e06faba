"""Faults that RecBole 1.2.1's training has, which these trainers take the place of: none of them is here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import embstore
from embstore import Batch, Checkout, Interactions, NonFiniteError, Validation
from embstore.testing import example_interactions
from tests.examples import crash_after, new_store, state_of
from tests.with_torch.small_net import Small
from trainers.loop import Run
from trainers.uncompiled import NetAdam, TableAdam

PAIRS = example_interactions()
CAP, TOTAL = 0.2, 40


@dataclass(frozen=True)
class Annealed(Small):
    """Weighs its vectors' length by ``min(CAP, t / TOTAL)``, t the steps before this one, and notes what it weighed with."""

    weights: ClassVar[list[tuple[int, float]]] = []

    def loss(self, run: Run, part: Batch) -> Tensor:
        """Return the loss of `Small` and the weighted length."""
        weight = min(CAP, run.steps / TOTAL)
        self.weights.append((run.steps, weight))
        users: Tensor = run.net.users(run.tensor(part.users))
        return super().loss(run, part) + weight * users.square().mean()


def test_annealing_goes_on_where_it_was() -> None:
    """The weight of step t is the formula's in a training that is taken up again, too.

    There the counter is an attribute that no checkpoint has, and a resumed training begins at weight 0.
    """
    Annealed.weights.clear()
    store = new_store()
    for epochs in (1, 2):
        embstore.fit(store, Annealed(epochs=epochs), PAIRS, message="fit")
    n_steps = int(store.at().dense["small.step"])
    assert n_steps == 15
    assert Annealed.weights == [(t, min(CAP, t / TOTAL)) for t in range(n_steps)]


def test_scale_of_losses_goes_on_where_it_was() -> None:
    """What the scaler has counted is in the version, epoch after epoch. There it is made anew in each."""
    store, trainer = new_store(), Small(precision="float16", epochs=1)
    counted = []
    for _ in range(2):
        state = json.loads(embstore.fit(store, trainer, PAIRS, message="fit").dense["extra.small.scaler"].tobytes())
        counted.append((state["scale"], state["_growth_tracker"]))
    assert counted == [(65536.0, 5), (65536.0, 10)]


def test_clipping_does_not_depend_on_the_scale() -> None:
    """Steps are clipped to the same length in float16 as in float32.

    There scaled gradients, 65,536 times as long, are clipped before they are unscaled, so that hardly anything is left.
    """
    ends = []
    for precision in ("float32", "float16"):
        trainer = Descending(precision=precision, clip=0.01, epochs=1, dropout=0.0, lr=1.0)
        version = embstore.fit(new_store(), trainer, PAIRS, message="fit")
        ends.append(version.table("small.item").values() - version.table("small.item").initial(version.ids("item").ids()))
    assert 0 < np.linalg.norm(ends[1] - ends[0]) < np.linalg.norm(ends[0]) / 20


@dataclass(frozen=True)
class Descending(Small):
    """Plain descent."""

    def optimizers(self, net: nn.Module) -> dict[str, torch.optim.Optimizer]:
        """Return one optimizer for all parameters."""
        return {"all": torch.optim.SGD(net.parameters(), lr=self.lr)}


def test_rows_belong_to_ids_whatever_comes_in_which_order() -> None:
    """A file in another order, with new ids that sort before the old ones, leaves each id its vector and its moments.

    There rows are numbered by the file, and a checkpoint does not say how: other data of the same size changes them silently.
    """
    store = new_store()
    before = embstore.fit(store, Small(), PAIRS, message="first")
    new = Interactions([-5, *PAIRS.user_ids[::-1]], ["an item", *PAIRS.item_ids[::-1]], times=[0, *np.asarray(PAIRS.times)[::-1]])
    after = embstore.fit(store, Small(lr=0.0), new, message="again, nothing learned")
    for entity in ("user", "item"):
        ids, name = before.ids(entity).ids(), f"small.{entity}"
        np.testing.assert_array_equal(after.table(name).get(ids), before.table(name).get(ids), strict=True)
        assert len(after.ids(entity)) == len(ids) + 1


@dataclass(frozen=True)
class Alternating(Small):
    """Two optimizers that take turns, epoch by epoch."""

    def step(self, run: Run, part: Batch) -> dict[str, float]:
        """Move rows in even epochs, the layer in odd ones."""
        return {"loss": run.descend(self.loss(run, part), "rows" if run.epoch % 2 == 0 else "net")}


def test_all_optimizers_are_in_the_version() -> None:
    """Of two that take turns both are kept, so a training taken up after any epoch ends as the uninterrupted one.

    There only the optimizer that came last is saved.
    """
    whole = embstore.fit(new_store(), Alternating(epochs=4), PAIRS, message="whole")
    for cut in (2, 3, 4):
        store, trainer = new_store(), Alternating(epochs=4)
        with pytest.raises(KeyboardInterrupt):
            embstore.fit(store, trainer, PAIRS, message="m", run="r", commit_every=1, progress=crash_after(cut))
        assert state_of(embstore.fit(store, trainer, PAIRS, message="m", run="r")) == state_of(whole)
    assert whole.table("small.user").slot("step").values().max() > 0
    assert whole.dense["optim.net.small.head.weight.step"] == 10


@dataclass(frozen=True)
class Grouped(Small):
    """The layer's weight and bias in groups of their own, at rates of their own."""

    def optimizers(self, net: nn.Module) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers of `Small`, the second with two groups in another order."""
        made: Any = net
        groups = [{"params": [made.head.bias], "lr": 1e-4}, {"params": [made.head.weight]}]
        rows = TableAdam([made.users.weight, made.items.weight], self.lr)
        return {"rows": rows, "net": NetAdam(groups, lr=self.lr)}


def test_parameters_may_be_grouped_in_another_way() -> None:
    """State is each parameter's own: where groups change, steps go on. There a resumed training then fails to load."""
    store = new_store()
    before = embstore.fit(store, Small(), PAIRS, message="one group")
    after = embstore.fit(store, Grouped(), PAIRS, message="two groups")
    for what in ("weight", "bias"):
        name = f"optim.net.small.head.{what}.step"
        assert (before.dense[name], after.dense[name]) == (10, 20)


@pytest.mark.parametrize("cut", [2, 3, 4])
def test_best_result_is_known_to_a_training_taken_up(cut: int) -> None:
    """It ends with the best epoch of the whole training, and its figures. There the best result may be None after a resume."""
    figures = {1: 2.0, 2: 5.0, 3: 1.0, 4: 3.0}

    def judge(work: Checkout) -> Mapping[str, float]:
        return {"figure": figures[int(work.dense["small.epoch"])]}

    trainer, judged = Small(epochs=4), Validation(judge, best="figure")
    whole = embstore.fit(new_store(), trainer, PAIRS, message="m", validation=judged)
    store = new_store()
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, trainer, PAIRS, message="m", run="r", validation=judged, commit_every=1, progress=crash_after(cut))
    version = embstore.fit(store, trainer, PAIRS, message="m", run="r", validation=judged)
    assert state_of(version) == state_of(whole)
    assert (version.lineage["epochs"], version.lineage["metrics"]["figure"]) == (2, 5.0)


def test_resuming_leaves_what_it_resumed() -> None:
    """Each training is a version of its own, which names the one it went on from.

    There a resumed training writes over the file that it was resumed from, and two begun in one second share one.
    """
    store = new_store()
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, Small(), PAIRS, message="m", run="r", commit_every=1, progress=crash_after(2))
    begun = store.at()
    expected = state_of(begun)
    version = embstore.fit(store, Small(), PAIRS, message="m", run="r")
    assert (version.lineage["resumed"], version.id == begun.id) == (begun.id, False)
    assert state_of(store.at(begun.id)) == expected
    one, other = (embstore.fit(store, Small(), PAIRS, message="the same second") for _ in range(2))
    assert one.id != other.id


def test_what_is_not_finite_moves_nothing() -> None:
    """A loss with NaN is refused before the step, a validation with NaN is an error.

    There the loss is looked at alone, and a score of NaN counts as "no improvement".
    """
    store = new_store()
    first = embstore.fit(store, Small(), PAIRS, message="fit")
    with pytest.raises(NonFiniteError, match="epoch 2, step 10: loss is nan; nothing has moved"):
        embstore.fit(store, Poisoned(), PAIRS, message="fit")
    with pytest.raises(NonFiniteError, match="validation: figure is nan"):
        judged = Validation(lambda work: {"figure": float("nan")}, best="figure")
        embstore.fit(store, Small(), PAIRS, message="fit", validation=judged)
    assert store.at().id == first.id


@dataclass(frozen=True)
class Poisoned(Small):
    """Has a loss that is no number."""

    def loss(self, run: Run, part: Batch) -> Tensor:
        """Return the loss of `Small`, spoilt."""
        return super().loss(run, part) * float("nan")


def test_versions_hold_settings_as_plain_data() -> None:
    """A trainer is made again from text, and its scores are the same. There the whole configuration object is pickled."""
    store, trainer = new_store(), Small(precision="bfloat16", clip=1.0)
    version = embstore.fit(store, trainer, PAIRS, message="fit")
    settings = json.loads(json.dumps(version.lineage["settings"]))
    assert replace(Small(), **settings) == trainer
    rows = np.arange(5)
    assert np.array_equal(Small(**settings).scores(version, rows), trainer.scores(version, rows))


def test_recall_says_which_it_is() -> None:
    """Hits over all targets, or over as many as there are places, are two metrics with two names."""
    version = embstore.fit(new_store(), Small(), PAIRS, message="fit")
    found = embstore.evaluate(version, PAIRS, trainer=Small(), metrics=("recall@2", "capped_recall@2"), exclude_consumed=False)
    assert 0 < found["recall@2"] < found["capped_recall@2"] <= 1
