"""Tables and slots: one row for every id, written in a checkout, read everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import embstore
from embstore import Constant, Schema, SlotSpec, Store, TableSpec, View, Zeros
from embstore.errors import InvalidInputError, SchemaMismatchError, UnknownIdError, UnknownNameError
from tests.store.agreement import as_read

WIDE = Schema((TableSpec("user", "user", 64, slots=(SlotSpec("exp_avg", 64), SlotSpec("step", None))),))


def _rows(n: int, dim: int = 64, *, start: float = 0.0) -> NDArray[np.float32]:
    return (np.arange(n * dim, dtype=np.float32).reshape(n, dim) + np.float32(start)) / 8


def test_what_is_scattered_is_read(filled: Store) -> None:
    """The same bits from get, gather and values, in the checkout, its version and a new handle; others are as before."""
    before = filled.at().table("user").values()
    work = filled.checkout()
    work.table("user").scatter([2, 0], _rows(2, 4))
    work.table("user").slot("m").scatter([1], _rows(1, 4))
    work.table("user").slot("n").scatter([1, 2], [3, 4])
    for view in (work, work.commit("x"), filled.at()):
        table = view.table("user")
        assert as_read(table.values()) == as_read(np.stack([_rows(2, 4)[1], before[1], _rows(2, 4)[0]]))
        assert as_read(table.get([3, 1, 3])) == as_read(_rows(2, 4)[[0, 1, 0]])
        assert as_read(table.slot("m").values()) == as_read(
            np.stack([np.zeros(4, np.float32), *_rows(1, 4), np.zeros(4, np.float32)])
        )
        assert as_read(table.slot("n").get([3, 2, 1])) == as_read(np.array([4, 3, 0.5], np.float32))
        assert sorted(table.slots) == ["m", "n"]
    assert as_read(filled.at("main~1").table("user").values()) == as_read(before)


def test_of_rows_given_twice_the_last_counts(filled: Store) -> None:
    """In one call and over several, for old rows and for new ones."""
    work = filled.checkout()
    work.append("user", [9])
    table = work.table("user")
    table.scatter([0, 3, 0, 3], _rows(4, 4))
    assert as_read(table.gather([0, 3])) == as_read(_rows(4, 4)[2:])
    table.scatter([3, 0], _rows(2, 4, start=99))
    assert as_read(work.commit("x").table("user").gather([3, 0])) == as_read(_rows(2, 4, start=99))


def test_the_callers_array_stays_the_callers(filled: Store) -> None:
    """What is changed later in an array that was given or handed out changes nothing."""
    work = filled.checkout()
    given, init = _rows(1, 4), _rows(1, 4)
    work.table("user").scatter([0], given)
    work.append("user", [9], init={"user": init})
    given[:] = init[:] = work.table("user").gather([0])[:] = 7
    work.table("user").values()[:] = 7
    assert as_read(work.commit("x").table("user").gather([0, 3])) == as_read(np.concatenate([_rows(1, 4)] * 2))


def test_every_bit_is_kept(filled: Store) -> None:
    """Negative zero, subnormals, NaN with payload and infinity come back bit for bit, and count as a change."""
    bits = np.array([0x80000000, 0x00000001, 0x7FC00123, 0xFF800000], np.uint32)
    work = filled.checkout()
    work.table("user").scatter([0, 1], np.zeros((2, 4)))
    work.commit("zero")
    work.table("user").scatter([0, 1], np.stack([bits.view(np.float32), [0, 0, -0.0, 0]]))
    version = work.commit("odd", allow_nonfinite=True)
    assert version.table("user").gather([0]).view(np.uint32).tolist() == [bits.tolist()]
    diff = filled.diff("main~1")
    assert diff.tables["user"].changed_ids.tolist() == [1, 2]
    assert str(diff)
    assert sorted(diff.tables["user"].to_frame()["id"]) == [1, 2]


def test_values_into_a_given_array(filled: Store) -> None:
    """The array is filled and returned; one that does not fit is refused."""
    table = filled.at().table("user")
    out = np.full((3, 4), 7, np.float32)
    assert table.values(out=out) is out
    assert as_read(out) == as_read(table.values())
    read_only = np.empty((3, 4), np.float32)
    read_only.flags.writeable = False
    for wrong in (np.empty((4, 4), np.float32), np.empty((3, 4)), np.empty((4, 3), np.float32).T, read_only):
        with pytest.raises(InvalidInputError, match="out"):
            table.values(out=wrong)


def test_missing_ids(filled: Store) -> None:
    """Unknown ids raise, or get their initial vector or the mean of the live rows."""
    work = filled.checkout()
    work.table("user").scatter([0, 1, 2], np.diag([3.0, 6.0, 9.0, 0])[:3])
    work.remove("user", [3])
    for view in (work, work.commit("x")):
        table = view.table("user")
        with pytest.raises(UnknownIdError, match="77"):
            table.get([1, 77])
        assert as_read(table.get([77, 1], missing="initial")) == as_read(np.stack([table.initial([77])[0], table.get([1])[0]]))
        assert table.get([77, 3], missing="mean").tolist() == [[1.5, 3, 0, 0]] * 2
        with pytest.raises(InvalidInputError, match="zero"):
            table.get([77], missing="zero")
    assert filled.at().table("item").get([], missing="mean").shape == (0, 4)


def test_new_rows_start_where_they_should(filled: Store) -> None:
    """At the initial vector, or at what init says: a row each id or each new id; slots at their fill."""
    work = filled.checkout()
    work.append("user", [4, 1, 5, 4], init={"user": _rows(4, 4)})
    work.append("user", [6, 2, 6], init={"user": _rows(1, 4, start=50)})
    work.append("user", [8])
    for view in (work, work.commit("x")):
        table = view.table("user")
        assert as_read(table.get([4, 5, 6])) == as_read(np.concatenate([_rows(4, 4)[[0, 2]], _rows(1, 4, start=50)]))
        assert as_read(table.get([8, 1])) == as_read(table.initial([8, 1]))
        assert table.slot("n").get([4, 8]).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("dtype", "dim", "init"),
    [("float16", 3, Constant(0.5)), ("float64", None, Constant(-1.5)), ("int8", None, Constant(-1)), ("uint32", 2, Zeros())],
)
def test_tables_of_other_shapes_and_types(url: str, dtype: str, dim: int | None, init: Any) -> None:
    """Any dtype, and one number a row."""
    spec = TableSpec("t", "thing", dim, dtype, init=init, slots=(SlotSpec("s", dim, dtype, fill=1),))
    store = embstore.create(url, schema=Schema((spec,)))
    work = store.checkout()
    work.append("thing", ["a", "b", "c"])
    shape = (3,) if dim is None else (3, dim)
    start = np.full(shape, getattr(init, "value", 0), dtype)
    assert as_read(work.table("t").values()) == as_read(start)
    work.commit("x")
    work.table("t").scatter([1], np.full((1, *shape[1:]), 5, dtype))
    work.table("t").slot("s").scatter([2], np.full((1, *shape[1:]), 6, dtype))
    version = work.commit("y")
    start[1] = 5
    assert as_read(version.table("t").values()) == as_read(start)
    assert version.table("t").slot("s").gather([0, 2]).ravel().tolist() == [1] * (dim or 1) + [6] * (dim or 1)
    assert store.diff("main~1").slots == {"t": {"s": 1}}
    assert store.verify().problems == []


def test_numbers_that_fit_are_converted(filled: Store) -> None:
    """Wider floats are rounded and integers become floats; anything that would lose its meaning is refused."""
    work = filled.checkout()
    work.table("user").scatter([0], np.array([[1 / 3, 1e300, 2, -0.0]]))
    found = work.table("user").gather([0])
    assert as_read(found) == as_read(np.array([[1 / 3, np.inf, 2, -0.0]]).astype(np.float32, casting="unsafe"))
    integers = work.add_table(TableSpec("small", "user", None, "int8", init=Zeros()))
    integers.scatter([0, 1], [-128, 127])
    for wrong in ([300, 0], [0, -129], np.array([1, 2**40]), np.array([1, 200], np.uint8), [0.0, 1.0], ["1", "2"], [None, 1]):
        with pytest.raises(InvalidInputError):
            integers.scatter([0, 1], wrong)
    assert work.table("small").values().tolist() == [-128, 127, 0]


def test_a_table_added_later(filled: Store) -> None:
    """Its rows start at their initial vectors, those of staged ids too; it is there in new versions only."""
    work = filled.checkout()
    work.append("user", [4])
    work.remove("user", [2])
    spec = TableSpec("late", "user", 40, slots=(SlotSpec("s", 40, fill=2),))
    late = work.add_table(spec)
    work.append("user", [5])
    for view in (work, work.commit("x")):
        table = view.table("late")
        assert as_read(table.get([1, 3, 4, 5])) == as_read(late.initial([1, 3, 4, 5]))
        assert not table.values()[1].any()
        assert table.slot("s").get([1, 5]).tolist() == [[2] * 40] * 2
        assert view.tables["late"] == spec
    assert "late" not in filled.at("main~1").tables
    assert work.add_table(spec).spec == spec
    assert not work.dirty
    diff = filled.diff("main~1")
    assert (diff.tables["late"].status, diff.tables["late"].changed_ids.tolist()) == ("added", [])
    assert filled.verify().problems == []


def test_a_slot_added_later(filled: Store) -> None:
    """It starts at its fill; asked for again it is the same one; another shape is refused."""
    work = filled.checkout()
    slot = work.table("user").add_slot(SlotSpec("late", 40, fill=0.25))
    slot.scatter([1], np.ones((1, 40)))
    for view in (work, work.commit("x")):
        assert view.table("user").slot("late").values()[:, 0].tolist() == [0.25, 1, 0.25]
    work.table("user").add_slot(SlotSpec("late", 40, fill=0.75))
    assert not work.dirty
    for wrong in (SlotSpec("late", None), SlotSpec("late", 40, "float64")):
        with pytest.raises(SchemaMismatchError, match="late"):
            work.table("user").add_slot(wrong)
        with pytest.raises(SchemaMismatchError, match="late"):
            work.add_table(TableSpec("user", "user", 4, slots=(SlotSpec("other", None), wrong)))
    assert sorted(work.table("user").slots) == ["late", "m", "n"]
    assert not work.dirty
    with pytest.raises(UnknownNameError, match="nothing"):
        filled.at().table("user").slot("nothing")


@pytest.mark.parametrize(
    "spec", [TableSpec("user", "user", 5), TableSpec("user", "item", 4), TableSpec("user", "user", 4, "float64")]
)
def test_a_table_asked_for_with_another_shape(filled: Store, spec: TableSpec) -> None:
    """Another dim, dtype or entity is refused and changes nothing."""
    work = filled.checkout()
    with pytest.raises(SchemaMismatchError, match="user"):
        work.add_table(spec)
    assert not work.dirty


def test_removed_rows_are_zeroed(filled: Store) -> None:
    """Values and slots, those never written too, whether the row was stored or staged."""
    work = filled.checkout()
    work.table("user").slot("m").scatter([0, 1], np.ones((2, 4)))
    work.append("user", [4], init={"user": np.ones((1, 4))})
    work.remove("user", [1, 4])
    for view in (work, work.commit("x")):
        table = view.table("user")
        for rows in (table.values(), table.slot("m").values(), table.slot("n").values()):
            assert not rows[[0, 3]].any()
        assert table.slot("n").values()[[1, 2]].tolist() == [0.5, 0.5]


def test_a_slot_may_be_called_values(url: str) -> None:
    """The names of slots and of our own columns do not meet."""
    names = ["values", "rows", "c", "digests", "base", "slots", "zarr.json"]
    slots = tuple(SlotSpec(name, 40, fill=i) for i, name in enumerate(names))
    store = embstore.create(url, schema=Schema((TableSpec("values", "values", 40, slots=slots),)))
    work = store.checkout()
    rows = work.append("values", range(8))
    for i, name in enumerate(names):
        work.table("values").slot(name).scatter(rows[i : i + 1], _rows(1, 40, start=i))
    start = work.table("values").values()
    version = work.commit("x")
    work.table("values").slot("values").scatter(rows[:1], _rows(1, 40, start=77))
    work.commit("y")
    store.compact()
    for name, i in zip(names, range(len(names)), strict=True):
        expected = np.full((8, 40), i, np.float32)
        expected[i] = _rows(1, 40, start=i)
        assert as_read(version.table("values").slot(name).values()) == as_read(expected)
    diff = store.diff(version.id)
    assert (diff.tables["values"].changed_ids.tolist(), diff.slots["values"]["values"]) == ([], 1)
    assert as_read(store.at().table("values").values()) == as_read(start)
    assert store.verify().problems == []


def _check(view: View, expected: dict[str, NDArray[Any]]) -> None:
    table = view.table("user")
    some = np.array([5, 0, 399, 5])
    for name, rows in expected.items():
        column: Any = table if name == "values" else table.slot(name)
        assert as_read(column.values()) == as_read(rows)
        assert as_read(column.gather(some)) == as_read(rows[some])


def test_forty_commits_of_all_sizes(url: str) -> None:
    """Segments, merged segments, folds and new bases: each version reads as it was written."""
    store = embstore.create(url, schema=WIDE)
    rng = np.random.default_rng(1)
    work = store.checkout()
    work.append("user", range(400), init={"user": _rows(400)})
    expected = {"values": _rows(400), "exp_avg": np.zeros((400, 64), np.float32), "step": np.zeros(400, np.float32)}
    seen = []
    for n, share in enumerate([0.01] * 30 + [0.4, 0.01, 0.6, 0.01, 0.3, 0.3, 0.3, 0.01, 1.0, 0.01]):
        for name, rows in expected.items():
            if n % 5 != 3 or name == "values":
                some = rng.choice(400, int(400 * share), replace=False)
                rows[some] = rng.standard_normal((len(some), *rows.shape[1:]))
                column: Any = work.table("user") if name == "values" else work.table("user").slot(name)
                column.scatter(some, rows[some])
        _check(work, expected)
        version = work.commit(str(n))
        seen.append((version.id, {name: rows.copy() for name, rows in expected.items()}))
    for id_, rows in seen:
        _check(store.at(id_), rows)
    for (before, old), (after, new) in [(seen[i], seen[j]) for i, j in ((0, 39), (3, 25), (29, 31), (31, 32), (38, 2), (7, 8))]:
        diff = store.diff(before, after)
        changed = {name: np.flatnonzero((old[name].reshape(400, -1) != new[name].reshape(400, -1)).any(axis=1)) for name in old}
        assert sorted(diff.tables["user"].changed_ids.tolist()) == changed.pop("values").tolist()
        assert diff.slots["user"] == {name: len(rows) for name, rows in changed.items()}


def test_to_frame(filled: Store) -> None:
    """A data frame by id, of all live ids or of those asked for."""
    table = filled.at().table("user")
    assert table.to_frame().index.tolist() == [1, 2, 3]
    assert table.to_frame([3, 1]).to_numpy().tolist() == table.get([3, 1]).tolist()
    assert filled.at().table("user").slot("n").get([1]).tolist() == [0.5]
