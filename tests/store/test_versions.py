"""Branches, tags, refs, the log, revert, blame, export, and versions that travel to other processes."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

import embstore
from embstore import Schema, SlotSpec, Store, TableSpec, Version
from embstore.errors import (
    AmbiguousRefError,
    ConflictError,
    InvalidInputError,
    NameExistsError,
    NameSpentError,
    RefusedError,
    UnknownIdError,
    UnknownNameError,
    UnknownRefError,
)
from tests.store.agreement import as_read


def _step(store: Store, number: float, *, branch: str = "main") -> Version:
    work = store.checkout(branch)
    work.dense["n"] = number
    return work.commit(f"step {number}")


def test_refs(filled: Store) -> None:
    """Branches, tags, ids and prefixes of four characters and more, in any case, and so many versions back."""
    first, second, third = filled.at(), _step(filled, 2), _step(filled, 3)
    filled.tag("v1", at="main~1")
    filled.branch("side", at=second.id)
    for ref in ("main~1", "main~", "v1", "side", second.id, second.id[:12], second.id.lower()[:10], "side~0", "v1~0"):
        assert filled.at(ref) == second, ref
    assert (filled.at(), filled.at("main"), filled.at("main~0"), filled.at(f"{third.id}~2")) == (third, third, third, first)
    assert [v.message for v in filled.log()] == ["step 3", "step 2", "first", "create the store"]
    assert [v.message for v in filled.log("v1~1")] == ["first", "create the store"]
    assert (third.parent, third.parents, filled.at("main~3").parent, filled.at("main~3").parents) == (
        second.id,
        (second.id,),
        None,
        (),
    )
    for ref in (
        "main~4",
        "nobody",
        second.id[:3],
        "main~x",
        "",
        " main",
        "main ",
        "~1",
        "@2026-01-01",
        None,
        5,
        "main~1~1",
        "refs/main",
    ):
        with pytest.raises(UnknownRefError):
            filled.at(ref)  # type: ignore[arg-type]


def test_a_branch_goes_before_a_tag_before_an_id(filled: Store) -> None:
    """A name wins over the version whose id begins so."""
    first, second = filled.at(), _step(filled, 2)
    filled.branch(second.id[:6], at=first.id)
    filled.tag(second.id[:7], at=first.id)
    assert [filled.at(second.id[:n]).id for n in (6, 7, 8)] == [first.id, first.id, second.id]
    filled.branch(second.id, at=first.id)
    assert filled.at(second.id) == first


def test_an_ambiguous_prefix(store: Store) -> None:
    """Versions are made until two ids begin alike: four characters are too few for these, five will do."""
    work, starts = store.checkout(), dict[str, str]()
    id_ = work.version.id
    while starts.setdefault(id_[:4], id_) == id_:
        id_ = work.commit("x", allow_empty=True).id
    with pytest.raises(AmbiguousRefError, match=f"{id_[:4]}.*2 versions begin so"):
        store.at(id_[:4])
    assert {store.at(one).id for one in (id_, starts[id_[:4]])} == {id_, starts[id_[:4]]}


def test_dates(filled: Store) -> None:
    """The newest version at or before a moment; a day is taken whole; moments without a zone are UTC."""
    first, second = filled.at(), _step(filled, 2)
    assert first.time < second.time
    assert filled.at(f"main@{second.time.isoformat()}") == second
    assert filled.at(f"main@{(second.time - timedelta(microseconds=1)).isoformat()}") == first
    assert filled.at(f"main@{second.time.date()}") == second
    assert filled.at(f"main@{(second.time + timedelta(days=400)).date()}") == second
    assert filled.at("main@9999-12-31") == second
    assert filled.at(f"{first.id}@9999-12-31T23:59:59") == first
    assert filled.at(f"main@{second.time.replace(tzinfo=None).isoformat()}") == second
    with pytest.raises(UnknownRefError, match="1999"):
        filled.at("main@1999-01-01")
    for date in ("yesterday", "2026-13-01", "2026-02-30", "1", "9999-12-31T23:59:60"):
        with pytest.raises(InvalidInputError, match=date):
            filled.at(f"main@{date}")
    for steps in ("9" * 30, "9" * 5000):
        with pytest.raises(UnknownRefError):
            filled.at(f"main~{steps}")


def test_branches(filled: Store) -> None:
    """They are made, moved, committed to, deleted and made again at an older version."""
    first = filled.at()
    filled.branch("side")
    with pytest.raises(NameExistsError, match="side"):
        filled.branch("side")
    tip = _step(filled, 1, branch="side")
    assert filled.branches() == {"main": first.id, "side": tip.id}
    filled.delete_branch("side")
    assert (filled.branches(), filled.at(tip.id)) == ({"main": first.id}, tip)
    filled.branch("side", at="main~1")
    again = _step(filled, 2, branch="side")
    assert [v.id for v in filled.log("side")] == [again.id, filled.at("main~1").id]
    with pytest.raises(RefusedError, match="main"):
        filled.delete_branch("main")
    with pytest.raises(UnknownRefError, match="nobody"):
        filled.delete_branch("nobody")
    with pytest.raises(UnknownRefError, match="nobody"):
        filled.checkout("nobody")
    with pytest.raises(UnknownRefError):
        filled.checkout(first.id)


def test_moving_a_branch_back_and_forth(filled: Store) -> None:
    """Rollback and promotion; what was left behind stays reachable by its id, also for a new handle."""
    first, second = filled.at(), _step(filled, 2)
    filled.branch("main", at=first.id, move=True)
    assert (filled.at(), filled.at(second.id)) == (first, second)
    other = _step(filled, 3)
    assert (other.parent, filled.at(second.id).dense["n"]) == (first.id, 2)
    filled.branch("main", at=second.id, move=True)
    filled.branch("new", at=other.id, move=True)
    assert filled.branches() == {"main": second.id, "new": other.id}
    assert filled.diff("new").dense == {"n": "changed"}


def test_a_commit_to_a_branch_that_moved(filled: Store) -> None:
    """Where both changed an array it conflicts, everything stays staged, and another branch takes it."""
    work = filled.checkout()
    work.append("user", [9])
    work.dense["n"], second = 1, _step(filled, 2)
    with pytest.raises(ConflictError, match="main"):
        work.commit("late")
    version = work.commit("late", branch="late")
    assert (version.parent, filled.at().id, work.branch) == (filled.at("main~1").id, second.id, "late")
    work.append("user", [10])
    assert work.commit("more").ids("user").ids().tolist() == [1, 2, 3, 9, 10]
    assert filled.branches() == {"main": second.id, "late": work.version.id}


def test_tags(filled: Store) -> None:
    """A tag stays where it is; its name is spent when it goes; branches and tags share no name."""
    first = filled.at()
    filled.tag("v1")
    _step(filled, 2)
    assert (filled.tags(), filled.at("v1")) == ({"v1": first.id}, first)
    for kind in (filled.tag, filled.branch):
        with pytest.raises(NameExistsError, match="v1"):
            kind("v1")
    with pytest.raises(NameExistsError, match="main"):
        filled.tag("main")
    with pytest.raises(UnknownRefError):
        filled.checkout("v1")
    filled.delete_tag("v1")
    assert filled.tags() == {}
    with pytest.raises(NameSpentError, match="v1"):
        filled.tag("v1")
    with pytest.raises(UnknownRefError, match="v1"):
        filled.delete_tag("v1")
    filled.branch("v1")
    work = filled.checkout()
    filled.tag("v2")
    work.append("user", [9])
    with pytest.raises(NameExistsError, match="v2"):
        work.commit("x", branch="v2")
    assert work.commit("x", branch="v3").entities["user"] == 4


def test_revert(filled: Store) -> None:
    """The branch goes on with a version equal to an older one; what came between stays in the log."""
    first = filled.at()
    work = filled.checkout()
    work.append("user", [4])
    work.remove("user", [1])
    work.remove("item", ["b"])
    work.table("user").scatter([1], np.ones((1, 4)))
    work.add_table(TableSpec("late", "item", 2))
    work.table("user").add_slot(SlotSpec("late", None))
    del work.dense["w"]
    second = work.commit("second", metadata={"k": 1})
    third = filled.revert(first.id)
    assert filled.diff(first.id).is_empty
    assert (third.parent, third.metadata, [v.message for v in filled.log()][1]) == (second.id, {}, "second")
    assert sorted(third.ids("user").ids().tolist()) == [1, 2, 3]
    assert third.ids("user").rows([1, 2]).tolist() == [4, 1]
    assert as_read(third.table("user").get([1, 2, 3])) == as_read(first.table("user").get([1, 2, 3]))
    assert [ids.tolist() for ids in third.consumed.of("user", [1, 2, 3])] == [["a", "b"], ["a"], ["b", "b"]]
    forth = filled.revert(second.id, message="there again")
    assert (filled.diff(second.id).is_empty, forth.message, forth.metadata) == (True, "there again", {"k": 1})
    assert (filled.revert("main").id != forth.id, filled.diff(forth.id).is_empty) == (True, True)
    assert filled.revert("main").entities == forth.entities
    assert filled.verify().problems == []


def test_revert_where_an_id_has_moved(filled: Store) -> None:
    """Removed and appended again, an id has another row; its records follow it."""
    first = filled.at()
    work = filled.checkout()
    work.remove("user", [1])
    work.append("user", [1])
    work.commit("moved")
    version = filled.revert(first.id)
    assert version.ids("user").rows([1]).tolist() == [3]
    assert [ids.tolist() for ids in version.consumed.of("item", ["a", "b"])] == [[1, 2], [1, 3, 3]]
    assert filled.diff(first.id).is_empty


@pytest.mark.parametrize("kind", [int, str])
def test_revert_where_a_removal_left_no_record(url: str, kind: type) -> None:
    """Reverting to a version that removed an id, on a branch that has lost that id already: other ids keep their records."""
    store = embstore.create(url, schema=Schema(entities={"user": "int64", "item": None}))
    work = store.checkout()
    work.append("user", [1])
    work.append("item", [kind(0), kind(5)])
    work.consumed.append([0, 0], [0, 1])
    first = work.commit("first")
    work.append("item", [kind(7)])
    store.branch("side", at=work.commit("one more").id)
    work.remove("item", [kind(7)])
    last = work.commit("and gone")
    store.revert(first.id, branch="side")
    version = store.revert(last.id, branch="side")
    assert version.consumed.of("user", [1])[0].tolist() == last.consumed.of("user", [1])[0].tolist() == [kind(0), kind(5)]
    assert store.diff(last.id, "side").is_empty


def test_blame(filled: Store) -> None:
    """The versions that changed an id's rows, newest first; rewritten bits and other ids do not count."""
    first = filled.at()
    work = filled.checkout()
    work.table("user").scatter([0, 1], np.ones((2, 4)))
    second = work.commit("2")
    work.table("user").scatter([0, 1], [[1, 1, 1, 1], [2, 2, 2, 2]])
    third = work.commit("3")
    work.table("user").slot("n").scatter([0], [9])
    work.append("user", [4])
    fourth = work.commit("4")
    filled.compact()
    filled.branch("side")
    work = filled.checkout("side")
    work.table("user").scatter([0], np.zeros((1, 4)))
    work.commit("elsewhere")
    names = {1: [fourth, second, first], 2: [third, second, first], 3: [first], 4: [fourth]}
    assert {id_: filled.blame("user", id_) for id_ in names} == names
    assert filled.blame("user", 2, table="user") == names[2]
    assert [v.message for v in filled.export(f"{filled.url}-export").blame("user", 1)] == ["compact"]
    with pytest.raises(UnknownIdError, match="77"):
        filled.blame("user", 77)
    with pytest.raises(UnknownNameError, match="nobody"):
        filled.blame("nobody", 1)
    with pytest.raises(UnknownNameError, match="nothing"):
        filled.blame("user", 1, table="nothing")


