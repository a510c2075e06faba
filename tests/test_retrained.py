"""Retrained users: served as they were trained, from which pairs, and that nothing else moves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import EmbstoreError, Interactions, InvalidInputError
from embstore.testing import TrainerContract
from tests.cli_running import json_of, text_of
from tests.examples import new_store
from tests.retraining import (
    BASES,
    PAIRS,
    RATED,
    SETTINGS,
    forgotten,
    founded,
    new_branch,
    of_users,
    retrain,
    retrained,
    trained,
    vectors,
)
from trainers.held_out import hold_out, whole_record, without_repeats
from trainers.retrained import Retrained


class TestRetrainedContract(TrainerContract):
    """Retrained users keep the contract."""

    trainer = founded("softmax")


class TestRetrainedRatingsContract(TrainerContract):
    """So they do over ratings."""

    trainer = founded("squared", method="cobyla")
    interactions = RATED


class TestRetrainedBPRContract(TrainerContract):
    """And over BPR, which begins anew for each look at the held-out pairs."""

    trainer = founded("bpr", max_epochs=6, evaluations=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "adam"}, "method 'adam': use one of nelder-mead, cobyla, none"),
        ({"evaluations": 0}, "evaluations 0: give a whole number from 1"),
        ({"seconds": -1}, "seconds -1: give a number that is not negative"),
        ({"share": None}, "share None: give a finite number"),
        ({"seed": -1}, "seed -1: give a whole number from 0"),
        ({"base": "nobody"}, "trainer 'nobody': there is"),
        ({"base": "popularity"}, "base 'popularity' has no fold_steps, fold_lr, fold_l2: give a factor model"),
        ({"base": "retrained"}, "base 'retrained' has no fold_steps"),
        ({"base_settings": "dim=3"}, "base_settings 'dim=3' of trainer 'matrix_factorization': .*give JSON such as {}"),
        ({"base_settings": '{"size": 3}'}, "unexpected keyword argument 'size'; give JSON .* with some of dim, epochs"),
        ({"base_settings": '{"dim": 0}'}, "dim 0: give a whole number from 1"),
        ({"base_settings": "[3]"}, "base_settings '\\[3\\]' of trainer"),
        ({"base_settings": '{"dim": [3]}'}, "dim \\(3,\\): give a whole number"),
        ({"entity": "genre"}, "entity 'genre': trainer 'matrix_factorization' has no tables of it"),
        ({"base": "biases", "base_settings": '{"loss": "softmax"}'}, "entity 'user': trainer 'biases' has no tables of it"),
        ({"base": "bpr", "entity": "item"}, "entity 'item': base 'bpr' folds in users only"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    """Each setting is checked when the trainer is made, and the message names it."""
    with pytest.raises(EmbstoreError, match=message):
        Retrained(**settings)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("who", [[7], list(range(0, 25, 2)), list(range(25))], ids=["one", "half", "all"])
def test_users_are_served_as_they_were_trained(base: str, who: list[int]) -> None:
    """Users who are forgotten and come in as new ones get the vectors that they were trained with: one, half and all, any order.

    The first serving-time vectors of the other system were up to 2.3 off, those of its monitor's last run 0.4.
    """
    trainer = retrained(base)
    version = retrain(trained(base), trainer)
    who = [user for user in who if user in version.ids("user")]
    pairs = of_users(RATED, who)
    shuffled = pairs.take(np.random.default_rng(1).permutation(len(pairs)))
    for given in (pairs, shuffled):
        branch = forgotten(trained(base), version, who)
        served = embstore.fold_in(trained(base), trainer, given, message="they are back", branch=branch)
        assert np.abs(vectors(served, who) - vectors(version, who)).max() == 0.0


@pytest.mark.parametrize("base", BASES)
def test_nothing_but_users_changes(base: str) -> None:
    """The diff has the rows of users, and the arrays with what was found; no slot of anything differs from its fill."""
    store = trained(base)
    version = retrain(store, retrained(base))
    diff = store.diff("main", version.id)
    users = {name for name, spec in version.tables.items() if spec.entity == "user"}
    assert {name for name, table in diff.tables.items() if len(table.changed_rows)} == users
    assert {name for name, table in diff.tables.items() if any(table.slots.values())} == users
    assert sorted(diff.dense) == [f"retrained.user.{what}" for what in ("epochs", "l2", "lr", "seed")]
    slots = [slot for name in users for slot in version.table(name).slots.values()]
    assert [np.abs(slot.values()).max() for slot in slots] == [0.0] * len(slots)


def test_what_was_found_is_in_the_version() -> None:
    """Learning rate, L2, epochs and seed are in the metrics of the lineage and in arrays, to the bit."""
    version = retrain(trained("softmax"), retrained("softmax"))
    metrics = version.lineage["metrics"]
    found = {what: version.dense[f"retrained.user.{what}"].item() for what in ("lr", "l2", "epochs", "seed")}
    assert found == {what: metrics[what] for what in found}
    assert (metrics["evaluations"], metrics["timed_out"], metrics["retrained"]) == (4, 0, len(version.ids("user")))
    assert 1 <= metrics["epochs"] <= 30


def test_pairs_come_from_the_record() -> None:
    """All that users have been recorded with counts, whichever part of it this fit is given, and however often."""
    first, second = (RATED.take(np.arange(len(RATED)) % 2 == part) for part in (0, 1))
    store, trainer = new_store(), retrained("softmax", method="none")
    embstore.fit(store, BASES["softmax"], RATED, message="base")
    whole = embstore.fit(store, trainer, RATED, message="all", consumed="replace")
    for pairs in (first, second, RATED):
        version = embstore.fit(store, trainer, pairs, message="some of it again")
        np.testing.assert_array_equal(vectors(version, [3, 4]), vectors(whole, [3, 4]))


def test_ratings_come_from_the_fit() -> None:
    """Of ratings there is no record: users who are not among the pairs of the fit keep their vectors."""
    before, some = trained("squared").at(), of_users(RATED, range(10))
    version = retrain(trained("squared"), retrained("squared", method="none"), some)
    changed = trained("squared").diff("main", version.id).tables["user"].changed_ids.tolist()
    assert changed == sorted(set(some.user_ids.tolist()))
    np.testing.assert_array_equal(vectors(version, [15]), vectors(before, [15]))


@pytest.mark.parametrize("base", BASES)
def test_without_search_and_patience_the_base_decides(base: str) -> None:
    """Then nothing is held out, users need not have many pairs, and what was found once can be kept from night to night."""
    few = RATED.take(np.arange(0, len(RATED), 4))
    with pytest.raises(InvalidInputError, match="none has 5"):
        retrain(trained(base), retrained(base, method="none"), few)
    settings = json.dumps(SETTINGS[base] | {"fold_lr": 0.03, "fold_l2": 0.2, "fold_steps": 7})
    metrics = retrain(trained(base), retrained(base, method="none", patience=None, base_settings=settings), few).lineage[
        "metrics"
    ]
    users = len(set(few.user_ids.tolist()))
    expected = {"lr": 0.03, "l2": 0.2, "epochs": 7, "seed": 0, "evaluations": 0, "timed_out": 0, "retrained": users}
    assert metrics == expected


@pytest.mark.parametrize("base", ["softmax", "bpr"])
def test_without_patience_only_lr_and_l2_are_searched_for(base: str) -> None:
    """The number of epochs is the base's."""
    settings = json.dumps(SETTINGS[base] | {"fold_steps": 7})
    metrics = retrain(trained(base), retrained(base, patience=None, base_settings=settings)).lineage["metrics"]
    assert (metrics["epochs"], metrics["evaluations"]) == (7, 4)


