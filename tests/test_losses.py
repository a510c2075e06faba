"""Losses and gradients in numpy, against slopes measured by nudging."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from trainers.losses import bpr_gradients, bpr_loss, group, softmax_loss


@given(rows=st.lists(st.one_of(st.integers(0, 5), st.integers(65_530, 65_540))))
def test_group_puts_equal_rows_together_in_their_order(rows: list[int]) -> None:
    """Groups are the distinct rows in ascending order, each with its positions in ascending order."""
    groups = group(np.array(rows, np.int64))
    expected = {row: [i for i, r in enumerate(rows) if r == row] for row in sorted(set(rows))}
    ends = [*groups.starts[1:].tolist(), len(rows)]
    actual = {row: groups.order[a:b].tolist() for row, a, b in zip(groups.rows.tolist(), groups.starts, ends, strict=False)}
    assert expected == actual
    assert groups.sizes.tolist() == [len(positions) for positions in expected.values()]


def bpr_objective(users: Any, items: Any, tables: list[NDArray[Any]], l2: float) -> float:
    """Return loss and penalty by their definition: a user once for a pair, each of its items once."""
    total = 0.0
    user_table, item_table, bias = tables
    for user, (positive, *negatives) in zip(users, items, strict=True):
        scores = item_table @ user_table[user] + bias
        total += sum(math.log1p(math.exp(scores[negative] - scores[positive])) for negative in negatives)
        total += l2 / 2 * (user_table[user] @ user_table[user])
        total += sum(l2 / 2 * (item_table[item] @ item_table[item] + bias[item] ** 2) for item in (positive, *negatives))
    return total


@pytest.mark.parametrize(("n", "n_negatives"), [(1, 1), (6, 1), (12, 3)])
def test_bpr_gradients_are_the_slopes_of_the_loss(n: int, n_negatives: int) -> None:
    """Every row that occurs has the derivative of the loss with its penalty, repeats added up; others have none."""
    rng = np.random.default_rng(n)
    tables = [rng.normal(size=(4, 3)), rng.normal(size=(5, 3)), rng.normal(size=5)]
    users, items = rng.integers(0, 4, n), rng.integers(0, 5, (n, 1 + n_negatives))
    found = bpr_gradients(users, items, user_table=tables[0], item_table=tables[1], item_bias=tables[2], l2=0.3)
    assert found.user_rows.tolist() == sorted(set(users.tolist()))
    assert found.item_rows.tolist() == sorted(set(items.ravel().tolist()))
    np.testing.assert_allclose(found.loss, bpr_objective(users, items, tables, 0.0), rtol=1e-12)
    actual = [np.zeros_like(table) for table in tables]
    places = (found.user_rows, found.item_rows, found.item_rows)
    for whole, rows, gradient in zip(actual, places, (found.users, found.items, found.biases), strict=True):
        whole[rows] = gradient
    for table, gradient in zip(tables, actual, strict=True):
        for place in np.ndindex(table.shape):
            slope = 0.0
            for nudge in (1e-5, -1e-5):
                table[place] += nudge
                slope += bpr_objective(users, items, tables, 0.3) / (2 * nudge)
                table[place] -= nudge
            np.testing.assert_allclose(gradient[place], slope, rtol=1e-6, atol=1e-6)


def test_bpr_keeps_the_dtype_of_the_tables() -> None:
    """Float32 tables get float32 gradients, so that nothing is converted between a batch and its step."""
    tables = {"user_table": np.ones((2, 3), np.float32), "item_table": np.ones((4, 3), np.float32)}
    found = bpr_gradients(np.array([1]), np.array([[0, 2]]), **tables, item_bias=np.zeros(4, np.float32), l2=0.1)
    assert {found.users.dtype, found.items.dtype, found.biases.dtype} == {np.dtype(np.float32)}


def test_bpr_loss_of_extreme_scores_is_finite() -> None:
    """Scores far apart neither overflow nor lose the sign of the slope."""
    loss, slopes = bpr_loss(np.array([[-5e3, 5e3], [5e3, -5e3], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(loss, [1e4, 0.0, math.log(2)], rtol=1e-6)
    np.testing.assert_allclose(slopes, [[-1, 1], [0, 0], [-0.5, 0.5]], atol=1e-30)


def softmax_task(rng: np.random.Generator, n_users: int) -> dict[str, NDArray[Any]]:
    items, bias = rng.normal(size=(40, 6)), rng.normal(size=40)
    own = (rng.random((n_users, 40)) < 0.2).astype(np.float64)
    return {"items": items, "bias": bias, "sums": own @ items, "bias_sums": own @ bias, "counts": own.sum(1), "own": own}


def test_softmax_gradient_is_the_slope_of_the_loss() -> None:
    """Each user's loss is the sum of -log softmax over the user's own items, and the gradient is its derivative."""
    rng = np.random.default_rng(4)
    task = softmax_task(rng, 9)
    own = task.pop("own")

    def plain(vectors: NDArray[Any]) -> NDArray[Any]:
        scores = vectors @ task["items"].T + task["bias"]
        return -(own * (scores - np.log(np.exp(scores).sum(1, keepdims=True)))).sum(1)

    vectors = rng.normal(size=(9, 6))
    loss, gradient = softmax_loss(vectors, **task)
    np.testing.assert_allclose(loss, plain(vectors), rtol=1e-12)
    for column, nudge in enumerate(np.eye(6) * 1e-5):
        slope = (plain(vectors + nudge) - plain(vectors - nudge)) / 2e-5
        np.testing.assert_allclose(gradient[:, column], slope, rtol=1e-6, atol=1e-6)


def test_softmax_of_a_user_does_not_depend_on_the_others() -> None:
    """In another order, and beside empty places, each user's loss and gradient are what they were."""
    rng = np.random.default_rng(5)
    task = softmax_task(rng, 24)
    del task["own"]
    vectors, order = rng.normal(size=(24, 6)), rng.permutation(24)
    empty = order[7:]
    loss, gradient = softmax_loss(vectors, **task)
    moved = {name: task[name][order] for name in ("sums", "bias_sums", "counts")}
    for values in (*moved.values(), shuffled := vectors[order]):
        values[7:] = 0
    its_loss, its_gradient = softmax_loss(shuffled, items=task["items"], bias=task["bias"], **moved)
    np.testing.assert_allclose(its_loss[:7], loss[order[:7]], rtol=1e-13)
    np.testing.assert_allclose(its_gradient[:7], gradient[order[:7]], rtol=1e-11, atol=1e-13)
    assert its_loss[7:].tolist() == [0.0] * len(empty)


def test_softmax_of_huge_scores_is_finite() -> None:
    """Scores that overflow exp() alone give the loss and gradient of the best item."""
    items = np.array([[1.0], [-1.0]])
    loss, gradient = softmax_loss(
        np.array([[5e3]]), items, bias=np.zeros(2), sums=np.array([[-1.0]]), bias_sums=np.zeros(1), counts=np.ones(1)
    )
    assert loss.tolist() == [1e4]
    assert gradient.tolist() == [[2.0]]
