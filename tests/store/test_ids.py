"""Ids are translated to rows and back; rows never move and are never reused."""

from __future__ import annotations

import uuid
from typing import Any

import icechunk
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, strategies as st

import embstore
from embstore import Schema, Store, TableSpec
from embstore.errors import IdTypeError, InvalidInputError, SchemaMismatchError, UnknownIdError, UnknownNameError

EXTREMES = [0, -1, 1, 2**63 - 1, -(2**63), 2**32]
# Composed and decomposed, look-alikes of numbers, spaces, beyond the first plane, long.
TEXTS = ["é", "e\u0301", "1", "01", " ", "a ", "a", "A", "🎉", "\n", "x" * 5000, "ß", "ẞ", "\ud7ff", "\uffff"]


@pytest.mark.parametrize("ids", [EXTREMES, TEXTS], ids=["integers", "texts"])
def test_ids_come_back_as_they_went_in(store: Store, ids: list[Any]) -> None:
    """Every id is one user, whatever it looks like, staged and committed."""
    work = store.checkout()
    expected = list(range(len(ids)))
    assert work.append("user", ids).tolist() == expected
    for view in (work, work.commit("x"), store.at()):
        assert view.ids("user").ids().tolist() == ids
        assert view.ids("user").rows(ids[::-1]).tolist() == expected[::-1]
        assert view.entities == {"item": 0, "user": len(ids)}


def test_repeats_and_known_ids_keep_their_rows(store: Store) -> None:
    """An id has one row, however often it is appended."""
    work = store.checkout()
    assert work.append("user", [5, 3, 5]).tolist() == [0, 1, 0]
    assert work.append("user", [3, 9, 9]).tolist() == [1, 2, 2]
    work.commit("x")
    assert work.append("user", [9, 4, 5, 4]).tolist() == [2, 3, 0, 3]
    assert work.commit("y").ids("user").ids().tolist() == [5, 3, 9, 4]


@pytest.mark.parametrize(
    "ids",
    [
        (3, 1),
        range(3),
        np.array([3, 1], np.uint8),
        np.array(["b", "a"]),
        pd.Series([7, 8], index=[1, 1]),
        pd.Index(["x", "y"]),
        pd.Series(["u", "v"], dtype="category"),
        np.array([np.str_("a"), "b"], object),
    ],
    ids=lambda ids: type(ids).__name__ + str(getattr(ids, "dtype", "")),
)
def test_ids_of_many_kinds(store: Store, ids: Any) -> None:
    """Lists, tuples, ranges, arrays and pandas' columns are taken as they are."""
    work = store.checkout()
    assert work.append("user", ids).tolist() == list(range(len(ids)))
    stored = work.commit("x").ids("user").ids().tolist()
    assert stored == [str(i) if isinstance(i, str) else int(i) for i in ids]
    assert {type(i) for i in stored} <= {int, str}


def test_no_ids_do_nothing(store: Store) -> None:
    """An empty list gives no rows, stages nothing and leaves the type open."""
    work = store.checkout()
    for empty in ([], (), np.empty(0), np.empty(0, "U1"), pd.Series([], dtype=object)):
        assert work.append("user", empty).tolist() == []
        assert work.ids("user").rows(empty).tolist() == []
    assert (work.dirty, work.ids("user").id_type) == (False, None)
    work.append("user", ["a"])
    assert work.ids("user").id_type == "str"


def test_removed_ids_are_unknown_and_get_a_new_row(filled: Store) -> None:
    """A removed id is as if never seen; its row stays empty; appended again it has another."""
    work = filled.checkout()
    work.remove("user", [2, 2])
    for view in (work, work.commit("removed")):
        idmap = view.ids("user")
        assert (len(idmap), view.entities["user"], idmap.ids().tolist()) == (3, 2, [1, 3])
        assert (2 in idmap, idmap.rows([2, 3], missing=-1).tolist()) == (False, [-1, 2])
        with pytest.raises(UnknownIdError, match="2"):
            idmap.rows([2])
        with pytest.raises(UnknownIdError, match="row 1"):
            idmap.ids([0, 1])
        with pytest.raises(UnknownIdError, match="2"):
            view.table("user").get([2])
    with pytest.raises(UnknownIdError):
        work.remove("user", [2])
    assert work.append("user", [2]).tolist() == [3]
    assert work.commit("again").ids("user").ids().tolist() == [1, 3, 2]
    assert filled.at("main~2").ids("user").ids().tolist() == [1, 2, 3]
    assert filled.verify().problems == []


def test_removing_what_is_only_staged(store: Store) -> None:
    """Ids that come and go before a commit leave rows behind, and nothing else."""
    work = store.checkout()
    work.append("user", ["a", "b"])
    work.remove("user", ["a"])
    assert work.append("user", ["a"]).tolist() == [2]
    work.remove("user", ["a", "b"])
    assert work.append("user", ["c", "a"]).tolist() == [3, 4]
    for view in (work, work.commit("x")):
        assert view.ids("user").ids().tolist() == ["c", "a"]
        assert view.ids("user").rows(["a", "b", "c"], missing=-1).tolist() == [4, -1, 3]
    assert store.verify().problems == []


def test_removing_everything_staged(store: Store) -> None:
    """A version may hold rows without any id."""
    work = store.checkout()
    work.append("user", ["a"])
    work.remove("user", ["a"])
    version = work.commit("x")
    assert (len(version.ids("user")), version.entities["user"], version.ids("user").ids().tolist()) == (1, 0, [])
    assert store.verify().problems == []
    assert work.append("user", ["b"]).tolist() == [1]
    assert work.commit("y").ids("user").ids().tolist() == ["b"]


