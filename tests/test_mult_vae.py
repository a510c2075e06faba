"""Mult-VAE: annealing kept in the version, users without rows, items that grow, and MovieLens-100k."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import EmbstoreError, Interactions, Store, Version
from embstore.testing import KilledTrainingContract, TrainerContract, example_interactions
from tests.examples import crash_after, new_store, state_of
from tests.retrain_semantics import LATER, NEWCOMER, RetrainSemantics
from trainers.annealing import annealed
from trainers.mult_vae import MultVAE

SMALL = MultVAE(hidden=(12,), dim=4, epochs=2, batch_size=8, lr=0.01, anneal_steps=30)
PAIRS = example_interactions()


class TestMultVAEContract(TrainerContract):
    """Mult-VAE keeps the contract."""

    trainer = SMALL


class TestKilledMultVAE(KilledTrainingContract):
    """Killed in an epoch and taken up by another process it goes on annealing where it was."""

    trainer = replace(SMALL, plateau=0.5, plateau_patience=1, anneal_steps=20)


class TestShallowMultVAEContract(TrainerContract):
    """So it does without hidden layers, and with a weight that is reached after so many epochs."""

    trainer = replace(SMALL, hidden=(), anneal_steps=None, anneal_epochs=3)


class TestMultVAERetrained(RetrainSemantics):
    """What a retrain must keep; users have no rows, so items show it."""

    trainer = replace(SMALL, dropout=0.0)

    def test_new_learning_rate_counts_after_resume(self) -> None:
        """What is asked is what is done, whatever an earlier version was trained with."""
        store, _ = self._trained()
        slower = replace(self.trainer, epochs=1, lr=self.trainer.lr / 100)
        version = embstore.fit(store, slower, NEWCOMER, message="slower")
        moves = np.concatenate([self._first_moves(version, f"mult_vae.{what}") for what in ("input", "output", "bias")])
        np.testing.assert_allclose(moves, slower.lr, rtol=1e-2)

    def test_nan_scores_rank_nowhere(self) -> None:
        """An item whose bias is not finite is recommended to nobody; the others are."""
        store, version = self._trained()
        items = version.ids("item").ids().tolist()
        with store.checkout() as work:
            work.table("mult_vae.bias").scatter([2], np.array([np.nan]))
            version = work.commit("broken", allow_nonfinite=True)
        frame = embstore.recommend(version, [3], 50, trainer=self.trainer, exclude_consumed=False)
        assert sorted(frame["item"]) == sorted(items[:2] + items[3:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "dim 0: give a whole number from 1"),
        ({"hidden": 600}, "hidden 600: give a tuple of whole numbers"),
        ({"hidden": (0,)}, "hidden 0: give a whole number from 1"),
        ({"dropout": 1.0}, "dropout 1.0: give a share below 1"),
        ({"dropout": -0.1}, "dropout -0.1: give a number that is not negative"),
        ({"noise": -1}, "noise -1: give a number that is not negative"),
        ({"cap": float("inf")}, "cap inf: give a finite number"),
        ({"anneal_epochs": 10}, "anneal_steps 200000 with anneal_epochs 10: give one of them"),
        ({"plateau": 1.5}, "plateau 1.5: give a share below 1"),
        ({"plateau_patience": 0}, "plateau_patience 0: give a whole number from 1"),
        ({"seed": 0.5}, "seed 0.5: give a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    """Each setting is checked when the trainer is made, and the message names it."""
    with pytest.raises(EmbstoreError, match=message):
        MultVAE(**settings)


def fitted(store: Store, trainer: MultVAE = SMALL, pairs: Interactions = PAIRS, **options: Any) -> Version:
    """Return a version trained on pairs."""
    return embstore.fit(store, trainer, pairs, message="fit", **options)


def _weights(store: Store, trainer: MultVAE, **options: Any) -> list[float]:
    """Return how much the KL divergence counted in each epoch of a fit, which is one step each."""
    seen: list[float] = []
    fitted(store, trainer, progress=lambda _, metrics: seen.append(metrics["kl_weight"]), **options)
    return seen


@pytest.mark.parametrize(
    ("settings", "total"),
    [
        ({"anneal_steps": 20}, 20),
        ({"anneal_steps": 20, "cap": 0.0}, 20),
        ({"anneal_steps": None}, 0),
        ({"anneal_steps": 0}, 0),
        ({"anneal_steps": None, "anneal_epochs": 4}, 20),
        ({"anneal_steps": None, "anneal_epochs": 4, "cap": 0.0}, 0),
    ],
)
def test_annealing_equals_the_formula_before_and_after_resume(settings: dict[str, Any], total: int) -> None:
    """Step n, counted from 0 over the life of the store, has ``min(cap, n / total)``; a run cut short goes on counting."""
    trainer, store = replace(SMALL, batch_size=100, epochs=7, **settings), new_store()
    expected = [annealed(step, cap=trainer.cap, total=total) for step in range(9)]
    assert _weights(new_store(), trainer) == expected[:7]
    with pytest.raises(KeyboardInterrupt):
        fitted(store, trainer, run="night", commit_every=1, progress=crash_after(4))
    assert int(store.at().dense["mult_vae.step"]) == 3
    assert _weights(store, trainer, run="night", commit_every=1) == expected[3:7]
    assert int(store.at().dense["mult_vae.step"]) == 7
    assert _weights(store, replace(trainer, epochs=2)) == expected[7:]


def test_annealing_counts_steps_and_not_epochs() -> None:
    """With four steps an epoch the mean weight of an epoch is that of its four steps; it does not begin again with each."""
    trainer = replace(SMALL, batch_size=7, epochs=3, anneal_steps=50)
    by_hand = [np.mean([annealed(4 * epoch + step, cap=0.2, total=50) for step in range(4)]) for epoch in range(3)]
    assert len(np.unique(PAIRS.user_ids)) == 25
    np.testing.assert_allclose(_weights(new_store(), trainer), by_hand, rtol=1e-12)


def test_kl_divergence_counts_as_much_as_its_weight() -> None:
    """The loss is that of the items plus the weighted divergence; with cap 0 the divergence is left to itself."""
    free, held = (fitted(new_store(), replace(SMALL, epochs=30, cap=cap, anneal_steps=0)) for cap in (0.0, 5.0))
    assert held.lineage["metrics"]["kl"] < 0.5 * free.lineage["metrics"]["kl"]
    metrics = held.lineage["metrics"]
    assert metrics["loss"] > 5 * metrics["kl"] > 0


def test_no_noise_outside_of_training() -> None:
    """Scores are those of the mean code, the same at each call, however noisy the training was (an MXNet port sampled on)."""
    version, rows = fitted(new_store(), replace(SMALL, noise=3.0)), np.arange(25)
    once, again = (SMALL.scores(version, rows) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    had = version.consumed.to_csr().toarray()
    out = np.tanh(had / np.sqrt(had.sum(axis=1, keepdims=True)) @ _table(version, "input") + _array(version, "encoder.bias"))
    out = out @ _array(version, "inner.0.weight").T + _array(version, "inner.0.bias")
    out = np.tanh(out[:, :4] @ _array(version, "outer.0.weight").T + _array(version, "outer.0.bias"))
    np.testing.assert_allclose(once, out @ _table(version, "output").T + _table(version, "bias"), rtol=1e-4, atol=1e-5)


def _table(version: Version, what: str) -> Any:
    return version.table(f"mult_vae.{what}").values()


def _array(version: Version, what: str) -> Any:
    return version.dense[f"model.mult_vae.{what}"]


def test_code_is_as_long_as_it_is_said_and_as_noisy() -> None:
    """A code of 4 is 4 means and 4 variances; the noise in training is the setting (RecBole halves the one, and takes .01)."""
    version = fitted(new_store())
    assert _array(version, "inner.0.weight").shape == (8, 12)
    assert _array(version, "outer.0.weight").shape == (12, 4)
    states = [state_of(fitted(new_store(), replace(SMALL, noise=noise))) for noise in (1.0, 0.01, 0.01)]
    assert states[0] != states[1] == states[2]


def test_users_have_no_rows_and_are_what_they_have_had() -> None:
    """No table is the users'; who has had the same gets the same scores, and folding in records and nothing else."""
    store = new_store()
    version = fitted(store)
    assert {spec.entity for spec in version.tables.values()} == {"item"}
    of_user_3 = PAIRS.take(PAIRS.user_ids == 3)
    twin = Interactions(np.full(len(of_user_3), 900), of_user_3.item_ids)
    folded = embstore.fold_in(store, SMALL, twin, message="a twin")
    diff = store.diff(version.id, folded.id)
    assert [name for name, table in diff.tables.items() if len(table.changed_rows)] == []
    assert diff.dense == {}
    scores = SMALL.scores(folded, folded.ids("user").rows([3, 900]))
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)


