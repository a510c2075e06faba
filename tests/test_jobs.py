"""Training jobs that share a branch: what each sees of the others, and how work that could not land comes home."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import embstore
from embstore import Batch, Checkout, ConflictError, Interactions, InvalidInputError, SchemaMismatchError, Store, Version
from tests.examples import new_store, state_of
from tests.jobs import OURS, THEIRS, begun, fitted, had, never, trained_alone
from tests.plugin.tinymf import TinyMF
from trainers.popularity import Popularity


def test_jobs_that_change_different_rows_both_stand() -> None:
    """Two trainers with tables of their own: ids are united, records stand in commit order, the log is one line."""
    store = begun()
    between = embstore.fit(
        store,
        Popularity(),
        OURS,
        message="counts",
        progress=lambda epoch, metrics: embstore.fit(store, TinyMF(), THEIRS, message="theirs"),
    )
    assert [version.message for version in store.log()][:2] == ["counts", "theirs"]
    assert (store.at(), between.parents) == (between, (store.at("main~1").id,))
    assert between.entities == {"user": 5, "item": 6}
    assert had(between, [1, 5, 6]) == [["a", "c", "a", "a"], ["x"], ["a", "y"]]
    alone = trained_alone(THEIRS)
    users = alone.ids("user").ids()
    np.testing.assert_array_equal(between.table("tinymf.user").get(users), alone.table("tinymf.user").get(users))
    assert between.table("popularity").get(["a", "b", "x", "y"]).tolist() == [1, 1, 1, 0]


def test_conflict_at_the_end_loses_nothing() -> None:
    """The work is on a branch called after the run; the error says what both changed, where it is and how it comes home."""
    store = begun()
    with pytest.raises(ConflictError) as caught:
        fitted(store, run="day-2")
    words = str(caught.value)
    assert re.match(r"branch 'main' has moved from \w+ to \w+ since this checkout was made, and both sides changed ", words), (
        words
    )
    assert re.search(r"table 'tinymf\.user'\D* 1 ids? \(1\)", words), words
    assert re.search(r"'tinymf\.random'", words), words
    kept = store.at("main-day-2")
    advice = "store.merge('main-day-2', on_conflict={'rows': 'mean', 'dense': 'ours'}) brings it home, or train again"
    assert words.endswith(f"; the work is version {kept.id} on branch 'main-day-2': {advice}")
    assert (store.at().message, kept.message, kept.lineage["meant_for"]) == ("theirs", "ours", "main")
    assert state_of(kept) == state_of(trained_alone(OURS))
    merged = store.merge("main-day-2", on_conflict={"rows": "mean", "dense": "ours"})
    assert (merged.parents, merged.entities) == ((store.at("main~1").id, kept.id), {"user": 5, "item": 6})


def test_conflict_on_another_branch_says_into() -> None:
    """What is meant for a branch beside main is merged into that one."""
    store = begun()
    store.branch("eu")

    def train(epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch == 1:
            embstore.fit(store, TinyMF(), THEIRS, message="theirs", branch="eu")

    with pytest.raises(ConflictError, match=r"store\.merge\('eu-r', into='eu', on_conflict="):
        embstore.fit(store, TinyMF(), OURS, message="ours", branch="eu", run="r", progress=train)
    assert store.at().message == "day 1"


@pytest.mark.parametrize("rows", ["ours", "theirs", "mean", "callable"])
def test_policy_says_whose_rows_count(rows: str) -> None:
    """Of the user that both trained, the row is ours, theirs or between; that of one side is this side's; dense is ours."""
    store = begun()
    policy: Any = (lambda conflict: conflict.ours) if rows == "callable" else rows
    version = fitted(store, on_conflict={"rows": policy, "dense": "ours"})
    ours, theirs = (trained_alone(pairs).table("tinymf.user") for pairs in (OURS, THEIRS))
    mine, yours = ours.get([1]), theirs.get([1])
    expected = {"ours": mine, "callable": mine, "theirs": yours, "mean": (mine.astype(np.float64) + yours) / 2}[rows]
    np.testing.assert_allclose(version.table("tinymf.user").get([1]), expected, rtol=1e-6)
    np.testing.assert_array_equal(version.table("tinymf.user").get([2, 5]), ours.get([2, 5]))
    np.testing.assert_array_equal(version.table("tinymf.user").get([3, 6]), theirs.get([3, 6]))
    assert (store.at(), version.parents, list(store.branches())) == (version, (store.at("main~1").id,), ["main"])
    assert had(version, [1, 5, 6]) == [["a", "c", "a", "a"], ["x"], ["a", "y"]]


