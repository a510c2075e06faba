"""fit: what a training leaves in the store, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, strategies as st

import embstore
from embstore import (
    Batch,
    Checkout,
    IdTypeError,
    Interactions,
    InvalidInputError,
    NonFiniteError,
    Schema,
    SchemaMismatchError,
    SlotSpec,
    TableSpec,
    UnknownRefError,
)
from tests.examples import DAY_1, DAY_2, HELD_OUT, new_store, state_of
from tests.plugin.tinymf import TinyMF
from trainers.popularity import Popularity


def test_first_training_fills_thenew_store() -> None:
    """Ids are appended sorted, pairs are consumed by time, and the lineage says what was done."""
    version = embstore.fit(new_store(), TinyMF(epochs=2), DAY_1, message="day 1")
    assert version.message == "day 1"
    assert version.ids("user").ids().tolist() == [1, 2, 3]
    assert version.ids("item").ids().tolist() == ["a", "b", "c", "d"]
    assert [items.tolist() for items in version.consumed.of("user", [1, 2, 3])] == [["a", "c"], ["b", "a"], ["d", "b"]]
    assert version.tables == {spec.name: spec for spec in TinyMF().schema().tables}
    lineage = version.lineage
    assert (lineage["trainer"], lineage["epochs"], lineage["seed"]) == ("tinymf", 2, 0)
    assert lineage["settings"] == {"dim": 4, "epochs": 2, "lr": 0.1, "l2": 0.1, "seed": 0}
    assert lineage["data"] == {"pairs": 6, "first": 1, "last": 6}
    assert lineage["metrics"].keys() == {"loss"}
    assert (version.dense["tinymf.epochs"].item(), "run" in lineage) == (2, False)


def test_new_ids_are_appended_sorted() -> None:
    """Rows follow the order of ids (strings by code point), not that of times; a later training appends after them."""
    store = new_store()
    embstore.fit(store, Popularity(), Interactions([5, 3, 4], ["b", "é", "Z"], times=[1, 2, 3]), message="day 1")
    version = embstore.fit(store, Popularity(), Interactions([2, 1], ["c", "a"], times=[4, 5]), message="day 2")
    assert version.ids("user").ids().tolist() == [3, 4, 5, 1, 2]
    assert version.ids("item").ids().tolist() == ["Z", "b", "é", "a", "c"]


def test_next_training_grows_it() -> None:
    """New ids get the next rows, old ones keep theirs with vectors and slots, counters and consumed items go on."""
    store = new_store()
    first = embstore.fit(store, TinyMF(epochs=2), DAY_1, message="day 1")
    version = embstore.fit(store, TinyMF(epochs=1), DAY_2, message="day 2")
    diff = store.diff(first.id, version.id)
    assert (diff.ids["user"].appended.tolist(), diff.ids["item"].appended.tolist()) == ([4], ["e"])
    assert diff.tables["tinymf.user"].changed_ids.tolist() == [1]
    assert diff.slots["tinymf.user"] == {"sum": 1}
    assert version.dense["tinymf.epochs"].item() == 3
    assert [items.tolist() for items in version.consumed.of("user", [1, 4])] == [["a", "c", "e"], ["b", "a"]]


@given(st.permutations(range(6)))
def test_order_of_the_file_does_not_matter(order: list[int]) -> None:
    """Pairs in any order make the same store, to the bit."""
    expected = state_of(embstore.fit(new_store(), TinyMF(), DAY_1, message="day 1"))
    assert state_of(embstore.fit(new_store(), TinyMF(), DAY_1.take(order), message="day 1")) == expected


def test_times_outlast_the_order_of_commits() -> None:
    """Consumed items are oldest first by their times, also where an older day is trained later."""
    store = new_store()
    embstore.fit(store, Popularity(), Interactions([1], ["late"], times=[9]), message="day 2")
    version = embstore.fit(store, Popularity(), Interactions([1], ["early"], times=[1]), message="day 1")
    assert version.consumed.of("user", [1])[0].tolist() == ["early", "late"]


def test_pairs_without_times_go_by_user_and_item() -> None:
    """Where there are no times, pairs are taken by user and item, and no time is recorded."""
    pairs = Interactions([2, 1, 1], ["b", "z", "a"])
    version = embstore.fit(new_store(), Popularity(), pairs, message="fit")
    assert [items.tolist() for items in version.consumed.of("user", [1, 2])] == [["a", "z"], ["b"]]
    assert version.lineage["data"] == {"pairs": 3}


def test_consumed_replace_drops_what_these_users_had() -> None:
    """With "replace" users of the new pairs have only these, others keep what they had; "merge" adds."""
    had = {}
    for consumed in ("merge", "replace"):
        store = new_store()
        embstore.fit(store, Popularity(), DAY_1, message="day 1")
        version = embstore.fit(store, Popularity(), DAY_2, message="day 2", consumed=consumed)
        had[consumed] = [items.tolist() for items in version.consumed.of("user", [1, 2, 4])]
    assert had["merge"] == [["a", "c", "e"], ["b", "a"], ["b", "a"]]
    assert had["replace"] == [["e"], ["b", "a"], ["b", "a"]]


def test_slots_reset_start_at_their_fill() -> None:
    """With "reset" every slot is at its fill before the first epoch, also of users without new pairs; values stay."""
    store = new_store()
    first = embstore.fit(store, TinyMF(), DAY_1, message="day 1")
    assert (first.table("tinymf.user").slot("sum").values() != np.float32(0.1)).all()
    version = embstore.fit(store, TinyMF(epochs=1), DAY_2, message="day 2", slots="reset")
    untouched = version.table("tinymf.user").slot("sum").get([2, 3])
    np.testing.assert_array_equal(untouched, np.full((2, 4), 0.1, np.float32))
    np.testing.assert_array_equal(version.table("tinymf.user").get([2, 3]), first.table("tinymf.user").get([2, 3]))


def test_slots_reset_leaves_removed_rows_alone() -> None:
    """The row of a removed id stays all zeros."""
    store = new_store()
    embstore.fit(store, TinyMF(), DAY_1, message="day 1")
    with store.checkout() as work:
        work.remove("user", [2])
        work.commit("forget 2")
    version = embstore.fit(store, TinyMF(), DAY_2, message="day 2", slots="reset")
    assert version.table("tinymf.user").slot("sum").gather([1]).tolist() == [[0.0] * 4]


def test_no_pairs_add_the_tables_only() -> None:
    """Without pairs no epoch is trained; the version has the trainer's tables, and records the run."""
    store = new_store()
    version = embstore.fit(store, TinyMF(), DAY_1.take([]), message="begin", run="begin", slots="reset")
    assert sorted(version.tables) == ["tinymf.item", "tinymf.user"]
    assert (version.entities, len(version.consumed), list(version.dense)) == ({"item": 0, "user": 0}, 0, [])
    assert (version.lineage["epochs"], version.lineage["metrics"]) == (0, {})
    assert embstore.fit(store, TinyMF(), DAY_1.take([]), message="begin", run="begin") == version


