"""Arguments of a wrong kind: each is refused where it is given, by an error that shows it, and nothing is made or staged."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Checkout, Constant, InvalidInputError, Normal, Schema, SlotSpec, Store, TableSpec
from embstore.errors import EmbstoreError, UnknownNameError, UnknownRefError

SPEC = TableSpec("t", "user", 2)
SPECS: list[tuple[str, Callable[[], object]]] = [
    ("tables TableSpec", lambda: Schema(SPEC)),  # type: ignore[arg-type]
    ("tables 5", lambda: Schema(5)),  # type: ignore[arg-type]
    (r"tables \[{'name': 't'}\]", lambda: Schema([{"name": "t"}])),  # type: ignore[arg-type]
    (r"entities \['user'\]", lambda: Schema(entities=["user"])),  # type: ignore[arg-type]
    ("entities 'user'", lambda: Schema(entities="user")),  # type: ignore[arg-type]
    (r"id type \['str'\]", lambda: Schema(entities={"user": ["str"]})),  # type: ignore[dict-item]
    (r"table 't': slots \('exp_avg',\)", lambda: TableSpec("t", "user", 2, slots=("exp_avg",))),  # type: ignore[arg-type]
    ("table 't': slots 'exp_avg'", lambda: TableSpec("t", "user", 2, slots="exp_avg")),  # type: ignore[arg-type]
    ("table 't': slots SlotSpec", lambda: TableSpec("t", "user", 2, slots=SlotSpec("m", 2))),  # type: ignore[arg-type]
    ("table 't': dtype dtype", lambda: TableSpec("t", "user", 2, np.dtype("float32"))),  # type: ignore[arg-type]
    ("table 't': dtype", lambda: TableSpec("t", "user", 2, np.float32)),  # type: ignore[arg-type]
    ("slot 'm': dtype dtype", lambda: SlotSpec("m", 2, np.dtype("float32"))),  # type: ignore[arg-type]
    ("slot 'm': dtype", lambda: SlotSpec("m", 2, ["float32"])),  # type: ignore[arg-type]
    ("init", lambda: TableSpec("t", "user", 2, init=Normal)),  # type: ignore[arg-type]
    ("constant", lambda: Constant(10**400)),
    ("constant 'x'", lambda: Constant("x")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("says", "make"), SPECS, ids=itertools.count())
def test_of_a_schema(says: str, make: Callable[[], object]) -> None:
    """Tables, slots, entities and dtypes that are none."""
    with pytest.raises(InvalidInputError, match=says):
        make()


@pytest.mark.parametrize("schema", [{"entities": {"user": "str"}}, {}, SPEC, [SPEC], "user", 0], ids=repr)
def test_a_store_of_what_is_no_schema(tmp_path: Path, url: str, schema: Any) -> None:
    """It is refused before anything is made: the place is still free."""
    for place in (tmp_path / "s", url):
        with pytest.raises(InvalidInputError, match="schema"):
            embstore.create(place, schema=schema)
    assert list(tmp_path.iterdir()) == []
    assert embstore.create(tmp_path / "s").at().entities == embstore.create(url).at().entities == {}


CALLS: list[tuple[str, Callable[[Any], object]]] = [
    (r"out \[1\]: give a writable", lambda w: w.table("user").values(out=[1])),
    ("'user'", lambda w: w.add_table("user")),
    ("None", lambda w: w.add_table(None)),
    ("'exp'", lambda w: w.table("user").add_slot("exp")),
    (r"init \[1\]", lambda w: w.append("user", [7], init=[1])),
    ("init 5", lambda w: w.append("user", [7], init=5)),
    ("init 0", lambda w: w.append("user", [7], init=0)),
]


@pytest.mark.parametrize(("says", "act"), CALLS, ids=itertools.count())
def test_of_a_checkout(filled: Store, says: str, act: Callable[[Checkout], object]) -> None:
    """What is no table, slot or mapping stages nothing."""
    work = filled.checkout()
    with pytest.raises(InvalidInputError, match=says):
        act(work)
    with pytest.raises(UnknownNameError, match=r"entity \['user'\]"):
        work.ids(["user"])  # type: ignore[arg-type]
    assert not work.dirty


REFS: list[Callable[[Any], object]] = [
    lambda s: s.at(["main"]),
    lambda s: s.checkout(["main"]),
    lambda s: s.checkout(None),
    lambda s: s.compact(["main"]),
    lambda s: s.revert("main", branch=["main"]),
    lambda s: s.delete_branch(["main"]),
    lambda s: s.delete_tag(["main"]),
    lambda s: s.expire("0s", tags=[["main"]]),
    lambda s: s.branch("b", at=["main"]),
]


@pytest.mark.parametrize("act", REFS, ids=itertools.count())
def test_names_that_are_no_text(filled: Store, act: Callable[[Store], object]) -> None:
    """A list is no branch, tag or ref, and the message shows it."""
    filled.branch("side", at="main~1")
    before = filled.branches()
    with pytest.raises(UnknownRefError, match=r"\['main'\]|None") as caught:
        act(filled)
    assert isinstance(caught.value, EmbstoreError)
    assert filled.branches() == before


@pytest.mark.parametrize("tags", [None, "v1", 5])
def test_tags_that_are_no_list(filled: Store, tags: Any) -> None:
    """Nothing is expired, and the lock is free."""
    with pytest.raises(InvalidInputError, match=f"tags {tags!r}: give a list of names"):
        filled.expire("0s", dry_run=False, tags=tags)
    assert filled.expire("0s").counts["expired"] == 1


@pytest.mark.parametrize("date", ["9999-12-31T23:59:59.999999+12:00", "9999-12-31T23:59:59.999999-12:00", "9999-12-31"])
def test_the_last_moment_in_any_zone(filled: Store, date: str) -> None:
    """However far ahead a date is, the newest version is from before it."""
    assert filled.at(f"main@{date}") == filled.at()


@pytest.mark.parametrize("date", ["0001-01-01T00:00:00+14:00", "0001-01-01"])
def test_the_first_moment_in_any_zone(filled: Store, date: str) -> None:
    """However far back a date is, no version is that old."""
    with pytest.raises(UnknownRefError, match="no version is that old"):
        filled.at(f"main@{date}")
