"""BPR: what it promises of order, resuming, growth, removed items and folding in; and on real pairs."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

import embstore
from embstore import EmbstoreError, Interactions, Store, Version
from embstore.testing import TrainerContract, example_interactions
from tests.examples import crash_after, new_store, state_of
from tools.quality.protocol import DATA_SETS, load
from trainers.bpr import BPR

SMALL = BPR(dim=8, epochs=2, batch_size=32)
WIDER = replace(SMALL, dim=16)
PAIRS = example_interactions()
_branches = itertools.count()
LATER = Interactions([3, 7, 99, 99], ["item 02", "item 05", "item 01", "brand-new"], times=[500, 501, 502, 503])
SLOTS = ("exp_avg", "exp_avg_sq", "step")


class TestBPRContract(TrainerContract):
    """BPR keeps the contract."""

    trainer = SMALL


class TestEagerBPRContract(TrainerContract):
    """So it does where every row moves at every step, and without bias correction."""

    trainer = replace(SMALL, lazy=False, correction="none")


@dataclass(frozen=True)
class Recording(BPR):
    """Notes the users of every batch, with the items they had and those drawn."""

    batches: ClassVar[list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = []

    def _step(self, users: NDArray[np.int64], wanted: NDArray[np.int64], *learned: Any) -> float:
        self.batches.append((users, wanted))
        return super()._step(users, wanted, *learned)


def recorded(store: Store, pairs: Interactions, **settings: Any) -> tuple[Version, list[Any]]:
    """Fit, and return the version and the batches as lists."""
    Recording.batches.clear()
    version = embstore.fit(store, Recording(**{"dim": 4, "batch_size": 16} | settings), pairs, message="fit")
    return version, [(users.tolist(), wanted.tolist()) for users, wanted in Recording.batches]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "dim 0: give a whole number from 1"),
        ({"epochs": 2.5}, "epochs 2.5: give a whole number"),
        ({"negatives": True}, "negatives True: give a whole number"),
        ({"batch_size": "9"}, "batch_size '9': give a whole number"),
        ({"lr": -0.1}, "lr -0.1: give a number that is not negative"),
        ({"l2": float("nan")}, "l2 nan: give a finite number"),
        ({"fold_lr": float("inf")}, "fold_lr inf: give a finite number"),
        ({"init_std": None}, "init_std None: give a finite number"),
        ({"correction": "table"}, "correction 'table': use one of row, none"),
        ({"lazy": 1}, "lazy 1: give True or False"),
        ({"seed": 0.5}, "seed 0.5: give a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    """Each setting is checked when the trainer is made, and the message names it."""
    with pytest.raises(EmbstoreError, match=message):
        BPR(**settings)


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    """Learning rate, commits and what was learned do not matter to order and draws; seed and epoch do."""
    _, both = recorded(new_store(), PAIRS, epochs=2)
    epoch_0, epoch_1 = both[: len(both) // 2], both[len(both) // 2 :]
    store = new_store()
    assert recorded(store, PAIRS, epochs=1, lr=0.5, l2=0.0)[1] == epoch_0
    assert recorded(store, PAIRS, epochs=1)[1] == epoch_1
    assert recorded(new_store(), PAIRS, epochs=1, seed=1)[1] != epoch_0
    assert epoch_0 != epoch_1
    had = [sorted((u, w[0]) for us, ws in epoch for u, w in zip(us, ws, strict=True)) for epoch in (epoch_0, epoch_1)]
    assert had[0] == had[1]
    assert len(had[0]) == len(PAIRS)


_GO_ON = """
import sys
import embstore
from embstore.testing import example_interactions
from trainers.bpr import BPR
store, trainer = embstore.open(sys.argv[1]), BPR(dim=8, epochs=5, batch_size=32)
embstore.fit(store, trainer, example_interactions(), message="fit", run="night", commit_every=int(sys.argv[2]))
"""


@pytest.mark.parametrize(("commit_every", "last_epoch"), [(1, 1), (1, 4), (2, 3), (3, 3)])
def test_a_run_cut_short_goes_on_exactly_in_another_process(tmp_path: Path, commit_every: int, last_epoch: int) -> None:
    """After a crash, the epochs since the last commit are done again and the rest follows: every bit as if uninterrupted."""
    trainer, store = replace(SMALL, epochs=5), embstore.create(tmp_path / "store", durability="none")
    crash = crash_after(last_epoch)
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, trainer, PAIRS, message="fit", run="night", commit_every=commit_every, progress=crash)
    assert store.at().lineage.get("epochs", 0) == (last_epoch - 1) // commit_every * commit_every
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", _GO_ON, str(tmp_path / "store"), str(commit_every)], cwd=root, check=True)
    whole = embstore.fit(new_store(), trainer, PAIRS, message="fit")
    assert state_of(whole) == state_of(embstore.open(tmp_path / "store").at())


def test_an_increment_changes_the_rows_that_took_a_step_and_no_others() -> None:
    """With lazy Adam a version holds the users of its pairs and the items that were had or drawn."""
    store = new_store()
    before, _ = recorded(store, PAIRS, epochs=2)
    after, batches = recorded(store, LATER, epochs=1, negatives=1)
    diff = store.diff(before.id, after.id)
    assert diff.tables["user"].changed_ids.tolist() == [3, 7]
    drawn = {item for _, wanted in batches for row in wanted for item in row}
    stepped = np.array(sorted(drawn & set(before.ids("item").live_rows().tolist())))
    assert 0 < len(stepped) < len(before.ids("item"))
    for name in ("item", "item_bias"):
        assert diff.tables[name].changed_rows.tolist() == stepped.tolist()
        assert diff.tables[name].slots == dict.fromkeys(SLOTS, len(stepped))


def test_without_lazy_every_row_changes() -> None:
    """Momentum moves them all, as torch's Adam does."""
    store = new_store()
    before, _ = recorded(store, PAIRS, epochs=2, lazy=False)
    after, _ = recorded(store, LATER, epochs=1, lazy=False)
    diff = store.diff(before.id, after.id)
    for name in ("user", "item", "item_bias"):
        assert diff.tables[name].changed_rows.tolist() == list(range(len(before.table(name))))


