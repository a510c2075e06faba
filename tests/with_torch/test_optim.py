"""Row-lazy Adam against torch's own Adams, and written-out gradients against autograd."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, strategies as st
from numpy.typing import NDArray
from torch.testing import assert_close

from embstore import InvalidInputError
from trainers.losses import bpr_gradients
from trainers.optim import RowAdam, row_adam_

Gradients = list[tuple[list[int], torch.Tensor]]
SLOTS = ("exp_avg", "exp_avg_sq", "step")


def sparse(rows: list[int], values: torch.Tensor, n_rows: int) -> torch.Tensor:
    index = torch.tensor(rows, dtype=torch.int64).reshape(1, -1)
    return torch.sparse_coo_tensor(index, values, (n_rows, *values.shape[1:]), check_invariants=True)


def random_gradients(n_rows: int, shape: tuple[int, ...], *, n_steps: int, seed: int) -> Gradients:
    """Steps of up to twice as many gradients as there are rows, so that rows repeat and rows are missing."""
    rng = np.random.default_rng(seed)
    batches = [rng.integers(0, n_rows, rng.integers(0, 2 * n_rows)).tolist() for _ in range(n_steps)]
    return [(rows, torch.from_numpy(rng.normal(size=(len(rows), *shape)).astype(np.float32))) for rows in batches]


def train(start: torch.Tensor, gradients: Gradients, make: Callable[..., torch.optim.Optimizer], **options: Any) -> Any:
    """Return the parameter and the optimizer after these steps."""
    param = torch.nn.Parameter(start.clone())
    optimizer = make([param], **options)
    for rows, values in gradients:
        param.grad = sparse(rows, values, len(param))
        optimizer.step()
    return param, optimizer


def only(row: int, gradients: Gradients) -> Gradients:
    """The gradients of one row, in steps that have any, for a table of that row alone."""
    mine = [(values[[i for i, r in enumerate(rows) if r == row]]) for rows, values in gradients if row in rows]
    return [([0] * len(values), values) for values in mine]


def test_equals_sparse_adam_where_every_row_has_a_gradient_at_every_step() -> None:
    """With one step count for all rows, row-lazy Adam is torch's SparseAdam but for rounding and where eps stands."""
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(7, 5, generator=generator)
    gradients = [(list(range(7)), torch.randn(7, 5, generator=generator)) for _ in range(60)]
    expected, _ = train(start, gradients, torch.optim.SparseAdam, lr=0.01)
    actual, optimizer = train(start, gradients, RowAdam, lr=0.01)
    assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    assert optimizer.state[actual]["step"].tolist() == [60] * 7


def test_each_row_equals_dense_adam_on_its_own_gradients() -> None:
    """A row ends where torch's dense Adam puts it when it is trained alone on its own gradients."""
    start = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    gradients = random_gradients(6, (4,), n_steps=40, seed=2)
    actual, _ = train(start, gradients, RowAdam, lr=0.01)
    for row in range(6):
        alone = torch.nn.Parameter(start[row].clone())
        adam = torch.optim.Adam([alone], lr=0.01)
        for _, values in only(row, gradients):
            alone.grad = values.sum(0)
            adam.step()
        assert_close(actual[row], alone, rtol=1e-6, atol=1e-6)


@given(
    n_rows=st.integers(1, 9),
    shape=st.sampled_from([(), (1,), (3,), (17,), (64,), (2, 3)]),
    correction=st.sampled_from(["row", "none"]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_row_depends_on_its_own_gradients_alone(
    n_rows: int, shape: tuple[int, ...], correction: str, weight_decay: float, seed: int
) -> None:
    """Value, moments and step of a row are the same bits whatever other rows are in its batches and its table."""
    start = torch.randn(n_rows, *shape, generator=torch.Generator().manual_seed(seed))
    gradients = random_gradients(n_rows, shape, n_steps=6, seed=seed)
    options: dict[str, Any] = {"lr": 0.01, "correction": correction, "weight_decay": weight_decay}
    joint, optimizer = train(start, gradients, RowAdam, **options)
    for row in range(n_rows):
        alone, its_optimizer = train(start[row : row + 1], only(row, gradients), RowAdam, **options)
        assert torch.equal(joint[row], alone[0])
        expected = its_optimizer.state[alone]
        for slot in SLOTS if expected else ():
            assert torch.equal(optimizer.state[joint][slot][row], expected[slot][0])


@pytest.mark.parametrize("correction", ["row", "none"])
@pytest.mark.parametrize("shape", [(), (1,), (64,)])
def test_numpy_and_torch_agree(shape: tuple[int, ...], correction: str) -> None:
    """The functional form does the same to numpy arrays and to tensors, but for the last bit of a square root."""
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(11, *shape)).astype("f"), *np.zeros((2, 11, *shape), "f"), np.zeros(11, np.int32)]
    tensors = [torch.from_numpy(array.copy()) for array in arrays]
    for _ in range(5):
        rows = np.flatnonzero(rng.random(11) < 0.6)
        grad = rng.normal(size=(len(rows), *shape)).astype("f")
        row_adam_(arrays[0], rows, grad, *arrays[1:], lr=0.02, correction=correction)
        row_adam_(tensors[0], torch.from_numpy(rows), torch.from_numpy(grad), *tensors[1:], lr=0.02, correction=correction)
    for array, tensor in zip(arrays, tensors, strict=True):
        assert_close(torch.from_numpy(array), tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("correction", "factor"), [("row", 1.0), ("none", 0.1 / math.sqrt(0.001))])
