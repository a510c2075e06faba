"""Tables, slots and entities that come, go and come again, or come differently on two branches: diffs and reverts stay right."""

from __future__ import annotations

import numpy as np
import pytest

import embstore
from embstore import Constant, Schema, SlotSpec, Store, TableSpec, View
from tests.store.agreement import as_read

ONES = np.ones((3, 4))
LATE = TableSpec("late", "user", 4, slots=(SlotSpec("s", 4),))


def test_a_table_dropped_and_added_again(filled: Store) -> None:
    """The new one is another table: compared with the old one, all its rows differ."""
    first = filled.at()
    work = filled.checkout()
    work.add_table(LATE).scatter([0, 1, 2], ONES)
    work.table("late").slot("s").scatter([1], ONES[:1])
    second = work.commit("with it")
    reverted = filled.revert(first.id)
    assert ("late" in reverted.tables, filled.diff(second.id).tables["late"].status) == (False, "deleted")
    work = filled.checkout()
    work.add_table(LATE)
    third = work.commit("again")
    diff = filled.diff(second.id, third.id)
    assert (diff.tables["late"].changed_ids.tolist(), diff.slots["late"]) == ([1, 2, 3], {"s": 1})
    assert as_read(third.table("late").values()) == as_read(third.table("late").initial([1, 2, 3]))
    assert (third.table("late").slot("s").values().any(), filled.diff(reverted.id).tables["late"].status) == (False, "added")
    assert filled.verify().problems == []


def test_a_slot_dropped_and_added_again(filled: Store) -> None:
    """Its rows are at the fill again, and the diff counts those that were not."""
    first = filled.at()
    work = filled.checkout()
    work.table("user").add_slot(SlotSpec("late", 40)).scatter([0, 2], np.ones((2, 40)))
    second = work.commit("with it")
    filled.revert(first.id)
    work = filled.checkout()
    work.table("user").add_slot(SlotSpec("late", 40))
    third = work.commit("again")
    assert not third.table("user").slot("late").values().any()
    assert filled.diff(second.id, third.id).slots["user"]["late"] == 2
    assert filled.diff(second.id, third.id).tables["user"].changed_ids.tolist() == []
    assert as_read(filled.revert(second.id).table("user").slot("late").values()) == as_read(
        second.table("user").slot("late").values()
    )


@pytest.mark.parametrize("ids", [[7, 8, 9], [3, 2, 1], ["x", "y"]], ids=str)
def test_an_entity_dropped_and_added_again(filled: Store, ids: list[object]) -> None:
    """Its rows are other ids, of another type even; rows of one number have nothing in common."""
    first = filled.at()
    work = filled.checkout()
    work.add_table(TableSpec("thing", "thing", 4))
    work.append("thing", [1, 2, 3])
    second = work.commit("with it")
    assert "thing" not in filled.revert(first.id).entities
    work = filled.checkout()
    work.add_table(TableSpec("thing", "thing", 4))
    assert work.append("thing", ids).tolist() == list(range(len(ids)))
    third = work.commit("again")
    diff = filled.diff(second.id, third.id)
    assert set(diff.ids["thing"].appended.tolist()) == set(ids) - {1, 2, 3}
    assert set(diff.ids["thing"].removed.tolist()) == {1, 2, 3} - set(ids)
    assert diff.tables["thing"].changed_ids.tolist() == []
    assert (filled.verify().problems, filled.diff(third.id, second.id).ids["thing"].appended.size) == (
        [],
        diff.ids["thing"].removed.size,
    )


@pytest.mark.parametrize("entity", ["user", "item"])
def test_a_diff_where_the_other_side_is_missing(url: str, entity: str) -> None:
    """Where there are only users, or only items, nobody has had anything: versions are compared all the same."""
    store = embstore.create(url, schema=Schema(entities={entity: "int64"}))
    work = store.checkout()
    work.append(entity, [1, 2])
    first = work.commit("first")
    work.remove(entity, [2])
    work.commit("second")
    diff = store.diff(first.id)
    assert (diff.is_empty, diff.consumed.n_before, diff.consumed.n_after) == (False, 0, 0)
    assert (store.diff("main").is_empty, store.diff("main", first.id).is_empty) == (True, False)
    store.revert(first.id)
    assert (store.diff(first.id).is_empty, store.diff("main", "main~1").is_empty) == (True, False)


def test_a_diff_to_where_there_are_no_users(filled: Store) -> None:
    """The pairs that the base has are counted, also where the target has no users or items."""
    diff = filled.diff("main", "main~1")
    assert (diff.consumed.n_before, diff.consumed.n_after) == (5, 0)
    first = embstore.create(f"{filled.url}-bare")
    work = first.checkout()
    work.add_entity("user")
    work.add_entity("item")
    work.consumed.append(work.append("user", [1, 1]), work.append("item", [1, 2]))
    work.commit("pairs")
    back = first.diff("main", "main~1")
    assert (back.consumed.n_before, back.consumed.n_after, back.is_empty) == (2, 0, False)
    assert "consumed: 2 -> 0 pairs" in str(back)


