"""Commits that are refused: numbers that are none, nothing staged, blocks left in the middle, closed checkouts, lost races."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Checkout, Schema, SlotSpec, Store, TableSpec
from embstore.errors import ConflictError, NonFiniteError, RefusedError, StaleCheckoutError, UncommittedError, UnknownNameError
from tests.store.agreement import as_read

ONE = np.ones((1, 4))


def _spoil(work: Checkout, where: str, value: float) -> None:
    row = np.array([[1, value, 1, 1]])
    if where == "values":
        work.table("user").scatter([0, 2], np.concatenate([row, row]))
    elif where == "slot":
        work.table("user").slot("m").scatter([2], row)
    elif where == "narrow slot":
        work.table("user").slot("n").scatter([2, 1], [value, value])
    elif where == "init":
        work.append("user", [50, 51], init={"user": np.concatenate([ONE, row])})
    else:
        work.dense["late"] = [1.0, value]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39], ids=str)
@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("values", "table 'user': 2 rows.*1, 3"),
        ("slot", "m of table 'user': 1 row.*3"),
        ("narrow slot", "n of table 'user': 2 rows.*2, 3"),
        ("init", "table 'user': 1 row.*51"),
        ("dense", "'late'.*1 number"),
    ],
)
def test_non_finite_numbers(filled: Store, where: str, says: str, value: float) -> None:
    """They refuse a commit, which names where, how many and the first ids; asked for, they are committed."""
    if where == "dense" and value == 1e39:
        value = -np.inf
    work = filled.checkout()
    _spoil(work, where, value)
    tips = filled.branches()
    with pytest.raises(NonFiniteError, match=says) as caught:
        work.commit("x")
    assert caught.value.exit_code == 5
    assert (filled.branches(), work.dirty) == (tips, True)
    version = work.commit("x", allow_nonfinite=True)
    assert not np.isfinite(_everything(version)).all()
    work.table("user").scatter([1], ONE)
    assert work.commit("what is stored already is not looked at").parent == version.id
    assert filled.verify().problems == []


def _everything(version: embstore.Version) -> Any:
    arrays = [version.table("user").values(), version.table("user").slot("m").values(), version.table("user").slot("n").values()]
    return np.concatenate([a.ravel() for a in [*arrays, *(version.dense[name] for name in version.dense)]])


def test_large_numbers_are_finite(filled: Store) -> None:
    """Numbers whose sum overflows are no infinity, in float16 neither."""
    work = filled.checkout()
    half = work.add_table(TableSpec("half", "user", 4, "float16"))
    half.scatter([0, 1, 2], np.full((3, 4), 65504.0))
    work.table("user").scatter([0, 1], np.full((2, 4), 3e38))
    work.dense["w"] = np.full(4, 1.7e308)
    assert half.values().max() == 65504
    work.commit("x")
    half.scatter([0], np.full((1, 4), 70000.0))
    with pytest.raises(NonFiniteError, match="half"):
        work.commit("y")


def test_nothing_staged(filled: Store) -> None:
    """An empty commit is refused, unless it is asked for, any number of times."""
    work = filled.checkout()
    for nothing in (lambda: None, lambda: work.append("user", [1]), lambda: work.table("user").scatter([], np.empty((0, 4)))):
        nothing()
        with pytest.raises(RefusedError, match="nothing is staged") as caught:
            work.commit("x")
        assert type(caught.value) is RefusedError
    made = [work.commit("empty", allow_empty=True) for _ in range(3)]
    assert len({version.id for version in made}) == 3
    assert filled.diff("main~3").is_empty
    assert [version.message for version in filled.log()][:4] == ["empty", "empty", "empty", "first"]


def test_a_block_left_with_staged_changes(filled: Store) -> None:
    """It raises and names what is staged, which can still be committed."""
    with pytest.raises(UncommittedError, match="1 appended") as caught, filled.checkout() as work:
        work.append("user", [9])
    assert caught.value.exit_code == 5
    assert filled.at().entities["user"] == 3
    assert work.commit("saved").entities["user"] == 4


def test_a_block_left_by_an_exception(filled: Store) -> None:
    """What is staged is discarded, and the exception goes on."""
    with pytest.raises(ZeroDivisionError), filled.checkout() as work:
        work.append("user", [9])
        work.append("user", [1 // 0])
    assert (filled.at().entities["user"], work.dirty) == (3, False)
    with pytest.raises(UnknownNameError), filled.checkout() as work:
        work.table("nothing")


def test_metadata_comes_back_as_json_gives_it(filled: Store) -> None:
    """Nested, empty, large and negative: what JSON can say is kept exactly."""
    metadata: dict[str, Any] = {
        "a": [1, -2.5, None, True, {"b": "é🎉\n\0"}],
        "": {},
        "n": 2**62,
        "big": 2**70,
        "f": 5e-324,
        "s": "\ud800",
    }
    work = filled.checkout()
    work.dense["n"] = 1
    assert work.commit("x", metadata=metadata).metadata == metadata
    assert embstore.open(filled.url).at().metadata == metadata
    assert filled.diff("main~1").metadata.keys() == metadata.keys()
    version = filled.at()
    version.metadata["a"].append("later")
    version.lineage["counts"]["dense"] = "later"
    assert (version.metadata, version.lineage["counts"]["dense"]) == (metadata, ["n"])


CHANGING: dict[str, Callable[[Checkout], object]] = {
    "append": lambda w: w.append("user", [9]),
    "append nothing": lambda w: w.append("user", []),
    "append known": lambda w: w.append("user", [1]),
    "remove": lambda w: w.remove("user", [1]),
    "remove nothing": lambda w: w.remove("user", []),
    "add_entity": lambda w: w.add_entity("new"),
    "add_table": lambda w: w.add_table(TableSpec("new", "user", 4)),
    "add_table known": lambda w: w.add_table(w.tables["user"]),
    "add_slot": lambda w: w.table("user").add_slot(SlotSpec("new", None)),
    "scatter": lambda w: w.table("user").scatter([0], ONE),
    "scatter another": lambda w: w.table("item").scatter([0], ONE),
    "scatter slot": lambda w: w.table("user").slot("m").scatter([0], ONE),
    "consumed": lambda w: w.consumed.append([0], [0]),
    "dense set": lambda w: w.dense.__setitem__("w", np.ones(1)),
    "dense delete": lambda w: w.dense.__delitem__("w"),
    "commit": lambda w: w.commit("x"),
    "commit empty": lambda w: w.commit("x", allow_empty=True),
    "commit elsewhere": lambda w: w.commit("x", branch="other"),
    "enter": lambda w: w.__enter__(),
}


def _discarded(store: Store) -> Checkout:
    work = store.checkout()
    work.append("user", [8])
    work.discard()
    work.discard()
    return work


def _left(store: Store) -> Checkout:
    with store.checkout() as work:
        work.table("user").values()
        work.dense.get("w")
    return work


def _left_by_an_exception(store: Store) -> Checkout:
    with pytest.raises(ZeroDivisionError), store.checkout() as work:
        work.append("user", [8])
        work.append("user", [1 // 0])
    return work


@pytest.mark.parametrize("close", [_discarded, _left, _left_by_an_exception])
def test_a_closed_checkout(filled: Store, close: Callable[[Store], Checkout]) -> None:
    """Nothing can be staged or committed any more, by whatever method, and nothing is staged; versions can be read."""
    work, tips = close(filled), filled.branches()
    for name, act in CHANGING.items():
        with pytest.raises(StaleCheckoutError, match="main") as caught:
            act(work)
        assert caught.value.exit_code == 4, name
    assert (work.dirty, work.changes.is_empty, work.entities) == (False, True, {"item": 2, "user": 3})
    assert sorted(work.tables) == ["item", "user"]
    assert filled.branches() == tips


def test_handles_of_a_closed_checkout(filled: Store) -> None:
    """Tables, slots, records and arrays given out before are closed too."""
    work = filled.checkout()
    table, slot, consumed, dense = work.table("user"), work.table("user").slot("m"), work.consumed, work.dense
    work.discard()
    for act in (
        lambda: table.scatter([0], ONE),
        lambda: table.scatter([], np.empty((0, 4))),
        lambda: slot.scatter([0], ONE),
        lambda: table.slot("n").scatter([0], [1]),
        lambda: table.add_slot(SlotSpec("m", 4)),
        lambda: consumed.append([0], [0]),
        lambda: consumed.append([], []),
        lambda: dense.update({"w": np.ones(1)}),
        lambda: dense.pop("w"),
    ):
        with pytest.raises(StaleCheckoutError, match="discarded"):
            act()


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_a_conflict_writes_nothing(tmp_path: Path, schema: Schema) -> None:
    """Of two checkouts that changed the same the second conflicts without a byte written; a branch of its own keeps its work."""
    store = embstore.create(tmp_path / "s", schema=schema, durability="none")
    one, two = store.checkout(), embstore.open(tmp_path / "s").checkout()
    one.append("user", [1])
    one.dense["w"] = 4
    two.append("user", [2], init={"user": ONE * 2})
    two.append("item", ["a"])
    two.consumed.append([0], [0])
    two.dense["w"] = 5
    base, first = two.version.id, one.commit("first")
    before = _files(tmp_path / "s")
    for _ in range(2):
        with pytest.raises(ConflictError, match="main.*branch=") as caught:
            two.commit("second")
        assert caught.value.exit_code == 4
    assert (_files(tmp_path / "s"), store.branches()) == (before, {"main": first.id})
    second = two.commit("second", branch="mine")
    assert (second.parent, store.branches()) == (base, {"main": first.id, "mine": second.id})
    assert as_read(second.table("user").get([2])) == as_read((ONE * 2).astype(np.float32))
    assert ([ids.tolist() for ids in second.consumed.of("user", [2])], second.dense["w"].tolist()) == ([["a"]], 5)
    assert (store.verify("mine").problems, store.at().ids("user").ids().tolist()) == ([], [1])
    one.append("user", [3])
    one.dense["w"] = 3
    with pytest.raises(ConflictError, match="mine"):
        one.commit("third", branch="mine")
    assert one.commit("third").entities["user"] == 2
