"""Features against a dict: what frames say of users and items is what the tables hold by id."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import embstore
from embstore import Checkout, Constant, IdTypeError, InvalidInputError, TableSpec, View, Zeros, sparse_feature, stage_features
from tests.examples import new_store
from tests.featured import AGE, FOR, GENDER, TABLES, TAGS, by_id, with_frames


def checkout(*tables: TableSpec) -> Checkout:
    """Return a checkout with users 1, 2 and 3, items a and b, and these tables."""
    work = new_store().checkout()
    for entity, ids in (("user", [1, 2, 3]), ("item", ["a", "b"])):
        work.add_entity(entity)
        work.append(entity, ids)
    for spec in tables:
        work.add_table(spec)
    return work


def test_specs_of_columns() -> None:
    """A column of categories is a table of rows, -1 where there is none; one of numbers is a table of float32."""
    assert GENDER == TableSpec("user.gender", "user", None, "int32", init=Constant(-1), rows_of="gender")
    assert TAGS == TableSpec("item.tags", "item", 2, "int32", init=Constant(-1), rows_of="tag")
    assert AGE == TableSpec("user.age", "user", None, "float32", init=Zeros())
    for wrong in (lambda: sparse_feature("user", "zip code"), lambda: sparse_feature("user", "zip", n_values=0)):
        with pytest.raises(InvalidInputError):
            wrong()


_texts = st.sampled_from([None, "f", "m", "x", "é"])
_user_rows = st.lists(st.tuples(st.integers(1, 6), _texts, st.sampled_from([None, 0.5, -1.0, 7.0])), max_size=6)
_tags = st.none() | st.lists(st.integers(-2, 3), max_size=3).filter(lambda tags: len(set(tags)) <= 2)
_item_rows = st.lists(st.tuples(st.sampled_from("abcde"), _tags, _texts), max_size=6)
_days = st.lists(st.tuples(st.sets(st.integers(1, 6)), st.none() | _user_rows, st.none() | _item_rows, st.booleans()), max_size=4)


class Model:
    """The obvious: a dict for every column, and a list for every kind of id."""

    def __init__(self) -> None:
        self.ids: dict[str, list[Any]] = {"user": [], "item": [], "gender": [], "tag": []}
        self.values: dict[str, dict[Any, Any]] = {spec.name: {} for spec in TABLES}

    def append(self, entity: str, ids: Any) -> None:
        """Give new ids, sorted, the next places."""
        self.ids[entity] += sorted(set(ids) - set(self.ids[entity]))

    def write(self, spec: TableSpec, values: Mapping[Any, Any]) -> None:
        """Note the values of known ids, and the categories that are new with them."""
        known = {id_: value for id_, value in values.items() if id_ in self.ids[spec.entity]}
        self.values[spec.name] |= known
        if spec.rows_of:
            self.append(spec.rows_of, [c for v in known.values() for c in (v if isinstance(v, list) else [v]) if c is not None])

    def of(self, spec: TableSpec) -> dict[Any, Any]:
        """Return the value of every id of the table's entity."""
        nothing: Any = ([] if spec.dim else None) if spec.rows_of else 0.0
        return {id_: self.values[spec.name].get(id_, nothing) for id_ in self.ids[spec.entity]}


