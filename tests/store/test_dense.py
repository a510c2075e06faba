"""Arrays without rows: any name, any shape, whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Store
from embstore.errors import InvalidInputError, UnknownNameError
from tests.store.agreement import as_read

NAMES = [
    "c",
    "C",
    "_",
    "~",
    ".",
    "..",
    "...",
    "/",
    "a/b",
    "a/../b",
    "zarr.json",
    "%63",
    "%2E",
    "é",
    "e\u0301",
    "🎉",
    " ",
    "\n",
    "\0",
]
NAMES += ["0", "c/0", "main", "names", "n" * 200, "é" * 200, "🎉" * 200, "w.0.weight", "optim.item.0.exp_avg", "-", "con", "a\\b"]


def test_names_of_any_kind(tmp_path: Any) -> None:
    """Every name is another array, on disk too; they come back sorted, through a compaction and an export."""
    store = embstore.create(tmp_path / "s", durability="none")
    work = store.checkout()
    for number, name in enumerate(NAMES):
        work.dense[name] = np.full((2, 3), number)
        work.dense[f"scalar {name}"[:200]] = number
    version = work.commit("x")
    work.dense["more"] = np.zeros(1)
    work.commit("y")
    exported = store.export(tmp_path / "export").at()
    for view in (version, work, embstore.open(tmp_path / "s").at(), exported):
        assert [int(view.dense[name][0, 0]) for name in NAMES] == list(range(len(NAMES)))
        assert list(view.dense) == sorted(view.dense)
        assert set(NAMES) <= set(view.dense)
    assert store.verify().problems == []


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint64", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (3, 0), (0, 3), (2, 0, 4), (2, 3, 4), (1, 2, 1, 2, 1, 2, 1)], ids=str)
def test_any_shape_and_dtype(store: Store, shape: tuple[int, ...], dtype: str) -> None:
    """The same shape, dtype and bits, staged, committed and anew."""
    array = np.asarray(np.random.default_rng(3).integers(0, 2, shape) * 3).astype(dtype)
    work = store.checkout()
    work.dense["a"] = array
    for view in (work, work.commit("x"), store.at()):
        assert as_read(view.dense["a"]) == as_read(array)
    assert store.verify().problems == []


def test_large_arrays(store: Store) -> None:
    """Arrays of several chunks, and of rows that are larger than a chunk."""
    rng = np.random.default_rng(4)
    arrays = {
        "tall": rng.random((300_001, 3)),
        "wide": rng.random((2, 700_000)),
        "fortran": np.asfortranarray(rng.random((50, 40))),
    }
    work = store.checkout()
    for name, array in arrays.items():
        work.dense[name] = array
    work.dense["strided"] = arrays["tall"][::7, 1]
    work.commit("x")
    assert {name: as_read(store.at().dense[name]) for name in arrays} == {name: as_read(a) for name, a in arrays.items()}
    assert as_read(store.at().dense["strided"]) == as_read(arrays["tall"][::7, 1])


def test_assigning_and_deleting(filled: Store) -> None:
    """What is staged is seen at once; the same bits again are no change; older versions keep theirs."""
    work = filled.checkout()
    work.dense["w"] = [[1.5, 2.5]]
    assert not work.dirty
    work.dense["w"] = [[1.5, 3.5]]
    work.dense["b"] = np.arange(3, dtype=">i4")
    work.dense["gone"] = 1
    del work.dense["gone"]
    for view in (work, work.commit("x")):
        assert (list(view.dense), len(view.dense), "gone" in view.dense) == (["b", "w"], 2, False)
        assert (view.dense["w"].tolist(), view.dense["b"].tolist()) == ([[1.5, 3.5]], [0, 1, 2])
    work.dense["b"] = np.arange(3, dtype=">i4")
    assert not work.dirty
    del work.dense["w"]
    for view in (work, work.commit("y")):
        assert list(view.dense) == ["b"]
        with pytest.raises(UnknownNameError, match="w"):
            view.dense["w"]
    assert (filled.at("main~2").dense["w"].tolist(), filled.at("main~1").dense["w"].tolist()) == ([[1.5, 2.5]], [[1.5, 3.5]])
    assert filled.diff("main~2").dense == {"b": "added", "w": "deleted"}
    assert filled.diff("main~2", "main~1").dense == {"b": "added", "w": "changed"}
    assert filled.diff("main~1", "main~1").dense == {}


def test_deleting_and_assigning_again(filled: Store) -> None:
    """In one checkout the last word counts; the very same array is no change."""
    work = filled.checkout()
    del work.dense["w"]
    work.dense["w"] = [[1.5, 2.5]]
    assert not work.dirty
    work.dense["new"] = 1
    del work.dense["new"]
    assert not work.dirty
    with pytest.raises(UnknownNameError):
        del work.dense["new"]


def test_another_shape_or_dtype_is_a_change(filled: Store) -> None:
    """Equal bytes in another shape are another array; so is zero of the other sign, and another NaN."""
    work = filled.checkout()
    for before, after in [
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(2, np.float32), np.zeros(1, np.float64)),
        (np.zeros(1, np.float32), np.zeros(1, np.int32)),
        (np.zeros(1), -np.zeros(1)),
        (np.float64(1), np.ones(1)),
    ]:
        work.dense["a"] = before
        work.commit("before")
        work.dense["a"] = after
        assert work.dirty
        work.commit("after")
        assert filled.diff("main~1").dense == {"a": "changed"}
        assert as_read(filled.at().dense["a"]) == as_read(after)


def test_the_callers_array_stays_the_callers(filled: Store) -> None:
    """What is changed later in an array given or handed out changes nothing."""
    work, array = filled.checkout(), np.zeros(3)
    work.dense["a"] = array
    array[:] = 1
    work.dense["a"][:] = 2
    assert work.commit("x").dense["a"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["", "n" * 201, 5, None, b"w", "\ud800", ("a",)], ids=repr)
def test_names_that_are_none(filled: Store, name: Any) -> None:
    """A name is text of 1 to 200 characters."""
    work = filled.checkout()
    with pytest.raises(InvalidInputError):
        work.dense[name] = np.zeros(1)
    assert not work.dirty


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, complex),
        np.array(["a"]),
        np.array([None]),
        np.zeros(1, "M8[s]"),
        np.zeros(1, "i4,f4"),
        [[1], [1, 2]],
        {"a": 1},
        "text",
    ],
    ids=lambda a: str(getattr(a, "dtype", a)),
)
def test_arrays_that_cannot_be_stored(filled: Store, array: Any) -> None:
    """Only numbers and booleans of at most 64 bits."""
    work = filled.checkout()
    with pytest.raises(InvalidInputError, match="w2"):
        work.dense["w2"] = array
    assert (work.dirty, list(work.dense)) == (False, ["w"])
