"""Merges of what was added to the schema, and of what a revert dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Constant, Schema, SlotSpec, Store, TableSpec
from embstore.errors import ConflictError, SchemaMismatchError
from tests.store.forked import SCHEMA, Edit, edit, first_numbers, fork, put


@pytest.fixture
def forked(url: str) -> Store:
    """Return a store with users 1, 2, 3, items "a" and "b", three pairs and an array, and a branch side beside main."""
    return fork(url)


def test_what_was_added_to_the_schema(forked: Store) -> None:
    """Tables, slots and entities of both sides are there, with what each put into them."""
    bias = TableSpec("bias", "user", None, slots=(SlotSpec("sum", None),))
    edit(forked, "main", lambda w: w.add_table(bias), put("bias", [1], 1), lambda w: w.append("user", [4]))
    edit(
        forked,
        "side",
        lambda w: w.add_table(TableSpec("bias", "user", None, slots=(SlotSpec("count", None, fill=1),))),
        put("bias", [2], 2, slot="count"),
        lambda w: w.table("user").add_slot(SlotSpec("late", 2)),
        put("user", [3], 3, slot="late"),
        lambda w: w.add_table(TableSpec("shop", "shop", 2)),
        lambda w: w.append("shop", ["s"]),
    )
    version = forked.merge("side")
    assert (list(version.tables), version.entities) == (
        ["user", "item", "age", "bias", "shop"],
        {"item": 2, "shop": 1, "user": 4},
    )
    table = version.table("bias")
    assert (float(table.get([1])[0]), table.slot("count").get([2, 4]).tolist(), list(table.slots)) == (
        1,
        [2, 1],
        ["count", "sum"],
    )
    assert np.array_equal(table.get([4]), table.initial([4]))
    assert (version.table("user").slot("late").get([3]).tolist(), forked.verify().problems) == ([[3, 3]], [])


@pytest.mark.parametrize(
    ("main", "side", "says"),
    [
        (TableSpec("t", "user", 2), TableSpec("t", "user", 3), "table 't': dim is 2 on one side and 3"),
        (TableSpec("t", "user", 2), TableSpec("t", "item", 2), "table 't': entity"),
        (TableSpec("t", "user", 2, seed=1), TableSpec("t", "user", 2), "table 't': seed"),
        (
            TableSpec("t", "user", 2, slots=(SlotSpec("m", 2),)),
            TableSpec("t", "user", 2, slots=(SlotSpec("m", 2, fill=1),)),
            "slot 'm' of table 't': fill is 0.0 on one side and 1",
        ),
    ],
)
def test_what_was_added_in_two_ways(forked: Store, main: TableSpec, side: TableSpec, says: str) -> None:
    """A table or slot that both sides added differently is refused, whatever the policy."""
    edit(forked, "main", lambda w: w.add_table(main))
    edit(forked, "side", lambda w: w.add_table(side))
    for policy in ("fail", "mean", "ours"):
        with pytest.raises(SchemaMismatchError, match=says):
            forked.merge("side", on_conflict=policy)


def test_an_entity_typed_in_two_ways(url: str) -> None:
    """The first ids type an entity: "1" here and 1 there do not go together."""
    store = embstore.create(url, schema=SCHEMA)
    store.branch("side")
    work = store.checkout("side")
    edit(store, "main", lambda w: w.append("user", ["1"]))
    edit(store, "side", lambda w: w.append("user", [1]))
    with pytest.raises(SchemaMismatchError, match="entity 'user': its ids are int64 on one side and str on the other"):
        store.merge("side")
    work.append("user", [2])
    with pytest.raises(SchemaMismatchError, match="entity 'user'"):
        work.commit("late", branch="main")
    assert work.commit("kept", branch="kept").entities["user"] == 1


def test_rows_of_another_entity(url: str) -> None:
    """What points to rows points to the same ids; to nothing, where the other side has removed them."""
    spec = TableSpec("genres", "item", 2, "int32", init=Constant(-1), rows_of="genre")
    store = embstore.create(url, schema=Schema((spec,)))

    def point(item: str, *genres: str) -> Edit:
        def act(work: embstore.Checkout) -> None:
            rows = work.append("genre", list(genres))
            work.table("genres").scatter(work.append("item", [item]), [[*rows, -1][:2]])

        return act

    edit(store, "main", point("a", "x", "y"), point("b", "y"), point("e", "y"))
    store.branch("side")
    edit(store, "main", point("a", "v", "x"), point("c", "w"), lambda w: w.remove("genre", ["y"]))
    edit(store, "side", point("b", "w", "u"), point("c", "w"), point("d", "y", "u"))
    version = store.merge("side")
    genre = version.ids("genre")

    def of(item: str) -> list[str | None]:
        rows = version.table("genres").get([item])[0].tolist()
        return [None if row < 0 else str(genre.ids([row])[0]) for row in rows]

    assert genre.ids().tolist() == ["x", "v", "w", "u"]
    assert [of(item) for item in "abcd"] == [["v", "x"], ["w", "u"], ["w", None], [None, "u"]]
    edit(store, "main", point("e", "u"))
    edit(store, "side", point("e", "w"))
    with pytest.raises(ConflictError, match=r"values of table 'genres' \(whole numbers have no mean\): 1 id \('e'\)"):
        store.merge("side", on_conflict="mean")
    version = store.merge("side", on_conflict=lambda conflict: conflict.theirs)
    assert of("e") == ["w", None]


def test_dropped_by_a_revert(forked: Store) -> None:
    """A table that one side dropped goes where the other left it alone; where it changed it, that conflicts."""
    forked.branch("main", at="main~1", move=True)
    added = edit(forked, "main", lambda w: w.add_table(TableSpec("late", "user", 2)), lambda w: w.append("user", [1, 2]))
    forked.branch("side", at=added.id, move=True)
    forked.branch("third", at=added.id)
    forked.revert("main~1")
    edit(forked, "side", lambda w: w.append("item", ["q"]))
    edit(forked, "third", put("late", [2], 4))
    version = forked.merge("side", message="without")
    assert (list(version.tables), version.entities) == (["user", "item", "age"], {"item": 1, "user": 0})
    with pytest.raises(ConflictError, match=r"table 'late' \(dropped on one side\): 1 id \(2\); .*removed on one side"):
        forked.merge("third")
    version = forked.merge("third", on_conflict="theirs")
    assert (first_numbers(version, "late", [2]), version.ids("user").ids().tolist()) == ([4], [2])
    assert forked.verify().problems == []


@pytest.mark.parametrize(("policy", "stays"), [("ours", True), ("theirs", False), ("mean", False), (lambda c: c.ours, False)])
def test_a_dropped_table_with_rows_of_new_ids(forked: Store, policy: Any, stays: bool) -> None:
    """A row of an id that the base lacks counts where it is off its start: the table does not go without a word."""
    edit(forked, "main", lambda w: w.add_table(TableSpec("late", "user", 2)))
    trained, untrained = forked.checkout(), forked.checkout()
    for work in (trained, untrained):
        work.append("user", [9, 8])
    put("late", [9], 5)(trained)
    forked.revert("main~1")
    with pytest.raises(ConflictError, match=r"table 'late' \(dropped on one side\): 1 id \(9\);"):
        trained.commit("new users")
    version = trained.commit("new users", on_conflict=policy)
    assert ("late" in version.tables, {8, 9} <= set(version.ids("user").ids())) == (stays, True)
    assert version.lineage["conflicts"] == {"table 'late' (dropped on one side)": 1}
    if stays:
        assert first_numbers(version, "late", [9, 1]) == [5, float(version.table("late").initial([1])[0, 0])]
    forked.branch("main", at="main~1", move=True)
    assert "late" not in untrained.commit("as they start").tables
    assert forked.verify().problems == []


def _with_a_slot(store: Store, *, dropped_on: str) -> None:
    """Give user 2 a slot on both branches, drop it on one by a revert, and train user 1 there."""
    work = store.checkout()
    work.table("user").add_slot(SlotSpec("late", None, fill=3)).scatter([1, 2], [7, 7])
    store.branch("side", at=work.commit("slot").id, move=True)
    store.revert("main~1", branch=dropped_on)
    edit(store, dropped_on, put("user", [1], 1))


@pytest.mark.parametrize("dropped_on", ["main", "side"])
def test_a_slot_dropped_by_a_revert(forked: Store, dropped_on: str) -> None:
    """It goes where the other side left it alone, whatever else of the rows that changed, and with new ids at its fill."""
    _with_a_slot(forked, dropped_on=dropped_on)
    other = {"main": "side", "side": "main"}[dropped_on]
    edit(forked, other, put("user", [2], 2), lambda w: w.append("user", [9]))
    version = forked.merge("side")
    assert (list(version.table("user").slots), first_numbers(version, "user", [1, 2])) == (["m", "step"], [1, 2])
    assert ("conflicts" in version.lineage, forked.verify().problems) == (False, [])


@pytest.mark.parametrize(("policy", "stays"), [("ours", False), ("theirs", True), ("mean", False), (lambda c: c.ours, False)])
@pytest.mark.parametrize("dropped_on", ["main", "side"])
def test_a_dropped_slot_that_was_trained(forked: Store, dropped_on: str, policy: Any, stays: bool) -> None:
    """It conflicts as a table does, rows of new ids too; where it stays, it is as the other side has it."""
    _with_a_slot(forked, dropped_on=dropped_on)
    other = {"main": "side", "side": "main"}[dropped_on]
    edit(forked, other, lambda w: w.append("user", [9]), put("user", [1, 9], 5, slot="late"), put("user", [2], 2))
    with pytest.raises(ConflictError, match=r"slot 'late' of table 'user' \(dropped on one side\): 2 ids \(1, 9\)"):
        forked.merge("side")
    version = forked.merge("side", on_conflict=policy)
    if isinstance(policy, str) and policy != "mean" and dropped_on == "side":
        stays = not stays
    assert version.lineage["conflicts"].pop("slot 'late' of table 'user' (dropped on one side)") == 2
    assert ("late" in version.table("user").slots, first_numbers(version, "user", [2])) == (stays, [2])
    if stays:
        assert version.table("user").slot("late").get([1, 2, 3, 9]).tolist() == [5, 7, 7, 5]
    assert forked.verify().problems == []
