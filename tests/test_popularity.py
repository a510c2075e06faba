"""Popularity, and the contract that every trainer keeps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Interactions, InvalidInputError
from embstore.testing import TrainerContract
from tests.plugin.tinymf import TinyMF
from trainers.popularity import Popularity


class TestPopularityContract(TrainerContract):
    """Popularity keeps the contract."""

    trainer = Popularity()


class TestDecayingPopularityContract(TrainerContract):
    """So it does where earlier counts fade."""

    trainer = Popularity(decay=0.5)


class TestTinyMFContract(TrainerContract):
    """So does a trainer with slots, a counter and a generator, that comes from outside."""

    trainer = TinyMF(epochs=2)


FIRST = Interactions(["ann", "bob", "ann"], ["x", "x", "y"])
SECOND = Interactions(["cid", "cid", "ann"], ["y", "z", "y"])


@pytest.mark.parametrize(("decay", "counts"), [(1.0, [2, 3, 1]), (0.5, [1, 2.5, 1]), (0.0, [0, 2, 1])])
def test_counts_of_earlier_pairs_fade_by_decay(decay: float, counts: list[float]) -> None:
    """A count is the number of new pairs plus decay times what it was."""
    store = embstore.create(f"memory://decay-{decay}")
    embstore.fit(store, Popularity(decay), FIRST, message="day 1")
    version = embstore.fit(store, Popularity(decay), SECOND, message="day 2")
    assert version.table("popularity").get(["x", "y", "z"]).tolist() == counts


@pytest.mark.parametrize("decay", ["x", None, -1, -0.1, 1.5, 2, math.nan, math.inf, True])
def test_decay_is_a_share(decay: Any) -> None:
    """A decay that is no number from 0 to 1 would count pairs backwards or more than once."""
    with pytest.raises(InvalidInputError, match=f"decay {decay!r}: give a number from 0 to 1"):
        Popularity(decay)


def test_everybody_gets_the_most_popular_of_the_rest() -> None:
    """Scores are counts, the same for every user; equal ones are ranked by row."""
    store = embstore.create("memory://popular-rest")
    embstore.fit(store, Popularity(), FIRST, message="day 1")
    version = embstore.fit(store, Popularity(), SECOND, message="day 2")
    frame = embstore.recommend(version, ["bob", "cid", "ann"])
    expected = [("bob", "y", 3.0, 1), ("bob", "z", 1.0, 2), ("cid", "x", 2.0, 1), ("ann", "z", 1.0, 1)]
    assert list(frame.itertuples(index=False, name=None)) == expected


def test_rows_that_do_not_change_are_not_written() -> None:
    """With decay 1 only the items of the new pairs change."""
    store = embstore.create("memory://popular-rows")
    embstore.fit(store, Popularity(), FIRST, message="day 1")
    version = embstore.fit(store, Popularity(), Interactions(["bob"], ["y"]), message="day 2")
    np.testing.assert_array_equal(version.changed_rows("popularity"), version.ids("item").rows(["y"]))
