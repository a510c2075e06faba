"""Merges one after the other, and what log, blame, diff and revert say of them."""

from __future__ import annotations

from datetime import timedelta

import pytest

import embstore
from embstore import Constant, Schema, Store, TableSpec
from embstore.errors import ConflictError, InvalidInputError, RefusedError, UnknownRefError
from embstore.history import common_ancestors
from tests.store.forked import Edit, array, edit, first_numbers, fork, had, put


@pytest.fixture
def forked(url: str) -> Store:
    """Return a store with users 1, 2, 3, items "a" and "b", three pairs and an array, and a branch side beside main."""
    return fork(url)


def test_what_is_merged_already(forked: Store) -> None:
    """A branch that has all of the source stays; one that the source comes from moves there, or takes a version of its own."""
    side = edit(forked, "side", put("user", [1], 1))
    tip = forked.at()
    assert forked.merge("side~1") == tip
    forked.branch("other")
    assert (forked.merge("side"), forked.at(), forked.merge("side")) == (side, side, side)
    version = forked.merge("side", into="other", message="with a message")
    assert (version.parents, version.message) == ((tip.id, side.id), "with a message")
    assert (forked.diff("side", "other").is_empty, forked.merge(side.id, into="other")) == (True, version)
    assert [v.message for v in forked.log("other")] == ["with a message", "fork", "create the store"]


def test_a_branch_moves_only_along_its_own_line(forked: Store) -> None:
    """Where the source has the branch as a second parent, it is merged: first parents stay the branch's own."""
    tip = edit(forked, "main", put("user", [1], 1))
    edit(forked, "side", put("user", [2], 2))
    forked.merge("main", into="side")
    version = forked.merge("side")
    assert (version.parents, [v.id for v in forked.log()][1]) == ((tip.id, forked.branches()["side"]), tip.id)
    assert forked.diff("side").is_empty


def test_refs_that_cannot_be_merged(forked: Store) -> None:
    """The source may be any ref; what it comes into is a branch."""
    forked.tag("t")
    for source, into in (("nobody", "main"), ("side", "nobody"), ("side", "t")):
        with pytest.raises(UnknownRefError, match="nobody|'t'"):
            forked.merge(source, into=into)
    with pytest.raises(InvalidInputError, match="message"):
        forked.merge("side", message=" ")
    edit(forked, "main", put("user", [1], 1))
    assert forked.merge("t") == forked.at()


def test_a_second_merge_finds_nothing_again(forked: Store) -> None:
    """What was merged before, and decided, is no conflict any more."""
    for branch, number in (("main", 1), ("side", 2)):
        edit(forked, branch, put("user", [1], number), array("w", [number]))
    forked.merge("side", on_conflict="theirs")
    edit(forked, "side", put("user", [2], 5))
    edit(forked, "main", put("user", [3], 6))
    version = forked.merge("side")
    assert (first_numbers(version, "user", [1, 2, 3]), version.dense["w"].tolist()) == ([2, 5, 6], [2])
    edit(forked, "side", put("user", [1], 9))
    assert first_numbers(forked.merge("side"), "user", [1]) == [9]


def test_branches_merged_into_each_other(forked: Store) -> None:
    """Criss-cross: both have what both had, so that only what was changed since counts."""
    edit(forked, "main", put("user", [1], 1), lambda w: w.append("user", [4]), lambda w: w.remove("item", ["a"]))
    edit(forked, "side", put("user", [2], 2), lambda w: w.append("user", [5]), lambda w: w.consumed.append([0], [1]))
    forked.branch("old", at="main")
    forked.merge("side", into="main")
    forked.merge("old", into="side")
    tips = [forked.at("main"), forked.at("side")]
    assert len(common_ancestors(*tips, forked.at)) == 2
    edit(forked, "main", put("user", [2], 20), lambda w: w.remove("user", [5]), lambda w: w.append("item", ["a"]))
    edit(forked, "side", put("user", [1], 10), put("user", [4], 40))
    for source, into in (("side", "main"), ("main", "side")):
        forked.branch(f"{into}-too", at=into)
        version = forked.merge(source, into=f"{into}-too", message="again")
        assert first_numbers(version, "user", [1, 2, 4]) == [10, 20, 40]
        assert (sorted(version.ids("user").ids()), version.entities["item"], had(version, 1)) == ([1, 2, 3, 4], 2, ["b"])
    assert forked.verify("main-too").problems == []


def test_criss_cross_decided_in_two_ways(forked: Store) -> None:
    """Where each side took its own row when they were merged into each other, it is open again."""
    edit(forked, "main", put("user", [1], 1), array("w", [1.0]))
    edit(forked, "side", put("user", [1], 2), array("w", [2.0]))
    forked.branch("old", at="main")
    forked.merge("side", into="main", on_conflict="ours")
    forked.merge("old", into="side", on_conflict="ours")
    with pytest.raises(ConflictError, match=r"table 'user': 1 id \(1\); dense 'w'"):
        forked.merge("side")
    assert first_numbers(forked.merge("side", on_conflict={"rows": "mean", "dense": "ours"}), "user", [1]) == [1.5]


