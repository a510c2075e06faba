"""Factor models: gradients, convergence, order, removed ids and folding in of both entities; and on real pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

import embstore
from embstore import EmbstoreError, Interactions, InvalidInputError, Store, Version
from embstore.testing import TrainerContract, example_interactions
from tests.examples import new_store, state_of
from tools.quality.protocol import DATA_SETS, load
from trainers.factor_losses import LOSSES
from trainers.factors import Biases, MatrixFactorization
from trainers.pairs import Pairs

PAIRS = example_interactions()
RATED = Interactions(PAIRS.user_ids, PAIRS.item_ids, np.random.default_rng(5).integers(1, 6, len(PAIRS)), PAIRS.times)
SOFTMAX = MatrixFactorization(dim=6, epochs=2, batch_size=7)
SQUARED = replace(SOFTMAX, loss="squared", weight_power=-0.5)
BIASES = Biases(epochs=2, batch_size=7)
LOGISTIC = replace(SOFTMAX, loss="logistic", activation="tanh", init_std=0.5)
MSE = replace(SOFTMAX, loss="mse", confidence=2.0, weight_power=-0.5, activation="selu")
MODELS = [SOFTMAX, SQUARED, BIASES, LOGISTIC, MSE]


class TestSoftmaxContract(TrainerContract):
    """Matrix factorization of what users have had keeps the contract."""

    trainer = SOFTMAX


class TestSquaredContract(TrainerContract):
    """So it does of ratings."""

    trainer = SQUARED
    interactions = RATED


class TestBiasesContract(TrainerContract):
    """So do biases of ratings."""

    trainer = BIASES
    interactions = RATED


class TestItemBiasesContract(TrainerContract):
    """And biases of items, among which a user's are compared with all others."""

    trainer = Biases(loss="softmax", epochs=2)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (MatrixFactorization, {"dim": 0}, "dim 0: give a whole number from 1"),
        (MatrixFactorization, {"init_std": -1}, "init_std -1: give a number that is not negative"),
        (MatrixFactorization, {"loss": "hinge"}, "loss 'hinge': use one of softmax, logloss, logistic, mse, squared"),
        (MatrixFactorization, {"loss": ["softmax"]}, "loss .*: use one of"),
        (MatrixFactorization, {"seed": 0.5}, "seed 0.5: give a whole number"),
        (Biases, {"epochs": True}, "epochs True: give a whole number"),
        (Biases, {"batch_size": 2.0}, "batch_size 2.0: give a whole number"),
        (Biases, {"fold_steps": 0}, "fold_steps 0: give a whole number"),
        (Biases, {"lr": float("nan")}, "lr nan: give a finite number"),
        (Biases, {"fold_l2": None}, "fold_l2 None: give a finite number"),
        (Biases, {"weight_power": -9}, "weight_power -9: give a number of at least -8"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Callable[..., Any], settings: dict[str, Any], message: str) -> None:
    """Each setting is checked when the trainer is made, and the message names it."""
    with pytest.raises(EmbstoreError, match=message):
        make(**settings)


def test_tables_by_loss() -> None:
    """Vectors and item biases always; user biases where ratings are learned from; Biases has no vectors."""
    names = {trainer: [table.name for table in trainer.schema().tables] for trainer in MODELS}
    assert names == {
        SOFTMAX: ["user", "item", "item_bias"],
        SQUARED: ["user", "user_bias", "item", "item_bias"],
        BIASES: ["user_bias", "item_bias"],
        LOGISTIC: ["user", "item", "item_bias"],
        MSE: ["user", "item", "item_bias"],
    }


@pytest.mark.parametrize("trainer", MODELS, ids=lambda trainer: f"{trainer.name}-{trainer.loss}")
def test_training_lowers_the_loss(trainer: Any) -> None:
    """The loss of held-out and of trained pairs goes down, and the metrics say the latter."""
    losses: list[float] = []
    pairs = RATED if trainer.learns_ratings else PAIRS
    fit = replace(trainer, epochs=25, l2=0.0, lr=0.05)
    embstore.fit(new_store(), fit, pairs, message="fit", progress=lambda epoch, metrics: losses.append(metrics["loss"]))
    assert losses[-1] < losses[5] < losses[0]


def test_ratings_of_two_factors_are_found_again() -> None:
    """Ratings made of biases and one taste are predicted nearly exactly, far better than biases alone can."""
    random = np.random.default_rng(2)
    users, items = np.divmod(random.permutation(600), 20)
    taste, bias = np.where(users % 2, 1.0, -1.0) * np.where(items % 3, 0.5, -1.0), 0.1 * (users % 5) + 0.05 * items
    ratings = 3 + taste + bias
    known, held = (Interactions(users[part], items[part], ratings[part]) for part in (slice(500), slice(500, 600)))
    errors = {}
    for trainer in (Biases(epochs=60, l2=0.0, batch_size=10), MatrixFactorization(4, 60, "squared", 0.03, 0.002, batch_size=10)):
        version = embstore.fit(new_store(), trainer, known, message="fit")
        found = trainer.scores(version, version.ids("user").rows(held.user_ids))
        columns = version.ids("item").rows(held.item_ids)
        errors[trainer.name] = float(np.abs(found[np.arange(100), columns] - held.ratings).mean())
    assert errors["matrix_factorization"] < 0.15
    assert errors["biases"] > 0.5
    assert version.dense["factors.mean"] == pytest.approx(ratings[:500].mean())