def test_items_can_be_retrained() -> None:
    """With ratings the same goes for items: users stand still, and a new item gets what it would have been trained to."""
    store, trainer = trained("squared"), retrained("squared", entity="item")
    version = retrain(store, trainer)
    changed = {name for name, table in store.diff("main", version.id).tables.items() if len(table.changed_rows)}
    assert changed == {"item", "item_bias"}
    branch = new_branch(store, version.id)
    with store.checkout(branch) as work:
        work.remove("item", ["item 02"])
        work.commit("forget")
    pairs = RATED.take(np.flatnonzero(RATED.item_ids == "item 02"))
    served = embstore.fold_in(store, trainer, pairs, message="back", entity="item", branch=branch)
    np.testing.assert_array_equal(vectors(served, ["item 02"], "item"), vectors(version, ["item 02"], "item"))
    embstore.fold_in(store, trainer, Interactions([77], ["item 03"], [4]), message="a user", branch=branch)


def test_fold_in_before_training_is_refused() -> None:
    """Where nothing was retrained there is nothing to fold in with."""
    with pytest.raises(InvalidInputError, match="no user vectors of trainer 'retrained' are there yet: fit first"):
        embstore.fold_in(trained("softmax"), retrained("softmax"), Interactions([99], ["item 02"]), message="too soon")