def test_what_log_blame_and_diff_say(forked: Store) -> None:
    """All ancestors are in the log; a row is followed to the branch it came from; a diff goes through what both come from."""
    trained = edit(forked, "side", put("user", [1], 1), lambda w: w.append("user", [5]))
    later = edit(forked, "side", put("user", [1], 2), put("user", [2], 3))
    own = edit(forked, "main", put("user", [2], 4), put("user", [3], 4))
    merged = forked.merge("side", on_conflict="mean")
    assert [v.id for v in forked.log(all=True)][:2] == [merged.id, own.id]
    assert {v.id for v in forked.log(all=True)} == {merged.id, own.id, trained.id, later.id, *(v.id for v in own_line(forked))}
    fork = forked.at("main~2")
    assert [v.id for v in forked.blame("user", 1)] == [later.id, trained.id, fork.id]
    assert [v.id for v in forked.blame("user", 2)] == [merged.id, own.id, later.id, fork.id]
    assert [v.id for v in forked.blame("user", 3, table="user")] == [own.id, fork.id]
    assert [v.id for v in forked.blame("user", 5)] == [trained.id]
    diff = forked.diff("side", "main")
    assert (sorted(diff.tables["user"].changed_ids), diff.ids["user"].appended.tolist()) == ([2, 3], [])
    back = edit(forked, "side", put("user", [1], 1))
    assert sorted(forked.diff(back.id, "main").tables["user"].changed_ids) == [1, 2, 3]
    assert sorted(forked.diff(trained.id, "main").tables["user"].changed_ids) == [1, 2, 3]


def own_line(store: Store) -> list[embstore.Version]:
    """Return the versions that both branches began with."""
    return list(store.log("main~2"))


def test_a_diff_with_what_was_merged_and_changed_back(forked: Store) -> None:
    """A row changed on a branch and back again before it was merged differs from the version between."""
    between = edit(forked, "side", put("user", [1], 1), lambda w: w.append("user", [8, 9]))
    edit(forked, "side", put("user", [1], 0))
    edit(forked, "main", lambda w: w.append("user", [9, 4]))
    forked.merge("side")
    diff = forked.diff(between.id)
    assert diff.tables["user"].changed_ids.tolist() == [1]
    assert (diff.ids["user"].appended.tolist(), diff.ids["user"].removed.tolist()) == ([4], [])


def test_what_was_merged_is_found_without_its_branch(forked: Store) -> None:
    """By its id, or as many characters as tell it from others."""
    edit(forked, "main", put("user", [1], 1))
    side = edit(forked, "side", put("user", [2], 2))
    forked.merge("side")
    forked.delete_branch("side")
    assert (forked.at(side.id[:10]), forked.at(side.id), forked.blame("user", 2)[0]) == (side, side, side)


def test_where_what_both_come_from_is_expired(forked: Store) -> None:
    """Nobody can say any more what either side changed: the merge is refused, and diff compares all."""
    edit(forked, "main", put("user", [1], 1))
    edit(forked, "side", put("user", [2], 2))
    forked.expire(timedelta(0), dry_run=False)
    assert sorted(forked.diff("main", "side").tables["user"].changed_ids) == [1, 2]
    with pytest.raises(RefusedError, match="what both come from was expired"):
        forked.merge("side")


def test_going_on_from_a_merge(forked: Store) -> None:
    """A merge is compacted, reverted, exported and trained on like any version."""
    edit(forked, "main", put("user", [1], 1), lambda w: w.append("user", [6]))
    edit(forked, "side", put("user", [2], 2), lambda w: w.append("user", [7, 6]), lambda w: w.consumed.append([0], [1]))
    merged = forked.merge("side")
    forked.compact()
    assert (forked.diff(merged.id).is_empty, forked.verify().problems) == (True, [])
    edit(forked, "main", put("user", [1, 7], 9), lambda w: w.remove("user", [6]))
    assert forked.diff(merged.id, forked.revert(merged.id).id).is_empty
    assert forked.diff("side", forked.revert("side").id).is_empty
    assert (forked.verify().problems, had(forked.at(), 1)) == ([], ["a", "b"])


def test_a_merge_is_as_large_as_what_it_brings(forked: Store) -> None:
    """Only rows that the branch has otherwise are written, and recorded."""
    edit(forked, "side", lambda w: w.append("user", range(100, 1_100)))
    forked.merge("side")
    edit(forked, "main", put("user", range(100, 600), 1))
    edit(forked, "side", put("user", [100 + 900, 2], 3))
    version = forked.merge("side")
    counts = version.lineage["counts"]["tables"]
    assert (list(counts), counts["user"]["changed"], counts["user"]["recorded"]) == (["user"], 2, 2)
    assert version.ids("user").ids(version.changed_rows("user")).tolist() == [2, 1_000]


def test_blame_of_what_points_to_rows_of_others(url: str) -> None:
    """A row that a merge brought over has other numbers for the same ids: whose they are decides, not the numbers."""
    spec = TableSpec("genres", "item", 2, "int32", init=Constant(-1), rows_of="genre")
    store = embstore.create(url, schema=Schema((spec,), {"item": "int64"}))

    def point(item: int, *genres: str) -> Edit:
        return lambda w: w.table("genres").scatter(w.ids("item").rows([item]), [w.append("genre", list(genres))])

    edit(store, "main", lambda w: w.append("item", [1, 2, 3]), point(3, "x", "y"))
    store.branch("side")
    edit(store, "main", lambda w: w.append("genre", ["a"]), lambda w: w.remove("genre", ["y"]), point(2, "a", "x"))
    edit(store, "side", point(1, "b", "y"))
    merged = store.merge("side", on_conflict="mean")
    assert merged.table("genres").get([1]).tolist() == [[3, -1]]
    assert [[v.message for v in store.blame("item", item)] for item in (1, 2, 3)] == [
        ["on side", "on main"],
        ["on main", "on main"],
        ["on main"],
    ]
    cleared = edit(store, "main", lambda w: w.remove("genre", ["x"]), lambda w: w.table("genres").scatter([2], [[-1, -1]]))
    assert store.blame("item", 3)[0] == cleared
