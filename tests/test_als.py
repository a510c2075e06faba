"""Alternating least squares: the equations, what an increment touches, folding in, repeats, removals; and real pairs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

import embstore
from embstore import Batch, EmbstoreError, Interactions, Store, Version
from embstore.testing import TrainerContract, example_interactions
from embstore.training import stage_pairs
from tests.examples import crash_after, new_store, state_of
from tools.quality.protocol import DATA_SETS, load
from trainers.als import ALS

SMALL = ALS(dim=8, epochs=2, l2=0.5, alpha=3.0)
EXACT = replace(SMALL, steps=40)
PAIRS = example_interactions()
LATER = Interactions([3, 7, 99, 99], ["item 02", "item 05", "item 01", "brand-new"], times=[500, 501, 502, 503])
_branches = itertools.count()


class TestALSContract(TrainerContract):
    """ALS keeps the contract."""

    trainer = SMALL


@pytest.fixture(scope="module")
def base() -> Store:
    """Return a store trained on 60 users and 50 items."""
    random = np.random.default_rng(3)
    pairs = Interactions(random.integers(0, 60, 900), random.integers(0, 50, 900), times=np.arange(900))
    store = new_store()
    embstore.fit(store, SMALL, pairs, message="base")
    return store


def solved(version: Version, entity: str, trainer: ALS = SMALL) -> NDArray[np.float64]:
    """Return the vectors that solve the equations of users, or items, row by row and in float64."""
    other = version.table("item" if entity == "user" else "user").values().astype(np.float64)
    records = version.consumed.records()
    mine, theirs = (records.users, records.items) if entity == "user" else (records.items, records.users)
    found = np.zeros((len(version.ids(entity)), trainer.dim))
    for row in np.unique(mine).tolist():
        partners, counts = np.unique(theirs[mine == row], return_counts=True)
        paired, weights = other[partners], trainer.alpha * counts
        equations = other.T @ other + trainer.l2 * np.eye(trainer.dim) + (paired.T * weights) @ paired
        found[row] = np.linalg.solve(equations, paired.T @ (1 + weights))
    return found


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "dim 0: give a whole number from 1"),
        ({"epochs": 2.5}, "epochs 2.5: give a whole number from 1"),
        ({"half_sweeps": -1}, "half_sweeps -1: give a whole number from 0"),
        ({"steps": True}, "steps True: give a whole number from 1"),
        ({"l2": 0}, "l2 0: give a number above zero"),
        ({"alpha": float("nan")}, "alpha nan: give a number above zero"),
        ({"alpha": "9"}, "alpha '9': give a number above zero"),
        ({"init_std": float("inf")}, "init_std inf: give a number above zero"),
        ({"seed": 0.5}, "seed 0.5: give a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    """Each setting is checked when the trainer is made, and the message names it."""
    with pytest.raises(EmbstoreError, match=message):
        ALS(**settings)


def test_a_sweep_ends_where_the_equations_of_all_items_are_solved() -> None:
    """With enough steps, the items' vectors are the least squares solution; repeated pairs weigh more."""
    version = embstore.fit(new_store(), EXACT, PAIRS, message="fit")
    assert len(PAIRS) > version.consumed.to_csr().nnz
    np.testing.assert_allclose(version.table("item").values(), solved(version, "item", EXACT), atol=2e-5)


def test_repeats_weigh_like_more_confidence() -> None:
    """Each pair twice with alpha comes to what each pair once comes to with twice the alpha."""
    pairs = Interactions([1, 1, 2, 3], [1, 2, 2, 3])
    twice = embstore.fit(new_store(), SMALL, pairs.take([0, 1, 2, 3, 3, 2, 1, 0]), message="fit")
    once = embstore.fit(new_store(), replace(SMALL, alpha=2 * SMALL.alpha), pairs, message="fit")
    for name in ("user", "item"):
        assert np.abs(once.table(name).values()).max() > 0.1
        np.testing.assert_array_equal(twice.table(name).values(), once.table(name).values())


