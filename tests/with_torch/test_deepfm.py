"""DeepFM: its net against the formula, labels, columns that are unknown, grown or new, and MovieLens-100k."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

import embstore
from embstore import EmbstoreError, Interactions, InvalidInputError, Store, Version
from embstore.testing import TrainerContract
from tests.examples import crash_after, new_store, state_of
from tests.with_torch.featured_pairs import COLUMNS, featured_interactions, item_frame, user_frame
from tools.quality_deepfm import COLUMNS as MOVIELENS, auc, log_loss, movielens, random_parts
from trainers.columns import columns_of
from trainers.deepfm import DeepFM
from trainers.nets import DeepFMNet, Dropout, begin

SMALL = DeepFM(dim=4, hidden=(8, 4), epochs=2, batch_size=32, lr=0.01)
FEATURED = replace(SMALL, threshold=3, **COLUMNS)
PAIRS = featured_interactions()
LATER = Interactions(
    [3, 99],
    ["item 02", "item 50"],
    [5, 1],
    user_features=user_frame([99]).assign(gender="x", city="rome"),
    item_features=item_frame(["item 50", "item 51"]),
)


class TestDeepFMContract(TrainerContract):
    """DeepFM keeps the contract without features, with negatives that are drawn."""

    trainer = SMALL


class TestFeaturedDeepFMContract(TrainerContract):
    """So it does with columns of every kind, and ratings as labels."""

    trainer = FEATURED
    interactions = PAIRS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "dim 0: give a whole number from 1"),
        ({"negatives": 1.5}, "negatives 1.5: give a whole number"),
        ({"rehearsal": -1}, "rehearsal -1: give a number that is not negative"),
        ({"lr": -1}, "lr -1: give a number that is not negative"),
        ({"l2": float("nan")}, "l2 nan: give a finite number"),
        ({"dropout": 1.0}, "dropout 1.0: give a share below 1"),
        ({"threshold": "4"}, "threshold '4': give a finite number"),
        ({"hidden": 8}, "hidden 8: give a tuple of whole numbers"),
        ({"hidden": (8, 0)}, "hidden 0: give a whole number from 1"),
        ({"seed": 0.5}, "seed 0.5: give a whole number"),
        ({"user_sparse": "gender"}, "user_sparse 'gender': give a tuple of columns"),
        ({"item_multi": ("genre",)}, "item_multi .'genre',.: give a tuple of pairs"),
        ({"item_multi": (("genre", 0),)}, "dim 0: give a whole number"),
        ({"user_sparse": ("a",), "user_dense": ("a",)}, "user column 'a': it is there twice"),
        ({"item_sparse": ("user",)}, "item column 'user': this is the name of ids"),
        ({"item_dense": ("a b",)}, "a b"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    """Each setting is checked when the trainer is made, and the message names it."""
    with pytest.raises(EmbstoreError, match=message):
        DeepFM(**settings)


def fitted(store: Store, trainer: DeepFM = FEATURED, pairs: Interactions = PAIRS) -> Version:
    """Return a version trained on pairs."""
    return embstore.fit(store, trainer, pairs, message="fit")


def vectors_by_hand(version: Version, trainer: DeepFM, side: str, row: int) -> list[NDArray[np.float64]]:
    """Return the vector of each column of one user or item, read from the tables one by one."""
    found = []
    for column in columns_of(trainer):
        if column.side != side:
            continue
        values = None if column.feature is None else version.table(column.feature.name).values()[row]
        if column.kind == "dense":
            mean, deviation = version.dense[f"deepfm.scale.{side}.{column.name}"]
            standard = 0.0 if values == 0 else (float(values) - mean) / deviation
            found.append(standard * version.dense[f"model.deepfm.vectors.weights.{column.key}"].astype(np.float64))
            continue
        rows = [row] if values is None else [int(value) for value in np.atleast_1d(values) if value >= 0]
        table = version.table(f"deepfm.{column.entity}").values().astype(np.float64)
        found.append(table[rows].mean(axis=0) if rows else version.dense[f"default.deepfm.{column.entity}"])
    return found


def test_scores_are_the_formula() -> None:
    """First-order weights, products of all pairs of vectors and the deep net, summed by hand from what is stored."""
    version = fitted(new_store())
    scores = FEATURED.scores(version, np.arange(len(version.ids("user"))))
    arrays = {name.removeprefix("model.deepfm.deep."): array.astype(float) for name, array in version.dense.items()}
    for user, item in [(0, 0), (3, 2), (9, 7), (12, 18)]:
        vectors = [v for side, row in (("user", user), ("item", item)) for v in vectors_by_hand(version, FEATURED, side, row)]
        weights = [arrays[f"first.{column.key}"] for column in columns_of(FEATURED)]
        hidden = sum((w @ v[:4] for w, v in zip(weights, vectors, strict=True)), arrays["bias"])
        for i in range(2):
            hidden = arrays[f"others.{i}.weight"] @ np.maximum(hidden, 0) + arrays[f"others.{i}.bias"]
        expected = sum(v[4] for v in vectors) + sum(one[:4] @ other[:4] for one, other in combinations(vectors, 2)) + hidden[0]
        assert scores[user, item] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_scores_of_all_pairs_are_those_of_each() -> None:
    """What is shared between pairs changes nothing but rounding, whatever fits into a block."""
    columns = columns_of(DeepFM(user_sparse=("a",), item_dense=("b",)))
    net = DeepFMNet(columns, {"user": 5, "item": 4, "a": 3}, dim=3, hidden=(6, 2))
    begin(net, 1)
    with torch.no_grad():
        for parameter in net.vectors.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view(parameter.shape))
        users = {"user/user": torch.arange(5), "user/a": torch.tensor([0, -1, 2, 1, -1])}
        items = {"item/item": torch.arange(4), "item/b": torch.tensor([0.5, -2.0, 0.0, 1.0])}
        pairs = {key: column.repeat_interleave(4) for key, column in users.items()}
        pairs |= {key: column.repeat(5) for key, column in items.items()}
        for block in (1, 8, 100):
            torch.testing.assert_close(net.scores(users, items, block=block), net(pairs).view(5, 4))


def test_dropout_keeps_its_share_and_the_mean() -> None:
    """Masks differ from call to call and from epoch to epoch, and are the same again for the same seed and epoch."""
    ones = torch.ones(200, 100)
    once, again = (Dropout(0.2, seed=3, epoch=1) for _ in range(2))
    masks = [once(ones), once(ones), Dropout(0.2, seed=3, epoch=2)(ones), Dropout(0.2, seed=4, epoch=1)(ones)]
    assert all(torch.equal(again(ones), mask) for mask in masks[:2])
    assert len({mask.numpy().tobytes() for mask in masks}) == 4
    for mask in masks:
        assert (mask == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)
        assert mask.mean().item() == pytest.approx(1, abs=0.02)
    assert Dropout(0.0, seed=3, epoch=1)(ones) is ones


def test_threshold_without_ratings_is_refused() -> None:
    """Labels are never made up, and nothing is committed."""
    store = new_store()
    with pytest.raises(InvalidInputError, match="threshold 3: these pairs have no ratings"):
        fitted(store, FEATURED, Interactions([1], ["a"]))
    assert store.at().tables == {}


def test_without_threshold_ratings_do_not_matter() -> None:
    """Pairs with ratings and without make one store."""
    one, other = (fitted(new_store(), SMALL, Interactions([1, 2, 2], ["a", "b", "a"], ratings)) for ratings in ([5, 1, 3], None))
    assert state_of(one) == state_of(other)


def test_ratings_tell_what_is_liked() -> None:
    """Users of one group like items of one kind, told by features alone for items nobody of the group has rated."""
    users, items = (grid.ravel() for grid in np.meshgrid(np.arange(20), np.arange(20)))
    likes = np.where(users % 2 == items % 2, 5, 1)
    seen = (users + items // 2) % 3 > 0
    frames = {side: pd.DataFrame({side: np.arange(20), f"of_{side}": np.arange(20) % 2}) for side in ("user", "item")}
    pairs = Interactions(users[seen], items[seen], likes[seen], user_features=frames["user"], item_features=frames["item"])
    trainer = DeepFM(threshold=4, user_sparse=("of_user",), item_sparse=("of_item",), epochs=60, batch_size=64, lr=0.01)
    version = fitted(new_store(), trainer, pairs)
    scores = trainer.scores(version, np.arange(20))[users, items]
    assert auc(likes[~seen] == 5, scores[~seen]) > 0.95


def test_what_is_unknown_has_the_default_vector() -> None:
    """It is the mean of the live rows, outside of them, for a category that was removed as for a user who never was."""
    store = new_store()
    version = fitted(store)
    for entity in ("user", "item", "gender", "type", "year", "tag.s"):
        table = version.table(f"deepfm.{entity}")
        assert len(table) == len(version.ids(entity))
        np.testing.assert_allclose(version.dense[f"default.deepfm.{entity}"], table.values().mean(axis=0), rtol=1e-5, atol=1e-7)
    women = np.flatnonzero(version.table("user.gender").values() == version.ids("gender").rows(["f"]))
    with store.checkout() as work:
        work.remove("gender", ["f"])
        without = work.commit("forget a gender")
        work.table("user.gender").scatter(women, np.full(len(women), -1))
        work.table("item.gender").scatter(rows := np.flatnonzero(work.table("item.gender").values() == 0), np.full(len(rows), -1))
        unnamed = work.commit("nobody has it")
    np.testing.assert_array_equal(FEATURED.scores(without, women), FEATURED.scores(unnamed, women))
    assert (FEATURED.scores(version, women) != FEATURED.scores(without, women)).all()


def test_growth_leaves_what_was_not_trained_as_it_was() -> None:
    """New users, items and categories, and then a new column: rows without a pair keep every bit, and old ids have no value."""
    store = new_store()
    before = fitted(store)
    wider = replace(FEATURED, user_sparse=("gender", "city"))
    after = fitted(store, wider, LATER)
    diff = store.diff(before.id, after.id)
    assert diff.ids["item"].appended.tolist() == ["item 50", "item 51"]
    assert diff.ids["gender"].appended.tolist() == ["x"]
    assert diff.tables["deepfm.user"].changed_ids.tolist() == [3]
    assert diff.tables["deepfm.item"].changed_ids.tolist() == ["item 02"]
    n_users = len(before.ids("user"))
    assert after.table("user.city").values().tolist() == [-1] * n_users + [0]
    assert after.ids("city").ids().tolist() == ["rome"]
    steps = after.table("deepfm.user").slot("step").values() - np.append(before.table("deepfm.user").slot("step").values(), 0)
    assert np.flatnonzero(steps).tolist() == [3, n_users]
    assert steps[[3, n_users]].tolist() == [2, 2]
    assert wider.scores(after, np.array([-1, 0, n_users])).shape == (3, len(after.ids("item")))


@pytest.mark.parametrize(("rehearsal", "everybody"), [(0.0, False), (1000.0, True)])
def test_an_increment_rehearses(rehearsal: float, everybody: bool) -> None:
    """Users of earlier pairs are trained on again if asked for; if not, only those of the new pairs change."""
    store = new_store()
    before = fitted(store, SMALL)
    after = fitted(store, replace(SMALL, rehearsal=rehearsal), Interactions([3, 7, 99], ["item 02", "item 03", "item 04"]))
    users = before.ids("user").ids().tolist() if everybody else [3, 7]
    assert store.diff(before.id, after.id).tables["deepfm.user"].changed_ids.tolist() == users


def test_columns_may_be_empty_until_features_come() -> None:
    """Without frames there are no categories and no scale, and all are alike; the first features fill both."""
    store, bare = new_store(), Interactions(PAIRS.user_ids, PAIRS.item_ids, PAIRS.ratings, PAIRS.times)
    before = fitted(store, FEATURED, bare)
    assert (len(before.ids("gender")), "deepfm.scale.user.age" in before.dense) == (0, False)
    assert np.isfinite(FEATURED.scores(before, np.arange(-1, 5))).all()
    after = fitted(store)
    assert after.ids("gender").ids().tolist() == ["f", "m"]
    assert "deepfm.scale.user.age" in after.dense
    assert np.isfinite(FEATURED.scores(after, np.arange(-1, 5))).all()


def test_a_run_cut_short_goes_on_exactly() -> None:
    """After a crash the epochs since the last commit are done again, and the rest follows: every bit as if uninterrupted."""
    trainer, store = replace(FEATURED, epochs=4), new_store()
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, trainer, PAIRS, message="fit", run="night", commit_every=1, progress=crash_after(3))
    assert store.at().lineage["epochs"] == 2
    resumed = embstore.fit(store, trainer, PAIRS, message="fit", run="night", commit_every=1)
    assert state_of(resumed) == state_of(fitted(new_store(), trainer))


def test_a_column_that_was_never_trained_is_named() -> None:
    """Scores with more columns than the version was trained with are refused."""
    store = new_store()
    fitted(store)
    with store.checkout() as work:
        for table in replace(FEATURED, user_dense=("age", "height")).schema().tables:
            work.add_table(table)
        version = work.commit("a column")
    with pytest.raises(InvalidInputError, match=r"weights.user/height': this was not trained with all of these columns"):
        replace(FEATURED, user_dense=("age", "height")).scores(version, np.array([0]))


def test_numbers_keep_the_scale_they_first_had() -> None:
    """Mean and deviation of a dense column are those of the first values; who has none is average."""
    store = new_store()
    version = fitted(store)
    ages = version.table("user.age").values()
    ages = ages[ages != 0].astype(float)
    np.testing.assert_allclose(version.dense["deepfm.scale.user.age"], [ages.mean(), ages.std()])
    older = Interactions([500], ["item 01"], [5], user_features=pd.DataFrame({"user": [500], "age": [90.0]}))
    later = fitted(store, replace(SMALL, threshold=3, user_dense=("age",)), older)
    np.testing.assert_array_equal(later.dense["deepfm.scale.user.age"], version.dense["deepfm.scale.user.age"])


def test_one_thread_inside_and_as_many_as_before_outside() -> None:
    """The number of torch's threads is put back before every yield, and in scores."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen: list[int] = []
        version = embstore.fit(new_store(), SMALL, PAIRS, message="fit", progress=lambda *_: seen.append(torch.get_num_threads()))
        SMALL.scores(version, np.array([0]))
        assert [*seen, torch.get_num_threads()] == [3, 3, 3]
    finally:
        torch.set_num_threads(before)


def test_log_loss_and_auc_by_hand() -> None:
    """Ties count half in the area under the curve."""
    liked, logits = np.array([True, False, True, False]), np.array([2.0, 0.0, 0.0, -1.0])
    assert auc(liked, logits) == 3.5 / 4
    chances = 1 / (1 + np.exp(-logits))
    assert log_loss(liked, logits) == pytest.approx(-np.log(np.where(liked, chances, 1 - chances)).mean())


def test_movielens_labels(data_dir: Path) -> None:
    """On a random tenth of every user's ratings, four or more are told from fewer as well as by others' DeepFM."""
    train, _, test = random_parts(movielens(data_dir), seed=2020)
    trainer = DeepFM(threshold=4, epochs=6, lr=0.005, **MOVIELENS)
    version = fitted(new_store(), trainer, train)
    scores = trainer.scores(version, np.arange(len(version.ids("user"))))
    rows = version.ids("user").rows(test.user_ids), version.ids("item").rows(test.item_ids, missing=-1)
    assert auc(np.asarray(test.ratings) >= 4, scores[rows]) >= 0.78
