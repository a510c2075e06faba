"""The nets of Mult-VAE and Mult-DAE and the parts of their loss are the formulas of Liang et al. (2018), by torch's gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, random_array
from torch import Tensor, nn

from tests.examples import new_store
from trainers.factor_losses import softmax
from trainers.histories import SparseRows, normalized
from trainers.learned_arrays import LearnedArrays
from trainers.mult_nets import (
    Codes,
    MultNet,
    Shape,
    as_matrix,
    back_to_rows,
    slope_of_code,
    spread_of,
    start_of,
    thinned,
)
from trainers.pairs import Pairs
from trainers.plateau import Plateau
from trainers.sampling import dropout, normals

N_USERS, N_ITEMS, DIM = 6, 11, 3
KL_WEIGHT, NOISE = 0.7, 0.4


def _had(density: float = 0.4) -> csr_array:
    """Return what some users had; the last of them nothing."""
    found = random_array((N_USERS, N_ITEMS), density=density, rng=np.random.default_rng(1), dtype=np.float32).toarray() > 0
    found[-1] = False
    return csr_array(found.astype(np.float32))


def _net(hidden: tuple[int, ...], *, has_variance: bool) -> MultNet:
    """Return a net with numbers in all places."""
    random, shape = np.random.default_rng(2), Shape(hidden, DIM, has_variance)
    shapes = {"rows_in": (N_ITEMS, shape.inner[0]), "rows_out": (N_ITEMS, shape.outer[-1]), "bias": (N_ITEMS,), **shape.arrays}
    found = {name: random.standard_normal(size).astype(np.float32) for name, size in shapes.items()}
    return MultNet(shape, found.pop("rows_in"), found.pop("rows_out"), found.pop("bias"), found)


def _tensors(net: MultNet) -> dict[str, Tensor]:
    arrays = {"rows_in": net.rows_in, "rows_out": net.rows_out, "bias": net.bias, **net.arrays}
    return {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}


def _of_torch(net: MultNet, tensors: dict[str, Tensor], given: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores and the divergence of each user, written out with whole matrices."""
    out, divergence = given @ tensors["rows_in"] + tensors["encoder.bias"], torch.zeros(len(given))
    for i in range(len(net.shape.hidden)):
        out = torch.tanh(out) @ tensors[f"inner.{i}.weight"].T + tensors[f"inner.{i}.bias"]
    code = torch.tanh(out)
    if net.shape.has_variance:
        mean, deviation = out[:, :DIM], torch.exp(0.5 * out[:, DIM:])
        code = mean + NOISE * deviation * drawn
        standard = torch.distributions.Normal(torch.zeros(DIM), torch.ones(DIM))
        divergence = torch.distributions.kl_divergence(torch.distributions.Normal(mean, deviation), standard).sum(1)
    for i in range(len(net.shape.hidden)):
        code = torch.tanh(code @ tensors[f"outer.{i}.weight"].T + tensors[f"outer.{i}.bias"])
    return code @ tensors["rows_out"].T + tensors["bias"], divergence


@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)])
@pytest.mark.parametrize("has_variance", [True, False])
def test_scores_and_gradients_are_those_of_torch(hidden: tuple[int, ...], has_variance: bool) -> None:
    """Scores, the divergence and all gradients equal those that torch finds for the written-out net."""
    had, net = _had(), _net(hidden, has_variance=has_variance)
    rows = normalized(had)
    given, drawn = as_matrix(rows, N_ITEMS), np.random.default_rng(3).standard_normal((N_USERS, DIM)).astype(np.float32)
    tensors = _tensors(net)
    dense = nn.functional.normalize(torch.from_numpy(had.toarray()))
    scores, divergence = _of_torch(net, tensors, dense, torch.from_numpy(drawn))
    codes = net.encode(given)
    spread = spread_of(codes, drawn, noise=NOISE)
    decoded = net.decode(codes.mean if spread is None else codes.mean + spread)
    np.testing.assert_allclose(decoded.scores, scores.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(codes.divergence, divergence.detach(), rtol=1e-4, atol=1e-5)
    likelihood = -(torch.log_softmax(scores, 1) * torch.from_numpy(had.toarray())).sum(1).mean()
    (likelihood + KL_WEIGHT * divergence.mean()).backward()
    found = _gradients(net, given, codes, spread, had)
    assert found.keys() == tensors.keys()
    for name, gradient in found.items():
        slope = tensors[name].grad
        assert slope is not None, name
        np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-5, err_msg=name)


def _gradients(net: MultNet, given: csr_array, codes: Codes, spread: Any, had: csr_array) -> dict[str, Any]:
    decoded = net.decode(codes.mean if spread is None else codes.mean + spread)
    _, slopes = softmax(decoded.scores, Pairs.of(*had.nonzero(), None, n_groups=N_USERS))
    outer, slope = net.back_to_code(decoded, slopes / N_USERS, net.rows_out)
    inner, slope = net.back_to_input(codes, slope_of_code(codes, slope, spread=spread, kl_weight=KL_WEIGHT))
    items, gradient = back_to_rows(given, slope)
    whole = np.zeros_like(net.rows_in)
    whole[items] = gradient
    return {"rows_in": whole, **outer, **inner}