def test_early_stopping_keeps_the_best_epoch() -> None:
    """What is committed equals, to the bit, a training that ends at the best epoch."""
    train, held_out = PAIRS.split("within", 0.3)
    found: dict[int, float] = {}
    trainer, judge = replace(SMALL, epochs=12, lr=0.1), lambda epoch, metrics: found.update({epoch: metrics["ndcg@100"]})
    version = embstore.fit(new_store(), trainer, train, message="fit", validation=held_out, patience=2, progress=judge)
    best = max(found, key=lambda epoch: found[epoch])
    assert (version.lineage["epochs"], version.lineage["epochs_trained"]) == (best, max(found))
    assert max(found) == min(best + 2, 12)
    alone = embstore.fit(new_store(), replace(trainer, epochs=best), train, message="fit")
    assert state_of(alone) == state_of(version)


@pytest.mark.parametrize(("correction", "factor"), [("row", 1.0), ("none", 0.1 / 0.001**0.5)])
def test_first_step_of_a_new_row_is_the_learning_rate(correction: str, factor: float) -> None:
    """However many steps the table has taken; without correction the first step would be 3.16 times that."""
    store = new_store()
    embstore.fit(store, replace(SMALL, epochs=30), PAIRS, message="fit")
    trainer = BPR(dim=8, epochs=1, lr=0.003, correction=correction)
    version = embstore.fit(store, trainer, Interactions([99], ["item 03"]), message="a newcomer")
    table = version.table("user")
    move = np.abs(table.get([99]) - table.initial([99]))
    np.testing.assert_allclose(move, np.full((1, 8), 0.003 * factor), rtol=1e-3)
    assert table.slot("step").get([99]).tolist() == [1]
    assert version.table("item").slot("step").get(["item 03"]) > 30


@pytest.fixture(scope="module")
def base() -> Store:
    """Return a store trained on 60 users and 50 items."""
    random = np.random.default_rng(3)
    pairs = Interactions(random.integers(0, 60, 900), random.integers(0, 50, 900), times=np.arange(900))
    store = new_store()
    embstore.fit(store, WIDER, pairs, message="base")
    return store


def folded(base: Store, pairs: Interactions, trainer: BPR = WIDER) -> tuple[Version, embstore.Diff]:
    """Return a version of ``base`` with new users folded in, and how it differs."""
    branch = f"fold-{next(_branches)}"
    base.branch(branch)
    version = embstore.fold_in(base, trainer, pairs, message="fold", branch=branch)
    return version, base.diff("main", version.id)


def test_a_folded_user_is_the_same_alone_together_and_in_any_order(base: Store) -> None:
    """Twenty users get equal bits whatever the company, and nothing that was there moves."""
    random = np.random.default_rng(4)
    users, items = np.repeat(np.arange(100, 120), np.arange(1, 41, 2)), random.integers(0, 50, 400)
    pairs = Interactions(users, items)
    together, _ = folded(base, pairs)
    expected = together.table("user").get(np.arange(100, 120))
    assert len(np.unique(expected, axis=0)) == 20
    companies = [pairs.take(random.permutation(400)), pairs.take(users >= 107), pairs.take(users % 3 == 2)]
    companies += [pairs.take(users == user) for user in range(100, 120)]
    for company in companies:
        version, diff = folded(base, company)
        present = np.unique(company.user_ids)
        np.testing.assert_array_equal(version.table("user").get(present), expected[present - 100], strict=True)
        assert [name for name, table in diff.tables.items() if len(table.changed_rows) or any(table.slots.values())] == []
        assert (diff.dense, diff.ids["item"].appended.tolist()) == ({}, [])
        assert diff.ids["user"].appended.tolist() == present.tolist()


