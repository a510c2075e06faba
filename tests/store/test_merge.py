"""Bringing what another branch has changed into a branch: rows and arrays, and who decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embstore import Conflict, Store
from embstore.errors import ConflictError, InvalidInputError, NonFiniteError
from tests.store.forked import Edit, array, edit, first_numbers, fork, had, put


@pytest.fixture
def forked(url: str) -> Store:
    """Return a store with users 1, 2, 3, items "a" and "b", three pairs and an array, and a branch side beside main."""
    return fork(url)


def test_what_only_one_side_changed_stands(forked: Store) -> None:
    """Rows, slots, ids, records and arrays of both sides are in the merge, which has two parents."""
    main = edit(forked, "main", put("user", [1], 5), lambda w: w.append("user", [10, 7]), array("v", [3.0]))
    side = edit(
        forked,
        "side",
        put("user", [2], 6, slot="m"),
        lambda w: w.append("user", [7, 11], init={"user": [[7, 7], [11, 11]]}),
        lambda w: w.consumed.append(w.ids("user").rows([3]), w.ids("item").rows(["b"])),
        lambda w: w.remove("item", ["a"]),
    )
    version = forked.merge("side")
    assert (version.parents, version.message, forked.at()) == ((main.id, side.id), "merge side", version)
    assert first_numbers(version, "user", [1, 2, 7, 11]) == [5, 0, 7, 11]
    assert version.table("user").slot("m").get([1, 2])[:, 0].tolist() == [0, 6]
    assert version.ids("user").ids().tolist() == [1, 2, 3, 10, 7, 11]
    assert (version.ids("item").ids().tolist(), had(version, 3), had(version, 1)) == (["b"], ["b"], [])
    assert (sorted(version.dense), version.lineage["merged"]["source"], forked.verify().problems) == (["v", "w"], "side", [])
    assert forked.at("side") == side


def test_conflicts_are_named(forked: Store) -> None:
    """The error names tables, how many ids and the first of them, records and arrays; nothing is written."""
    many = list(range(100, 110))
    for branch, number in (("main", 1), ("side", 2)):
        edit(
            forked,
            branch,
            lambda w: w.append("user", many),
            put("user", [1, *many], number),
            put("item", ["b"], number),
            array("w", [number]),
            lambda w, replace=number == 2: w.consumed.append([0], [1], replace=replace),
        )
    before = forked.branches()
    with pytest.raises(ConflictError) as caught:
        forked.merge("side")
    assert str(caught.value) == (
        "branch 'main' and 'side': both sides changed table 'user': 11 ids (1, 100, 101, …); table 'item': 1 id ('b'); "
        "the consumed record of users: 1 id (1); dense 'w'; nothing is written; say with on_conflict= whose stand (ours is the "
        "branch, theirs the source)"
    )
    assert forked.branches() == before
    assert forked.merge("side", on_conflict={"rows": "ours", "dense": "theirs"}).dense["w"].tolist() == [2]


def test_the_unit_is_a_row_with_its_slots(forked: Store) -> None:
    """Values changed here and a slot of the same row there conflict; another table of the same id does not."""
    edit(forked, "main", put("user", [1], 1), put("user", [2], 1))
    edit(forked, "side", put("user", [1], 2, slot="m"), put("age", [2], 3))
    with pytest.raises(ConflictError, match=r"table 'user': 1 id \(1\);"):
        forked.merge("side")
    version = forked.merge("side", on_conflict="theirs")
    assert (first_numbers(version, "user", [1, 2]), first_numbers(version, "age", [2])) == ([0, 1], [3])
    assert version.table("user").slot("m").get([1])[0].tolist() == [2, 2]


def test_equal_rows_never_conflict(forked: Store) -> None:
    """What both sides changed to the same bits stands; -0.0 is not 0.0."""
    for branch in ("main", "side"):
        edit(forked, branch, put("user", [1], 4), array("w", [9.0]), lambda w: w.append("item", ["c"]), put("item", ["c"], 1))
    assert first_numbers(forked.merge("side"), "user", [1]) == [4]
    edit(forked, "main", put("user", [1], 0.0))
    edit(forked, "side", put("user", [1], -0.0))
    with pytest.raises(ConflictError, match="1 id"):
        forked.merge("side")


def test_mean(forked: Store) -> None:
    """Vectors, slots and arrays are averaged; a counter of steps is the larger."""
    edit(forked, "main", put("user", [1], 1), put("user", [1], 7, slot="step"), array("w", [0.0, 4.0]), array("step", 3))
    edit(forked, "side", put("user", [1], 3, slot="m"), put("user", [1], 5, slot="step"), array("w", [1, 1.0]), array("step", 9))
    version = forked.merge("side", on_conflict="mean")
    user = version.table("user")
    assert (user.get([1])[0, 0], user.slot("m").get([1])[0, 0], user.slot("step").get([1])[0]) == (0.5, 1.5, 7)
    assert (version.dense["w"].tolist(), int(version.dense["step"])) == ([0.5, 2.5], 9)
    assert version.lineage["conflicts"] == {"table 'user'": 1, "dense": 2}


@pytest.mark.parametrize(
    ("main", "side", "says"),
    [
        (array("w", [1.0, 2, 3]), array("w", [1.0]), "dense .*no mean.* 'w'"),
        (array("w", None), array("w", [1.0]), "dense .*no mean.* 'w'"),
        (array("w", [1, 2]), array("w", [3, 4]), "dense .*no mean.* 'w'"),
        (put("age", [1], 3), put("age", [1], 5), r"values of table 'age' \(whole numbers have no mean\): 1 id \(1\)"),
    ],
)
def test_what_has_no_mean(forked: Store, main: Edit, side: Edit, says: str) -> None:
    """Arrays of other shapes, whole numbers and what is deleted are refused, and may be taken from one side."""
    edit(forked, "main", main)
    edit(forked, "side", side)
    before = forked.branches()
    with pytest.raises(ConflictError, match=says):
        forked.merge("side", on_conflict="mean")
    assert forked.branches() == before
    assert forked.merge("side", on_conflict="theirs").parents == (before["main"], before["side"])


def test_a_callable_decides(forked: Store) -> None:
    """It is given each column of the rows that differ, with what both began with."""
    edit(forked, "main", put("user", [1, 3], 1), lambda w: w.append("user", [9]), put("user", [9], 2))
    edit(forked, "side", put("user", [1], 5), lambda w: w.append("user", [9]), put("user", [9], 4), put("user", [9], 3, slot="m"))
    asked: list[Conflict] = []

    def longest(conflict: Conflict) -> NDArray[Any]:
        asked.append(conflict)
        return np.maximum(conflict.ours, conflict.theirs) + (10 if conflict.slot is None else 0)

    version = forked.merge("side", on_conflict=longest)
    assert [(c.table, c.slot, c.ids.tolist()) for c in asked] == [("user", s, [1, 9]) for s in (None, "m", "step")]
    assert [getattr(asked[0], what)[:, 0].tolist() for what in ("ours", "theirs")] == [[1, 2], [5, 4]]
    assert np.array_equal(asked[0].base[1], version.table("user").initial([9])[0])
    assert first_numbers(version, "user", [1, 9, 3]) == [15, 14, 1]
    assert version.table("user").slot("m").get([9])[0].tolist() == [3, 3]


def test_a_callable_may_do_what_it_likes_with_what_it_is_given(forked: Store) -> None:
    """Ids and rows are its own: what it does to them in place changes no row of another id."""
    edit(forked, "main", put("user", [1], 1), put("user", [2], 2))
    edit(forked, "side", put("user", [1], 10), put("user", [2], 20))

    def spoil(conflict: Conflict) -> NDArray[Any]:
        answer = conflict.theirs.copy()
        for given in (conflict.ids, conflict.base, conflict.ours, conflict.theirs):
            given[:] = given[::-1].copy()
        return answer

    assert first_numbers(forked.merge("side", on_conflict=spoil), "user", [1, 2]) == [10, 20]


def test_infinities_have_no_mean(forked: Store) -> None:
    """Of either sign, allowed on both sides: a row and an array with them stay a conflict; of one sign they stay as they are."""
    for branch, sign in (("main", 1), ("side", -1)):
        work = forked.checkout(branch)
        work.table("user").scatter([0, 1], [[sign * np.inf, 1], [np.inf, sign]])
        work.commit("far off", allow_nonfinite=True)
    with pytest.raises(ConflictError, match=r"values of table 'user' \(infinite either way, there is no mean\): 1 id \(1\);"):
        forked.merge("side", on_conflict="mean")
    edit(forked, "side", put("user", [1], 0))
    assert forked.merge("side", on_conflict="mean").table("user").get([2]).tolist() == [[np.inf, 0]]
    for branch, sign in (("main", 1), ("side", -1)):
        work = forked.checkout(branch)
        work.dense["w"] = [sign * np.inf, 0.0]
        work.commit("far off", allow_nonfinite=True)
    with pytest.raises(ConflictError, match="dense .*no mean.* 'w'"):
        forked.merge("side", on_conflict="mean")


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (lambda c: c.ours[:, :1], InvalidInputError, r"as on_conflict returns them.*\(1, 1\); give \(1, 2\)"),
        (lambda c: None, InvalidInputError, "as on_conflict returns them"),
        (lambda c: c.ours.astype(complex), InvalidInputError, "complex128 does not fit float32"),
        (lambda c: c.ours * np.nan, NonFiniteError, r"1 rows of table 'user' are not finite \(ids 1\)"),
        (lambda c: 1 / 0, ZeroDivisionError, "division"),
    ],
)
def test_a_callable_that_answers_wrongly(forked: Store, answer: Any, error: type[Exception], says: str) -> None:
    """What cannot be stored is refused, and nothing is written."""
    edit(forked, "main", put("user", [1], 1))
    edit(forked, "side", put("user", [1], 2))
    before = forked.branches()
    with pytest.raises(error, match=says):
        forked.merge("side", on_conflict=answer)
    assert forked.branches() == before


@pytest.mark.parametrize(
    "policy",
    [
        "mine",
        "",
        None,
        3,
        {"row": "ours"},
        {"rows": "our"},
        {"dense": None},
        {"dense": lambda c: c},
        {"rows": "ours", "x": 1},
        {"rows": np.array(["ours", "theirs"])},
        {"rows": ["ours"]},
    ],
)
def test_policies_that_there_are_not(forked: Store, policy: Any) -> None:
    """They are refused before anything is compared, with those that there are."""
    with pytest.raises(InvalidInputError, match="on_conflict=.*give 'fail', 'ours', 'theirs', 'mean', a callable"):
        forked.merge("side", on_conflict=policy)


def test_a_policy_for_rows_leaves_arrays_alone(forked: Store) -> None:
    """A callable, or rows alone, says nothing of arrays: these conflict."""
    for branch, number in (("main", 1.0), ("side", 2.0)):
        edit(forked, branch, put("user", [1], number), array("w", [number]))
    for policy in (lambda c: c.ours, {"rows": "ours"}):
        with pytest.raises(ConflictError, match="both sides changed dense 'w';"):
            forked.merge("side", on_conflict=policy)
    with pytest.raises(ConflictError, match="both sides changed table 'user': 1 id"):
        forked.merge("side", on_conflict={"dense": "ours"})