@pytest.mark.parametrize("base", BASES)
def test_a_base_that_was_never_trained_is_refused(base: str) -> None:
    """Vectors that fit items as they begin are of no use to anybody; the store stays as it was."""
    store = new_store()
    with pytest.raises(InvalidInputError, match=rf"trainer 'retrained': all rows of .* '{BASES[base].name}' was never trained"):
        embstore.fit(store, retrained(base), RATED, message="too soon")
    assert store.at().tables == {}


def test_last_fifth_is_held_out() -> None:
    """Of each row with five pairs or more; without any such row that is said."""
    owners = np.array([2, 1, 1, 2, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3])
    assert np.flatnonzero(hold_out(owners)).tolist() == [6, 16, 17]
    with pytest.raises(InvalidInputError, match="4 pairs of 2 ids: none has 5"):
        hold_out(np.array([1, 1, 2, 2]))


def test_pairs_of_the_record() -> None:
    """Distinct pairs by id, oldest first; removed ids are not among them. Of repeats in a batch the last stays."""
    store = new_store()
    pairs = Interactions([1, 1, 1, 2, 3], ["b", "a", "b", "a", "c"], [1, 2, 3, 4, 5], times=[3, 1, 9, 2, 5])
    embstore.fit(store, replace(BASES["softmax"], epochs=1), pairs, message="fit")
    with store.checkout() as work:
        work.remove("user", [2])
        found = whole_record(work, "user")
        work.discard()
    assert list(zip(found.users.tolist(), found.items.tolist(), strict=True)) == [(0, 0), (0, 1), (2, 2)]
    batch = without_repeats(pairs.to_batch(store.at()))
    assert (batch.users.tolist(), batch.ratings.tolist()) == ([0, 0, 1, 2], [2.0, 3.0, 4.0, 5.0])  # type: ignore[union-attr]


def test_lineage_makes_the_trainer_again() -> None:
    """recommend finds trainer and base by the version alone."""
    version = retrain(trained("bpr"), retrained("bpr", max_epochs=4, evaluations=1))
    settings: Mapping[str, Any] = version.lineage["settings"]
    assert (version.lineage["trainer"], settings["base"]) == ("retrained", "bpr")
    assert len(embstore.recommend(version, [3], 2)) == 2


def test_command_line_trains_and_serves(tmp_path: Path) -> None:
    """The verbs take base and settings, and find them again in the version."""
    path, file, later = tmp_path / "store", tmp_path / "pairs.csv", tmp_path / "later.csv"
    embstore.create(path, durability="none")
    lines = [f"{u},{i},{t}" for u, i, t in zip(PAIRS.user_ids, PAIRS.item_ids, np.asarray(PAIRS.times), strict=True)]
    file.write_text("\n".join(["user,item,time", *lines]))
    later.write_text("user,item\n900,item 02\n900,item 05\n")
    text_of("train", path, file, "-m", "base", "--trainer", "matrix_factorization", "--set", "dim=6", "--set", "epochs=3")
    settings = ['base_settings={"dim": 6}', "evaluations=2", "max_epochs=9"]
    options = [word for setting in settings for word in ("--set", setting)]
    text_of("train", path, file, "-m", "again", "--trainer", "retrained", *options, "--consumed", "replace")
    text_of("fold-in", path, later, "-m", "one more")
    assert embstore.open(path).at().lineage["trainer"] == "retrained"
    found = json_of("skew", path)
    assert (found["n_ids"], found["largest"]) == (len(set(PAIRS.user_ids.tolist())) + 1, 0)
