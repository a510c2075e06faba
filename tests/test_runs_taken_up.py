"""A run that was cut short goes on with the tables and the pairs that it was begun with, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

import embstore
from embstore import Interactions, InvalidInputError, Schema, SchemaMismatchError, Store, TableSpec, Zeros
from tests.examples import DAY_1, crash_after, new_store
from tests.plugin.tinymf import TinyMF
from trainers.popularity import Popularity

SHORT = TinyMF(epochs=4)


def _cut_short(pairs: Interactions = DAY_1) -> Store:
    """Return a store with two of the four epochs of a run."""
    store = new_store()
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, SHORT, pairs, message="m", run="r", commit_every=1, progress=crash_after(3))
    return store


def test_another_dim_is_refused() -> None:
    """Tables that the run was begun without cannot be what its lineage says; nothing is written."""
    store = _cut_short()
    before = store.at()
    with pytest.raises(SchemaMismatchError, match=r"run 'r': begun with other settings \(table .*: dim is 4.*\); take"):
        embstore.fit(store, replace(SHORT, dim=2), DAY_1, message="m", run="r")
    assert store.at() == before


@dataclass(frozen=True)
class WithBias(TinyMF):
    """A later edition of the trainer, with one more table."""

    def schema(self) -> Schema:
        """Return three tables."""
        return Schema((*super().schema().tables, TableSpec("tinymf.bias", "item", None, init=Zeros())))


def test_tables_that_came_later_are_refused() -> None:
    """A trainer that has got a table since cannot go on in its midst."""
    store = _cut_short()
    with pytest.raises(SchemaMismatchError, match=r"run 'r': begun with other settings \(no table tinymf.bias\); take"):
        embstore.fit(store, WithBias(epochs=4), DAY_1, message="m", run="r")


def test_another_learning_rate_goes_on() -> None:
    """What no table depends on may change, and the lineage says what it is now."""
    version = embstore.fit(_cut_short(), replace(SHORT, lr=0.5), DAY_1, message="m", run="r")
    assert (version.lineage["epochs"], version.lineage["settings"]["lr"]) == (4, 0.5)


@pytest.mark.parametrize(
    "other",
    [
        Interactions(DAY_1.user_ids[::-1].copy(), DAY_1.item_ids, times=DAY_1.times),
        Interactions(DAY_1.user_ids, np.roll(DAY_1.item_ids, 1), times=DAY_1.times),
        Interactions(DAY_1.user_ids, DAY_1.item_ids, np.arange(6), DAY_1.times),
        Interactions(DAY_1.user_ids, DAY_1.item_ids, times=[6, 1, 4, 2, 5, 3]),
        Interactions(DAY_1.user_ids + 10, DAY_1.item_ids, times=DAY_1.times),
    ],
)
def test_as_many_other_pairs_of_the_same_days_are_refused(other: Interactions) -> None:
    """Number and times do not make pairs the same; nothing is written."""
    store = _cut_short()
    before = store.at()
    with pytest.raises(InvalidInputError, match="run 'r': begun with data .*'digest'.*; take another name"):
        embstore.fit(store, SHORT, other, message="m", run="r")
    assert store.at() == before


def test_the_same_pairs_in_another_order_go_on() -> None:
    """The digest is one of the pairs in the order that they are trained in."""
    version = embstore.fit(_cut_short(), SHORT, DAY_1.take(slice(None, None, -1)), message="m", run="r")
    assert version.lineage["epochs"] == 4


def test_a_version_without_a_digest_goes_on() -> None:
    """One that was written before there were digests is judged by number and times."""
    store = _cut_short()
    with store.checkout() as work:
        lineage = store.at().lineage
        work.lineage |= lineage | {"data": {key: value for key, value in lineage["data"].items() if key != "digest"}}
        work.commit("as it was written before", allow_empty=True)
    assert embstore.fit(store, SHORT, DAY_1, message="m", run="r").lineage["epochs"] == 4


@pytest.mark.parametrize(
    ("fitted", "text"),
    [
        (lambda store: embstore.fit(store, Popularity(), {"user": [1]}, message="m"), "interactions dict: give Interactions"),
        (
            lambda store: embstore.fit(store, Popularity(), DAY_1, message="m", validation=[1]),
            "validation list: give Inter",
        ),
        (lambda store: embstore.fit(store.at(), Popularity(), DAY_1, message="m"), r"store Version: give a Store.*embstore.open"),
    ],
)
def test_what_is_no_store_and_no_pairs_is_refused(fitted: Callable[[Store], object], text: str) -> None:
    """The message says what to give."""
    store = new_store()
    with pytest.raises(InvalidInputError, match=text):
        fitted(store)
    assert len(list(store.log())) == 1
