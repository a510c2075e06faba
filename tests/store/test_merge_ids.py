"""Merges of what was appended, removed and recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Store
from embstore.errors import ConflictError
from tests.store.forked import SCHEMA, edit, first_numbers, fork, had, put


@pytest.fixture
def forked(url: str) -> Store:
    """Return a store with users 1, 2, 3, items "a" and "b", three pairs and an array, and a branch side beside main."""
    return fork(url)


def test_a_new_id_of_both_starts_from_its_initial_vector(forked: Store) -> None:
    """Who left it there has not changed it; who gave it another has."""
    edit(forked, "main", lambda w: w.append("item", ["x", "y", "z"]), put("item", ["y", "z"], 1))
    edit(forked, "side", lambda w: w.append("item", ["z", "x", "w"]), put("item", ["x"], 2))
    version = forked.merge("side")
    assert first_numbers(version, "item", ["x", "y", "z"]) == [2, 1, 1]
    assert np.array_equal(version.table("item").get(["w"]), version.table("item").initial(["w"]))
    edit(forked, "side", put("item", ["z"], 3))
    with pytest.raises(ConflictError, match=r"table 'item': 1 id \('z'\)"):
        forked.merge("side~0", into="main")


@pytest.mark.parametrize(("policy", "stays"), [("ours", True), ("theirs", False), ("mean", False), (lambda c: c.ours, False)])
@pytest.mark.parametrize("changer", ["main", "side"])
def test_removal_against_change(forked: Store, policy: Any, stays: bool, changer: str) -> None:
    """It conflicts; whose side counts decides, and under a mean or a callable the removal wins."""
    remover = {"main": "side", "side": "main"}[changer]
    edit(forked, changer, put("user", [1], 1, slot="m"), lambda w: w.consumed.append([0], [1]))
    edit(forked, remover, lambda w: w.remove("user", [1, 2]))
    with pytest.raises(ConflictError, match=r"table 'user' \(removed on one side\): 1 id \(1\);"):
        forked.merge("side")
    version = forked.merge("side", on_conflict=policy)
    if isinstance(policy, str) and policy != "mean" and changer == "side":
        stays = not stays
    assert version.ids("user").ids().tolist() == ([3, 1] if stays and changer == "side" else [1, 3] if stays else [3])
    assert (len(version.consumed), forked.verify().problems) == (3 if stays else 1, [])
    if stays:
        assert (had(version, 1), version.table("user").slot("m").get([1]).tolist()) == (["a", "b"], [[1, 1]])


def test_a_removal_wins_over_records(forked: Store) -> None:
    """Who is removed on one side is gone, though the other recorded something of it: a record is no change of a row."""
    edit(forked, "main", lambda w: w.remove("user", [1]), lambda w: w.remove("item", ["b"]))
    edit(forked, "side", lambda w: w.consumed.append([0, 1, 2], [0, 0, 1]))
    version = forked.merge("side")
    assert [had(version, user) for user in (2, 3)] == [["a"], ["a"]]


def test_tombstones_of_both_sides(forked: Store) -> None:
    """Ids that both removed are gone, ids removed and appended again are one, and blanked ids are nobody's."""
    edit(forked, "main", lambda w: w.remove("user", [1, 2]), lambda w: w.append("user", [1, 0]), put("user", [0], 6))
    edit(forked, "side", lambda w: w.remove("user", [3, 2]), lambda w: w.append("user", [3, 9]), put("user", [9], 7))
    version = forked.merge("side")
    assert sorted(version.ids("user").ids()) == [0, 1, 3, 9]
    assert first_numbers(version, "user", [0, 9]) == [6, 7]
    for user in (1, 3):
        assert np.array_equal(version.table("user").get([user]), version.table("user").initial([user]))
    assert (len(version.consumed), forked.verify().problems) == (0, [])


def test_records_of_both_stand(forked: Store) -> None:
    """Those of the branch first; by time, where every record of a user has one."""
    for branch, items, times in (("main", [1, 0], [5, 3]), ("side", [1, 1], [4, 9])):
        edit(
            forked,
            branch,
            lambda w: w.append("user", [8]),
            lambda w, items=items, times=times: w.consumed.append(w.ids("user").rows([8, 8]), items, times=times),
            lambda w, items=items: w.consumed.append([0, 0], items),
        )
    version = forked.merge("side")
    assert (had(version, 8), had(version, 1)) == (["a", "b", "b", "b"], ["a", "b", "a", "b", "b"])


@pytest.mark.parametrize(
    ("policy", "expected"), [("fail", None), ("ours", ["a", "b"]), ("theirs", ["b", "b"]), ("mean", ["b", "b", "b"])]
)
def test_a_record_replaced_against_one_added(forked: Store, policy: str, expected: list[str] | None) -> None:
    """It conflicts, also when the record was folded since; other users' records do not."""
    edit(forked, "main", lambda w: w.consumed.append([0, 1], [1, 1]))
    edit(forked, "side", lambda w: w.consumed.append([0, 0, 2], [1, 1, 1], replace=True))
    forked.compact("side")
    if expected is None:
        with pytest.raises(ConflictError, match=r"the consumed record of users: 1 id \(1\);"):
            forked.merge("side", on_conflict=policy)
        return
    version = forked.merge("side", on_conflict=policy)
    assert [had(version, user) for user in (1, 2, 3)] == [expected, ["b", "b"], ["b"]]
    assert forked.verify().problems == []


def test_equal_replacements_are_one(forked: Store) -> None:
    """Both sides replaced a user's record by the same: it is there once."""
    for branch in ("main", "side"):
        edit(forked, branch, lambda w: w.consumed.append([0, 0], [1, 1], replace=True))
    assert had(forked.merge("side"), 1) == ["b", "b"]


def test_records_with_times_may_be_recorded_in_any_order(url: str) -> None:
    """Replaced by the same at the same times, they are as they were, and conflict with nothing; replaced by others they do."""
    store = embstore.create(url, schema=SCHEMA)
    work = store.checkout()
    users, items = work.append("user", [1, 2]), work.append("item", ["a", "b"])
    work.consumed.append(users[[0, 0, 1]], items[[0, 1, 0]], times=[1, 2, 3])
    work.commit("fork")
    store.branch("side")
    edit(store, "side", lambda w: w.consumed.append([0, 0, 1], [1, 0, 1], times=[2, 1, 3], replace=True))
    edit(store, "main", lambda w: w.consumed.append([0], [1], times=[0]))
    store.branch("other")
    assert had(store.merge("side"), 1) == ["b", "a", "b"]
    edit(store, "other", lambda w: w.consumed.append([1], [1], times=[0]))
    with pytest.raises(ConflictError, match=r"the consumed record of users: 1 id \(2\);"):
        store.merge("side", into="other")
