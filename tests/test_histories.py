"""What users have had, as sparse matrices by rows: those that scipy makes of the same pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from embstore import Checkout
from tests.examples import new_store
from trainers.histories import RowMatrix, SparseRows, everybody, histories, normalized, recorded
from trainers.pairs import Pairs

CELLS = st.lists(st.lists(st.sampled_from([0.0, 0.0, 1.0, -2.5]), min_size=5, max_size=5), min_size=1, max_size=4)


def _whole(matrix: RowMatrix, n_columns: int) -> NDArray[np.float32]:
    found = csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(len(matrix.indptr) - 1, n_columns))
    return np.asarray(found.toarray())


@pytest.fixture
def work() -> Iterator[Checkout]:
    """Return a checkout in which user 2 has had one item twice, user 1 nothing, and user 3 is gone."""
    checkout = new_store().checkout()
    for entity in ("user", "item"):
        checkout.add_entity(entity, "int64")
    users, items = checkout.append("user", [0, 1, 2, 3]), checkout.append("item", [10, 11, 12])
    checkout.consumed.append(users[[2, 0, 2, 2, 3]], items[[2, 1, 0, 2, 1]])
    checkout.remove("user", [3])
    yield checkout
    checkout.discard()


@given(CELLS, st.data())
def test_rows_are_those_of_the_whole_matrix(cells: list[list[float]], data: st.DataObject) -> None:
    """Some rows in any order, and the matrix with rows of length 1 but for empty ones."""
    whole = np.array(cells, np.float32)
    given_csr = csr_array(whole)
    rows = data.draw(st.lists(st.integers(0, len(cells) - 1), max_size=6))
    matrix = SparseRows(given_csr.indptr, given_csr.indices, given_csr.data)
    taken = matrix.take(np.array(rows, np.int64))
    assert (len(matrix), len(taken)) == (len(cells), len(rows))
    np.testing.assert_array_equal(_whole(taken, 5), whole[rows])
    lengths = np.sqrt((whole**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(_whole(normalized(given_csr), 5), whole / np.where(lengths > 0, lengths, 1), rtol=1e-6)


def test_groups_of_pairs_are_rows_of_ones() -> None:
    """In the order of columns; a group without any is an empty row."""
    matrix = SparseRows.of(Pairs.of(np.array([2, 0, 2]), np.array([1, 1, 0]), None, n_groups=3))
    assert _whole(matrix, 2).tolist() == [[0, 1], [0, 0], [1, 1]]


def test_what_users_have_had_is_each_item_once(work: Checkout) -> None:
    """Of users as they are given, row -1 too, and of all; a removed user has had nothing."""
    csr = work.consumed.to_csr().toarray()
    assert _whole(everybody(work), 3).tolist() == csr.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert recorded(work).tolist() == np.flatnonzero(csr).tolist()
    for users in ([0, 1, 2], [2, -1, 0, 2], [3], []):
        wanted = [[0, 0, 0] if user < 0 else csr[user].tolist() for user in users]
        assert _whole(SparseRows.of(histories(work, np.array(users, np.int64))), 3).tolist() == wanted