@pytest.mark.parametrize("trainer", [SQUARED, BIASES], ids=lambda trainer: trainer.name)
def test_pairs_without_ratings_are_refused(trainer: Any) -> None:
    """A loss that learns from ratings says so; one that does not leaves them alone."""
    with pytest.raises(InvalidInputError, match=f"pairs without ratings: loss 'squared' of trainer '{trainer.name}'"):
        embstore.fit(new_store(), trainer, PAIRS, message="fit")
    one, other = (embstore.fit(new_store(), SOFTMAX, pairs, message="fit") for pairs in (PAIRS, RATED))
    assert state_of(one) == state_of(other)


def folded(store: Store, trainer: Any, pairs: Interactions, entity: Any = "user") -> Version:
    """Return a version of a store's main branch with pairs folded in."""
    branch = f"fold-{len(store.branches())}"
    store.branch(branch)
    return embstore.fold_in(store, trainer, pairs, message="fold", entity=entity, branch=branch)


@pytest.mark.parametrize("trainer", MODELS, ids=lambda trainer: f"{trainer.name}-{trainer.loss}")
def test_folded_users_have_the_same_bits_in_any_company(trainer: Any) -> None:
    """Thirty new users alone, in halves and all together, in any order: every bit of their rows is the same."""
    store, random = new_store(), np.random.default_rng(4)
    embstore.fit(store, trainer, RATED, message="base")
    users, items = np.repeat(np.arange(100, 130), 7), random.choice([f"item {i:02}" for i in range(1, 20)], 210)
    pairs = Interactions(users, items.tolist(), random.integers(1, 6, 210))
    together = folded(store, trainer, pairs)
    names = [name for name, spec in together.tables.items() if spec.entity == "user"]
    distinct = np.unique(np.concatenate([together.table(n).get(np.arange(100, 130)).reshape(30, -1) for n in names], 1), axis=0)
    assert len(distinct) == 30
    for company in (
        pairs.take(random.permutation(210)),
        pairs.take(users < 115),
        pairs.take(users == 107),
        pairs.take(users == 129),
    ):
        version = folded(store, trainer, company.take(np.argsort(company.user_ids, kind="stable")))
        present = np.unique(company.user_ids)
        for name in names:
            np.testing.assert_array_equal(version.table(name).get(present), together.table(name).get(present), strict=True)


@pytest.mark.parametrize("trainer", [SOFTMAX, SQUARED, BIASES], ids=lambda trainer: f"{trainer.name}-{trainer.loss}")
def test_a_folded_user_comes_to_the_least_loss(trainer: Any) -> None:
    """With many small steps a user's rows are where the loss of the user's pairs, with L2 by their weight, is least."""
    store, trainer = new_store(), replace(trainer, fold_steps=2500, fold_lr=0.01)
    embstore.fit(store, trainer, RATED, message="base")
    had, ratings = ["item 03", "item 05", "item 08", "item 08"], [5, 1, 2, 4]
    version = folded(store, trainer, Interactions([200] * 4, had, ratings))
    items, bias = _item_side(version)
    rows, wanted, weight = version.ids("item").rows(had[1:]), np.array([1, 2, 4]), 3.0**trainer.weight_power
    rows, wanted = np.array([version.ids("item").rows(had[:1])[0], rows[0], rows[1]]), np.array([5, 1, 4])
    own_bias = trainer.learns_ratings
    mean = float(version.dense.get("factors.mean", 0.0))

    def loss(x: NDArray[np.float64]) -> float:
        scores = items @ x[: items.shape[1]] + bias + mean + (x[-1] if own_bias else 0.0)
        apart = (scores[rows] - wanted) ** 2 if own_bias else np.log(np.exp(scores).sum()) - scores[rows]
        return float(weight * (apart + trainer.fold_l2 / 2 * x @ x).sum())

    best = minimize(loss, np.zeros(items.shape[1] + own_bias), tol=1e-12).x
    names = [name for name, spec in version.tables.items() if spec.entity == "user"]
    found = np.concatenate([version.table(name).get([200]).ravel() for name in names])
    np.testing.assert_allclose(found, best, atol=2e-3)


def _item_side(version: Version) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    bias = version.table("item_bias").values().astype(np.float64)
    return (version.table("item").values().astype(np.float64) if "item" in version.tables else np.zeros((len(bias), 0))), bias