@settings(max_examples=60)
@given(days=_days)
def test_tables_are_what_a_dict_would_be(days: list[Any]) -> None:
    """Last values win, unnamed ids keep theirs, new categories and items are appended sorted, unknown users are passed over."""
    store, model = new_store(), Model()
    work = store.checkout()
    for entity in ("user", "item"):
        work.add_entity(entity)
    for spec in TABLES:
        work.add_table(spec)
    for users, user_rows, item_rows, is_committed in days:
        frames = {}
        model.append("user", users)
        if user_rows is not None:
            frames["users"] = pd.DataFrame(user_rows, columns=["user", "gender", "age"]).astype({"age": float})
            model.write(GENDER, {id_: gender for id_, gender, _ in user_rows})
            model.write(AGE, {id_: age or 0.0 for id_, _, age in user_rows})
        if item_rows is not None:
            frames["items"] = pd.DataFrame(item_rows, columns=["item", "tags", "for"], dtype=object)
            model.append("item", [id_ for id_, _, _ in item_rows])
            model.write(TAGS, {id_: list(dict.fromkeys(tags or [])) for id_, tags, _ in item_rows})
            model.write(FOR, {id_: gender for id_, _, gender in item_rows})
        work.append("user", sorted(users))
        stage_features(work, with_frames(**frames))
        view: View = work.commit("a day", allow_empty=True) if is_committed else work
        assert {entity: view.ids(entity).ids().tolist() for entity in model.ids} == model.ids
        assert {spec.name: by_id(view, spec.name) for spec in TABLES} == {spec.name: model.of(spec) for spec in TABLES}


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"gender": ["f", "m"], "user": [3, 1]}),
        pd.DataFrame({"gender": ["f", "m"]}, index=pd.Index([3, 1], name="customer")),
        pd.DataFrame({"number": [3, 1], "gender": ["f", "m"]}),
        pd.DataFrame({"number": [2, 3, 1], "gender": ["x", "f", "m"]}).iloc[1:],
        pd.DataFrame({"user": [3, 1], "gender": pd.Categorical(["f", "m"], categories=["z", "m", "f"])}, index=["p", "q"]),
        pd.DataFrame({"user": pd.array([3, 1], "Int64"), "gender": pd.array(["f", "m"], "string")}),
    ],
)
def test_where_the_ids_of_a_frame_are(frame: pd.DataFrame) -> None:
    """In the column of the entity's name, else in an index with a name, else in the first column; others do not matter."""
    work = checkout(GENDER)
    stage_features(work, with_frames(users=frame))
    assert by_id(work, "user.gender") == {1: "m", 2: None, 3: "f"}
    assert work.ids("gender").ids().tolist() == ["f", "m"]


def test_text_in_an_index_is_ids() -> None:
    """An index without a name has the ids where these are text; items that were not there get rows, sorted."""
    work = checkout(FOR)
    stage_features(work, with_frames(items=pd.DataFrame({"for": ["m", "f", "x"]}, index=["d", "b", "c"])))
    assert by_id(work, "item.for") == {"a": None, "b": "f", "c": "x", "d": "m"}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("x|y", ["x", "y"]),
        ("y", ["y"]),
        ("", []),
        (None, []),
        (math.nan, []),
        (["y", "x"], ["y", "x"]),
        (("x", "x"), ["x"]),
        (np.array(["x", "y", "x"]), ["x", "y"]),
        ([], []),
    ],
)
def test_several_categories_in_a_cell(cell: Any, expected: list[str]) -> None:
    """A list, or text with bars, in the order given; the same category twice counts once; nothing is nothing."""
    work = checkout(TAGS)
    stage_features(work, with_frames(items=pd.DataFrame({"item": ["a", "b"], "tags": pd.Series([cell, ["z"]], dtype=object)})))
    assert by_id(work, "item.tags") == {"a": expected, "b": ["z"]}


def test_numbers_of_many_kinds() -> None:
    """Integers, booleans and nullable columns are numbers; a missing one is 0, also where there was another."""
    work = checkout(AGE)
    for column, expected in [
        ([1, 2, 3], [1, 2, 3]),
        ([True, False, True], [1, 0, 1]),
        (pd.array([4, None, 5], "Int64"), [4, 0, 5]),
        (pd.Series([None, 2.5, 1], dtype=object), [0, 2.5, 1]),
        (pd.array([None, None, 0.25], "Float32"), [0, 0, 0.25]),
    ]:
        stage_features(work, with_frames(users=pd.DataFrame({"user": [1, 2, 3], "age": column})))
        assert work.table("user.age").values().tolist() == expected


