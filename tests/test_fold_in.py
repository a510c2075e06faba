"""fold_in: vectors for new ids, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

import embstore
from embstore import Batch, Checkout, Interactions, InvalidInputError, NonFiniteError, RefusedError
from tests.examples import DAY_1, Scripted, new_store
from tests.plugin.tinymf import TinyMF
from trainers.popularity import Popularity

NEW = Interactions([8, 9, 9, 1, 7, 9], ["b", "a", "zz", "d", "zz", "c"], times=[1, 2, 3, 4, 5, 6])


def test_fold_in_moves_nothing_else() -> None:
    """New users get vectors; known users, items, slots and arrays stay; known pairs are consumed, unknown items counted."""
    store = new_store()
    before = embstore.fit(store, TinyMF(), DAY_1, message="day 1")
    version = embstore.fold_in(store, TinyMF(), NEW, message="newcomers")
    diff = store.diff(before.id, version.id)
    assert (diff.ids["user"].appended.tolist(), diff.ids["item"].appended.tolist()) == ([7, 8, 9], [])
    assert [name for name, table in diff.tables.items() if len(table.changed_rows) or any(table.slots.values())] == []
    assert diff.dense == {}
    lineage = version.lineage
    assert (lineage["new_ids"], lineage["ids_without_pairs"], lineage["dropped_pairs"], lineage["metrics"]) == (
        3,
        1,
        2,
        {"rows": 2},
    )
    assert [items.tolist() for items in version.consumed.of("user", [1, 7, 8, 9])] == [["a", "c", "d"], [], ["b"], ["a", "c"]]
    table = version.table("tinymf.user")
    moved = (table.get([7, 8, 9]) != table.initial([7, 8, 9])).any(axis=1)
    assert moved.tolist() == [False, True, True]
    np.testing.assert_array_equal(table.slot("sum").get([7, 8, 9]), np.full((3, 4), 0.1, np.float32))


def test_fold_in_of_items() -> None:
    """A trainer that can gives new items vectors from the users who had them; pairs of unknown users are dropped."""
    store = new_store()
    before = embstore.fit(store, TinyMF(), DAY_1, message="day 1")
    pairs = Interactions([1, 2, 99], ["new", "new", "new"])
    version = embstore.fold_in(store, TinyMF(), pairs, message="a new item", entity="item")
    diff = store.diff(before.id, version.id)
    assert (diff.ids["user"].appended.tolist(), diff.ids["item"].appended.tolist()) == ([], ["new"])
    assert version.lineage["dropped_pairs"] == 1
    users = version.table("tinymf.user").get([1, 2]).astype(np.float64)
    expected = np.linalg.solve(users.T @ users + 0.1 * np.eye(4), users.sum(axis=0))
    np.testing.assert_allclose(version.table("tinymf.item").get(["new"])[0], expected, atol=1e-6)


@dataclass(frozen=True)
class Meddling(TinyMF):
    """Moves more than the rows it is asked for."""

    what: str = "old row"

    def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch, *, entity: str = "user") -> dict[str, float]:
        """Change what is not to be changed."""
        if self.what == "dense":
            work.dense["tinymf.epochs"] = np.array(0)
        elif self.what == "item":
            work.table("tinymf.item").scatter(batch.items, np.ones((len(batch), 4)))
        elif self.what == "slot":
            work.table("tinymf.user").slot("sum").scatter([0], np.ones((1, 4)))
        else:
            work.table("tinymf.user").scatter([0], work.table("tinymf.user").gather([0]))
        return {"loss": np.nan if self.what == "metrics" else 0.0}


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("dense", RefusedError, "it changed dense array 'tinymf.epochs'; only rows of new ids may change"),
        ("item", RefusedError, "it changed 2 rows of table 'tinymf.item'"),
        ("slot", RefusedError, "it changed 1 rows of table 'tinymf.user'"),
        ("metrics", NonFiniteError, "trainer 'tinymf', fold_in: loss is nan"),
    ],
)
def test_fold_in_that_moves_something_else_is_refused(what: str, error: type[Exception], message: str) -> None:
    """A trainer that changes known rows or arrays while it folds in is told, and the store is as it was."""
    store = new_store()
    before = embstore.fit(store, TinyMF(), DAY_1, message="day 1")
    with pytest.raises(error, match=message):
        embstore.fold_in(store, Meddling(what=what), Interactions([8, 8], ["a", "b"]), message="newcomers")
    assert store.at() == before


def test_fold_in_may_write_what_is_there() -> None:
    """A known row that is staged with the bits it has does not count as changed."""
    store = new_store()
    embstore.fit(store, TinyMF(), DAY_1, message="day 1")
    version = embstore.fold_in(store, Meddling(), Interactions([8], ["a"]), message="newcomers")
    assert version.lineage["new_ids"] == 1


def test_fold_in_that_cannot_be_is_refused() -> None:
    """A trainer without fold_in, one for users only, a store without its tables and another entity are told."""
    store = new_store()
    with pytest.raises(InvalidInputError, match=r"no table tinymf.user, tinymf.item of trainer 'tinymf' to fold into; fit first"):
        embstore.fold_in(store, TinyMF(), NEW, message="newcomers")
    with pytest.raises(InvalidInputError, match=r"no table popularity of trainer 'popularity'"):
        embstore.fold_in(store, Popularity(), NEW, message="newcomers")
    before = embstore.fit(store, Popularity(), DAY_1, message="day 1")
    with pytest.raises(InvalidInputError, match="trainer 'popularity' folds in users only"):
        embstore.fold_in(store, Popularity(), Interactions([1], ["new"]), message="a new item", entity="item")
    with pytest.raises(InvalidInputError, match="trainer 'scripted' cannot fold in"):
        embstore.fold_in(store, Scripted(), NEW, message="newcomers")
    with pytest.raises(InvalidInputError, match="entity 'genre': pairs are of 'user' and 'item'"):
        embstore.fold_in(store, Popularity(), NEW, message="newcomers", entity="genre")
    assert store.at() == before


@dataclass(frozen=True)
class Watchful(TinyMF):
    """Tells what it is given, as metrics."""

    def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch, *, entity: str = "user") -> dict[str, float]:
        """Return how many rows and pairs there are, and how many of the pairs are of these rows."""
        return {"rows": len(rows), "pairs": len(batch), "own": int(np.isin(batch.users, rows).sum())}


def test_trainer_is_given_the_pairs_of_new_ids_only() -> None:
    """Pairs of known users are consumed, but no business of fold_in; nor are new users without known items."""
    store = new_store()
    embstore.fit(store, TinyMF(), DAY_1, message="day 1")
    version = embstore.fold_in(store, Watchful(), NEW, message="newcomers")
    assert version.lineage["metrics"] == {"rows": 2, "pairs": 3, "own": 3}


def test_fold_in_keeps_times() -> None:
    """Pairs that are folded in stand among earlier ones by their times."""
    store = new_store()
    embstore.fit(store, TinyMF(), DAY_1, message="day 1")
    version = embstore.fold_in(store, TinyMF(), Interactions([1], ["d"], times=[0]), message="an older pair")
    assert version.consumed.of("user", [1])[0].tolist() == ["d", "a", "c"]


def test_fold_in_of_nobody_new() -> None:
    """Where all users are known their pairs are consumed, and no vector moves."""
    store = new_store()
    before = embstore.fit(store, TinyMF(), DAY_1, message="day 1")
    version = embstore.fold_in(store, TinyMF(), Interactions([1], ["d"]), message="known")
    assert (version.lineage["new_ids"], version.lineage["metrics"]) == (0, {})
    assert (version.parent, len(version.consumed)) == (before.id, 7)
