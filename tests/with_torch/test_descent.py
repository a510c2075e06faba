"""One descent: what is refused before anything moves, which optimizers move, and gradients unscaled before they are clipped."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import embstore
from embstore import Checkout, InvalidInputError, NonFiniteError
from embstore.testing import example_interactions
from tests.examples import new_store
from tests.with_torch.small_net import Small
from trainers.loop import Run, clip_gradients, mixed
from trainers.uncompiled import uncompiled

PAIRS = example_interactions()


def begun(trainer: Small) -> Run:
    """Return a training that is about to begin, in a store of its own."""
    work: Checkout = new_store().checkout()
    return trainer.begin(work, embstore.training.stage_pairs(work, trainer, PAIRS.ordered()))


def parameters(run: Run) -> dict[str, Tensor]:
    """Return copies of the parameters."""
    return {name: parameter.detach().clone() for name, parameter in run.net.named_parameters()}


def moved(run: Run, before: dict[str, Tensor]) -> set[str]:
    """Return which parameters are others now."""
    return {name for name, parameter in parameters(run).items() if not torch.equal(parameter, before[name])}


def loss_of(run: Run, factor: float = 1.0) -> Tensor:
    """Return a loss that all parameters have a part in."""
    loss: Tensor = factor * run.net(torch.tensor([0, 1, 0]), torch.tensor([1, 1, 2])).square().sum()
    return loss


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_moves_nothing(value: float, precision: str) -> None:
    """It is refused before the step, with the trainer, the epoch and the step in which it came."""
    run = begun(Small(precision=precision))
    run.epoch, run.steps = 3, 14
    before = parameters(run)
    with pytest.raises(NonFiniteError, match=f"trainer 'small', epoch 3, step 14: loss is {value}; nothing has moved"):
        run.descend(loss_of(run, value))
    assert moved(run, before) == set()


def test_fit_with_a_loss_that_is_not_finite_commits_nothing() -> None:
    """The branch stays where it was."""
    store = new_store()
    version = embstore.fit(store, Small(), PAIRS, message="fit")
    with pytest.raises(NonFiniteError, match=r"trainer 'small', epoch 2, step \d+: loss is"):
        embstore.fit(store, Small(lr=1e38), PAIRS, message="too fast")
    assert store.at().id == version.id


def test_gradients_that_are_not_finite_are_not_clipped_to_something() -> None:
    """A loss may be finite where its gradient is not."""
    run = begun(Small(clip=1.0, dropout=0.0))
    with torch.no_grad():
        run.net.head.weight.zero_()
        run.net.head.bias.zero_()
    before = parameters(run)
    with pytest.raises(NonFiniteError, match="norm of the gradients is"):
        run.descend(run.net(torch.tensor([0]), torch.tensor([0])).abs().sqrt().sum())
    assert moved(run, before) == set()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("rows",), {"users.weight", "items.weight"}),
        (("net",), {"head.weight", "head.bias"}),
        (("net", "rows"), {"users.weight", "items.weight", "head.weight", "head.bias"}),
        ((), {"users.weight", "items.weight", "head.weight", "head.bias"}),
    ],
)
def test_named_optimizers_move(names: tuple[str, ...], expected: set[str]) -> None:
    """Only their parameters do; all where none is named."""
    run = begun(Small())
    before = parameters(run)
    run.descend(loss_of(run), *names)
    assert moved(run, before) == expected


def test_unknown_optimizer_is_refused() -> None:
    """The known ones are named."""
    run = begun(Small())
    with pytest.raises(InvalidInputError, match="optimizer 'adam': there are rows, net"):
        run.descend(loss_of(run), "rows", "adam")


def test_gradients_of_an_earlier_descent_do_not_count() -> None:
    """What one loss left on parameters that did not move then takes no part in the next step."""
    one, other = begun(Small(dropout=0.0)), begun(Small(dropout=0.0))
    before = parameters(one)
    one.descend(loss_of(one, 100.0), "net")
    with torch.no_grad():
        for name, parameter in one.net.named_parameters():
            parameter.copy_(before[name])
    for run in (one, other):
        run.descend(loss_of(run), "rows")
    assert moved(one, parameters(other)) == set()


def test_rows_that_come_twice_are_clipped_as_one() -> None:
    """The norm, and what is left, are those of the same gradient written out."""
    sparse, dense = (nn.Embedding(6, 3, sparse=is_sparse) for is_sparse in (True, False))
    dense.weight.data.copy_(sparse.weight.data)
    for table in (sparse, dense):
        (table(torch.tensor([1, 4, 1, 1])) * torch.arange(1.0, 13.0).view(4, 3)).sum().backward()
    expected = float(torch.nn.utils.clip_grad_norm_([dense.weight], 2.0))
    assert clip_gradients([sparse.weight], 2.0) == pytest.approx(expected)
    assert sparse.weight.grad is not None
    assert dense.weight.grad is not None
    np.testing.assert_allclose(sparse.weight.grad.to_dense(), dense.weight.grad, rtol=1e-5)


def test_short_gradients_are_left_alone() -> None:
    """Below the limit they are what they were, to the bit."""
    layer = nn.Linear(3, 2)
    layer(torch.ones(1, 3)).sum().backward()
    before = [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]
    norm = clip_gradients(list(layer.parameters()), 100.0)
    assert norm == pytest.approx(math.sqrt(6 + 2))
    assert all(torch.equal(p.grad, b) for p, b in zip(layer.parameters(), before, strict=True) if p.grad is not None)


class Plain(Small):
    """Descends without momentum, so that a step is the gradient."""

    def optimizers(self, net: nn.Module) -> dict[str, torch.optim.Optimizer]:
        """Return one optimizer for all."""
        return {"all": uncompiled(torch.optim.SGD)(net.parameters(), lr=1.0)}


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_gradients_are_unscaled_before_they_are_clipped(precision: str) -> None:
    """A step is as long as the limit, not as the limit over the scale of the losses."""
    run = begun(Plain(precision=precision, clip=0.25, dropout=0.0))
    assert (run.scaler is None) == (precision == "float32")
    before = parameters(run)
    run.descend(loss_of(run, 1000.0))
    length = math.sqrt(sum(float((tensor - before[name]).square().sum()) for name, tensor in parameters(run).items()))
    assert length == pytest.approx(0.25, rel=1e-3)


def test_scale_that_is_too_large_leaves_the_step_out() -> None:
    """Where scaled gradients overflow, nothing moves and the scale halves; the scale is in the version and goes on from there."""
    store = new_store()
    trainer = Small(precision="float16")
    with store.checkout() as work:
        run = trainer.begin(work, embstore.training.stage_pairs(work, trainer, PAIRS.ordered()))
        before, scale = parameters(run), _scale(run)
        run.descend(loss_of(run) * 1e37)
        assert (moved(run, before), _scale(run)) == (set(), scale / 2)
        run.stage()
        work.commit("a lower scale")
    with store.checkout() as work:
        again = trainer.begin(work, PAIRS.ordered().to_batch(work))
        assert _scale(again) == scale / 2


def _scale(run: Run) -> float:
    assert run.scaler is not None
    found: Any = run.scaler.get_scale()
    return float(found)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad, torch.optim.RMSprop, torch.optim.AdamW])
def test_uncompiled_steps_are_torchs_own(kind: type[torch.optim.Optimizer]) -> None:
    """They have the same bits, and the same state."""
    layers = [nn.Linear(3, 2), nn.Linear(3, 2)]
    layers[1].load_state_dict(layers[0].state_dict())
    mine, theirs = (made(layer.parameters(), lr=0.1) for made, layer in zip((uncompiled(kind), kind), layers, strict=True))
    for i in range(3):
        for layer, optimizer in zip(layers, (mine, theirs), strict=True):
            layer.zero_grad()
            layer(torch.full((1, 3), float(i + 1))).square().sum().backward()
            optimizer.step()
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert str(mine.state_dict()) == str(theirs.state_dict())


def test_seeds_are_a_known_function() -> None:
    """Numbers in another order, or one more of them, give another seed; none is negative."""
    seeds = [mixed(0), mixed(1), mixed(0, 1), mixed(1, 0), mixed(0, 0, 1), mixed(-1), mixed(1 << 63)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert mixed(3, 14) == 3092800838613102564
