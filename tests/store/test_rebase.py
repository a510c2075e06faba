"""Checkouts of a branch that has moved: laid on its new tip, by a commit or by a rebase."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Checkout, Store, TableSpec, Version
from embstore.committing import until_landed
from embstore.errors import ConflictError, StaleCheckoutError, UnknownRefError
from tests.store.agreement import as_read
from tests.store.threeway import assert_same, read


def _put(work: Checkout, ids: list[int], number: float) -> Checkout:
    work.table("user").scatter(work.append("user", ids), np.full((len(ids), 4), number, np.float32))
    return work


def _first(view: embstore.View, ids: list[int]) -> list[float]:
    return [float(number) for number in view.table("user").get(ids)[:, 0]]


def test_rows_held_across_a_replay_are_refused(filled: Store) -> None:
    """What a commit laid on a moved branch has other rows; whatever the checkout gave out refuses them."""
    work = filled.checkout()
    rows = work.append("user", [10])
    table, slot, consumed, dense = work.table("user"), work.table("user").slot("m"), work.consumed, work.dense
    _put(filled.checkout(), [20], 2).commit("somebody else")
    version = work.commit("mine")
    assert (rows.tolist(), version.ids("user").rows([20, 10]).tolist()) == ([3], [3, 4])
    for act in (
        lambda: table.scatter(rows, np.ones((1, 4))),
        lambda: slot.scatter(rows, np.ones((1, 4))),
        lambda: consumed.append(rows, [0]),
        lambda: dense.update({"w": np.ones(1)}),
        lambda: work.append("user", [30]),
        lambda: work.commit("again"),
        lambda: work.rebase(),
    ):
        with pytest.raises(StaleCheckoutError, match=f"committed as {version.id} on a branch that had moved"):
            act()
    assert (work.dirty, _first(filled.at(), [20])) == (False, [2])


def test_a_checkout_goes_on_where_nobody_came_between(filled: Store) -> None:
    """Its rows stay; after the first commit that was laid on another it ends, and its with-block too."""
    with filled.checkout() as work:
        rows = work.append("user", [10])
        first = work.commit("one")
        work.table("user").scatter(rows, np.ones((1, 4), np.float32))
        second = work.commit("two")
        assert (second.parent, "replays" in first.lineage or "replays" in second.lineage) == (first.id, False)
        _put(filled.checkout(), [20], 2).commit("somebody else")
        work.table("user").scatter(rows, np.full((1, 4), 5, np.float32))
        third = work.commit("three")
    assert (third.lineage["replays"], third.lineage["replayed_from"]) == (1, second.id)
    assert [v.message for v in filled.log()][:4] == ["three", "somebody else", "two", "one"]
    assert (third.parents, _first(third, [10, 20])) == ((filled.at("main~1").id,), [5, 2])


def test_what_was_staged_lands(filled: Store) -> None:
    """Ids, rows, slots, records, arrays, tables and what is recorded of the commit are as if it had come second."""
    work = filled.checkout()
    _put(work, [9, 8], 1)
    work.table("user").slot("n").scatter([1], [4])
    work.remove("item", ["b"])
    work.consumed.append(work.ids("user").rows([9, 1]), [0, 0], times=[2.5, 1])
    work.dense["v"] = [[7]]
    del work.dense["w"]
    bias = work.add_table(TableSpec("bias", "user", None))
    bias.scatter(work.ids("user").rows([3]), [6.0])
    work.lineage["trainer"] = "mine"
    other = filled.checkout()
    other.append("item", ["c"])
    _put(other, [7, 8], 1)
    tip = other.commit("other")
    version = work.commit("mine", metadata={"k": 1})
    assert (version.parent, version.metadata, version.lineage["trainer"]) == (tip.id, {"k": 1}, "mine")
    assert (version.ids("user").ids().tolist(), version.ids("item").ids().tolist()) == ([1, 2, 3, 7, 8, 9], ["a", "c"])
    assert (_first(version, [7, 8, 9]), version.table("bias").get([3]).tolist()) == ([1, 1, 1], [6])
    assert as_read(version.table("bias").get([7])) == as_read(version.table("bias").initial([7]))
    assert version.table("user").slot("n").get([2, 7]).tolist() == [4, 0.5]
    assert [ids.tolist() for ids in version.consumed.of("user", [1, 9])] == [["a", "a"], ["a"]]
    assert ({name: array.tolist() for name, array in version.dense.items()}, filled.verify().problems) == ({"v": [[7]]}, [])


def test_nothing_is_lost_by_a_conflict(filled: Store) -> None:
    """Everything stays staged: the same checkout commits under another policy, or to a branch of its own."""
    work = _put(filled.checkout(), [1, 9], 1)
    work.dense["w"] = [0.0]
    tip = _put(filled.checkout(), [1], 2).commit("other")
    staged = read(work)
    says = r"has moved from \w+ to \w+ .*table 'user': 1 id \(1\); your changes are still here"
    for act in (lambda: work.commit("mine"), lambda: work.rebase(), lambda: work.commit("mine", on_conflict={"dense": "ours"})):
        with pytest.raises(ConflictError, match=says):
            act()
        assert_same(read(work), staged)
        assert (filled.branches(), work.dirty) == ({"main": tip.id}, True)
    kept = work.commit("kept", branch="kept")
    assert_same(read(kept), staged)
    assert (kept.parent, work.branch, filled.merge("kept", on_conflict="mean").table("user").get([1])[0, 0]) == (
        tip.parent,
        "kept",
        1.5,
    )


@pytest.mark.parametrize(
    ("policy", "expected"), [("ours", 1), ("theirs", 2), ("mean", 1.5), (lambda c: c.ours * 3 + c.theirs, 5)]
)
def test_ours_is_the_checkout(filled: Store, policy: Any, expected: float) -> None:
    """Theirs is what landed meanwhile; the lineage counts what was decided."""
    late, rebased = (_put(filled.checkout(), [1], 1) for _ in range(2))
    _put(filled.checkout(), [1], 2).commit("other")
    work = rebased.rebase(policy)
    version = late.commit("late", on_conflict=policy)
    assert (_first(version, [1]), _first(work, [1])) == ([expected], [expected])
    assert version.lineage["conflicts"] == {"table 'user'": 1}


def test_rebase_gives_a_checkout_of_the_tip(filled: Store) -> None:
    """It holds what was staged and sees what others have committed; the old one is closed; nothing is committed yet."""
    work = _put(filled.checkout(), [9], 1)
    work.lineage["run"] = "r"
    tip = _put(filled.checkout(), [8], 2).commit("other")
    new = work.rebase()
    assert (new.version, new.branch, new.dirty, filled.at()) == (tip, "main", True, tip)
    assert (new.ids("user").ids().tolist(), new.changes.appended["user"].tolist()) == ([1, 2, 3, 8, 9], [9])
    with pytest.raises(StaleCheckoutError, match="it was rebased; go on with what rebase returned"):
        work.append("user", [5])
    again = _put(new, [7], 3).rebase()
    version = again.commit("both")
    assert (version.parent, version.lineage["run"], "replays" in version.lineage) == (tip.id, "r", False)
    assert _first(version, [9, 8, 7]) == [1, 2, 3]
    clean = filled.checkout().rebase()
    assert (clean.dirty, clean.changes.is_empty) == (False, True)


def test_where_nothing_is_left_of_it(filled: Store) -> None:
    """Who committed the same has done our work; the version says so and changes nothing."""
    one, two = (_put(filled.checkout(), [1, 9], 1) for _ in range(2))
    first = one.commit("one")
    second = two.commit("two")
    assert (second.parent, filled.diff(first.id).is_empty, filled.verify().problems) == (first.id, True, [])


def test_a_branch_that_was_moved_back(filled: Store) -> None:
    """Only what is staged comes onto it: what the branch has given up stays given up."""
    first = filled.at()
    _put(filled.checkout(), [8], 2).commit("given up")
    work = _put(filled.checkout(), [9], 1)
    filled.branch("main", at=first.id, move=True)
    version = work.commit("mine")
    assert (version.parent, version.ids("user").ids().tolist()) == (first.id, [1, 2, 3, 9])
    work = _put(filled.checkout(), [9], 3)
    filled.branch("main", at=first.id, move=True)
    with pytest.raises(ConflictError, match=r"table 'user' \(removed on one side\): 1 id \(9\)"):
        work.commit("mine")
    assert work.commit("mine", on_conflict="ours").ids("user").ids().tolist() == [1, 2, 3, 9]


def test_another_branch(filled: Store) -> None:
    """What is staged goes onto any branch that there is; a branch that was deleted is made again, but not rebased onto."""
    filled.branch("side")
    side = _put(filled.checkout("side"), [8], 2).commit("side")
    work = _put(filled.checkout(), [9], 1)
    version = work.commit("there", branch="side")
    assert (version.parent, version.ids("user").ids().tolist(), filled.at().message) == (side.id, [1, 2, 3, 8, 9], "first")
    work = _put(filled.checkout("side"), [7], 1)
    filled.delete_branch("side")
    with pytest.raises(UnknownRefError, match="branch 'side': it was deleted; commit makes it again"):
        work.rebase()
    assert work.commit("made again").parent == version.id


def test_a_tag_with_the_name_of_a_deleted_branch(filled: Store) -> None:
    """It is no branch: nothing is rebased onto it, and what is staged stays."""
    filled.branch("side")
    work = _put(filled.checkout("side"), [7], 1)
    filled.delete_branch("side")
    filled.tag("side", at="main~1")
    with pytest.raises(UnknownRefError, match="branch 'side': it was deleted"):
        work.rebase()
    assert work.commit("kept", branch="kept").entities["user"] == 4


def test_a_revert_is_not_laid_on_another_version(filled: Store) -> None:
    """It is equal to what it names or it is not made."""
    work = filled.checkout()
    _put(filled.checkout(), [8], 2).commit("other")
    work.append("user", [9])
    with pytest.raises(ConflictError, match="has moved from .* meanwhile; nothing is written"):
        work.commit_here("revert", {})
    assert filled.at().message == "other"


def test_tries_are_bounded(filled: Store) -> None:
    """Who loses every race is told so at last."""
    tries: list[int] = []

    def lose() -> Version | None:
        tries.append(1)
        return None

    with pytest.raises(ConflictError, match="branch 'main' has moved 5 times before this could be committed"):
        until_landed(filled.at().repo, "main", lose, most_tries=5)
    assert len(tries) == 5


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_many_at_once(tmp_path: Path, url: str, place: str) -> None:
    """Four writers with a row of their own and one new id for all: every commit lands, in one line, and counts its replays."""
    where = url if place == "memory" else str(tmp_path / "s")
    store = embstore.create(where, schema=embstore.Schema((TableSpec("user", "user", 4),)), durability="none")
    _put(store.checkout(), list(range(4)), 0).commit("start")
    barrier = Barrier(4)

    def write(number: int) -> list[str]:
        mine, made = embstore.open(where), []
        for turn in range(3):
            work = mine.checkout()
            _put(work, [number], turn + 1)
            work.append("user", [100 + turn])
            barrier.wait()
            made.append(work.commit(f"{number} {turn}").id)
        return made

    with ThreadPoolExecutor(4) as pool:
        made = [id_ for one in pool.map(write, range(4)) for id_ in one]
    log = list(store.log())[:-2]
    assert ({v.id for v in log}, len(log)) == (set(made), 12)
    assert all(len(v.parents) == 1 for v in log)
    assert (sum(v.lineage.get("replays", 0) > 0 for v in log) >= 9, _first(store.at(), list(range(4)))) == (True, [3.0] * 4)
    assert (sorted(store.at().ids("user").ids()), store.verify().problems) == ([*range(4), 100, 101, 102], [])