@pytest.mark.parametrize(
    ("users", "items", "error", "message"),
    [
        ({"user": [1], "gender": ["f"]}, None, InvalidInputError, "user features: dict; give a pandas DataFrame"),
        (
            pd.DataFrame({"gender": ["f"], "age": [1]}),
            None,
            InvalidInputError,
            "no column of ids among gender, age; call it 'user'",
        ),
        (pd.DataFrame({"user": [1], "age": [1]}), None, InvalidInputError, "no column 'gender' among user, age; give it"),
        (pd.DataFrame([[1, 2, 3]], columns=["user", "age", "age"]), None, InvalidInputError, "column 'age' is there twice"),
        (pd.DataFrame({"user": [None], "gender": ["f"], "age": [1]}), None, InvalidInputError, "user id None at position 0"),
        (pd.DataFrame({"user": ["1"], "gender": ["f"], "age": [1]}), None, IdTypeError, "user id '1': ids of 'user' are int64"),
        (
            pd.DataFrame({"user": [1], "gender": [""], "age": [1]}),
            None,
            InvalidInputError,
            "user.gender of 1: gender '' .* no id",
        ),
        (
            pd.DataFrame({"user": [3, 1], "gender": [2.0, None], "age": 1}),
            None,
            InvalidInputError,
            "user.gender of 3: gender 2.0",
        ),
        (pd.DataFrame({"user": [1], "gender": [True], "age": [1]}), None, InvalidInputError, "user.gender of 1: gender True"),
        (
            pd.DataFrame({"user": [1, 2], "gender": [1, "f"], "age": [1, 1]}),
            None,
            IdTypeError,
            "gender 'f' at position 1: the first",
        ),
        (pd.DataFrame({"user": [1], "gender": ["f"], "age": ["old"]}), None, InvalidInputError, "user.age of 1: value .*'old'"),
        (pd.DataFrame({"user": [3], "gender": ["f"], "age": [np.inf]}), None, InvalidInputError, "user.age of 3: value inf"),
        (
            None,
            pd.DataFrame({"item": ["b"], "tags": ["x|y|z"]}),
            InvalidInputError,
            "item.tags of 'b': 3 categories; .* room for 2",
        ),
        (None, pd.DataFrame({"item": ["b"], "tags": ["x||y"]}), InvalidInputError, "item.tags of 'b': tag ''"),
        (None, pd.DataFrame({"item": ["b"], "tags": [7]}), InvalidInputError, "item.tags of 'b': 7; give a list of categories"),
        (None, pd.DataFrame({"item": ["b"], "tags": [["x", None]]}), InvalidInputError, "item.tags of 'b': tag None"),
    ],
)
def test_what_a_frame_cannot_say(users: Any, items: Any, error: type[Exception], message: str) -> None:
    """The message names the column and the id, or the column that is missing."""
    with pytest.raises(error, match=message):
        stage_features(checkout(*TABLES[:3]), with_frames(users=users, items=items), required=(GENDER, AGE, TAGS))


def test_overflow_refuses_the_commit() -> None:
    """A number too large for float32 is not stored as infinity."""
    work = checkout(AGE)
    stage_features(work, with_frames(users=pd.DataFrame({"user": [2], "age": [1e300]})))
    with pytest.raises(embstore.NonFiniteError, match=r"values of table 'user.age': 1 rows are not finite \(ids 2\)"):
        work.commit("too old")


def test_removed_item_that_a_frame_names_comes_back_new() -> None:
    """It gets a new row with the values of the frame; its old row stays blank."""
    work = checkout(FOR)
    stage_features(work, with_frames(items=pd.DataFrame({"item": ["a", "b"], "for": ["f", "m"]})))
    work.remove("item", ["a"])
    assert by_id(work, "item.for") == {"b": "m"}
    stage_features(work, with_frames(items=pd.DataFrame({"item": ["a"], "for": ["m"]})))
    assert by_id(work, "item.for") == {"b": "m", "a": "m"}
    assert work.ids("item").rows(["b", "a"]).tolist() == [1, 2]