@dataclass(frozen=True)
class Failing:
    """Yields or stages in its second epoch what must not be committed."""

    stage: str
    epochs: int = 3
    name: ClassVar[str] = "failing"

    def schema(self) -> Schema:
        """Return a number for each user, with a slot."""
        return Schema((TableSpec("fails", "user", None, slots=(SlotSpec("sum", None),)),))

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Yield something finite, then something that is not."""
        for epoch in range(self.epochs):
            bad = np.array([np.nan if epoch == 1 else 1.0])
            if self.stage == "values":
                work.table("fails").scatter([0], bad)
            elif self.stage == "slot":
                work.table("fails").slot("sum").scatter([0], bad)
            elif self.stage == "dense":
                work.dense["array"] = bad
            yield {"loss": float(bad[0]) if self.stage == "metrics" else 0.5}


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("metrics", "trainer 'failing', epoch 2: loss is nan"),
        ("values", "values of table 'fails': 1 rows are not finite"),
        ("slot", "sum of table 'fails': 1 rows are not finite"),
        ("dense", "dense array 'array': 1 numbers are not finite"),
    ],
)
def test_what_is_not_finite_is_not_committed(stage: str, message: str) -> None:
    """NaN in metrics, rows, slots or arrays ends the training in the epoch it appears; the store is as it was."""
    store = new_store()
    before = store.at()
    epochs: list[int] = []
    with pytest.raises(NonFiniteError, match=message):
        embstore.fit(store, Failing(stage), DAY_1, message="fit", progress=lambda e, m: epochs.append(e))
    assert (store.at(), epochs) == (before, [1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"message": " "}, "message ' '"),
        ({"slots": "clear"}, "slots='clear': give 'keep' or 'reset'"),
        ({"consumed": "add"}, "consumed='add': give 'merge' or 'replace'"),
        ({"on_conflict": "sometimes"}, "on_conflict='sometimes'"),
        ({"patience": 2}, "patience=2 without validation"),
        ({"patience": 0, "validation": HELD_OUT}, "patience=0: give a number of epochs"),
        ({"commit_every": True}, "commit_every=True: give a number of epochs"),
        ({"run": "day 1"}, "run name 'day 1'"),
        ({"run": "r" * 60}, "branch name 'main-r"),
        ({"validation": Interactions([77], ["a"])}, "validation: of 1 pairs none has a known user and a known item"),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_training(options: dict[str, Any], message: str) -> None:
    """Nothing is trained where the options say what cannot be."""
    store = new_store()
    epochs: list[int] = []
    arguments = {"message": "fit", "progress": lambda e, m: epochs.append(e), **options}
    with pytest.raises(InvalidInputError, match=message):
        embstore.fit(store, TinyMF(), DAY_1, **arguments)
    assert (epochs, len(list(store.log()))) == ([], 1)


def test_what_is_no_trainer_is_refused() -> None:
    """A class, and an object without train, are no trainers; a setting must be JSON."""

    @dataclass(frozen=True)
    class Unstorable(Popularity):
        setting: object = object

    for trainer, message in [(Popularity, "trainer Popularity: give an instance"), (3, "trainer 3: give an instance")]:
        with pytest.raises(InvalidInputError, match=message):
            embstore.fit(new_store(), trainer, DAY_1, message="fit")
    with pytest.raises(InvalidInputError, match="settings of trainer 'popularity': .* is not JSON serializable"):
        embstore.fit(new_store(), Unstorable(), DAY_1, message="fit")


_ON_TERMINAL = """
import embstore
from embstore import Interactions
from trainers.popularity import Popularity
embstore.fit(embstore.create("memory://shown"), Popularity(), Interactions([1], ["a"]), message="fit", progress=True)
"""


def test_progress_is_for_terminals() -> None:
    """A terminal gets a line an epoch on stderr; a file or pipe gets nothing."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", _ON_TERMINAL]
    piped = subprocess.run(command, capture_output=True, text=True, check=False)
    shown = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, text=True, check=False)
    os.write(theirs, b"end\n")  # so that reading ends even if nothing was shown
    written = ""
    while not written.endswith("end\r\n"):  # a terminal gives line by line
        written += os.read(ours, 65536).decode()
    os.close(theirs)
    os.close(ours)
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, "", "")
    assert (shown.returncode, shown.stdout, written.split()) == (0, "", ["epoch", "1", "pairs", "1", "end"])


