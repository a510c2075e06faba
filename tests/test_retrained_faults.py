"""Faults that the Julia system had, whose retraining of users this takes the place of: none of them is here."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import embstore
from embstore import Batch, Checkout, Interactions, NonFiniteError, View
from tests.examples import new_store, state_of
from tests.retraining import (
    BASES,
    PAIRS,
    RATED,
    SETTINGS,
    forgotten,
    found,
    new_branch,
    of_users,
    retrain,
    retrained,
    trained,
    vectors,
)
from trainers.factors import MatrixFactorization
from trainers.retrained import Retrained
from trainers.tuning import METHODS


@pytest.mark.parametrize("base", BASES)
def test_the_last_training_begins_at_initial_vectors(base: str) -> None:
    """What users were before, or became while settings were tried, has no part in what they become.

    Once the embedding was not reinitialised before the final training.
    """
    store = trained(base)
    branch = new_branch(store, "main")
    with store.checkout(branch) as work:
        for name in [name for name, spec in work.tables.items() if spec.entity == "user"]:
            table = work.table(name)
            table.scatter(np.arange(len(table)), table.values() * -3 + 1)
            table.slot("step").scatter(np.arange(len(table)), np.full(len(table), 1000))
        work.commit("other users")
    trainer = retrained(base)
    one, other = retrain(store, trainer), retrain(store, trainer, at=branch)
    assert state_of(one) == state_of(other)
    tuned_only_once = replace(trainer, method="none", base_settings=json.dumps(SETTINGS[base] | found(one)))
    assert np.array_equal(vectors(retrain(store, tuned_only_once), [3, 4]), vectors(one, [3, 4]))


@dataclass(frozen=True)
class Counting(MatrixFactorization):
    """Notes how many steps were taken whenever users are folded in."""

    steps: ClassVar[list[int]] = []

    def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch, *, entity: str = "user") -> dict[str, float]:
        """Note the steps."""
        self.steps.append(self.fold_steps)
        return super().fold_in(work, rows, batch, entity=entity)


def test_serving_takes_as_many_epochs_as_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best epoch's number is that of training, of the version and of serving; one more or less gives other vectors.

    Once serving was one epoch off. Nor are there updates without a gradient, which a step count for all had to replay.
    """
    store, trainer = trained("softmax"), retrained("softmax")
    monkeypatch.setitem(trainer.__dict__, "model", Counting(**SETTINGS["softmax"]))
    Counting.steps.clear()
    version = retrain(store, trainer)
    branch = forgotten(store, version, [7])
    embstore.fold_in(store, trainer, of_users(RATED, [7]), message="back", branch=branch)
    epochs = version.dense["retrained.user.epochs"].item()
    assert Counting.steps == [epochs, epochs]
    for steps in (epochs - 1, epochs, epochs + 1):
        base = replace(BASES["softmax"], fold_steps=max(steps, 1), **found(version))
        branch = forgotten(store, version, [7])
        served = embstore.fold_in(store, base, of_users(RATED, [7]), message="back", branch=branch)
        assert np.array_equal(vectors(served, [7]), vectors(version, [7])) == (max(steps, 1) == epochs)


def test_a_user_starts_the_same_among_few_and_many() -> None:
    """Where a user starts and ends does not depend on how many users there are, nor on the row.

    Once the spread of initial vectors went by the number of users, so one user served alone began elsewhere.
    """
    crowd = Interactions(np.arange(1000, 1400), ["item 01"] * 400, times=np.arange(400))
    trainer, found = retrained("softmax", method="none"), []
    for others in ([], [crowd]):
        store = new_store()
        version = embstore.fit(store, BASES["softmax"], RATED, message="base")
        for pairs in others:
            version = embstore.fold_in(store, BASES["softmax"], pairs, message="a crowd")
        version = retrain(store, trainer, RATED)
        branch = forgotten(store, version, [7])
        with store.checkout(branch) as work:  # the same epochs, for the crowd has other held-out pairs
            work.dense["retrained.user.epochs"] = np.array(12)
            work.commit("twelve epochs")
        served = embstore.fold_in(store, trainer, of_users(PAIRS, [7]), message="back", branch=branch)
        found.append((served.table("user").initial([7]), served.table("user").get([7])))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_new_users_start_apart() -> None:
    """No two new users share an initial vector. In the other system all of them had that of the first."""
    table = trained("softmax").at().table("user")
    assert len(np.unique(table.initial(np.arange(1000, 1100)), axis=0)) == 100


def test_settings_belong_to_a_trainer() -> None:
    """Two trainers that are used in turns give what each gives by itself: there are no hyperparameters of the process."""
    one, other = retrained("softmax"), retrained("softmax", method="none", patience=None)
    alone = {trainer: state_of(retrain(trained("softmax"), trainer)) for trainer in (one, other)}
    first = retrain(trained("softmax"), one)
    retrain(trained("softmax"), other)
    assert state_of(first) == alone[one] == state_of(retrain(trained("softmax"), one))
    assert state_of(retrain(trained("softmax"), other)) == alone[other] != alone[one]


def test_a_served_user_adds_a_row_not_a_model() -> None:
    """Folding a user in stores little more than the user, while the other system wrote whole models."""
    store, trainer = new_store(), Retrained(method="none", max_epochs=3)
    random = np.random.default_rng(0)
    pairs = Interactions(random.integers(0, 2000, 12_000), random.integers(0, 2000, 12_000))
    whole = embstore.fit(store, MatrixFactorization(epochs=1), pairs, message="base").lineage["bytes"]
    embstore.fit(store, trainer, pairs, message="again", consumed="replace")
    version = embstore.fold_in(store, trainer, Interactions([9999] * 3, [1, 2, 3]), message="one user")
    assert version.lineage["bytes"] < whole / 50


@dataclass(frozen=True)
class Broken(MatrixFactorization):
    """Scores are NaN where the learning rate is what it began with, or everywhere."""

    everywhere: bool = False

    def scores(self, view: View, user_rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return NaN or the scores."""
        found: NDArray[Any] = super().scores(view, user_rows)
        return found * np.nan if self.everywhere or self.fold_lr == 0.1 else found


@pytest.mark.parametrize("method", ["nelder-mead", "cobyla"])
def test_nan_is_never_chosen(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """A learning rate whose loss is NaN is passed over; the other system went on with one and saved it."""
    trainer = retrained("softmax", method=method)
    monkeypatch.setitem(trainer.__dict__, "model", Broken(**SETTINGS["softmax"]))
    metrics = retrain(trained("softmax"), trainer).lineage["metrics"]
    assert metrics["lr"] != 0.1
    assert np.isfinite(metrics["held_out_loss"])


@pytest.mark.parametrize("method", METHODS)
def test_where_all_is_nan_nothing_is_committed(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Without any finite loss the training ends in an error, and the branch is as it was."""
    trainer = retrained("softmax", method=method)
    monkeypatch.setitem(trainer.__dict__, "model", Broken(**SETTINGS["softmax"], everywhere=True))
    before = trained("softmax").at()
    with pytest.raises(NonFiniteError, match="none gave a finite loss; look at 'matrix_factorization'"):
        embstore.fit(trained("softmax"), trainer, RATED, message="again")
    assert trained("softmax").at() == before