def test_first_move_of_a_row_that_joins_at_step_10000(correction: str, factor: float) -> None:
    """A new row's first move is the learning rate, however long the table has been trained; without correction, 3.16 times it."""
    param, moments, step = np.zeros((2, 3), np.float32), np.zeros((2, 2, 3), np.float32), np.zeros(2, np.int32)
    grad = np.array([[0.5, -2.0, 30.0]], np.float32)
    for _ in range(10_000):
        row_adam_(param, np.array([0]), grad, moments[0], moments[1], step, lr=1e-3, correction=correction)
    assert step.tolist() == [10_000, 0]
    row_adam_(param, np.array([1]), grad, moments[0], moments[1], step, lr=1e-3, correction=correction)
    np.testing.assert_allclose(param[1], -1e-3 * factor * np.sign(grad[0]), rtol=1e-5)


def test_rows_without_a_gradient_keep_their_bits() -> None:
    """Neither momentum nor weight decay moves a row that is not in the batch, and its state stays as it was."""
    start = torch.tensor([[1.0, -0.0], [0.25, 1e-40], [3.0, 4.0]])
    first = [([0, 1], torch.ones(2, 2))]
    param, optimizer = train(start, first, RowAdam, weight_decay=0.1)
    kept = {slot: optimizer.state[param][slot].clone() for slot in SLOTS}
    value = param.detach().clone()
    param.grad = sparse([2], torch.ones(1, 2), 3)
    optimizer.step()
    assert param.detach()[:2].numpy().tobytes() == value[:2].numpy().tobytes()
    for slot in SLOTS:
        assert torch.equal(optimizer.state[param][slot][:2], kept[slot][:2])
    assert optimizer.state[param]["step"].tolist() == [1, 1, 1]


def test_resumed_from_its_state_dict_equals_uninterrupted() -> None:
    """A new optimizer given state and values goes on to the same bits, with whole-number steps."""
    start = torch.randn(5, 8, generator=torch.Generator().manual_seed(3))
    gradients = random_gradients(5, (8,), n_steps=20, seed=3)
    whole, whole_optimizer = train(start, gradients, RowAdam, lr=0.02)
    half, half_optimizer = train(start, gradients[:10], RowAdam, lr=0.02)

    def resumed(params: Any) -> RowAdam:
        optimizer = RowAdam(params)
        optimizer.load_state_dict(copy.deepcopy(half_optimizer.state_dict()))
        return optimizer

    actual, optimizer = train(half.detach(), gradients[10:], resumed)
    assert torch.equal(actual, whole)
    for slot in SLOTS:
        assert torch.equal(optimizer.state[actual][slot], whole_optimizer.state[whole][slot])
    assert optimizer.state[actual]["step"].dtype == torch.int32
    assert optimizer.param_groups[0]["lr"] == 0.02


def test_repeated_rows_are_summed_first() -> None:
    """Three gradients of one row in a batch are one step on their sum."""
    start = torch.zeros(2, 2)
    values = torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    repeated, optimizer = train(start, [([1, 1, 1], values)], RowAdam)
    summed, _ = train(start, [([1], values.sum(0, keepdim=True))], RowAdam)
    assert torch.equal(repeated, summed)
    assert optimizer.state[repeated]["step"].tolist() == [0, 1]


def test_weight_decay_adds_the_row_to_its_gradient() -> None:
    """Decay of 0.5 on a row of 4 adds 2 to every gradient of that row."""
    decayed, _ = train(torch.full((2, 1), 4.0), [([0], torch.ones(1, 1))], RowAdam, weight_decay=0.5, correction="none")
    plain, _ = train(torch.full((2, 1), 4.0), [([0], torch.full((1, 1), 3.0))], RowAdam, correction="none")
    assert torch.equal(decayed, plain)


