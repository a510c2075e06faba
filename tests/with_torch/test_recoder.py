"""The autoencoder and models of one's own: contracts, sampled items, growth, the past, users who are encoded, evaluation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import embstore
from embstore import EmbstoreError, Interactions, Store, Validation, Version
from embstore.testing import TrainerContract, example_interactions
from tests.examples import crash_after, new_store, state_of
from tests.with_torch.user_item import UserItem
from trainers.dynamic_autoencoder import DynamicAutoencoder
from trainers.held_out_users import HeldOutUsers
from trainers.reconstruction import Reconstruction

PAIRS = example_interactions()
SMALL = DynamicAutoencoder(hidden=(6,), loss="logistic", target="had", epochs=2, batch_size=7, lr=0.01, init_std=0.3)
SAMPLED = replace(SMALL, negative_sampling=True, num_sampling_users=14)
DEEP = replace(SAMPLED, hidden=(6, 4), activation="selu", dropout=0.25, tied=True, loss="softmax", lr_milestones=(1,), l2=0.01)
DENSE = replace(SMALL, sparse=False, loss="mse", confidence=3.0, target="new")


class TestSampledContract(TrainerContract):
    """The autoencoder keeps the contract where batches share the items of more users."""

    trainer = SAMPLED


class TestDeepContract(TrainerContract):
    """And with hidden layers, tied weights and dropout."""

    trainer = DEEP


class TestDenseContract(TrainerContract):
    """And where every row of items moves at every step."""

    trainer = DENSE


class TestUserItemContract(TrainerContract):
    """So does a model of one's own."""

    trainer = UserItem(negative_sampling=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": ()}, "hidden .., tied False: give one size or more"),
        ({"hidden": (8, 0)}, "hidden 0: give a whole number from 1"),
        ({"activation": "swish"}, "activation 'swish': use one of none, relu"),
        ({"noise": 1.0}, "noise 1.0: give a share below 1"),
        ({"dropout": -0.1}, "dropout -0.1: give a number that is not negative"),
        ({"tied": 1}, "tied 1: give one size or more, and True or False"),
        ({"loss": "squared"}, "loss 'squared': it looks at a user's own items alone"),
        ({"loss": "hinge"}, "loss 'hinge': use one of softmax"),
        ({"confidence": 2.0}, "confidence 2.0: only the loss mse takes one"),
        ({"target": "old"}, "target 'old': give 'had' or 'new'"),
        ({"sparse": None}, "sparse None: give True or False"),
        ({"epochs": 0}, "epochs 0: give a whole number"),
        ({"lr": float("nan")}, "lr nan: give a finite number"),
        ({"l2": -1}, "l2 -1: give a number that is not negative"),
        ({"lr_milestones": [60]}, "lr_milestones .60.: give a tuple"),
        ({"num_sampling_users": 256}, "num_sampling_users 256 without negative_sampling"),
        ({"seed": 0.5}, "seed 0.5: give a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    """Each setting is checked when the trainer is made, and the message names it."""
    with pytest.raises(EmbstoreError, match=message):
        DynamicAutoencoder(**settings)


def fitted(store: Store, trainer: Reconstruction, pairs: Interactions = PAIRS, **options: Any) -> Version:
    """Return a version trained on pairs."""
    return embstore.fit(store, trainer, pairs, message="fit", **options)


@pytest.mark.parametrize("trainer", [SMALL, DEEP, DENSE, UserItem()], ids=["small", "deep", "dense", "own"])
def test_training_lowers_the_loss(trainer: Reconstruction) -> None:
    """What users have had comes out again, better from epoch to epoch."""
    losses: list[float] = []
    long = replace(trainer, epochs=25, l2=0.0, lr=0.02, lr_milestones=())  # type: ignore[type-var]
    fitted(new_store(), long, progress=lambda epoch, metrics: losses.append(metrics["loss"]))
    assert losses[-1] < losses[5] < losses[0]


def test_scores_are_the_formula() -> None:
    """What a user has had, as a vector of length 1, through both layers by hand; noise has no part in it."""
    version = fitted(new_store(), SMALL)
    encoder, decoder, bias = (
        version.table(f"dynamic_autoencoder.{t}").values().astype(float) for t in ("encoder", "decoder", "bias")
    )
    had = version.consumed.to_csr().toarray().astype(float)
    given = had / np.maximum(np.sqrt(had.sum(axis=1, keepdims=True)), 1)
    code = np.tanh(given @ encoder + version.dense["model.dynamic_autoencoder.encoder.bias"])
    np.testing.assert_allclose(SMALL.scores(version, np.arange(len(had))), code @ decoder.T + bias, rtol=1e-4, atol=1e-6)
    nothing = np.tanh(version.dense["model.dynamic_autoencoder.encoder.bias"].astype(float)) @ decoder.T + bias
    np.testing.assert_allclose(SMALL.scores(version, np.array([-1]))[0], nothing, rtol=1e-4, atol=1e-6)


def test_the_mean_user_of_ones_own_model_is_the_mean_over_users() -> None:
    """Removed ones do not count."""
    store, trainer = new_store(), UserItem()
    fitted(store, trainer)
    with store.checkout() as work:
        work.remove("user", [3, 4])
        version = work.commit("forget two")
    live = version.ids("user").live_rows()
    np.testing.assert_allclose(
        trainer.scores(version, np.array([-1]))[0], trainer.scores(version, live).mean(axis=0), rtol=1e-4, atol=1e-6
    )


def changed(before: Version, after: Version, table: str) -> list[Any]:
    """Return the ids whose rows differ."""
    one, other = before.table(table), after.table(table)
    ids = before.ids(one.spec.entity).ids()
    return [i for i, a, b in zip(ids.tolist(), one.get(ids), other.get(ids), strict=True) if a.tobytes() != b.tobytes()]


@pytest.mark.parametrize("trainer", [SAMPLED, UserItem(negative_sampling=True)], ids=["autoencoder", "own"])
def test_only_sampled_items_are_touched(trainer: Reconstruction) -> None:
    """With sampling an increment moves rows of what its users have had; without, every item can be told from the others."""
    store, two = new_store(), Interactions([3, 4], ["item 02", "item 05"], times=[900, 901])
    before = fitted(store, trainer)
    after = fitted(store, trainer, two)
    had = sorted({i for items in after.consumed.of("user", [3, 4]) for i in items.tolist()})
    items = f"{trainer.name}.{'decoder' if trainer is SAMPLED else 'item'}"
    assert changed(before, after, items) == had
    assert len(had) < len(before.ids("item"))
    store.branch("all", at=before.id)
    every = fitted(store, replace(trainer, negative_sampling=False, num_sampling_users=0), two, branch="all")  # type: ignore[type-var]
    assert changed(before, every, items) == before.ids("item").ids().tolist()
    if trainer is SAMPLED:
        assert changed(before, every, "dynamic_autoencoder.encoder") == had


def test_sparse_and_dense_agree_where_every_row_takes_part() -> None:
    """All users in one batch, all items scored: row-lazy Adam moves rows as Adam does."""
    found = []
    for sparse in (True, False):
        trainer = replace(SMALL, sparse=sparse, noise=0.0, l2=0.01, batch_size=100, epochs=5)
        version = fitted(new_store(), trainer)
        found.append({name: version.table(name).values() for name in version.tables})
    assert sorted(found[0]) == [f"dynamic_autoencoder.{table}" for table in ("bias", "decoder", "encoder")]
    for name, values in found[0].items():
        np.testing.assert_allclose(values, found[1][name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("target", "wanted"), [("had", ["item 02", "item 03"]), ("new", ["item 03"])])
def test_targets_of_an_increment(target: str, wanted: list[str]) -> None:
    """A user who comes back is to be given all there is, or what the fit brings; the input is all there is in both."""
    store, trainer = new_store(), replace(SMALL, target=target)
    fitted(store, trainer, Interactions([1, 2], ["item 02", "item 04"]))
    with store.checkout() as work:
        pairs = Interactions([1], ["item 03"])
        work.append("item", ["item 03"])
        batch = pairs.to_batch(work)
        work.consumed.append(batch.users, batch.items)
        found = trainer.prepare(work, batch)
        assert sorted(work.ids("item").ids(found.pairs.columns).tolist()) == wanted
        assert sorted(work.ids("item").ids(found.had.columns).tolist()) == ["item 02", "item 03"]
        work.discard()


@pytest.mark.parametrize("trainer", [SAMPLED, DENSE, UserItem()], ids=["sampled", "dense", "own"])
def test_removed_items_stay_zero(trainer: Reconstruction) -> None:
    """They are neither scored nor in the way of others."""
    store = new_store()
    fitted(store, trainer)
    with store.checkout() as work:
        gone = work.ids("item").rows(["item 01", "item 04"])
        work.remove("item", ["item 01", "item 04"])
        work.commit("forget")
    version = fitted(store, trainer, Interactions([3, 4], ["item 02", "item 05"]))
    for name in [name for name, spec in version.tables.items() if spec.entity == "item"]:
        table = version.table(name)
        assert [np.abs(column.gather(gone)).max() for column in (table, *table.slots.values())] == [0] * (1 + len(table.slots))


def test_a_user_who_comes_in_is_encoded() -> None:
    """Without any training: no array and no row changes, and what a new user is shown follows from their pairs."""
    store, trainer = new_store(), replace(SMALL, epochs=30)
    likes = Interactions(np.repeat(np.arange(20), 3), [f"{'ab'[u % 2]}{i}" for u in range(20) for i in np.roll(range(5), u)[:3]])
    before = fitted(store, trainer, likes)
    after = embstore.fold_in(store, trainer, Interactions([90, 90, 91], ["a1", "a2", "b1"]), message="two users")
    diff = store.diff(before.id, after.id)
    assert ({name for name, table in diff.tables.items() if len(table.changed_ids)}, diff.dense) == (set(), {})
    shown = embstore.recommend(after, [90, 91], k=2).groupby("user")["item"].apply(list).to_dict()
    assert {user: {item[0] for item in items} for user, items in shown.items()} == {90: {"a"}, 91: {"b"}}


def half_of_them(hits: NDArray[np.bool_], n_targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Say whether half of a user's targets are among the first five: a metric of one's own."""
    return (2 * hits[:, :5].sum(axis=1) >= n_targets).astype(np.float64)


def test_evaluation_with_input_and_targets_apart() -> None:
    """Held-out users are scored from one part of their pairs and judged by the other, with metrics of one's own too.

    Who has no target is left out and counted.
    """
    kept, held = PAIRS.split("user", 0.3)
    given, targets = held.split("within", 0.4)
    version = fitted(new_store(), replace(SMALL, epochs=20), kept)
    lonely = Interactions([*targets.user_ids.tolist(), 777], [*targets.item_ids.tolist(), "never seen"])
    metrics = ("capped_recall@5", "ap@5", "ndcg@10", half_of_them)
    found = embstore.evaluate(version, lonely, given=given, metrics=metrics)
    assert set(found) == {"capped_recall@5", "ap@5", "ndcg@10", "half_of_them", "users", "dropped_users", "dropped_targets"}
    assert (found["users"], found["dropped_users"]) == (len(set(targets.user_ids.tolist())), 1)
    assert all(0 < found[metric] <= 1 for metric in ("capped_recall@5", "ap@5", "ndcg@10", "half_of_them"))


def test_evaluation_while_training_with_input_and_targets_apart() -> None:
    """Users whom no training sees judge every epoch, from one part of their pairs by the other; the best epoch is kept.

    Metrics may be one's own.
    """
    kept, held = PAIRS.split("user", 0.3)
    given, targets = held.split("within", 0.4)
    trainer, seen = replace(SMALL, epochs=6), []
    judges = HeldOutUsers(trainer.scores_from, given, targets, metrics=("capped_recall@5", half_of_them))
    version = fitted(
        new_store(),
        trainer,
        kept,
        validation=Validation(judges, best="capped_recall@5"),
        progress=lambda epoch, metrics: seen.append(metrics["capped_recall@5"]),
    )
    assert (len(seen), len(set(seen)) > 1) == (6, True)
    assert version.lineage["epochs"] == 1 + int(np.argmax(seen))
    assert version.lineage["metrics"]["users"] == len(set(targets.user_ids.tolist()))
    found = embstore.evaluate(version, targets, given=given, metrics=("capped_recall@5", half_of_them))
    assert {name: version.lineage["metrics"][name] for name in found if "@" in name or name == "half_of_them"} == pytest.approx(
        {name: value for name, value in found.items() if "@" in name or name == "half_of_them"}
    )


@pytest.mark.parametrize("trainer", [DEEP, DENSE, UserItem(negative_sampling=True)], ids=["deep", "dense", "own"])
def test_resume_after_k_epochs_equals_uninterrupted(trainer: Reconstruction) -> None:
    """Versions every epoch; cut short, and gone on with: weights, moments, steps and order are the same bits, sparse or not."""
    long, store = replace(trainer, epochs=4), new_store()  # type: ignore[type-var]
    with pytest.raises(KeyboardInterrupt):
        fitted(store, long, run="night", commit_every=1, progress=crash_after(3))
    assert store.at().lineage["epochs"] == 2
    resumed = fitted(store, long, run="night", commit_every=1)
    assert [version.lineage["epochs"] for version in store.log() if "epochs" in version.lineage] == [4, 3, 2, 1]
    assert state_of(resumed) == state_of(fitted(new_store(), long))