def test_a_diff_back_past_a_removal_names_the_ids(url: str) -> None:
    """Rows of removed ids may be written again; what a commit records of them says nothing of older versions."""
    store = embstore.create(url, schema=Schema((TableSpec("user", "user", 2),), {"user": "int64"}))
    work = store.checkout()
    rows = work.append("user", [5, 6, 7])
    first = work.commit("three")
    work.remove("user", [5, 6])
    work.commit("one")
    work.table("user").scatter(rows, np.ones((3, 2)))
    last = work.commit("every row")
    diff = store.diff(last.id, first.id)
    assert (diff.ids["user"].appended.tolist(), diff.tables["user"].changed_ids.tolist()) == ([5, 6], [7])


def test_a_diff_of_branches_that_gave_one_row_to_two_ids(url: str) -> None:
    """What one branch's commits record of rows that both appended says nothing of the other branch's."""
    store = embstore.create(url, schema=Schema((TableSpec("user", "user", 2),), {"user": "int64"}))
    with store.checkout() as work:
        work.append("user", [1, 2])
        store.branch("side", at=work.commit("two").id)
    for branch, new in (("main", [5, 6]), ("side", [6, 5])):
        work = store.checkout(branch)
        rows = work.append("user", new)
        work.commit("four")
        work.table("user").scatter([0, rows[0]], np.full((2, 2), new[0]))
        work.commit("other vectors")
    diff = store.diff("main", "side")
    assert (diff.ids["user"].appended.tolist(), sorted(diff.tables["user"].changed_ids.tolist())) == ([], [1, 5, 6])