def test_a_run_cut_short_goes_on_exactly() -> None:
    """The sweeps that are left follow those before the crash: every bit as if uninterrupted."""
    trainer, store = replace(SMALL, epochs=4), new_store()
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, trainer, PAIRS, message="fit", run="night", commit_every=1, progress=crash_after(3))
    assert store.at().lineage["epochs"] == 2
    gone_on = embstore.fit(store, trainer, PAIRS, message="fit", run="night", commit_every=1)
    whole = embstore.fit(new_store(), trainer, PAIRS, message="fit")
    assert state_of(whole) == state_of(gone_on)


def test_an_increment_that_was_cut_short_is_done_once() -> None:
    """Where its only epoch was committed before the crash, going on only ends the run."""
    store = new_store()
    embstore.fit(store, SMALL, PAIRS, message="fit")
    store.branch("whole")
    whole = embstore.fit(store, SMALL, LATER, message="more", branch="whole")
    with store.checkout() as work:
        work.lineage |= {key: whole.lineage[key] for key in ("trainer", "data", "epochs", "metrics")}
        work.lineage |= {"run": "night", "unfinished": True}
        assert len(list(SMALL.train(work, stage_pairs(work, SMALL, LATER.ordered())))) == 1
        work.commit("more (epoch 1)")
    done = embstore.fit(store, SMALL, LATER, message="more", run="night")
    assert done.lineage["epochs"] == 1
    assert state_of(done) == state_of(whole)


def test_an_increment_changes_its_users_and_items_and_no_others() -> None:
    """New ids get vectors, the users and items of the pairs move, every other row keeps its bits."""
    store = new_store()
    before = embstore.fit(store, SMALL, PAIRS, message="fit")
    after = embstore.fit(store, SMALL, LATER, message="more")
    diff = store.diff(before.id, after.id)
    assert diff.tables["user"].changed_ids.tolist() == [3, 7]
    assert diff.tables["item"].changed_ids.tolist() == ["item 01", "item 02", "item 05"]
    assert np.abs(after.table("user").get([99])).max() > 0.01
    assert np.abs(after.table("item").get(["brand-new"])).max() > 0.01
    assert after.lineage["epochs"] == 1


@pytest.mark.parametrize(("half_sweeps", "entity"), [(0, "user"), (1, "item"), (2, "user"), (3, "item")])
def test_an_increment_ends_with_its_last_half_sweep(half_sweeps: int, entity: str) -> None:
    """What was solved last solves the equations of its whole history; with none, items that were there stay as they are."""
    store, trainer = new_store(), replace(EXACT, half_sweeps=half_sweeps)
    before = embstore.fit(store, trainer, PAIRS, message="fit")
    after = embstore.fit(store, trainer, LATER, message="more")
    rows = after.ids(entity).rows(np.unique(LATER.user_ids if entity == "user" else LATER.item_ids.astype(str)).tolist())
    np.testing.assert_allclose(after.table(entity).gather(rows), solved(after, entity, trainer)[rows], atol=2e-5)
    moved = store.diff(before.id, after.id).tables["item"].changed_ids.tolist()
    assert moved == ([] if half_sweeps == 0 else ["item 01", "item 02", "item 05"])


def test_an_increment_without_new_ids_goes_by_the_whole_history() -> None:
    """A pair that repeats an earlier one counts twice."""
    store, trainer = new_store(), replace(EXACT, half_sweeps=0)
    before = embstore.fit(store, trainer, PAIRS, message="fit")
    row = int(before.consumed.records().users[0])
    had = before.consumed.of("user", before.ids("user").ids([row]))[0]
    after = embstore.fit(store, trainer, Interactions(before.ids("user").ids([row]), had[:1]), message="again")
    np.testing.assert_allclose(after.table("user").gather([row]), solved(after, "user", trainer)[[row]], atol=2e-5)
    assert store.diff(before.id, after.id).tables["user"].changed_rows.tolist() == [row]


