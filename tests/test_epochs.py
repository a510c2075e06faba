"""Epoch by epoch: runs that are cut short and go on, versions on the way, the best epoch, and a branch that moves meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pytest

import embstore
from embstore import Batch, Checkout, Interactions, InvalidInputError
from embstore.testing import TrainerContract
from tests.examples import DAY_1, DAY_2, HELD_OUT, Scripted, crash_after, new_store, state_of
from tests.plugin.tinymf import TinyMF
from trainers.popularity import Popularity


@dataclass(frozen=True)
class Unnumbered(Popularity):
    """Counts twice, and does not say beforehand that it has two epochs."""

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Count, then count again."""
        yield from super().train(work, batch)
        yield from super().train(work, batch)


PAIRS = Interactions([1, 1, 2, 3, 4, 5, 6, 6], ["a", "d", "b", "d", "c", "a", "d", "b"], times=[8, 7, 6, 5, 4, 3, 2, 1])


class TestScriptedContract(TrainerContract):
    """A trainer that cannot fold in keeps the contract too."""

    trainer = Scripted((1.0, 2.0), epochs=2)
    interactions = PAIRS


class TestUnnumberedContract(TrainerContract):
    """So does one without a number of epochs, which a new process finds only by its file."""

    trainer = Unnumbered()


def test_run_is_trained_once() -> None:
    """A run that the branch has is not trained again; the same pairs under another name are."""
    store = new_store()
    version = embstore.fit(store, Popularity(), DAY_1, message="day 1", run="2026-11-01")
    embstore.fit(store, Popularity(), DAY_2, message="day 2", run="2026-11-02")
    assert embstore.fit(store, Popularity(), DAY_1, message="again", run="2026-11-01") == version
    again = embstore.fit(store, Popularity(), DAY_1, message="again", run="2026-11-03")
    assert again.table("popularity").get(["a"]).tolist() == [5]
    assert [v.lineage.get("run") for v in store.log()] == ["2026-11-03", "2026-11-02", "2026-11-01", None]


def test_run_of_another_branch_does_not_count() -> None:
    """What was trained on a branch is trained again on another one that does not have it."""
    store = new_store()
    store.branch("trial")
    on_trial = embstore.fit(store, Popularity(), DAY_1, message="day 1", run="day-1", branch="trial")
    on_main = embstore.fit(store, Popularity(), DAY_1, message="day 1", run="day-1")
    assert (on_trial.id != on_main.id, store.branches()) == (True, {"main": on_main.id, "trial": on_trial.id})


@pytest.mark.parametrize("epoch", range(1, 5))
def test_interrupted_run_goes_on_where_it_was(epoch: int) -> None:
    """A run that was cut short after any epoch, and is started again, equals one that was not; its pairs are consumed once."""
    trainer = TinyMF(epochs=4)
    expected = state_of(embstore.fit(new_store(), trainer, DAY_1, message="day 1"))
    store = new_store()
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, trainer, DAY_1, message="day 1", run="day-1", commit_every=1, progress=crash_after(epoch))
    version = embstore.fit(store, trainer, DAY_1, message="day 1", run="day-1", commit_every=2)
    assert state_of(version) == expected
    assert (version.lineage["epochs"], "unfinished" in version.lineage) == (4, False)


def test_commit_every_makes_versions_on_the_way() -> None:
    """Every so many epochs there is a version that says which; the last one is the whole training and nothing comes twice."""
    store = new_store()
    epochs: list[int] = []
    embstore.fit(store, TinyMF(epochs=4), DAY_1, message="day 1", commit_every=2, progress=lambda e, m: epochs.append(e))
    log = list(store.log())
    assert [v.message for v in log[:2]] == ["day 1", "day 1 (epoch 2)"]
    assert [(v.lineage["epochs"], v.lineage.get("unfinished", False)) for v in log[:2]] == [(4, False), (2, True)]
    assert (len(log), epochs) == (3, [1, 2, 3, 4])
    assert state_of(log[0]) == state_of(embstore.fit(new_store(), TinyMF(epochs=4), DAY_1, message="day 1"))


def test_run_goes_on_only_with_the_same_pairs() -> None:
    """A run that was cut short is not finished with other pairs, another trainer, or one that has no number of epochs."""
    store = new_store()
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, TinyMF(epochs=4), DAY_1, message="m", run="r", commit_every=1, progress=crash_after(3))
    with pytest.raises(InvalidInputError, match=r"run 'r': begun with data \{'pairs': 6, .*'pairs': 3"):
        embstore.fit(store, TinyMF(epochs=4), DAY_2, message="m", run="r")
    with pytest.raises(InvalidInputError, match="run 'r': begun with trainer 'tinymf', now 'popularity'"):
        embstore.fit(store, Popularity(), DAY_1, message="m", run="r")