def test_remove_is_all_or_nothing(filled: Store) -> None:
    """One unknown id, and none is removed."""
    work = filled.checkout()
    with pytest.raises(UnknownIdError, match="7"):
        work.remove("user", [1, 7])
    assert (work.dirty, work.ids("user").ids().tolist()) == (False, [1, 2, 3])
    work.remove("user", [])
    assert not work.dirty


def test_a_removed_id_is_blanked_on_disk(tmp_path: Any, schema: Schema) -> None:
    """The newest version holds no byte of a removed id; older ones still do."""
    store = embstore.create(tmp_path / "s", schema=schema)
    work = store.checkout()
    work.append("user", ["keep", "secret", "also"])
    before = work.commit("x")
    work.remove("user", ["secret"])
    after = work.commit("y")
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path / "s")))
    held = {}
    for version in (before, after):
        group = zarr.open_group(repository.readonly_session(snapshot_id=version.id).store, mode="r")
        held[version.id] = bytes(np.asarray(group["entities/user/ids/bytes"]))
    assert (b"secret" in held[before.id], b"secret" in held[after.id]) == (True, False)
    assert after.ids("user").ids().tolist() == ["keep", "also"]


@pytest.mark.parametrize("kind", ["int64", "str"])
def test_many_ids_over_many_chunks(store: Store, kind: str) -> None:
    """Look-ups agree over several chunks of ids, bytes and keys, in any order, with unknown ones among them."""
    rng = np.random.default_rng(0)
    numbers = rng.permutation(90_000) * 7 - 100_000
    ids = numbers if kind == "int64" else np.array([f"user number {n}" for n in numbers], object)
    work = store.checkout()
    first, second = ids[:70_000], ids[70_000:]
    assert work.append("user", first).tolist() == list(range(70_000))
    work.commit("x")
    assert work.append("user", second).tolist() == list(range(70_000, 90_000))
    version = work.commit("y")
    some = rng.integers(0, 90_000, 5_000)
    idmap = store.at(version.id).ids("user")
    assert idmap.rows(ids[some]).tolist() == some.tolist()
    assert idmap.ids(some).tolist() == ids[some].tolist()
    strange = [3] if kind == "int64" else ["user number 3"]
    assert idmap.rows(strange, missing=-1).tolist() == [-1]


@pytest.mark.parametrize("kind", [int, str])
def test_index_runs_are_merged(store: Store, kind: type) -> None:
    """Thirty commits of one id each, some removed between: every look-up stays right."""
    work = store.checkout()
    gone = set()
    for n in range(30):
        work.append("user", [kind(n)])
        if n % 7 == 6:
            gone.add(n - 3)
            work.remove("user", [kind(n - 3)])
        work.commit(str(n))
    idmap = store.at().ids("user")
    assert idmap.rows([kind(n) for n in range(30)], missing=-1).tolist() == [-1 if n in gone else n for n in range(30)]
    assert idmap.ids().tolist() == [kind(n) for n in range(30) if n not in gone]
    assert store.verify().problems == []


def test_types_are_of_the_first_ids_or_declared(store: Store) -> None:
    """Integers and texts never share an entity, in a checkout, a commit later, or in a version."""
    work = store.checkout()
    work.append("user", [1])
    work.add_entity("item", "str")
    for _ in range(2):
        for view in (work, store.at()):
            assert view.ids("user").rows([], missing=-1).tolist() == []
        for entity, wrong, right in (("user", "1", "int64"), ("item", 1, "str")):
            with pytest.raises(IdTypeError, match=right):
                work.append(entity, [wrong])
            assert wrong not in work.ids(entity)
            assert work.ids(entity).id_type == right
        if work.dirty:
            version = work.commit("x")
            assert (version.ids("user").id_type, version.ids("item").id_type) == ("int64", "str")
            with pytest.raises(IdTypeError):
                version.ids("item").rows([1], missing=-1)
    with pytest.raises(SchemaMismatchError, match="str"):
        work.add_entity("user", "str")
    work.add_entity("user", "int64")
    assert not work.dirty


def test_an_id_map_held_from_a_checkout_follows_it(store: Store) -> None:
    """What is appended, typed or committed later is seen by the map and the tables that were given out before."""
    work = store.checkout()
    idmap, table = work.ids("user"), work.table("user")
    work.add_entity("user", "int64")
    rows = work.append("user", [1, 2])
    assert (len(work.ids("user")), len(work.table("user")), len(table), len(idmap)) == (2, 2, 2, 2)
    table.scatter(rows, np.ones((2, 4)))
    version = work.commit("x")
    assert np.array_equal(version.table("user").values(), np.ones((2, 4)))
    assert idmap.rows([2]).tolist() == [1]


def test_rows_out_of_range(filled: Store) -> None:
    """Rows that there are not are refused by name."""
    idmap = filled.at().ids("user")
    for wrong in ([3], [-1], [0, 2**40], [0.5], [[0]], [True]):
        with pytest.raises(InvalidInputError):
            idmap.ids(wrong)
    with pytest.raises(UnknownNameError, match="nobody"):
        filled.at().ids("nobody")


@given(st.lists(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20))))
def test_any_texts(batches: list[list[str]]) -> None:
    """Whatever text, in whatever batches: a dictionary says the same."""
    store = embstore.create(f"memory://{uuid.uuid4()}", schema=_SCHEMA)
    work = store.checkout()
    rows: dict[str, int] = {}
    for batch in batches:
        expected = [rows.setdefault(text, len(rows)) for text in batch]
        assert work.append("user", batch).tolist() == expected
        work.commit("x", allow_empty=True)
    assert work.ids("user").rows(list(rows)).tolist() == list(rows.values())
    assert store.at().ids("user").ids().tolist() == list(rows)


_SCHEMA = Schema((TableSpec("user", "user", 1),))