def test_ids_without_pairs_are_zero() -> None:
    """What was appended without pairs has a zero vector, and scores zero with everybody."""
    store = new_store()
    with store.checkout() as work:
        for entity in ("user", "item"):
            work.add_entity(entity, "int64" if entity == "user" else "str")
        work.append("item", ["nobody's", "nobody's too"])
        work.append("user", [1000])
        work.commit("ids alone")
    version = embstore.fit(store, SMALL, PAIRS, message="fit")
    assert np.abs(version.table("item").get(["nobody's", "nobody's too"])).max() == 0
    assert np.abs(version.table("user").get([1000])).max() == 0
    assert SMALL.scores(version, version.ids("user").rows([3]))[0, :2].tolist() == [0, 0]


def test_no_pairs_at_all_stage_nothing() -> None:
    """Neither in a first training nor in a later one is there an epoch without pairs."""
    store = new_store()
    nothing = Batch(np.empty(0, np.int64), np.empty(0, np.int64))
    embstore.fit(store, SMALL, PAIRS, message="fit")
    with store.checkout() as work:
        assert list(SMALL.train(work, nothing)) == []
        assert not work.dirty


def folded(base: Store, pairs: Interactions, *, entity: Any = "user") -> tuple[Version, embstore.Diff]:
    """Return a version of ``base`` with new users, or items, folded in, and how it differs."""
    branch = f"fold-{next(_branches)}"
    base.branch(branch)
    version = embstore.fold_in(base, SMALL, pairs, message="fold", branch=branch, entity=entity)
    return version, base.diff("main", version.id)


@pytest.mark.parametrize("entity", ["user", "item"])
def test_a_folded_row_is_the_same_alone_together_and_in_any_order(base: Store, entity: str) -> None:
    """Twenty new users, or items, get equal bits whatever the company, and nothing that was there moves."""
    random = np.random.default_rng(4)
    new, known = np.repeat(np.arange(100, 120), np.arange(1, 41, 2)), random.integers(0, 50, 400)
    pairs = Interactions(new, known) if entity == "user" else Interactions(known, new)
    together, _ = folded(base, pairs, entity=entity)
    expected = together.table(entity).get(np.arange(100, 120))
    assert len(np.unique(expected, axis=0)) == 20
    companies = [pairs.take(random.permutation(400)), pairs.take(new >= 107), pairs.take(new % 3 == 2)]
    companies += [pairs.take(new == row) for row in range(100, 120)]
    for company in companies:
        version, diff = folded(base, company, entity=entity)
        present = np.unique(company.user_ids if entity == "user" else company.item_ids)
        np.testing.assert_array_equal(version.table(entity).get(present), expected[present - 100], strict=True)
        assert [name for name, table in diff.tables.items() if len(table.changed_rows)] == []
        assert diff.dense == {}
        assert diff.ids[entity].appended.tolist() == present.tolist()


@pytest.mark.parametrize("entity", ["user", "item"])
def test_a_folded_row_solves_its_equations(base: Store, entity: str) -> None:
    """In closed form, repeats counted: as an increment with enough steps would have it."""
    had = [3, 11, 28, 28, 28, 40]
    pairs = Interactions([200] * 6, had) if entity == "user" else Interactions(had, [200] * 6)
    version, _ = folded(base, pairs, entity=entity)
    row = version.ids(entity).rows([200])
    np.testing.assert_allclose(version.table(entity).gather(row), solved(version, entity)[row], atol=1e-5)


def test_an_increment_after_folding_in_solves_for_those_users_too(base: Store) -> None:
    """What folding in recorded is part of the history of a user who comes again."""
    trainer = replace(EXACT, half_sweeps=0)
    base.branch("again")
    embstore.fold_in(base, trainer, Interactions([300, 300], [1, 2]), message="fold", branch="again")
    version = embstore.fit(base, trainer, Interactions([300], [7]), message="again", branch="again")
    row = version.ids("user").rows([300])
    np.testing.assert_allclose(version.table("user").gather(row), solved(version, "user", trainer)[row], atol=2e-5)