def test_another_schema_or_id_type_is_refused() -> None:
    """A table of another dim, and ids of another type than the store's, change nothing."""
    store = new_store()
    before = embstore.fit(store, TinyMF(), DAY_1, message="day 1")
    with pytest.raises(SchemaMismatchError, match="dim is 4 in the store, 8 was asked for"):
        embstore.fit(store, TinyMF(dim=8), DAY_2, message="day 2")
    with pytest.raises(IdTypeError):
        embstore.fit(store, TinyMF(), Interactions(["4"], ["a"]), message="day 2")
    with pytest.raises(UnknownRefError):
        embstore.fit(store, TinyMF(), DAY_2, message="day 2", branch="nowhere", run="day-2")
    assert store.at() == before


def test_trainers_share_anew_store() -> None:
    """Each trainer has its own tables; ids and consumed items are everybody's, and new ids get rows in all tables."""
    store = new_store()
    embstore.fit(store, TinyMF(), DAY_1, message="factors")
    version = embstore.fit(store, Popularity(), DAY_2, message="counts")
    assert sorted(version.tables) == ["popularity", "tinymf.item", "tinymf.user"]
    new = version.table("tinymf.user").get([4])
    np.testing.assert_array_equal(new, version.table("tinymf.user").initial([4]))
    assert version.table("popularity").get(["a", "c", "e"]).tolist() == [1, 0, 1]
