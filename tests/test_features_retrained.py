"""Features from day to day: what fit and fold_in stage, new categories and columns, branches and reverts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import embstore
from embstore import IdTypeError, Interactions, InvalidInputError, stage_features
from tests.examples import DAY_1, new_store, state_of
from tests.featured import NO_PAIRS, Featured, by_id, frame_of, with_frames


def test_int_and_text_categories_do_not_mix() -> None:
    """The type of the first categories stays; 1 and "1" are never two of one column."""
    store = new_store()
    embstore.fit(store, Featured(), with_frames(users=frame_of(1, ["1"]), pairs=DAY_1), message="text")
    with pytest.raises(IdTypeError, match="user.gender of 2: gender id .*: ids of 'gender' are str, these are int64"):
        embstore.fit(store, Featured(), with_frames(users=frame_of(2, [1])), message="numbers")
    assert by_id(store.at(), "user.gender") == {1: "1", 2: None, 3: None}


def test_only_values_that_differ_are_written() -> None:
    """The same frames again change nothing; one other value writes one row."""
    store = new_store()
    frame = frame_of(1, ["f", "m", None])
    embstore.fit(store, Featured(), with_frames(users=frame, pairs=DAY_1), message="day 1")
    with store.checkout() as work:
        stage_features(work, with_frames(users=frame))
        assert not work.dirty
        stage_features(work, with_frames(users=frame.assign(gender=["f", "m", "m"])))
        version = work.commit("one more gender")
    assert store.diff("main~1").tables["user.gender"].changed_ids.tolist() == [3]
    assert version.lineage["counts"]["tables"].keys() == {"user.gender"}


def test_order_of_a_frame_does_not_matter() -> None:
    """Frames of distinct ids in any order make the same store, to the bit."""
    users, items = frame_of(1, ["f", "x", "m"]), pd.DataFrame({"item": ["z", "b", "y"], "tags": ["p|q", "r", None]})
    trainer = Featured(("user.gender", "user.age", "item.tags"))
    states = [
        state_of(embstore.fit(new_store(), trainer, with_frames(users=u, items=i, pairs=DAY_1), message="fit"))
        for u, i in ((users, items), (users.iloc[::-1], items.iloc[[1, 2, 0]]))
    ]
    assert states[0] == states[1]
    assert states[0]["item"] == ["a", "b", "c", "d", "y", "z"]


def test_new_column_in_a_later_version() -> None:
    """A new setting is a new table: old ids have no value there until a frame names them, and nothing else changes."""
    store = new_store()
    first = embstore.fit(store, Featured(("user.gender",)), with_frames(users=frame_of(1, ["f"]), pairs=DAY_1), message="day 1")
    wider = Featured(("user.gender", "user.age", "item.for"))
    items = pd.DataFrame({"item": ["c", "new"], "for": ["m", "f"]})
    version = embstore.fit(store, wider, with_frames(users=frame_of(2, ["m"]), items=items), message="day 2")
    assert by_id(version, "user.age") == {1: 0, 2: 2, 3: 0}
    assert by_id(version, "item.for") == {"a": None, "b": None, "c": "m", "d": None, "new": "f"}
    assert by_id(version, "user.gender") == {1: "f", 2: "m", 3: None}
    assert store.diff(first.id).tables["user.gender"].changed_ids.tolist() == [2]
    assert store.diff(first.id).tables["vectors"].changed_ids.tolist() == []
    assert "user.age" not in first.tables


def test_fit_stages_features_before_the_training() -> None:
    """A trainer finds the features of its pairs; a day without frames leaves them, new ids have none."""
    store = new_store()
    frame = frame_of(1, ["f", None])
    version = embstore.fit(store, Featured(), with_frames(users=frame, pairs=DAY_1), message="day 1")
    assert version.lineage["metrics"] == {"known": 2.0}  # two pairs of user 1
    version = embstore.fit(store, Featured(), Interactions([1, 4], ["a", "b"]), message="day 2")
    assert by_id(version, "user.gender") == {1: "f", 2: None, 3: None, 4: None}
    before = state_of(version)
    with pytest.raises(InvalidInputError, match="no column 'age' among user, gender"):
        embstore.fit(store, Featured(), with_frames(users=frame.drop(columns="age"), pairs=DAY_1), message="day 3")
    assert state_of(store.at()) == before


def test_frames_without_tables_are_not_looked_at() -> None:
    """A trainer without features takes pairs with frames; it appends none of their items."""
    trainer = Featured(("user.gender",))
    version = embstore.fit(new_store(), trainer, with_frames(users=frame_of(1, ["f"]), items="?", pairs=DAY_1), message="fit")
    assert version.ids("item").ids().tolist() == ["a", "b", "c", "d"]


def test_fold_in_gives_features_to_new_ids_only() -> None:
    """New users have theirs before they are folded in; known ones and items keep what they have, new categories get rows."""
    store = new_store()
    before = embstore.fit(store, Featured(), with_frames(users=frame_of(1, ["f", "m"]), pairs=DAY_1), message="day 1")
    pairs = with_frames(users=frame_of(1, ["x", "x", "x", "new"]), items="?", pairs=Interactions([4, 5, 1], ["a", "b", "b"]))
    version = embstore.fold_in(store, Featured(), pairs, message="newcomers")
    assert by_id(version, "user.gender") == {1: "f", 2: "m", 3: None, 4: "new", 5: None}
    assert by_id(version, "user.age") == {1: 1, 2: 2, 3: 0, 4: 4, 5: 0}
    assert version.lineage["metrics"] == {"known": 1.0}
    np.testing.assert_array_equal(version.table("vectors").get(["new"]), before.table("vectors").initial(["new"]))
    diff = store.diff(before.id)
    assert [name for name, table in diff.tables.items() if len(table.changed_rows) or any(table.slots.values())] == []
    assert (diff.ids["gender"].appended.tolist(), diff.ids["item"].appended.tolist()) == (["new"], [])


def test_categories_are_renumbered_on_another_branch() -> None:
    """Two branches met categories in another order: the same features by id are no difference, and a revert renumbers them."""
    store = new_store()
    embstore.fit(store, Featured(), NO_PAIRS, message="tables")
    store.branch("side")
    embstore.fit(store, Featured(), with_frames(users=frame_of(1, ["m", None, None]), pairs=DAY_1), message="m")
    main = embstore.fit(store, Featured(), with_frames(users=frame_of(1, ["m", "f", "x"])), message="f, x")
    at_once = with_frames(users=frame_of(1, ["m", "f", "x"]), pairs=DAY_1)
    side = embstore.fit(store, Featured(), at_once, message="all", branch="side")
    assert main.table("user.gender").values().tolist() != side.table("user.gender").values().tolist()
    assert by_id(main, "user.gender") == by_id(side, "user.gender") == {1: "m", 2: "f", 3: "x"}
    assert store.diff("main", "side").is_empty
    other = embstore.fit(store, Featured(), with_frames(users=frame_of(1, ["new", "m", None])), message="other", branch="side")
    assert store.diff("main", "side").tables["user.gender"].changed_ids.tolist() == [1, 2, 3]
    reverted = store.revert(other.id, message="as on the side")
    assert by_id(reverted, "user.gender") == {1: "new", 2: "m", 3: None}
    assert reverted.table("user.gender").values().tolist() != other.table("user.gender").values().tolist()
    assert store.diff(other.id, "main").is_empty
    again = store.revert(main.id)
    assert by_id(again, "user.gender") == {1: "m", 2: "f", 3: "x"}
    assert store.verify(deep=True).problems == []