def test_moved_branch_does_not_stop_a_training_on_the_way() -> None:
    """Where the branch has moved at a version on the way, the training is finished on another one and merged from there."""
    store = new_store()

    def interfere(epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch == 1:
            embstore.fit(store, Popularity(), DAY_2, message="somebody else")

    version = embstore.fit(store, TinyMF(epochs=4), DAY_1, message="day 1", run="r", commit_every=2, progress=interfere)
    assert [v.lineage.get("epochs") for v in store.log("main-r")] == [4, 2, None]
    assert state_of(store.at("main-r")) == state_of(embstore.fit(new_store(), TinyMF(epochs=4), DAY_1, message="day 1"))
    assert (version, version.parents) == (store.at(), (store.at("main~1").id, store.at("main-r").id))
    assert store.at("main~1").message == "somebody else"
    users = store.at("main-r").ids("user").ids()
    np.testing.assert_array_equal(version.table("tinymf.user").get(users), store.at("main-r").table("tinymf.user").get(users))


@pytest.mark.parametrize("commit_every", [None, 1, 3])
def test_best_epoch_is_committed(commit_every: int | None) -> None:
    """The state of the best epoch is committed, whatever was trained or committed after it, and is what it was to the bit."""
    trainer = Scripted((-2.0, 5.0, -1.0, 5.0, -9.0), epochs=5, late=3)
    store = new_store()
    version = embstore.fit(store, trainer, DAY_1, message="fit", validation=HELD_OUT, commit_every=commit_every)
    best = embstore.fit(new_store(), Scripted((-2.0, 5.0), epochs=2), DAY_1, message="fit")
    assert state_of(version) == state_of(best)
    assert (version.lineage["epochs"], version.lineage["epochs_trained"]) == (2, 5)
    assert version.lineage["metrics"] == {
        "score": 5.0, "recall@20": 1.0, "ndcg@100": 1.0, "users": 2, "dropped_users": 0, "dropped_targets": 0,
    }  # fmt: skip


def test_rows_of_later_epochs_are_not_written() -> None:
    """What only epochs after the best one touched is no part of the commit."""
    store = new_store()
    embstore.fit(store, Scripted(), DAY_1, message="first")
    trainer = Scripted((0.0, 5.0, -1.0), epochs=2, late=3)
    version = embstore.fit(store, trainer, DAY_1, message="fit", validation=HELD_OUT)
    assert version.changed_rows("score").tolist() == version.ids("item").rows(["d"]).tolist()


def test_patience_stops() -> None:
    """After so many epochs without a better one the training ends."""
    trainer = Scripted((-3.0, -1.0, -2.0, -2.0, 9.0), epochs=5)
    seen: list[int] = []
    version = embstore.fit(
        new_store(), trainer, DAY_1, message="fit", validation=HELD_OUT, patience=2, progress=lambda e, m: seen.append(e)
    )
    assert (seen, version.lineage["epochs"], version.dense["epoch"].item()) == ([1, 2, 3, 4], 2, 2)


def test_resumed_run_compares_with_where_it_was() -> None:
    """The state that a run goes on from is a candidate too."""
    store = new_store()
    trainer = Scripted((-1.0, 5.0, -2.0, -3.0), epochs=4)
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, trainer, DAY_1, message="m", run="r", commit_every=2, validation=HELD_OUT, progress=crash_after(3))
    version = embstore.fit(store, trainer, DAY_1, message="m", run="r", commit_every=2, validation=HELD_OUT)
    assert (version.lineage["epochs"], version.lineage["epochs_trained"], version.dense["epoch"].item()) == (2, 4, 2)
    assert state_of(version) == state_of(embstore.fit(new_store(), Scripted((-1.0, 5.0), epochs=2), DAY_1, message="m"))


def test_run_without_a_number_of_epochs_cannot_go_on() -> None:
    """Where a trainer does not say how many epochs it has, nobody knows what a run that was cut short lacks."""
    store = new_store()
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, Unnumbered(), DAY_1, message="m", run="r", commit_every=1, progress=crash_after(2))
    with pytest.raises(InvalidInputError, match=r"cut short after 1 epochs: trainer 'popularity' has no setting epochs"):
        embstore.fit(store, Unnumbered(), DAY_1, message="m", run="r")