def test_items_are_folded_in_where_the_loss_looks_at_each_pair() -> None:
    """A new item gets a bias near what its ratings say; a loss that compares items with each other refuses."""
    store = new_store()
    embstore.fit(store, replace(BIASES, epochs=30), RATED, message="base")
    pairs = Interactions([1, 2, 3, 4, 99], ["bad"] * 5, [1, 1, 1, 1, 5])
    version = folded(store, replace(BIASES, fold_steps=300, fold_l2=0.0), pairs, "item")
    mean = float(version.dense["factors.mean"]) + version.table("user_bias").get([1, 2, 3, 4]).astype(np.float64)
    np.testing.assert_allclose(version.table("item_bias").get(["bad"]), [1 - mean.mean()], atol=1e-3)
    other = new_store()
    embstore.fit(other, SOFTMAX, PAIRS, message="base")
    with pytest.raises(InvalidInputError, match="loss 'softmax' ranks items among all others"):
        folded(other, SOFTMAX, Interactions([1, 2], ["new", "new"]), "item")


@pytest.mark.parametrize("trainer", [SOFTMAX, SQUARED], ids=lambda trainer: trainer.loss)
def test_removed_rows_stay_zero(trainer: Any) -> None:
    """Items and users that were removed are not trained, nor in the way of others."""
    store = new_store()
    embstore.fit(store, trainer, RATED, message="base")
    with store.checkout() as work:
        gone = work.ids("item").rows(["item 01", "item 04"])
        work.remove("item", ["item 01", "item 04"])
        work.remove("user", [5])
        work.commit("forget")
    version = embstore.fit(store, trainer, RATED.take(np.flatnonzero(RATED.item_ids == "item 02")), message="more")
    for name in ("item", "item_bias"):
        table = version.table(name)
        assert [np.abs(column.gather(gone)).max() for column in (table, *table.slots.values())] == [0, 0, 0, 0]
    assert folded(store, trainer, RATED.take([0, 1, 2])).lineage["dropped_pairs"] >= 0


def test_rows_that_had_no_step_stay() -> None:
    """Of ratings, an increment changes the users and items of its pairs alone; of all items' softmax every item."""
    changed = {}
    for trainer in (SQUARED, SOFTMAX):
        store = new_store()
        before = embstore.fit(store, trainer, RATED, message="base")
        after = embstore.fit(store, trainer, Interactions([3], ["item 02"], [4]), message="a pair")
        changed[trainer.loss] = store.diff(before.id, after.id).tables
    assert [changed["squared"][name].changed_ids.tolist() for name in ("user", "user_bias")] == [[3], [3]]
    assert [changed["squared"][name].changed_ids.tolist() for name in ("item", "item_bias")] == [["item 02"], ["item 02"]]
    assert changed["softmax"]["user"].changed_ids.tolist() == [3]
    assert len(changed["softmax"]["item_bias"].changed_ids) == 19


def test_mean_user_is_the_mean_of_the_live_ones() -> None:
    """Removed users do not draw it to zero."""
    store = new_store()
    embstore.fit(store, SQUARED, RATED, message="fit")
    with store.checkout() as work:
        work.remove("user", [0, 1, 2])
        version = work.commit("forget three")
    live = version.ids("user").ids()
    items, bias = _item_side(version)
    expected = version.table("user").get(live).mean(axis=0) @ items.T + bias + version.table("user_bias").get(live).mean()
    expected += float(version.dense["factors.mean"])
    np.testing.assert_allclose(SQUARED.scores(version, np.array([-1, 4]))[0], expected, rtol=1e-4)


def test_another_loss_can_join(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry in LOSSES is all that a loss needs to be trained and folded in with."""

    def hinge(left: Any, right: Any, offset: Any, pairs: Pairs) -> tuple[Any, Any]:
        scores = left @ right.T + offset
        had = np.full_like(scores, -1)
        had[pairs.owners, pairs.columns] = 1
        short = np.maximum(0, 1 - had * scores)
        return short.sum(axis=1), -had * (short > 0)

    monkeypatch.setitem(LOSSES, "hinge", replace(LOSSES["softmax"], function=hinge))
    trainer, store = replace(SOFTMAX, loss="hinge", epochs=40, lr=0.05, l2=0.0), new_store()
    version = embstore.fit(store, trainer, PAIRS, message="fit")
    scores = trainer.scores(version, np.arange(25))
    had = version.consumed.to_csr().toarray() > 0
    assert scores[had].mean() > 0.5 > -0.5 > scores[~had].mean()
    assert np.isfinite(folded(store, trainer, Interactions([99], ["item 03"])).table("user").get([99])).all()


def test_movielens_in_two_parts(data_dir: Path) -> None:
    """On MovieLens-100k new users are served well after an increment, and ratings of the first part's last pairs are foreseen."""
    parts, store = load(DATA_SETS["ml-100k"], data_dir), new_store()
    for part in (parts.train1, parts.train2):
        version = embstore.fit(store, MatrixFactorization(seed=1), part, message="a part")
    found = embstore.evaluate(version, parts.new_users)
    assert (found["users"], found["dropped_targets"]) == (192, 0)
    assert found["recall@20"] >= 0.19
