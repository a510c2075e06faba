"""Merges of random edits are what dictionaries by id say, whichever way they are made."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings, strategies as st

import embstore
from embstore import Store, View
from embstore.errors import ConflictError
from embstore.threeway import merge_base
from embstore.workspace import Workspace
from tests.store.edits import EDITS, IDS, SCHEMA, Edit, apply
from tests.store.model import ITEM, USER
from tests.store.threeway import ClashError, Merged, Plain, assert_same, read

_counter = itertools.count()
FEWER = max(1, settings().max_examples * 3 // 5)
POLICIES = st.sampled_from(["fail", "ours", "theirs", "mean"])
HERE_IS_OURS = {"fail": "fail", "ours": "here", "theirs": "coming", "mean": "mean"}
HERE_IS_THEIRS = HERE_IS_OURS | {"ours": "coming", "theirs": "here"}


def new_store(edits: Sequence[Edit]) -> Store:
    """Return a store with some ids, records and an array, and branches main, side and start at it."""
    store = embstore.create(f"memory://merge-{next(_counter)}", schema=SCHEMA, durability="none")
    work = store.checkout()
    users, items = work.append(USER, IDS[USER][:4]), work.append(ITEM, IDS[ITEM][:3])
    work.consumed.append(users[[0, 0, 1, 2]], items[[0, 1, 1, 2]])
    work.dense["w"] = [1.5, 2.5]
    apply(work, edits).commit("start")
    store.branch("side")
    store.branch("start")
    return store


def go_on(store: Store, branch: str, edits: Sequence[Edit], *, at_once: bool = False) -> None:
    """Commit edits to a branch, in two versions or in one."""
    half = len(edits) if at_once else len(edits) // 2
    for part in (edits[:half], edits[half:]):
        apply(store.checkout(branch), part).commit(f"on {branch}", allow_empty=True)


def expected(store: Store, base: View, here: str, coming: str, policies: dict[str, str], words: dict[str, str]) -> Plain | None:
    """Return what a merge of two branches that come from ``base`` should be; None where it conflicts."""
    states = [read(view) for view in (base, store.at(here), store.at(coming))]
    try:
        return Merged(*states, rows=words[policies["rows"]], dense=words[policies["dense"]]).state()
    except ClashError:
        return None


def check_merge(store: Store, source: str, into: str, policies: dict[str, str], wanted: Plain | None) -> None:
    """Merge a branch into another: what is wanted comes out, or nothing happens."""
    before = store.branches()
    if wanted is None:
        with pytest.raises(ConflictError, match="both sides changed"):
            store.merge(source, into=into, on_conflict=policies, message="merged")
        assert store.branches() == before
        return
    version = store.merge(source, into=into, on_conflict=policies, message="merged")
    assert (store.branches()[into], version.parents) == (version.id, (before[into], before[source]))
    assert_same(read(version), wanted)
    assert store.verify(into).problems == []


@given(EDITS, EDITS, EDITS, POLICIES, POLICIES, st.booleans())
def test_merge_is_what_dictionaries_say(
    start: list[Edit], main: list[Edit], side: list[Edit], rows: str, dense: str, folded: bool
) -> None:
    """A merge of two branches, and the same laid on each other by a commit and by a rebase."""
    store, policies = new_store(start), {"rows": rows, "dense": dense}
    rebased, late = (apply(store.checkout(), side) for _ in range(2))
    go_on(store, "main", main)
    go_on(store, "side", side)
    if folded:
        store.compact("side")
    store.branch("same")
    wanted = expected(store, store.at("start"), "main", "side", policies, HERE_IS_THEIRS)
    check_replays(store, rebased, late, policies, wanted)
    check_merge(store, "side", "same", policies, expected(store, store.at("start"), "same", "side", policies, HERE_IS_OURS))


def check_replays(
    store: Store, rebased: embstore.Checkout, late: embstore.Checkout, policies: dict[str, str], wanted: Plain | None
) -> None:
    """Commit one checkout and rebase another to main, which has moved."""
    if wanted is None:
        for act in (lambda: late.commit("late", on_conflict=policies), lambda: rebased.rebase(policies)):
            staged, before = read(late), store.branches()
            with pytest.raises(ConflictError, match="both sides changed"):
                act()
            assert store.branches() == before
            assert_same(read(late), staged)
        late.commit("kept", branch="kept")
        return
    work = rebased.rebase(policies)
    assert_same(read(work), wanted)
    tip = store.branches()["main"]
    version = late.commit("late", on_conflict=policies, allow_empty=True)
    assert version.parents == (tip,)
    assert_same(read(version), wanted)
    assert_same(read(work.commit("rebased", branch="rebased", allow_empty=True)), wanted)
    assert store.verify().problems == []


@settings(max_examples=FEWER)
@given(EDITS, EDITS, EDITS)
def test_both_ways_are_one(start: list[Edit], main: list[Edit], side: list[Edit]) -> None:
    """Without conflicts, and where means are taken, it does not matter which branch is merged into which."""
    store = new_store(start)
    go_on(store, "main", main)
    go_on(store, "side", side)
    for name in ("main", "side"):
        store.branch(f"{name}-too", at=name)
    try:
        one = store.merge("side", into="main-too", on_conflict="mean", message="one")
    except ConflictError:
        with pytest.raises(ConflictError):
            store.merge("main", into="side-too", on_conflict="mean", message="other")
        return
    other = store.merge("main", into="side-too", on_conflict="mean", message="other")
    assert_same(read(one), read(other), ordered=False)
    diff = store.diff(one.id, other.id)
    assert all(len(table.changed_ids) == 0 and not any(table.slots.values()) for table in diff.tables.values())
    assert (diff.dense, one.schema) == ({}, other.schema)


@settings(max_examples=FEWER)
@given(EDITS, EDITS, EDITS, EDITS, POLICIES)
def test_criss_cross(main: list[Edit], side: list[Edit], main_later: list[Edit], side_later: list[Edit], policy: str) -> None:
    """Of branches that were merged into each other, only what was changed since counts."""
    store = new_store([])
    go_on(store, "main", main, at_once=True)
    go_on(store, "side", side, at_once=True)
    store.branch("old", at="main")
    try:
        both = read(store.merge("side", into="main"))
        store.merge("old", into="side")
    except ConflictError:
        both = None
        store.merge("side", into="main", on_conflict="ours")
        store.merge("old", into="side", on_conflict="ours")
    go_on(store, "main", main_later)
    go_on(store, "side", side_later)
    base = merge_base(store.at("main"), store.at("side"), store.at)
    assert isinstance(base, Workspace)
    if both is not None:
        assert_same(read(base), both, ordered=False)
    policies = {"rows": policy, "dense": policy}
    check_merge(store, "side", "main", policies, expected(store, base, "main", "side", policies, HERE_IS_OURS))