def test_biases_may_have_one_dimension_or_a_width_of_one() -> None:
    """A bias vector with a sparse gradient trains to the bits of an embedding of width one."""
    index = torch.tensor([4, 0, 4])
    bias = torch.nn.Parameter(torch.arange(5.0))
    embedding = torch.nn.Embedding(5, 1, sparse=True)
    embedding.load_state_dict({"weight": torch.arange(5.0)[:, None]})
    optimizer = RowAdam([bias, embedding.weight], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (bias.gather(0, index, sparse_grad=True).square().sum() + embedding(index).square().sum()).backward()
        optimizer.step()
    assert torch.equal(bias, embedding.weight[:, 0])
    assert optimizer.state[bias]["step"].tolist() == [3, 0, 0, 0, 3]
    assert optimizer.state[bias]["exp_avg"].shape == (5,)


def test_groups_have_options_of_their_own_and_a_closure_gives_the_loss() -> None:
    """The first moves of two groups are their own learning rates, and step returns what the closure computed."""
    tables = [torch.nn.Embedding.from_pretrained(torch.ones(3, 2), freeze=False, sparse=True) for _ in range(2)]
    optimizer = RowAdam([{"params": tables[0].parameters()}, {"params": tables[1].parameters(), "lr": 0.5}], lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = tables[0](torch.tensor([1])).sum() + tables[1](torch.tensor([1])).sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 4.0
    assert_close(tables[0].weight[1], torch.full((2,), 0.9))
    assert_close(tables[1].weight[1], torch.full((2,), 0.5))


def test_a_batch_without_rows_changes_nothing() -> None:
    """An empty sparse gradient is a step that no row takes."""
    start = torch.ones(3, 2)
    param, optimizer = train(start, [([], torch.empty(0, 2))], RowAdam, weight_decay=0.1)
    assert torch.equal(param, start)
    assert optimizer.state[param]["step"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "options",
    [
        {"lr": -1.0},
        {"lr": math.nan},
        {"lr": True},
        {"lr": "fast"},
        {"eps": 0.0},
        {"eps": math.inf},
        {"weight_decay": -0.1},
        {"betas": (0.9, 1.0)},
        {"betas": (-0.1, 0.9)},
        {"betas": (0.9,)},
        {"betas": 0.9},
        {"correction": "global"},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    """An option out of range is refused for the optimizer, for a group, and by name."""
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    name = "beta" if "betas" in options else next(iter(options))
    with pytest.raises(InvalidInputError, match=name):
        RowAdam([weight], **options)
    with pytest.raises(InvalidInputError, match=name):
        RowAdam([{"params": [weight], **options}])


def test_functional_form_refuses_an_unknown_correction() -> None:
    """A misspelt correction is not taken for none."""
    param, step = np.zeros((1, 1)), np.zeros(1, np.int32)
    with pytest.raises(InvalidInputError, match="correction 'rows'"):
        row_adam_(param, np.array([0]), param, param, param, step, correction="rows")


@pytest.mark.parametrize("grad", [torch.ones(2, 3), torch.ones(2, 3).to_sparse()], ids=["dense", "sparse in both dimensions"])
def test_gradients_that_are_not_sparse_in_rows_are_refused(grad: torch.Tensor) -> None:
    """The refusal says what was found and names the way out, and moves nothing."""
    param = torch.nn.Parameter(torch.zeros(2, 3))
    param.grad = grad
    with pytest.raises(InvalidInputError, match=r"not sparse in its rows: use nn.Embedding\(sparse=True\)"):
        RowAdam([param]).step()
    assert torch.equal(param, torch.zeros(2, 3))


def bpr_by_autograd(users: Any, items: Any, tables: list[NDArray[Any]], l2: float) -> tuple[float, list[torch.Tensor]]:
    user_table, item_table, item_bias = (torch.from_numpy(t).requires_grad_() for t in tables)
    chosen = torch.from_numpy(items)
    scores = (user_table[users][:, None] * item_table[chosen]).sum(2) + item_bias[chosen]
    loss = -torch.nn.functional.logsigmoid(scores[:, :1] - scores[:, 1:]).sum()  # softplus is inexact above 20
    occurring = (user_table[users], item_table[chosen], item_bias[chosen])
    (loss + l2 / 2 * sum(x.square().sum() for x in occurring)).backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), [t.grad for t in (user_table, item_table, item_bias) if t.grad is not None]


@given(
    n=st.integers(1, 30),
    n_negatives=st.integers(1, 4),
    dim=st.integers(1, 9),
    l2=st.sampled_from([0.0, 0.03]),
    seed=st.integers(0, 2**32 - 1),
)
@example(n=28, n_negatives=2, dim=8, l2=0.0, seed=347)  # one score is far from another
def test_bpr_gradients_equal_autograd(n: int, n_negatives: int, dim: int, l2: float, seed: int) -> None:
    """The written-out gradients are those of the loss, with repeated users and items, L2 for each occurrence, and biases."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 5, n), rng.integers(0, 8, (n, 1 + n_negatives))
    tables = [rng.normal(size=(5, dim)), rng.normal(size=(8, dim)), rng.normal(size=8)]
    loss, expected = bpr_by_autograd(users, items, tables, l2)
    actual = bpr_gradients(users, items, user_table=tables[0], item_table=tables[1], item_bias=tables[2], l2=l2)
    assert actual.loss == pytest.approx(loss, rel=1e-12)
    assert actual.user_rows.tolist() == np.unique(users).tolist()
    assert actual.item_rows.tolist() == np.unique(items).tolist()
    found = [(actual.user_rows, actual.users), (actual.item_rows, actual.items), (actual.item_rows, actual.biases)]
    for dense, (rows, values) in zip(expected, found, strict=True):
        assert_close(torch.from_numpy(values), dense[rows], rtol=1e-9, atol=1e-12)
