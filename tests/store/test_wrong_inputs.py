"""Each wrong input has its error, its exit code and a message that names the value; the store is as it was."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Checkout, Constant, SlotSpec, Store, TableSpec, errors
from embstore.errors import EmbstoreError, InvalidInputError
from tests.store.agreement import as_read
from tests.store.conftest import SCHEMA

EXIT_CODES = {
    "InvalidInputError": 2,
    "IdTypeError": 2,
    "SchemaMismatchError": 2,
    "UnknownRefError": 3,
    "UnknownIdError": 3,
    "UnknownNameError": 3,
    "RefusedError": 5,
    "NameExistsError": 5,
    "NameSpentError": 5,
    "NonFiniteError": 5,
}
BAD_NAMES = ["", "-a", ".a", "_a", "a b", "a/b", "é", "x" * 65, "a\n", "\n", "..", "main~1", "a\0", "a@b", None, 5, b"a"]
BAD_MESSAGES = ["", "  ", "\n", None, 5, "\ud800"]
# What can be no id, and what the message shows of it.
BAD_IDS: list[tuple[Any, str]] = [
    ([""], "empty"),
    (["a\0"], "NUL"),
    ([1, 1.5], "1.5"),
    ([float("nan")], "nan"),
    ([True], "True"),
    ([b"a"], "bytes"),
    ([None], "None"),
    ([2**63], "9223372036854775808"),
    ([-(2**63) - 1], "-9223372036854775809"),
    (np.array([1, 2**64 - 1], np.uint64), "18446744073709551615"),
    (np.array([1.0]), "1.0"),
    (np.array(["2026-01-01"], "M8[D]"), "2026"),
    (["\ud800"], "surrogate"),
    ("abc", "abc"),
    (5, "5"),
    ({1, 2}, "set"),
    ([[1, 2]], "list"),
    (np.ones((2, 2), int), r"\(2, 2\)"),
    ([1, (2,)], "tuple"),
    (None, "NoneType"),
]


def refused(error: str, says: str, act: Callable[..., object], *arguments: object) -> None:
    """Assert that ``act`` raises exactly that error, with its exit code, and a message that says so in words."""
    with pytest.raises(EmbstoreError, match=says) as caught:
        act(*arguments)
    assert (type(caught.value).__name__, caught.value.exit_code) == (error, EXIT_CODES[error])
    assert type(caught.value) is getattr(errors, error)
    assert len(str(caught.value)) > len(says)


@pytest.fixture
def busy(filled: Store) -> Store:
    """Return a store with a tag, a spent tag name and a second branch."""
    filled.branch("side")
    for name in ("v1", "gone"):
        filled.tag(name)
    filled.delete_tag("gone")
    return filled


@pytest.fixture
def work(filled: Store) -> Checkout:
    """Return a checkout with something of every kind staged."""
    return _busy_checkout(filled)


@pytest.fixture(scope="module")
def shared() -> Checkout:
    """Return one checkout for many wrong inputs, none of which may leave a trace."""
    store = embstore.create(f"memory://{uuid.uuid4()}", schema=SCHEMA)
    with store.checkout() as work:
        work.append("user", [1, 2, 3])
        work.append("item", ["a", "b"])
        work.commit("first")
    return _busy_checkout(store)


def _busy_checkout(store: Store) -> Checkout:
    work = store.checkout()
    rows = work.append("user", [9])
    work.table("user").scatter(rows, np.ones((1, 4)))
    work.consumed.append(rows, [0])
    work.dense["w"] = 3
    work.remove("user", [3])
    return work


STORE_CASES: list[tuple[str, str, Callable[[Store], object]]] = [
    ("UnknownRefError", "nobody", lambda s: s.at("nobody")),
    ("UnknownRefError", "main~9", lambda s: s.at("main~9")),
    ("UnknownRefError", "nobody", lambda s: list(s.log("nobody"))),
    ("UnknownRefError", "nobody", lambda s: s.checkout("nobody")),
    ("UnknownRefError", "v1", lambda s: s.checkout("v1")),
    ("UnknownRefError", "nobody", lambda s: s.diff("nobody")),
    ("UnknownRefError", "nobody", lambda s: s.diff("main", "nobody")),
    ("UnknownRefError", "nobody", lambda s: s.verify("nobody")),
    ("UnknownRefError", "nobody", lambda s: s.revert("nobody")),
    ("UnknownRefError", "nobody", lambda s: s.revert("main", branch="nobody")),
    ("UnknownRefError", "nobody", lambda s: s.compact("nobody")),
    ("UnknownRefError", "nobody", lambda s: s.export(f"{s.url}-x", ref="nobody")),
    ("UnknownRefError", "nobody", lambda s: s.branch("new", at="nobody")),
    ("UnknownRefError", "nobody", lambda s: s.branch("side", at="nobody", move=True)),
    ("UnknownRefError", "nobody", lambda s: s.tag("new", at="nobody")),
    ("UnknownRefError", "nobody", lambda s: s.delete_tag("nobody")),
    ("UnknownRefError", "side", lambda s: s.delete_tag("side")),
    ("UnknownRefError", "nobody", lambda s: s.delete_branch("nobody")),
    ("UnknownRefError", "v1", lambda s: s.delete_branch("v1")),
    ("RefusedError", "main", lambda s: s.delete_branch("main")),
    ("NameExistsError", "side", lambda s: s.branch("side")),
    ("NameExistsError", "v1", lambda s: s.branch("v1")),
    ("NameExistsError", "v1", lambda s: s.branch("v1", move=True)),
    ("NameExistsError", "v1", lambda s: s.tag("v1")),
    ("NameExistsError", "side", lambda s: s.tag("side")),
    ("NameSpentError", "gone", lambda s: s.tag("gone")),
    ("UnknownIdError", "77", lambda s: s.blame("user", 77)),
    ("IdTypeError", "'1'", lambda s: s.blame("user", "1")),
    ("UnknownNameError", "nobody", lambda s: s.blame("nobody", 1)),
    ("UnknownNameError", "nothing", lambda s: s.blame("user", 1, table="nothing")),
    ("UnknownNameError", "nothing", lambda s: s.at().table("nothing")),
    ("UnknownNameError", "nothing", lambda s: s.at().table("user").slot("nothing")),
    ("UnknownNameError", "nothing", lambda s: s.at().dense["nothing"]),
    ("UnknownNameError", "nobody", lambda s: s.at().ids("nobody")),
    *(("InvalidInputError", "branch", lambda s, name=name: s.branch(name)) for name in BAD_NAMES),
    *(("InvalidInputError", "tag", lambda s, name=name: s.tag(name)) for name in BAD_NAMES),
    *(("InvalidInputError", "message", lambda s, m=m: s.revert("main~1", message=m)) for m in BAD_MESSAGES if m is not None),
]


@pytest.mark.parametrize(("error", "says", "act"), STORE_CASES, ids=itertools.count())
def test_of_a_store(busy: Store, error: str, says: str, act: Callable[[Store], object]) -> None:
    """Refs, names and ids that a store does not have or take."""
    before = (busy.branches(), busy.tags(), [version.id for version in busy.log()])
    refused(error, says, act, busy)
    assert (busy.branches(), busy.tags(), [version.id for version in busy.log()]) == before
    assert busy.verify().problems == []


@pytest.mark.parametrize(("ids", "says"), BAD_IDS, ids=itertools.count())
def test_what_can_be_no_id(shared: Checkout, ids: Any, says: str) -> None:
    """Wherever ids are taken, the same ones are refused, and nothing of the call is staged."""
    before = str(shared.changes)
    for act in (
        lambda: shared.append("user", ids),
        lambda: shared.append("item", ids),
        lambda: shared.remove("user", ids),
        lambda: shared.ids("user").rows(ids),
        lambda: shared.ids("user").rows(ids, missing=-1),
        lambda: shared.table("user").get(ids),
        lambda: shared.table("user").get(ids, missing="mean"),
        lambda: shared.table("user").initial(ids),
        lambda: shared.table("user").slot("m").get(ids),
        lambda: shared.consumed.of("user", ids),
    ):
        with pytest.raises(InvalidInputError, match=says):
            act()
    assert str(shared.changes) == before


ONE, TWO = np.ones((1, 4)), np.ones((2, 4))
CHECKOUT_CASES: list[tuple[str, str, Callable[[Checkout], object]]] = [
    ("IdTypeError", "'1'", lambda w: w.append("user", ["1"])),
    ("IdTypeError", "'x'", lambda w: w.append("user", [4, "x"])),
    ("IdTypeError", "item id 1: ids of", lambda w: w.append("item", [1])),
    ("IdTypeError", "1", lambda w: w.ids("item").rows([1], missing=-1)),
    ("UnknownIdError", "3", lambda w: w.ids("user").rows([3])),
    ("UnknownIdError", "3", lambda w: w.remove("user", [1, 3])),
    ("UnknownIdError", "77", lambda w: w.table("user").get([1, 77])),
    ("UnknownIdError", "77", lambda w: w.consumed.of("user", [77])),
    ("UnknownNameError", "nobody", lambda w: w.append("nobody", [1])),
    ("UnknownNameError", "nobody", lambda w: w.remove("nobody", [1])),
    ("UnknownNameError", "nothing", lambda w: w.append("user", [50], init={"nothing": ONE})),
    ("UnknownNameError", "nothing", lambda w: w.table("nothing")),
    ("UnknownNameError", "nothing", lambda w: w.dense["nothing"]),
    ("UnknownNameError", "nothing", lambda w: w.dense.__delitem__("nothing")),
    ("UnknownNameError", "item", lambda w: w.append("user", [50], init={"item": ONE})),
    ("InvalidInputError", "user", lambda w: w.append("user", [50], init={"user": TWO})),
    ("InvalidInputError", "user", lambda w: w.append("user", [50], init={"user": np.ones((1, 5))})),
    ("InvalidInputError", "user", lambda w: w.append("user", [50], init={"user": [[1, 2, 3, "x"]]})),
    ("InvalidInputError", "5", lambda w: w.append("user", [50], init={"user": 5})),
    ("InvalidInputError", "user", lambda w: w.append("user", [50, 51], init={"user": [[1, 2, 3, 4], [1]]})),
    ("InvalidInputError", r"\(1, 5\)", lambda w: w.table("user").scatter([0], np.ones((1, 5)))),
    ("InvalidInputError", r"\(2, 4\)", lambda w: w.table("user").scatter([0], TWO)),
    ("InvalidInputError", r"\(4,\)", lambda w: w.table("user").scatter([0], np.ones(4))),
    ("InvalidInputError", "complex", lambda w: w.table("user").scatter([0], ONE * 1j)),
    ("InvalidInputError", "user", lambda w: w.table("user").scatter([0], [["a", "b", "c", "d"]])),
    ("InvalidInputError", "user", lambda w: w.table("user").scatter([0, 1], [[1, 2, 3, 4], [1]])),
    ("InvalidInputError", "row 4", lambda w: w.table("user").scatter([4], ONE)),
    ("InvalidInputError", "row -1", lambda w: w.table("user").scatter([0, -1], TWO)),
    ("InvalidInputError", "float64", lambda w: w.table("user").scatter([0.0], ONE)),
    ("InvalidInputError", "bool", lambda w: w.table("user").scatter([True], ONE)),
    ("InvalidInputError", "user", lambda w: w.table("user").scatter([[0], [1, 2]], TWO)),
    ("InvalidInputError", "row 5", lambda w: w.table("user").gather([5])),
    ("InvalidInputError", "row 9", lambda w: w.table("user").slot("n").scatter([9], [1])),
    ("InvalidInputError", r"\(1, 1\)", lambda w: w.table("user").slot("n").scatter([0], [[1]])),
    ("UnknownNameError", "nothing", lambda w: w.table("user").slot("nothing")),
    ("InvalidInputError", "guess", lambda w: w.table("user").get([1], missing="guess")),
    ("InvalidInputError", "0", lambda w: w.ids("user").rows([1], missing=0)),
    ("IdTypeError", "int32", lambda w: w.add_entity("new", "int32")),
    ("SchemaMismatchError", "user", lambda w: w.add_entity("user", "str")),
    ("SchemaMismatchError", "dim", lambda w: w.add_table(TableSpec("user", "user", 5))),
    ("SchemaMismatchError", "dtype", lambda w: w.add_table(TableSpec("user", "user", 4, "float64"))),
    ("SchemaMismatchError", "entity", lambda w: w.add_table(TableSpec("user", "item", 4))),
    ("SchemaMismatchError", "'n'", lambda w: w.table("user").add_slot(SlotSpec("n", 4))),
    *(("InvalidInputError", "entity", lambda w, name=name: w.add_entity(name)) for name in BAD_NAMES),
    *(("InvalidInputError", "table", lambda w, name=name: w.add_table(TableSpec(name, "user", 4))) for name in BAD_NAMES),
    *(("InvalidInputError", "slot", lambda w, name=name: w.table("user").add_slot(SlotSpec(name, 4))) for name in BAD_NAMES),
    *(
        ("InvalidInputError", "dim", lambda w, dim=dim: w.add_table(TableSpec("t", "user", dim)))
        for dim in (0, -1, 1.5, True, "4")
    ),
    ("InvalidInputError", "object", lambda w: w.add_table(TableSpec("t", "user", 4, "object"))),
    ("InvalidInputError", "300", lambda w: w.add_table(TableSpec("t", "user", 4, "int8", init=Constant(300)))),
    ("InvalidInputError", "300", lambda w: w.table("user").add_slot(SlotSpec("t", None, "uint8", fill=300))),
    ("InvalidInputError", "-1", lambda w: w.table("user").add_slot(SlotSpec("t", None, "uint8", fill=-1))),
    ("InvalidInputError", "nan", lambda w: w.table("user").add_slot(SlotSpec("t", None, fill=float("nan")))),
    *(("InvalidInputError", "message", lambda w, text=text: w.commit(text)) for text in BAD_MESSAGES),
    ("InvalidInputError", "metadata", lambda w: w.commit("x", metadata={"a": object()})),
    ("InvalidInputError", "metadata", lambda w: w.commit("x", metadata={"a": float("nan")})),
    ("InvalidInputError", "metadata", lambda w: w.commit("x", metadata={"a": {1, 2}})),
    ("InvalidInputError", "metadata", lambda w: w.commit("x", metadata={"a": "x" * 70_000})),
    ("InvalidInputError", "metadata", lambda w: w.commit("x", metadata=[1, 2])),  # type: ignore[arg-type]
    *(("InvalidInputError", "branch", lambda w, n=n: w.commit("x", branch=n)) for n in BAD_NAMES if n is not None),
    ("InvalidInputError", "never", lambda w: w.commit("x", on_conflict="never")),
]


@pytest.mark.parametrize(("error", "says", "act"), CHECKOUT_CASES, ids=itertools.count())
def test_of_a_checkout(shared: Checkout, error: str, says: str, act: Callable[[Checkout], object]) -> None:
    """What cannot be staged or committed leaves what is staged as it is."""
    before = str(shared.changes)
    refused(error, says, act, shared)
    assert str(shared.changes) == before


def test_after_all_of_them(filled: Store, work: Checkout) -> None:
    """A checkout that has seen every wrong input commits what it held before, and the store is whole."""
    tips = filled.branches()
    for _, _, act in CHECKOUT_CASES:
        with pytest.raises(EmbstoreError):
            act(work)
    assert (filled.branches(), filled.tags()) == (tips, {})
    version = work.commit("goes on")
    assert (version.ids("user").ids().tolist(), version.dense["w"].tolist()) == ([1, 2, 9], 3)
    assert (sorted(version.tables), list(version.dense)) == (["item", "user"], ["w"])
    assert as_read(version.table("user").get([9])) == as_read(ONE.astype(np.float32))
    assert filled.verify().problems == []