def test_items_that_are_left_out_change_nothing_for_the_others() -> None:
    """Scores of some items are those columns of all scores."""
    net, items = _net((4,), has_variance=True), np.array([1, 4, 10])
    code = net.encode(as_matrix(normalized(_had()), N_ITEMS)).mean
    np.testing.assert_allclose(net.decode(code, items).scores, net.decode(code).scores[:, items], rtol=1e-5, atol=1e-6)


def test_only_items_that_somebody_had_have_a_gradient_at_the_input() -> None:
    """Rows of others are left alone."""
    given = as_matrix(normalized(_had(0.1)), N_ITEMS)
    items, gradient = back_to_rows(given, np.ones((N_USERS, 4), np.float32))
    assert items.tolist() == np.unique(given.indices).tolist()
    assert gradient.shape == (len(items), 4)
    assert 0 < len(items) < N_ITEMS


def test_samples_have_the_deviation_that_is_asked_for() -> None:
    """What is added to the mean is ``noise * exp(log variance / 2) * normal``."""
    mean, log_variance = np.full((400, 50), 3.0, np.float32), np.full((400, 50), 2 * np.log(2.0), np.float32)
    codes, drawn = Codes([], mean, log_variance), normals((400, 50), seed=0, epoch=0, step=0)
    for noise in (1.0, 0.25):
        spread = spread_of(codes, drawn, noise=noise)
        assert spread is not None
        assert spread.mean() == pytest.approx(0, abs=0.05)
        assert spread.std() == pytest.approx(2 * noise, rel=0.02)
    assert spread_of(Codes([], mean, None), drawn, noise=1.0) is None


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_dropout_keeps_its_share_and_the_mean(share: float) -> None:
    """What is kept is larger by 1 / (1 - share), and rows keep their places."""
    had = SparseRows(np.arange(0, 10_001, 50), np.tile(np.arange(50), 200), np.ones(10_000, np.float32))
    found = thinned(had, dropout((10_000,), share, seed=5, epoch=0, step=0))
    assert len(found.data) / 10_000 == pytest.approx(1 - share, abs=0.02)
    assert set(found.data.tolist()) == {np.float32(1 / (1 - share))}
    kept = as_matrix(found, 50).toarray() > 0
    assert kept.shape == (200, 50)
    assert np.diff(found.indptr).tolist() == kept.sum(axis=1).tolist()
    assert kept.sum(axis=0).std() > 0


def test_weights_begin_as_glorot_and_bengio_say() -> None:
    """With a variance of two over the sum of their sizes; biases are zero."""
    drawn = np.random.default_rng(0).standard_normal((300, 500)).astype(np.float32)
    assert start_of((300, 500), drawn).std() == pytest.approx(np.sqrt(2 / 800), rel=0.01)
    assert not start_of((300,), drawn[:, 0]).any()


def test_arrays_without_rows_learn_as_torch_s_adam_lets_them() -> None:
    """Ten steps, taken up by another object after the fourth: the numbers of `torch.optim.Adam`."""
    random = np.random.default_rng(0)
    start = {"weight": random.standard_normal((3, 4)).astype(np.float32), "bias": np.zeros(3, np.float32)}
    tensors = {name: nn.Parameter(torch.tensor(array)) for name, array in start.items()}
    adam = torch.optim.Adam(tensors.values(), lr=0.1)
    with new_store().checkout() as work:
        learned = LearnedArrays(work, "a", {name: array.copy() for name, array in start.items()})
        for step in range(10):
            gradients = {name: random.standard_normal(array.shape).astype(np.float32) for name, array in start.items()}
            learned.step(gradients, lr=0.1)
            for name, tensor in tensors.items():
                tensor.grad = torch.from_numpy(gradients[name])
            adam.step()
            if step == 4:
                learned.stage()
                learned = LearnedArrays(work, "a", start)
        for name, tensor in tensors.items():
            np.testing.assert_allclose(learned.values[name], tensor.detach(), rtol=1e-5, atol=1e-6)
        work.discard()


@pytest.mark.parametrize("patience", [1, 3])
def test_learning_rate_falls_as_torch_s_schedule_lets_it(patience: int) -> None:
    """Random figures, the state handed on each time: the rates of `torch.optim.lr_scheduler.ReduceLROnPlateau`."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, state = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.9, patience=patience), None
    shares = []
    for figure in np.random.default_rng(patience).uniform(0.3, 0.31, 60).tolist():
        plateau = Plateau(0.9, patience, state)
        plateau.see(figure)
        schedule.step(figure)
        state = plateau.state
        shares.append(plateau.share)
        assert plateau.share == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
    assert len(set(shares)) > 5
