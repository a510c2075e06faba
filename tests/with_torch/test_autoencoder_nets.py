"""Layers with rows of items at either end: products and gradients are those of dense matrices, and only some rows have one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy.sparse import csr_array
from torch import Tensor

from trainers.activations import ACTIVATIONS as NUMPY
from trainers.autoencoder_nets import (
    ACTIVATIONS,
    AutoencoderNet,
    ItemsIn,
    ItemsOut,
    SparseInput,
    chosen,
)
from trainers.factor_losses import LOSSES
from trainers.pairs import Pairs
from trainers.reconstruction import reconstruction_loss

MATRIX = csr_array(np.array([[0, 2, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0], [3, 0, 0, 0, -1, 0]], np.float32))
CELLS = st.lists(st.lists(st.sampled_from([0.0, 0.0, 1.0, -2.5]), min_size=5, max_size=5), min_size=1, max_size=4)


@given(CELLS)
def test_products_are_those_of_the_dense_matrix(cells: list[list[float]]) -> None:
    """There and back, for rows that are empty and columns that nobody has."""
    dense = torch.tensor(cells)
    sparse, table = SparseInput(csr_array(dense.numpy())), torch.randn(5, 3)
    slopes = torch.randn(len(cells), 3)
    torch.testing.assert_close(sparse.times(table), dense @ table)
    torch.testing.assert_close(sparse.back(slopes), (dense.T @ slopes)[sparse.rows])
    assert sparse.rows.tolist() == torch.nonzero((dense != 0).any(0))[:, 0].tolist()
    assert len(sparse) == len(cells)


def test_dropped_values_are_dropped_in_both_directions() -> None:
    """What is left of the matrix is larger, so that the mean stays, and its gradient is its own; none dropped is the same."""
    ones = SparseInput(csr_array(np.ones((200, 100), np.float32)))
    torch.manual_seed(0)
    less = ones.dropped(0.5)
    kept = less.times(torch.eye(100))
    assert sorted(set(kept.flatten().tolist())) == [0.0, 2.0]
    assert kept.mean().item() == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(less.back(torch.eye(200)), kept.T)
    assert torch.equal(ones.dropped(0.0).values, ones.values)


def _dense_scores(net: AutoencoderNet, parameters: dict[str, Tensor], matrix: Tensor, *, tied: bool) -> Tensor:
    """Return the scores of all items, written out."""
    n_inner = len(net.inner.biases)
    code = torch.tanh(matrix @ parameters["encoder.rows"] + parameters["encoder.bias"])
    for i in range(n_inner):
        code = torch.tanh(code @ parameters[f"inner.weights.{i}"].T + parameters[f"inner.biases.{i}"])
    for i in range(n_inner):
        weight = parameters[f"inner.weights.{n_inner - 1 - i}"].T if tied else parameters[f"outer.weights.{i}"]
        code = torch.tanh(code @ weight.T + parameters[f"outer.biases.{i}"])
    return code @ parameters["encoder.rows" if tied else "decoder.rows"].T + parameters["decoder.bias"]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("hidden", [(4,), (4, 3, 2)])
def test_gradients_are_those_of_the_dense_net(hidden: tuple[int, ...], sparse: bool, tied: bool) -> None:
    """For every parameter; those of items have the rows that took part, and no others."""
    torch.manual_seed(1)
    net, items = AutoencoderNet(6, hidden, tied=tied, sparse=sparse), torch.tensor([0, 3, 4])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.5)
    copies = {name: parameter.detach().clone().requires_grad_() for name, parameter in net.named_parameters()}
    expected = _dense_scores(net, copies, torch.from_numpy(MATRIX.toarray()), tied=tied)[:, items]
    found = net(SparseInput(MATRIX), torch.arange(3), items)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    rows = {"encoder.rows": {0, 1, 4} | ({3} if tied else set()), "decoder.rows": {0, 3, 4}, "decoder.bias": {0, 3, 4}}
    for name, parameter in net.named_parameters():
        grad = parameter.grad
        assert grad is not None
        assert grad.is_sparse == (sparse and name in rows)
        if grad.is_sparse:
            assert set(grad.coalesce().indices()[0].tolist()) == rows[name]
        torch.testing.assert_close(grad.to_dense() if grad.is_sparse else grad, copies[name].grad, msg=name)


def test_noise_and_dropout_are_of_training_alone() -> None:
    """Scoring is the same twice, training is not."""
    net = AutoencoderNet(6, (4,), noise=0.5, dropout=0.5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_()
    call = SparseInput(MATRIX), torch.arange(3), torch.arange(6)
    assert not torch.equal(net.train()(*call), net(*call))
    assert torch.equal(net.eval()(*call), net(*call))


def test_layers_fit_together() -> None:
    """`ItemsOut` may share the rows of `ItemsIn`; a chosen row's gradient is its own."""
    first = ItemsIn(6, 2)
    assert ItemsOut(6, 2, rows=first.rows).rows is first.rows
    table = torch.zeros(4, requires_grad=True)
    (chosen(table, torch.tensor([1, 3])) * torch.tensor([5.0, 7.0])).sum().backward()
    assert table.grad is not None
    assert table.grad.to_dense().tolist() == [0, 5, 0, 7]
    every = chosen(table, torch.arange(4))
    (every * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert (every.data_ptr(), table.grad.to_dense().tolist()) == (table.data_ptr(), [1, 7, 3, 11])


@pytest.mark.parametrize("name", ["softmax", "logistic", "mse"])
def test_loss_is_torchs_own(name: str) -> None:
    """Value and gradient are those of what torch has, a sum over items and a mean over users; scores stay as they were."""
    torch.manual_seed(2)
    scores, had = torch.randn(3, 5, requires_grad=True), torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
    of_scores, before = LOSSES[name].of_scores, scores.detach().clone()
    assert of_scores is not None
    pairs = Pairs.of(*np.nonzero(had.numpy()), None, n_groups=3)
    found = reconstruction_loss(scores, pairs, of_scores)
    (slopes,) = torch.autograd.grad(found, scores)
    wanted = {
        "softmax": -(had * torch.log_softmax(scores, 1)).sum() / 3,
        "logistic": torch.nn.functional.binary_cross_entropy_with_logits(scores, had, reduction="sum") / 3,
        "mse": (scores - had).square().sum() / 3,
    }[name]
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(slopes, torch.autograd.grad(wanted, scores)[0])
    assert torch.equal(scores.detach(), before)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_numpy(name: str) -> None:
    """What one name means does not depend on the trainer."""
    given = torch.linspace(-5, 5, 21)
    np.testing.assert_allclose(ACTIVATIONS[name](given).numpy(), NUMPY[name].function(given.numpy()), rtol=1e-5, atol=1e-7)
