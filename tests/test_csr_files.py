"""Pairs go into files of sparse matrices, with their ids, and come out of these and of scipy's."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, strategies as st

import embstore
from embstore import Interactions, InvalidInputError
from tests.examples import new_store
from trainers.popularity import Popularity

USERS = st.one_of(st.integers(-(2**62), 2**62), st.sampled_from([0, 1, 7]))
ITEMS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=4)


@given(st.lists(st.tuples(USERS, ITEMS, st.sampled_from([1.0, -2.5, 5.0])), min_size=1, max_size=12))
def test_pairs_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str, float]]) -> None:
    """Numbers and texts of any script as ids; of a pair that is there twice the last rating."""
    path = tmp_path_factory.mktemp("csr") / "pairs.npz"
    Interactions(*zip(*rows, strict=True)).to_csr_file(path)
    for back in (Interactions.from_csr_file(path), Interactions.from_file(path)):
        assert back.ratings is not None
        found = zip(back.user_ids.tolist(), back.item_ids.tolist(), back.ratings.tolist(), strict=True)
        assert {(user, item): rating for user, item, rating in found} == {(user, item): rating for user, item, rating in rows}
        assert (back.user_ids.dtype, back.item_ids.dtype, len(back)) == (np.int64, object, len({row[:2] for row in rows}))


def test_scipy_reads_them(tmp_path: Path) -> None:
    """The file is a matrix to scipy, and to whoever reads scipy's: rows and columns by ascending ids, ones without ratings."""
    Interactions([9, 3, 3], ["b", "a", "b"]).to_csr_file(tmp_path / "pairs.NPZ")
    matrix = scipy.sparse.load_npz(tmp_path / "pairs.NPZ")
    assert (matrix.format, matrix.toarray().tolist(), matrix.has_canonical_format) == ("csr", [[1, 1], [0, 1]], True)


@pytest.mark.parametrize(
    "kind", [scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.csc_matrix, scipy.sparse.coo_array]
)
def test_files_of_scipy_are_read(tmp_path: Path, kind: Callable[..., Any]) -> None:
    """With the ids of their rows and columns; stored zeros are no pairs."""
    matrix = kind(([2.0, 0.0, 5.0], ([0, 0, 1], [0, 1, 1])), shape=(2, 2))
    scipy.sparse.save_npz(tmp_path / "train.npz", matrix)
    pairs = Interactions.from_csr_file(tmp_path / "train.npz", user_ids=["x", "y"], item_ids=[70, 80])
    assert (pairs.user_ids.tolist(), pairs.item_ids.tolist()) == (["x", "y"], [70, 80])
    assert pairs.ratings is not None
    assert pairs.ratings.tolist() == [2.0, 5.0]


def test_a_store_is_trained_from_a_file(tmp_path: Path) -> None:
    """What goes into a version from a file is what goes in from the pairs."""
    pairs = Interactions([9, 3, 3], ["b", "a", "b"])
    pairs.to_csr_file(tmp_path / "pairs.npz")
    one, other = (
        embstore.fit(new_store(), Popularity(), given, message="fit")
        for given in (pairs, Interactions.from_file(tmp_path / "pairs.npz"))
    )
    assert one.table("popularity").values().tolist() == other.table("popularity").values().tolist()
    assert one.consumed.of("user", [3, 9])[0].tolist() == other.consumed.of("user", [3, 9])[0].tolist() == ["a", "b"]


def _without_ids(path: Path) -> None:
    scipy.sparse.save_npz(path, scipy.sparse.csr_array(np.eye(2)))


def _pickled(path: Path) -> None:
    np.savez(path, format=np.array(b"csr"), data=np.array([{}], object))


def _no_matrix(path: Path) -> None:
    np.savez(path, weights=np.eye(2))


def _cut_short(path: Path) -> None:
    _without_ids(path)
    path.write_bytes(path.read_bytes()[:-40])


def _flipped(path: Path) -> None:
    Interactions([1], ["a"]).to_csr_file(path)
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("data.npy").header_offset + 60
    data = bytearray(path.read_bytes())
    data[start] ^= 255
    path.write_bytes(bytes(data))


def _encrypted(path: Path) -> None:
    """Set the bit that says so, in the first entry and in the directory."""
    _without_ids(path)
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "no sparse matrix as scipy.sparse.save_npz writes it"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "no sparse matrix"),
        (_without_ids, r"a matrix of \(2, 2\) without the ids of its rows and columns; .*user_ids=.*to_csr_file"),
        (_pickled, "no sparse matrix"),
        (_no_matrix, "no sparse matrix"),
        (_cut_short, "no sparse matrix"),
        (_flipped, "no sparse matrix"),
        (_encrypted, "no sparse matrix as scipy.sparse.save_npz writes it: .* is encrypted"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path: Path, make: Callable[[Path], Any], message: str) -> None:
    """The message names the file, and what is the matter."""
    path = tmp_path / "pairs.npz"
    make(path)
    with pytest.raises(InvalidInputError, match=f"pairs.npz: {message}"):
        Interactions.from_file(path)


def test_what_a_matrix_cannot_say_is_refused(tmp_path: Path) -> None:
    """A rating of 0, another ending, other columns, and ids that do not fit."""
    with pytest.raises(InvalidInputError, match="rating 0 at position 1: a sparse matrix cannot tell it from no pair"):
        Interactions([1, 2], [3, 4], [1, 0]).to_csr_file(tmp_path / "a.npz")
    with pytest.raises(InvalidInputError, match=r"a.npy: the ending tells the format; let it be .npz"):
        Interactions([1, 2], [3, 4]).to_csr_file(tmp_path / "a.npy")
    assert list(tmp_path.iterdir()) == []
    Interactions([1, 2], [3, 4]).to_csr_file(tmp_path / "a.npz")
    with pytest.raises(InvalidInputError, match="a.npz: the ending tells the format"):
        Interactions.from_file(tmp_path / "a.npz", columns={"user": "customer"})
    with pytest.raises(InvalidInputError, match=r"give a sparse matrix of shape \(3, 2\)"):
        Interactions.from_csr_file(tmp_path / "a.npz", user_ids=[1, 2, 3])


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder that is not there, or one that has the file's name."""
    (tmp_path / "a.npz").mkdir()
    for path in (tmp_path / "missing" / "a.npz", tmp_path / "a.npz"):
        with pytest.raises(InvalidInputError, match=r"a.npz: cannot be written: .*; give a file in a folder that there is"):
            Interactions([1, 2], [3, 4]).to_csr_file(path)
    assert [path.name for path in tmp_path.rglob("*")] == ["a.npz"]
