"""Least squares of many rows at once, against the same equations written out for one row in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from embstore import InvalidInputError
from trainers.least_squares import Whitened, blocks, pair_counts, solve_shifted

L2, ALPHA = 0.7, 4.0
F64 = NDArray[np.float64]


class Problem:
    """Random vectors of the other side, and rows paired with them: some often, some twice, some not at all."""

    def __init__(self, seed: int, *, n_rows: int = 30, n_others: int = 40, dim: int = 6) -> None:
        random = np.random.default_rng(seed)
        self.others = random.standard_normal((n_others, dim)).astype(np.float32)
        sizes = random.integers(0, 60, n_rows) * random.integers(0, 2, n_rows)
        self.rows = np.repeat(np.arange(n_rows), sizes)
        self.paired = random.integers(0, n_others, len(self.rows))
        self.counts = pair_counts(self.rows, self.paired, shape=(n_rows, n_others))
        self.blocks = blocks(self.counts, np.arange(n_rows), alpha=ALPHA, dim=dim)
        self.start = np.zeros((n_rows, dim), np.float32)

    def solution(self) -> F64:
        """Return what each row's equations come to."""
        others, found = self.others.astype(np.float64), np.zeros(self.start.shape)
        for row in np.unique(self.rows):
            some, counts = np.unique(self.paired[self.rows == row], return_counts=True)
            y = others[some]
            equations = others.T @ others + L2 * np.eye(others.shape[1]) + ALPHA * (y.T * counts) @ y
            found[row] = np.linalg.solve(equations, y.T @ (1 + ALPHA * counts))
        return found

    def loss(self, solved: NDArray[Any]) -> float:
        """Return the sum of squares of the rows that have pairs, over all others, with L2."""
        counts = self.counts.toarray()
        squares = (1 + ALPHA * counts) * ((counts > 0) - solved.astype(np.float64) @ self.others.T) ** 2
        return float((squares.sum(axis=1) + L2 * np.square(solved).sum(axis=1))[counts.any(axis=1)].sum())


@given(st.integers(0, 10**6))
def test_solving_is_exact(seed: int) -> None:
    """The closed form is the solution of every row, and its loss the sum of squares."""
    problem = Problem(seed)
    loss = Whitened(problem.others, L2).solve(problem.start, problem.blocks)
    np.testing.assert_allclose(problem.start, problem.solution(), atol=1e-5)
    np.testing.assert_allclose(loss, problem.loss(problem.start), rtol=1e-4, atol=1e-4)


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_each_step_comes_nearer(seed: int, steps: int) -> None:
    """More steps leave less; the loss is that of where they end, and many end at the solution."""
    problem, whitened = Problem(seed), Whitened(Problem(seed).others, L2)
    less, more, most = problem.start.copy(), problem.start.copy(), problem.start.copy()
    first = whitened.improve(less, problem.blocks, steps=steps)
    second = whitened.improve(more, problem.blocks, steps=steps + 1)
    whitened.improve(most, problem.blocks, steps=40)
    assert second <= first * (1 + 1e-5)
    np.testing.assert_allclose(first, problem.loss(less), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(most, problem.solution(), atol=1e-5)


def test_steps_go_on_from_where_a_row_is() -> None:
    """A row that is at its solution stays there."""
    problem = Problem(3)
    solved = problem.solution().astype(np.float32)
    Whitened(problem.others, L2).improve(solved, problem.blocks, steps=1)
    np.testing.assert_allclose(solved, problem.solution(), atol=1e-6)


def test_a_row_has_the_same_bits_in_any_company() -> None:
    """Solved alone, with some and with all others, whether it has fewer pairs than numbers in a vector or more."""
    problem = Problem(7, n_rows=200, dim=24)
    whitened = Whitened(problem.others, L2)
    whitened.solve(problem.start, problem.blocks)
    sizes = np.diff(problem.counts.indptr)
    assert min(sizes[sizes > 0]) < 24 < max(sizes)
    for company in ([row] for row in range(200)), (np.arange(start, 200, 3) for start in range(3)):
        for rows in company:
            solved = np.zeros_like(problem.start)
            whitened.solve(solved, blocks(problem.counts, np.asarray(rows), alpha=ALPHA, dim=24))
            np.testing.assert_array_equal(solved[rows], problem.start[rows])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=60), st.sets(st.integers(0, 9)))
def test_blocks_hold_each_pair_of_their_rows_once(pairs: list[tuple[int, int]], rows: set[int]) -> None:
    """With the weight of its count; what fills up points behind the last other row, with no weight."""
    users, items = np.array(pairs, np.int64).reshape(-1, 2).T
    found = {}
    for block in blocks(pair_counts(users, items, shape=(10, 10)), np.array(sorted(rows), np.int64), alpha=2.0, dim=4):
        for row, others, weights in zip(block.rows.tolist(), block.others.tolist(), block.weights[:, :, 0].tolist(), strict=True):
            assert {other for other, weight in zip(others, weights, strict=True) if weight == 0} <= {10}
            found |= {(row, other): weight for other, weight in zip(others, weights, strict=True) if weight}
    assert found == {pair: 2.0 * pairs.count(pair) for pair in set(pairs) if pair[0] in rows}


def test_a_long_row_has_a_block_of_its_own() -> None:
    """Blocks are of about equal size, however many pairs a row has."""
    users = np.repeat([0, 1, 2, 3], [9000, 9000, 3, 2])
    items = np.concatenate([np.arange(9000), np.arange(9000), [0, 1, 2, 0, 1]])
    found = blocks(pair_counts(users, items, shape=(4, 9000)), np.arange(4), alpha=1.0, dim=64)
    assert [block.rows.tolist() for block in found] == [[2, 3], [0], [1]]


def test_rows_without_pairs_are_left_alone() -> None:
    """They are in no block, and keep what they have."""
    problem = Problem(5)
    solved = np.full_like(problem.start, 9)
    Whitened(problem.others, L2).improve(solved, problem.blocks, steps=2)
    alone = np.diff(problem.counts.indptr) == 0
    assert 0 < alone.sum() < len(alone)
    assert (solved[alone] == 9).all()
    assert (solved[~alone] != 9).all()


def test_l2_that_is_lost_beside_the_vectors_is_refused() -> None:
    """Fewer vectors than numbers in them leave the equations without a solution; the message names l2."""
    with pytest.raises(InvalidInputError, match="l2 1e-300: too small beside vectors whose squares sum up to 96; give more"):
        Whitened(np.ones((3, 32), np.float32), 1e-300)


def test_weights_beside_which_the_identity_is_lost_are_refused() -> None:
    """Cholesky's failure says what to do."""
    with pytest.raises(
        InvalidInputError, match="weights up to 1e.20: ones are lost beside them in float32; give a smaller alpha"
    ):
        solve_shifted(np.full((1, 2, 2), -5, np.float32), np.ones((1, 2, 1), np.float32), largest=1e20)