def test_policies_mean_the_same_wherever_the_work_lands() -> None:
    """Ours is the training, whether it commits to the branch or comes home from one of its own."""
    versions = {}
    for commit_every in (None, 2):
        versions[commit_every] = fitted(begun(), on_conflict="ours", run="r", commit_every=commit_every)
    direct, merged = versions.values()
    assert (len(direct.parents), len(merged.parents)) == (1, 2)
    users = direct.ids("user").ids()
    for version in (direct, merged):
        np.testing.assert_array_equal(version.table("tinymf.user").get([1]), trained_alone(OURS).table("tinymf.user").get([1]))
    np.testing.assert_array_equal(direct.table("tinymf.user").get(users), merged.table("tinymf.user").get(users))
    seen = []
    for commit_every in (None, 2):
        policy = {"rows": lambda conflict: seen.append(conflict) or conflict.ours, "dense": "ours"}
        fitted(begun(), on_conflict=policy, run="r", commit_every=commit_every)
    first, second = _by_call(seen)
    assert first.keys() == second.keys()
    for key, conflict in first.items():
        for name in ("base", "ours", "theirs"):
            np.testing.assert_array_equal(getattr(conflict, name), getattr(second[key], name))


def _by_call(seen: list[Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Return the conflicts of each of two trainings by table and slot."""
    half = len(seen) // 2
    first, second = ({(c.table, c.slot): c for c in part} for part in (seen[:half], seen[half:]))
    return first, second


@pytest.mark.parametrize(
    "on_conflict", ["sometimes", "", None, 3, {"row": "mean"}, {"rows": "never"}, {"dense": lambda c: c.ours}]
)
def test_policy_that_cannot_be_is_refused_before_training(on_conflict: Any) -> None:
    """A word that is not known costs no training."""
    store = begun()
    with pytest.raises(InvalidInputError, match="^on_conflict="):
        embstore.fit(store, TinyMF(), OURS, message="ours", on_conflict=on_conflict, progress=never)
    with pytest.raises(InvalidInputError, match="^on_conflict="):
        embstore.fold_in(store, TinyMF(), OURS, message="ours", on_conflict=on_conflict)


@pytest.mark.parametrize("commit_every", [None, 2])
def test_a_resolver_that_fails_loses_nothing(commit_every: int | None) -> None:
    """An error of the caller's own callable at the very end leaves the work on a branch too."""
    store = begun()
    says = "branch 'main' has moved, and .* division or modulo by zero; the work is version .* on branch 'main-r'"
    with pytest.raises(ConflictError, match=says):
        fitted(store, run="r", on_conflict={"rows": lambda conflict: 1 // 0, "dense": "ours"}, commit_every=commit_every)
    assert state_of(store.at("main-r")) == state_of(trained_alone(OURS))


def test_tables_that_cannot_be_one_lose_nothing() -> None:
    """Where both sides added a table of one name and another form, the work is on a branch too."""
    store = new_store()

    def theirs(epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch == 1:
            embstore.fit(store, TinyMF(dim=8), THEIRS, message="theirs")

    with pytest.raises(ConflictError, match="tinymf.* on branch 'main-r'") as caught:
        embstore.fit(store, TinyMF(dim=4), OURS, message="ours", run="r", progress=theirs)
    assert isinstance(caught.value.__cause__, SchemaMismatchError)
    assert store.at("main-r").tables["tinymf.user"].dim == 4


def test_a_schema_that_cannot_be_is_told_when_the_branch_stands_still() -> None:
    """Errors that have nothing to do with others stay what they are, and make no branch."""
    store = begun()
    with pytest.raises(InvalidInputError):
        embstore.fit(store, TinyMF(dim=8), OURS, message="ours", run="r")
    assert list(store.branches()) == ["main"]


def folded(store: Store, ours: Interactions, theirs: Interactions, **options: Any) -> Version:
    """Fold in ours while another job folds in theirs."""

    class Slow(TinyMF):
        def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch, *, entity: str = "user") -> dict[str, float]:
            embstore.fold_in(store, TinyMF(), theirs, message="theirs")
            return super().fold_in(work, rows, batch, entity=entity)

    return embstore.fold_in(store, Slow(), ours, message="ours", **options)


def test_fold_ins_of_different_ids_both_stand() -> None:
    """New ids of both are there, and records of an id that both brought are those of both."""
    version = folded(begun(), Interactions([7, 8], ["a", "b"]), Interactions([9, 1], ["c", "d"]))
    assert version.ids("user").ids().tolist() == [1, 2, 3, 9, 7, 8]
    assert had(version, [7, 8, 9, 1]) == [["a"], ["b"], ["c"], ["a", "c", "d"]]


@pytest.mark.parametrize("policy", ["ours", "theirs", {"rows": "mean"}])
def test_fold_ins_of_one_id(policy: Any) -> None:
    """An id that both gave a vector has the one that the policy says; without a word nothing is written."""
    ours, theirs = Interactions([7, 7], ["a", "b"]), Interactions([7], ["c"])
    store = begun()
    with pytest.raises(ConflictError, match="both sides changed .*1 ids? .*nothing is written"):
        folded(store, ours, theirs)
    assert (store.at().message, had(store.at(), [7])) == ("theirs", [["c"]])
    version = folded(begun(), ours, theirs, on_conflict=policy)
    assert had(version, [7]) == [["c", "a", "b"]]
    mine, yours = (embstore.fold_in(begun(), TinyMF(), p, message="x").table("tinymf.user").get([7]) for p in (ours, theirs))
    expected = {"ours": mine, "theirs": yours}.get(str(policy), (mine.astype(np.float64) + yours) / 2)
    np.testing.assert_allclose(version.table("tinymf.user").get([7]), expected, rtol=1e-6)