def test_who_has_had_nothing_gets_what_the_biases_give() -> None:
    """Row -1 and a user without any pair have one and the same finite scores, the same for all."""
    store = new_store()
    fitted(store)
    with store.checkout() as work:
        work.append("user", [900])
        version = work.commit("somebody")
    scores = SMALL.scores(version, np.array([-1, version.ids("user").rows([900])[0]]))
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores[0], scores[1])


def test_growth_gives_new_items_rows_and_leaves_old_state() -> None:
    """Later pairs bring an item: it has a row at both ends, each with its own steps; old rows have counted on."""
    store = new_store()
    before = fitted(store)
    after = fitted(store, replace(SMALL, dropout=0.0), LATER)
    for what, steps in (("output", 2), ("bias", 2)):
        counts = after.table(f"mult_vae.{what}").slot("step")
        assert counts.get(["new a"]).tolist() == [steps]
        old = before.ids("item").ids()
        old_counts = before.table(f"mult_vae.{what}").slot("step").get(old)
        assert (counts.get(old) - old_counts).tolist() == [steps] * len(old)
    had = {item for items in after.consumed.of("user", [3, 7, 1000]) for item in items.tolist()}
    changed = store.diff(before.id, after.id).tables["mult_vae.input"].changed_ids.tolist()
    assert set(changed) == had - {"new a"}