def test_removed_users_and_items_take_no_part() -> None:
    """Their rows stay zero, and who had them is solved for without them."""
    store = new_store()
    embstore.fit(store, EXACT, PAIRS, message="fit")
    gone = ["item 01", "item 04"]
    with store.checkout() as work:
        rows = work.ids("item").rows(gone)
        work.remove("item", gone)
        work.remove("user", [5])
        work.commit("forget")
    again = PAIRS.take(np.isin(PAIRS.user_ids, [1, 2, 3]) & (PAIRS.item_ids == "item 02"))
    version = embstore.fit(store, EXACT, again, message="on")
    assert np.abs(version.table("item").gather(rows)).max() == 0
    assert np.abs(version.table("user").gather([5])).max() == 0
    users = version.ids("user").rows(np.unique(again.user_ids))
    np.testing.assert_allclose(version.table("user").gather(users), solved(version, "user", EXACT)[users], atol=2e-5)


def test_mean_user_is_the_mean_of_the_live_ones() -> None:
    """Removed users do not draw it to zero, and without any user it is zero."""
    store = new_store()
    embstore.fit(store, SMALL, PAIRS, message="fit")
    with store.checkout() as work:
        work.remove("user", [0, 1, 2])
        version = work.commit("forget three")
    mean = version.table("user").get(version.ids("user").ids()).mean(axis=0)
    expected = mean @ version.table("item").values().T
    np.testing.assert_allclose(SMALL.scores(version, np.array([-1, 4]))[0], expected, rtol=1e-4, atol=1e-6)
    with store.checkout() as work:
        work.remove("user", work.ids("user").ids())
        nobody = work.commit("forget the others")
    np.testing.assert_array_equal(SMALL.scores(nobody, np.array([-1])), np.zeros((1, len(nobody.ids("item")))))


@given(data=st.data())
def test_order_of_pairs_never_matters(data: st.DataObject) -> None:
    """Two days of any pairs, some of them twice, in any order: the same bits."""
    pair = st.tuples(st.integers(0, 5), st.integers(0, 7))
    days = [data.draw(st.lists(pair, min_size=1, max_size=15)) for _ in range(2)]
    orders = [days, [data.draw(st.permutations(day)) for day in days]]
    states = []
    for order in orders:
        store = new_store()
        for day in order:
            users, items = zip(*day, strict=True)
            version = embstore.fit(store, SMALL, Interactions(list(users), list(items)), message="a day")
        states.append({name: version.table(name).values().tobytes() for name in ("user", "item")})
    assert states[0] == states[1]


def test_two_tastes_are_told_apart() -> None:
    """Users who share a taste are recommended what the others of that taste had."""
    pairs = [(user, item) for user in range(20) for item in range(user % 2, 20, 2) if (user + item) % 6]
    users, items = map(list, zip(*pairs, strict=True))
    version = embstore.fit(new_store(), ALS(dim=8), Interactions(users, items), message="fit")
    frame = embstore.recommend(version, list(range(20)), 3)
    assert ((frame["user"] - frame["item"]) % 2 == 0).mean() > 0.95


@pytest.mark.parametrize(("name", "recall"), [("ml-100k", 0.22), ("online-retail", 0.165)])
def test_real_pairs_in_two_parts(data_dir: Path, name: str, recall: float) -> None:
    """New users of the second stretch are served well after an increment."""
    parts = load(DATA_SETS[name], data_dir)
    store = new_store()
    for part in (parts.train1, parts.train2):
        version = embstore.fit(store, ALS(seed=1), part, message="a part")
    assert embstore.evaluate(version, parts.new_users)["recall@20"] >= recall