def test_a_folded_user_comes_to_the_least_loss(base: Store) -> None:
    """With many small steps the vector is where -log softmax of the user's items, with L2 for each, is least."""
    had, trainer = [3, 11, 28, 28], replace(WIDER, fold_steps=800, fold_lr=0.01)
    version, _ = folded(base, Interactions([200] * 4, had), trainer)
    items, bias = version.table("item").values(), version.table("item_bias").values()
    rows = version.ids("item").rows(had)

    def loss(vector: NDArray[np.float64]) -> float:
        scores = items @ vector + bias
        return float((np.log(np.exp(scores).sum()) - scores[rows] + trainer.fold_l2 / 2 * vector @ vector).sum())

    best = minimize(loss, np.zeros(16)).x
    np.testing.assert_allclose(version.table("user").get([200])[0], best, atol=1e-3)
    assert [np.abs(slot.get([200])).max() for slot in version.table("user").slots.values()] == [0, 0, 0]


@pytest.mark.parametrize("lazy", [True, False])
def test_removed_items_and_users_are_neither_drawn_nor_trained(lazy: bool) -> None:
    """Of items that were removed nothing is ever a negative, and removed rows stay zero with all slots."""
    store = new_store()
    recorded(store, PAIRS, epochs=1, lazy=lazy)
    gone = ["item 01", "item 04", "item 11"]
    with store.checkout() as work:
        rows = work.ids("item").rows(gone)
        work.remove("item", gone)
        work.remove("user", [5])
        before = work.commit("forget")
    after, batches = recorded(store, LATER.take([0, 1]), epochs=30, lazy=lazy)
    drawn = {item for _, wanted in batches for row in wanted for item in row}
    assert drawn & set(rows.tolist()) == set()
    assert len(drawn) > len(before.ids("item").live_rows()) // 2
    for name, removed in (("item", rows), ("item_bias", rows), ("user", np.array([5]))):
        table = after.table(name)
        columns = [table, *table.slots.values()]
        assert [np.abs(column.gather(removed)).max() for column in columns] == [0, 0, 0, 0]


def test_mean_user_is_the_mean_of_the_live_ones() -> None:
    """Removed users do not draw it to zero, and without any user it is zero: the biases are left."""
    store = new_store()
    embstore.fit(store, SMALL, PAIRS, message="fit")
    with store.checkout() as work:
        work.remove("user", [0, 1, 2])
        version = work.commit("forget three")
    mean = version.table("user").get(version.ids("user").ids()).mean(axis=0)
    bias = version.table("item_bias").values()
    expected = mean @ version.table("item").values().T + bias
    np.testing.assert_allclose(SMALL.scores(version, np.array([-1, 4]))[0], expected, rtol=1e-4, atol=1e-6)
    with store.checkout() as work:
        work.remove("user", work.ids("user").ids())
        nobody = work.commit("forget the others")
    np.testing.assert_array_equal(SMALL.scores(nobody, np.array([-1]))[0], bias)


@given(data=st.data())
def test_nobody_is_recommended_what_they_have_had(data: st.DataObject) -> None:
    """After two days everybody gets each item once, but for what they have had on either."""
    pair = st.tuples(st.integers(0, 5), st.integers(0, 7))
    days = [data.draw(st.lists(pair, min_size=1, max_size=15)) for _ in range(2)]
    store = new_store()
    for day in days:
        users, items = zip(*day, strict=True)
        version = embstore.fit(store, BPR(dim=2, epochs=1), Interactions(list(users), list(items)), message="a day")
    everything = sorted({item for day in days for _, item in day})
    frame = embstore.recommend(version, version.ids("user").ids(), 10)
    for user in version.ids("user").ids().tolist():
        had = {item for day in days for who, item in day if who == user}
        assert [item for item in everything if item not in had] == sorted(frame.loc[frame["user"] == user, "item"])


def test_two_tastes_are_told_apart() -> None:
    """Users who share a taste are recommended what the others of that taste had."""
    pairs = [(user, item) for user in range(20) for item in range(user % 2, 20, 2) if (user + item) % 6]
    users, items = map(list, zip(*pairs, strict=True))
    version = embstore.fit(new_store(), BPR(dim=8, epochs=40), Interactions(users, items), message="fit")
    frame = embstore.recommend(version, list(range(20)), 3)
    assert ((frame["user"] - frame["item"]) % 2 == 0).mean() > 0.95


def test_movielens_in_two_parts(data_dir: Path) -> None:
    """New users of the second stretch of MovieLens-100k are served well after an increment."""
    parts = load(DATA_SETS["ml-100k"], data_dir)
    store = new_store()
    for part in (parts.train1, parts.train2):
        version = embstore.fit(store, BPR(seed=1), part, message="a part")
    found = embstore.evaluate(version, parts.new_users)
    assert (found["users"], found["dropped_targets"]) == (192, 0)
    assert found["recall@20"] >= 0.19