def test_input_is_all_that_users_had_and_targets_are_the_new_pairs() -> None:
    """An increment asks for the pairs of its fit, of its users alone, given all that they have had."""
    store = new_store()
    fitted(store)
    with store.checkout() as work:
        batch = embstore.training.stage_pairs(work, SMALL, LATER.ordered())
        data, users = SMALL.prepare(work, batch), np.unique(batch.users)
        had, items = work.consumed.to_csr()[users].toarray() > 0, work.ids("item").ids()
        work.discard()
    np.testing.assert_array_equal(data.inputs.indices, np.nonzero(had)[1])
    np.testing.assert_array_equal(np.diff(data.inputs.indptr), had.sum(axis=1))
    wanted = [sorted(items[part].tolist()) for part in np.split(data.targets.columns, data.targets.ends[1:-1])]
    assert wanted == [["item 02"], ["item 05"], ["item 01", "new a"]]


def test_removed_items_take_no_part() -> None:
    """Their rows stay as they are, and the others train as if they had never been: nothing is spent on what cannot be had."""
    store = new_store()
    fitted(store)
    gone = store.at().ids("item").rows(["item 05"])
    with store.checkout() as work:
        work.remove("item", ["item 05"])
        before = work.commit("gone")
    after = fitted(store, SMALL, PAIRS.take(PAIRS.item_ids != "item 05"))
    for what in ("input", "output", "bias"):
        for column in (after.table(f"mult_vae.{what}"), *after.table(f"mult_vae.{what}").slots.values()):
            assert not np.asarray(column.gather(gone)).any()
    assert before.id == after.parent


def test_slots_reset_begins_anew_for_the_net_too() -> None:
    """Moments and steps of rows and of the layers between begin again; the annealing counts on."""
    store = new_store()
    fitted(store)
    version = fitted(store, replace(SMALL, epochs=1), slots="reset")
    assert version.table("mult_vae.output").slot("step").values().tolist() == [4] * len(version.ids("item"))
    counters = [float(version.dense[n]) for n in version.dense if n.startswith("optim.") and n.endswith(".step")]
    assert set(counters) == {4.0}
    assert int(version.dense["mult_vae.step"]) == 12


def test_movielens_learns_taste(data_dir: Path) -> None:
    """Held-out users of 100,000 real pairs, encoded from four fifths of theirs: better than the most popular items."""
    pairs = Interactions.from_file(data_dir / "ml-100k" / "ml-100k.inter")
    train, held_out = pairs.split("user", 0.2)
    given, targets = held_out.split("within", 0.2)
    version = fitted(new_store(), MultVAE(hidden=(200,), dim=50, epochs=10, batch_size=64, lr=3e-3, anneal_steps=1000), train)
    found = embstore.evaluate(version, targets, given=given, metrics=("ndcg@100", "capped_recall@20"))
    popular = embstore.fit(new_store(), embstore.find_trainer("popularity")(), train, message="popular")
    by_popularity = embstore.evaluate(popular, targets, given=given, metrics=("ndcg@100",))
    assert found["users"] == 188
    assert found["ndcg@100"] > 1.2 * by_popularity["ndcg@100"]