def test_no_record_outlives_its_entities(url: str) -> None:
    """A version without users has no records; users that come later do not inherit any."""
    store = embstore.create(url)
    work = store.checkout()
    work.add_entity("thing", "int64")
    work.append("thing", [1])
    first = work.commit("first")
    work.add_entity("user")
    work.add_entity("item")
    work.consumed.append(work.append("user", [1]), work.append("item", [1]))
    work.remove("thing", [1])
    work.commit("second")
    assert len(store.revert(first.id).consumed) == 0
    work = store.checkout()
    for entity, id_ in (("user", "x"), ("item", "y")):
        work.add_entity(entity)
        work.append(entity, [id_])
    version = work.commit("third")
    assert (len(version.consumed), version.consumed.of("user", ["x"])[0].tolist()) == (0, [])
    assert store.verify().problems == []


def _two_branches(store: Store, ours: TableSpec, theirs: TableSpec) -> None:
    store.branch("side")
    for branch, spec in (("main", ours), ("side", theirs)):
        work = store.checkout(branch)
        work.add_table(spec)
        work.commit(branch)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (TableSpec("t", "user", 4), TableSpec("t", "user", 8)),
        (TableSpec("t", "user", 40), TableSpec("t", "user", 40, "float64")),
        (TableSpec("t", "user", 4), TableSpec("t", "item", 4)),
        (TableSpec("t", "user", None), TableSpec("t", "user", 1)),
        (TableSpec("t", "user", 4, slots=(SlotSpec("s", 4),)), TableSpec("t", "user", 4, slots=(SlotSpec("s", None, "int8"),))),
    ],
    ids=["dim", "dtype", "entity", "no dim", "slot"],
)
def test_a_table_added_differently_on_two_branches(filled: Store, ours: TableSpec, theirs: TableSpec) -> None:
    """Branches can be compared, and one can be reverted to the other."""
    _two_branches(filled, ours, theirs)
    diff = filled.diff("main", "side")
    status = "kept" if (ours.entity, ours.dim, ours.dtype) == (theirs.entity, theirs.dim, theirs.dtype) else "replaced"
    assert (diff.is_empty, bool(str(diff)), diff.to_dict()["tables"]["t"]["status"]) == (False, True, status)
    side = filled.at("side")
    version = filled.revert("side")
    assert (filled.verify().problems, filled.diff("side").is_empty, version.tables["t"]) == ([], True, theirs)
    assert as_read(version.table("t").values()) == as_read(side.table("t").values())


def test_other_initializers_on_two_branches(filled: Store) -> None:
    """Tables that differ only in where rows start are compared row by row."""
    _two_branches(filled, TableSpec("t", "user", 4, init=Constant(1)), TableSpec("t", "user", 4, init=Constant(2)))
    diff = filled.diff("main", "side")
    assert (diff.tables["t"].changed_ids.tolist(), diff.tables["t"].drift.tolist()) == ([1, 2, 3], [2, 2, 2])
    assert filled.revert("side").table("t").initial([9]).tolist() == [[2] * 4]


def test_a_slot_with_another_fill_hides_no_change(filled: Store) -> None:
    """What is equal in kind is compared: values and other slots, whatever became of one slot."""
    filled.branch("side")
    for branch, fill in (("main", 1.0), ("side", 2.0)):
        work = filled.checkout(branch)
        work.table("user").add_slot(SlotSpec("late", None, fill=fill))
        if branch == "side":
            work.table("user").scatter([0], ONES[:1])
            work.table("user").slot("m").scatter([1], ONES[:1])
        work.commit(branch)
    diff = filled.diff("main", "side")
    assert diff.tables["user"].changed_ids.tolist() == [1]
    assert (diff.slots["user"]["m"], diff.slots["user"]["n"]) == (1, 0)
    assert filled.revert("side").table("user").slot("late").values().tolist() == [2, 2, 2]


def test_an_entity_typed_differently_on_two_branches(url: str) -> None:
    """The ids of one branch are not those of the other, whatever they look like."""
    store = embstore.create(url, schema=Schema((TableSpec("t", "thing", 2),)))
    store.branch("side")
    for branch, ids in (("main", [1, 2]), ("side", ["1", "2", "3"])):
        work = store.checkout(branch)
        work.append("thing", ids)
        work.commit(branch)
    diff = store.diff("main", "side")
    assert (diff.ids["thing"].appended.tolist(), diff.ids["thing"].removed.tolist()) == (["1", "2", "3"], [1, 2])
    assert diff.tables["t"].changed_ids.tolist() == []
    assert not diff.is_empty


