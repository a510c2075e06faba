"""Retraining day by day: what a store keeps, counts and refuses, whatever was done before and in whichever process."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import embstore
from embstore import Constant, Interactions, Schema, SlotSpec, TableSpec, sparse_feature, stage_features
from tests.examples import DAY_1, DAY_2, new_store, state_of
from tests.featured import FeaturedBPR, features_of
from tests.plugin.tinymf import TinyMF
from tests.retrain_semantics import FEATURED_PAIRS, RetrainSemantics
from tests.three_generations import COLUMNS, MADE, generations, train_in_processes
from trainers.bpr import BPR
from trainers.popularity import Popularity

SMALL = BPR(dim=8, epochs=2, batch_size=32)
FEATURED = FeaturedBPR(dim=4, epochs=1, batch_size=64, **COLUMNS)


class TestBPR(RetrainSemantics):
    """BPR keeps it."""

    trainer = SMALL


class TestEagerBPR(RetrainSemantics):
    """So it does where every row moves at every step."""

    trainer = replace(SMALL, lazy=False)


class TestFeaturedBPR(RetrainSemantics):
    """So does a trainer with features, categories with vectors, and arrays of their means."""

    trainer = FEATURED
    pairs = FEATURED_PAIRS


def test_features_survive_a_fresh_process(tmp_path: Path) -> None:
    """Categories and lists of categories of an earlier process are there in the next, which adds its own."""
    settings = {"dim": 4, "epochs": 1, **COLUMNS}
    version = train_in_processes(tmp_path / "store", FeaturedBPR, [settings, settings], MADE).at()
    genres: dict[str, list[str]] = {}
    zips: dict[int, int] = {}
    for part in generations(MADE)[:2]:
        assert part.user_features is not None
        assert part.item_features is not None
        genres |= dict(zip(part.item_features["item"], part.item_features["genres"], strict=True))
        zips |= dict(zip(part.user_features["user"], part.user_features["zip"], strict=True))
    assert features_of(version, version.tables["item.genres"]) == genres
    assert features_of(version, version.tables["user.zip"]) == zips


def test_two_stores_in_one_process_keep_apart() -> None:
    """Fits that take turns between two stores leave in each what they leave alone."""
    parts = generations(MADE)
    jobs = {"a": (FEATURED, parts[:2]), "b": (FeaturedBPR(dim=4, epochs=1, user_sparse=("gender",)), parts[:0:-1])}

    def fitted(turns: str) -> list[dict[str, object]]:
        stores, left = {name: new_store() for name in jobs}, {name: list(job[1]) for name, job in jobs.items()}
        for name in turns:
            embstore.fit(stores[name], jobs[name][0], left[name].pop(0), message="a part")
        return [state_of(store.at()) for store in stores.values()]

    assert fitted("abab") == fitted("bbaa")


def test_features_given_later_are_saved() -> None:
    """What is assigned after the training is in the version, and is what the next training finds."""
    store, spec = new_store(), sparse_feature("user", "gender")
    embstore.fit(store, FEATURED, Interactions([1, 2], ["a", "b"]), message="without features")
    with store.checkout() as work:
        stage_features(work, replace(DAY_1, user_features=pd.DataFrame({"user": [1], "gender": ["F"]})))
        work.commit("a gender")
    assert features_of(embstore.open(store.url).at(), spec) == {1: "F", 2: None}
    version = embstore.fit(store, FEATURED, Interactions([2], ["a"]), message="go on")
    assert features_of(version, spec) == {1: "F", 2: None}
    assert version.table("gender.vector").slot("step").get(["F"]).tolist() == [1]


def test_a_grown_store_is_all_that_a_retrain_needs(tmp_path: Path) -> None:
    """Ids appended by hand, a copy without a log, another handle: a training goes on from any of them alike."""
    store = embstore.create(tmp_path / "store", durability="none")
    embstore.fit(store, SMALL, DAY_1, message="day 1")
    with store.checkout() as work:
        work.append("user", [4])
        work.append("item", ["e"])
        work.commit("grown")
    copy = store.export(tmp_path / "copy")
    states = [state_of(embstore.fit(s, SMALL, DAY_2, message="day 2")) for s in (copy, embstore.open(tmp_path / "store"))]
    at_once = new_store()
    embstore.fit(at_once, SMALL, DAY_1, message="day 1")
    assert states[0] == states[1] == state_of(embstore.fit(at_once, SMALL, DAY_2, message="day 2"))


def test_popularity_counts_all_days() -> None:
    """What unknown users get, and what a trainer counts, is of every day, not of the newest; a user counts once an item."""
    store, days = new_store(), [([1, 2, 3, 3, 3], ["old", "old", "old", "x", "x"]), ([4, 5], ["new", "new"])]
    for users, items in days:
        version = embstore.fit(store, Popularity(), Interactions(users, items), message="a day")
    frame = embstore.recommend(version, [99], 3, unknown="popular")
    assert list(zip(frame["item"], frame["score"], strict=True)) == [("old", 3), ("new", 2), ("x", 1)]
    assert version.table("popularity").get(["old", "new", "x"]).tolist() == [3, 2, 2]


def test_tables_grow_by_entity_not_by_name() -> None:
    """A table called after another entity grows with its own, with slots of any name and shape; arrays grow by nobody."""
    slots = (SlotSpec("max_exp_avg_sq", 3, fill=0.5), SlotSpec("user", None, "int64"))
    schema = Schema((TableSpec("user_embed", "item", 3, slots=slots, init=Constant(2.0)), TableSpec("sparse", "user", None)))
    store = embstore.create("memory://by-entity", schema=schema)
    with store.checkout() as work:
        rows = work.append("item", ["a", "b"])
        work.append("user", [1])
        work.table("user_embed").slot("max_exp_avg_sq").scatter(rows, np.ones((2, 3)))
        work.dense["item_embed"] = np.ones((2, 3))
        work.commit("two items")
        work.append("item", ["c"])
        version = work.commit("three")
    table = version.table("user_embed")
    assert table.values().tolist() == [[2.0] * 3] * 3
    assert table.slot("max_exp_avg_sq").values().tolist() == [[1.0] * 3, [1.0] * 3, [0.5] * 3]
    assert (len(table.slot("user")), len(version.table("sparse")), version.dense["item_embed"].shape) == (3, 1, (2, 3))


def test_rows_never_move() -> None:
    """Users, items and the categories of every column keep their rows while all of them grow."""
    store = new_store()
    rows: dict[str, dict[object, int]] = {}
    for part in generations(MADE):
        version = embstore.fit(store, FEATURED, part, message="a part")
        for entity in version.entities:
            before = rows.get(entity, {})
            assert version.ids(entity).rows(list(before)).tolist() == list(before.values())
            ids = version.ids(entity).ids()
            rows[entity] = dict(zip(ids.tolist(), version.ids(entity).rows(ids).tolist(), strict=True))
            assert len(rows[entity]) > len(before) or entity == "gender"
    assert sorted(rows) == ["gender", "genres", "item", "user", "zip"]


def test_an_earlier_version_stays_what_it_was() -> None:
    """A retrain writes beside the version before it, which reads the same bits."""
    store = new_store()
    before = state_of(first := embstore.fit(store, TinyMF(), DAY_1, message="day 1"))
    second = embstore.fit(store, TinyMF(epochs=5), DAY_2, message="day 2", consumed="replace", slots="reset")
    assert state_of(store.at(first.id)) == before != state_of(second)


def test_consumed_is_old_then_new_or_new_only() -> None:
    """Merged records are the old ones and then the new ones, repeats kept; replaced ones are the new ones of these users."""
    days = [([1, 1, 1, 2, 3], list("abacc")), ([1, 1, 4], list("bad"))]
    had: dict[str, dict[str, list[list[object]]]] = {}
    for consumed in ("merge", "replace"):
        store = new_store()
        for number, (users, items) in enumerate(days):
            pairs = Interactions(users, items, times=np.arange(len(users)) + 10 * number)
            version = embstore.fit(store, Popularity(), pairs, message="a day", consumed=consumed)
        of = {"user": [1, 2, 3, 4], "item": ["a", "b", "c", "d"]}
        had[consumed] = {entity: [list(ids) for ids in version.consumed.of(entity, of[entity])] for entity in of}
        assert [sorted(ids) for ids in version.consumed.of("user", [1], distinct=True)] == [["a", "b"]]
    assert had["merge"]["user"] == [list("ababa"), ["c"], ["c"], ["d"]]
    assert had["merge"]["item"] == [[1, 1, 1], [1, 1], [2, 3], [4]]
    assert had["replace"]["user"] == [list("ba"), ["c"], ["c"], ["d"]]
    assert had["replace"]["item"] == [[1], [1], [2, 3], [4]]


def test_unknown_ids_have_the_mean_vector() -> None:
    """Users and items never met are served by the mean of those there are; removed ones do not count."""
    store = new_store()
    embstore.fit(store, SMALL, DAY_1, message="day 1")
    with store.checkout() as work:
        work.remove("item", ["a"])
        version = work.commit("without a")
    for name, unknown in (("user", [99]), ("item", ["a"])):
        table, live = version.table(name), version.ids(name).ids()
        np.testing.assert_allclose(table.get(unknown, missing="mean")[0], table.get(live).mean(axis=0), rtol=1e-6)


def test_ndcg_is_of_all_targets() -> None:
    """The ideal order is that of all targets, not of those that were found."""
    pairs = Interactions([1, 2, 3, 4, 4, 5, 5], ["a", "a", "a", "b", "c", "b", "d"])
    version = embstore.fit(new_store(), Popularity(), pairs, message="fit")
    found = embstore.evaluate(version, Interactions([1, 1], ["c", "d"]), metrics=("ndcg@2", "ap@2"))
    assert math.isclose(found["ndcg@2"], (1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert math.isclose(found["ap@2"], 1 / 2 / 2)


def test_slots_reset_forgets_the_optimizer_of_this_trainer_only() -> None:
    """Arrays that an optimizer keeps for parameters without rows go with the slots; those of others, and all else, stay."""
    store = new_store()
    embstore.fit(store, TinyMF(), DAY_1, message="day 1")
    mine, others = "optim.net.tinymf.weight.exp_avg", ("optim.net.other.weight.exp_avg", "tinymf.weight", "optim")
    with store.checkout() as work:
        for name in (mine, *others):
            work.dense[name] = np.ones(3)
        work.commit("arrays")
    kept = embstore.fit(store, TinyMF(), DAY_2, message="keep")
    version = embstore.fit(store, TinyMF(), DAY_2, message="reset", slots="reset")
    assert sorted(kept.dense) == sorted([mine, *others, "tinymf.epochs", "tinymf.random"])
    assert sorted(version.dense) == sorted([*others, "tinymf.epochs", "tinymf.random"])
