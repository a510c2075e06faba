"""Losses of factor models and the pairs that they look at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.optimize import approx_fprime

from trainers.activations import ACTIVATIONS
from trainers.factor_losses import LOSSES, find_loss
from trainers.pairs import Pairs, last_of_each


def some_pairs(n_groups: int = 4, n_columns: int = 6) -> Pairs:
    """Return pairs of four groups, one of them empty, with values and uneven weights."""
    random = np.random.default_rng(0)
    owners, columns = np.array([0, 0, 0, 1, 3, 3, 0]), np.array([5, 2, 2, 0, 3, 4, 1])
    return Pairs.of(owners, columns, random.random(7), n_groups=n_groups, power=-0.5)


@pytest.mark.parametrize("name", LOSSES)
def test_slopes_are_those_of_the_loss(name: str) -> None:
    """Gradients made of slopes are what differences of the loss come to, for both sides, an empty group and repeated pairs."""
    random, pairs, loss = np.random.default_rng(1), some_pairs(), LOSSES[name].function
    left, right, offset = random.normal(size=(4, 3)), random.normal(size=(6, 3)), random.normal(size=6)
    _, slopes = loss(left, right, offset, pairs)
    by_left = approx_fprime(left.ravel(), lambda x: loss(x.reshape(4, 3), right, offset, pairs)[0].sum(), 1e-7)
    by_right = approx_fprime(right.ravel(), lambda x: loss(left, x.reshape(6, 3), offset, pairs)[0].sum(), 1e-7)
    np.testing.assert_allclose((slopes @ right).ravel(), by_left, atol=1e-4)
    np.testing.assert_allclose((slopes.T @ left).ravel(), by_right, atol=1e-4)


def test_losses_are_what_they_say() -> None:
    """Softmax and squared error of a group, written out; each has no part of other groups."""
    left, right, offset = np.eye(2), np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), np.array([0.5, 0.0, -0.5])
    pairs = Pairs.of(np.array([0, 0, 1]), np.array([0, 2, 1]), np.array([3.0, 1.0, 2.0]), n_groups=2)
    scores = left @ right.T + offset
    log = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(find_loss("softmax").function(left, right, offset, pairs)[0], [-log[0, 0] - log[0, 2], -log[1, 1]])
    expected = [(scores[0, 0] - 3) ** 2 + (scores[0, 2] - 1) ** 2, (scores[1, 1] - 2) ** 2]
    np.testing.assert_allclose(find_loss("squared").function(left, right, offset, pairs)[0], expected)


def test_losses_of_all_items_are_recoders() -> None:
    """Cross entropy of each item by itself, squared error with confidence in what was had, and -log softmax, written out."""
    random = np.random.default_rng(3)
    scores, had = random.normal(0, 3, (3, 5)), np.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
    pairs = Pairs.of(*np.nonzero(had), None, n_groups=3)
    chances = 1 / (1 + np.exp(-scores))
    expected = {
        "logistic": -np.log(np.where(had, chances, 1 - chances)).sum(axis=1),
        "mse": ((1 + 4 * had) * (had - scores) ** 2).sum(axis=1),
        "logloss": -(had * (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))).sum(axis=1),
    }
    for name, wanted in expected.items():
        loss = find_loss(name).trusted(4.0 if name == "mse" else 0.0)
        assert loss.of_scores is not None
        np.testing.assert_allclose(loss.of_scores(scores.copy(), pairs)[0], wanted, rtol=1e-9)


@pytest.mark.parametrize("name", ["softmax", "logistic", "mse"])
def test_groups_without_pairs_have_no_loss(name: str) -> None:
    """They fill up blocks, and must not move what they stand for."""
    loss = LOSSES[name].of_scores
    assert loss is not None
    found, slopes = loss(np.ones((2, 3)), Pairs.of(np.array([0]), np.array([1]), None, n_groups=2))
    assert (found[1], np.abs(slopes[1]).max()) == (0, 0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_of_activations(name: str) -> None:
    """Each slope, told from what the function gave, is what differences come to; float32 stays float32."""
    activation, given = ACTIVATIONS[name], np.array([-30.0, -1.0, -0.1, 0.2, 2.0, 30.0])
    differences = (activation.function(given + 1e-6) - activation.function(given - 1e-6)) / 2e-6
    np.testing.assert_allclose(activation.slope(activation.function(given)), differences, atol=1e-6)
    narrow = activation.function(given.astype(np.float32))
    assert (narrow.dtype, activation.slope(narrow).dtype) == (np.float32, np.float32)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.floats(0, 1)), max_size=30), st.permutations(range(5)))
def test_pairs_are_a_dictionary(rows: list[tuple[int, int, float]], order: list[int]) -> None:
    """Grouped pairs are those of a dictionary, where the last of equal keys counts; groups can be taken in any order."""
    expected = {(owner, column): value for owner, column, value in rows}
    owners, columns = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
    pairs = Pairs.of(owners, columns, np.array([row[2] for row in rows]), n_groups=5, power=1)
    taken = pairs.take(np.array(order))
    found = zip(np.array(order)[taken.owners].tolist(), taken.columns.tolist(), taken.values.tolist(), strict=True)
    assert expected == {(owner, column): value for owner, column, value in found}
    assert taken.weights.tolist() == [sum(o == order[owner] for o, _ in expected) for owner in taken.owners]
    np.testing.assert_allclose(taken.sums(taken.values), [sum(v for (o, _), v in expected.items() if o == g) for g in order])
    assert len(last_of_each(owners, columns)) == len(pairs) == len(expected)