def test_names_of_all_kinds(tmp_path: object) -> None:
    """Entities, tables, slots, branches and tags may be called what paths and engines use themselves."""
    names = ["c", "0", "zarr.json", "values", "a.b-c_d", "x" * 64, "base", "main"]
    slots = tuple(SlotSpec(name, 40) for name in names)
    store = embstore.create(
        f"{tmp_path}/s", schema=Schema(tuple(TableSpec(name, name, 40, slots=slots) for name in names)), durability="none"
    )
    work = store.checkout()
    for number, name in enumerate(names):
        rows = work.append(name, [f"{name} {n}" for n in range(30)])
        for slot in names:
            work.table(name).slot(slot).scatter(rows[:1], np.full((1, 40), number))
    first = work.commit("first")
    for name in names:
        work.table(name).scatter([3], np.ones((1, 40)))
        work.table(name).slot(name).scatter([4], np.ones((1, 40)))
    work.commit("second")
    for name in names[:-1]:
        store.branch(name, at="main~1")
        store.tag(f"v.{name}"[:64])
    store.compact()
    assert sorted(store.branches()) == sorted(names)
    for version in (store.at(), store.export(f"{tmp_path}/e").at()):
        for number, name in enumerate(names):
            assert version.ids(name).rows([f"{name} 7"]).tolist() == [7]
            assert {slot: int(version.table(name).slot(slot).gather([0])[0, 0]) for slot in names} == dict.fromkeys(names, number)
    diff = store.diff(first.id)
    for name in names:
        assert diff.tables[name].changed_ids.tolist() == [f"{name} 3"]
        assert diff.slots[name] == {slot: int(slot == name) for slot in names}
    assert store.verify().problems == []


GENRES = Schema((TableSpec("genres", "item", 2, "int32", init=Constant(-1), rows_of="genre"),))


def _genres(view: View, item: object) -> list[str]:
    """Return the genres of an item, by id."""
    rows = view.table("genres").get([item])[0]
    return [str(id_) for id_ in view.ids("genre").ids(rows[rows >= 0])]


def test_rows_of_another_entity_on_two_branches(url: str) -> None:
    """Rows of one id are others on another branch: a revert renumbers them, a diff sees no change."""
    store = embstore.create(url, schema=GENRES)
    store.branch("side")
    for branch, names in (("main", ["x", "y", "z"]), ("side", ["z", "y", "x"])):
        work = store.checkout(branch)
        work.append("genre", names)
        rows = work.append("item", [1, 2])
        work.table("genres").scatter(rows, [[*work.ids("genre").rows(["x"]), -1], work.ids("genre").rows([names[0], "y"])])
        work.commit(branch)
    assert [_genres(store.at("main"), item) for item in (1, 2)] == [["x"], ["x", "y"]]
    assert [_genres(store.at("side"), item) for item in (1, 2)] == [["x"], ["z", "y"]]
    assert store.diff("main", "side").tables["genres"].changed_ids.tolist() == [2]
    version = store.revert("side")
    assert [_genres(version, item) for item in (1, 2)] == [["x"], ["z", "y"]]
    assert (store.diff("side", "main").is_empty, store.verify().problems) == (True, [])


def test_rows_of_an_id_that_has_moved(url: str) -> None:
    """An id removed and appended again has another row; reverted, what pointed to it points to that row."""
    store = embstore.create(url, schema=GENRES)
    work = store.checkout()
    work.append("genre", ["a", "b"])
    work.table("genres").scatter(work.append("item", [1]), [[0, 1]])
    first = work.commit("first")
    work.remove("genre", ["a"])
    work.append("genre", ["a"])
    work.commit("moved")
    version = store.revert(first.id)
    assert version.ids("genre").rows(["a", "b"]).tolist() == [2, 1]
    assert _genres(version, 1) == ["a", "b"]


def test_staged_rows_of_other_rows_know_whose_they_are(url: str) -> None:
    """What a checkout says it changes names categories by id, so that it can be replayed where they have other rows."""
    store = embstore.create(url)
    work = store.checkout()
    work.add_entity("item", "int64")
    work.add_entity("genre", "str")
    work.add_table(TableSpec("item.genre", "item", None, "int32", init=Constant(-1), rows_of="genre"))
    work.append("genre", ["comedy", "drama"])
    work.append("item", [7])
    work.table("item.genre").scatter([0], [1])
    change = work.changes.rows["item.genre"]["values"]
    assert change.refers_to is not None
    assert change.refers_to.ids(change.values()).tolist() == ["drama"]


def test_a_removed_row_points_to_no_other_row(url: str) -> None:
    """Where values are rows, 0 would be somebody's."""
    store = embstore.create(url)
    work = store.checkout()
    work.add_entity("item", "int64")
    work.add_entity("genre", "str")
    work.add_table(TableSpec("item.genre", "item", None, "int32", init=Constant(-1), rows_of="genre"))
    work.append("genre", ["comedy"])
    rows = work.append("item", [7, 8])
    work.table("item.genre").scatter(rows, [0, 0])
    work.commit("two items")
    work.remove("item", [7])
    assert work.commit("one item").table("item.genre").values().tolist() == [-1, 0]
