"""A store written with one engine library is read, changed, compared and verified with the other.

EMBSTORE_OTHER_PYTHON names a Python that has the other major version of icechunk and everything else that the store needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest

from tests.store.actor import receive, send
from tests.store.pair import Pair
from tests.store.sizes import at_most

ROOT = Path(__file__).resolve().parents[2]
# Every step is told to both libraries; what it prints is compared.
HEAD = """
import hashlib, json, sys
import numpy as np
import icechunk, embstore
from embstore import Schema, SlotSpec, TableSpec
from embstore.errors import EmbstoreError, NameSpentError

place = sys.argv[1]
SLOTS = (SlotSpec("m", 40), SlotSpec("n", None, fill=0.5))
SCHEMA = Schema((TableSpec("user", "user", 40, slots=SLOTS), TableSpec("item", "item", 3)))

def content(version):
    found = {"message": version.message, "metadata": version.metadata, "parents": version.parents, "entities": version.entities}
    for entity in version.entities:
        ids = version.ids(entity).ids()
        found["ids " + entity] = ids.tolist()
        found["rows " + entity] = version.ids(entity).rows(ids).tolist()
        found["had " + entity] = [had.tolist() for had in version.consumed.of(entity, ids)]
    for name in version.tables:
        table = version.table(name)
        for column, array in {"values": table.values(), **{n: s.values() for n, s in table.slots.items()}}.items():
            found[f"{name} {column}"] = [array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).hexdigest()]
    found["dense"] = {name: version.dense[name].tolist() for name in version.dense}
    return found

def show(store, most=None):
    log = [version.id for version in store.log()][:most]
    print(json.dumps({
        "library": icechunk.__version__.split(".")[0],
        "branches": store.branches(),
        "tags": store.tags(),
        "log": log,
        "versions": {id_: content(store.at(id_)) for id_ in log},
        "problems": [problem for id_ in log for problem in store.verify(id_, deep=True).problems],
        "diffs": [store.diff(base, target).to_dict() for base, target in zip(log[1:], log)],
        "blame": [version.id for version in store.blame("user", "user 1")],
    }))

def grow(store, day):
    with store.checkout() as work:
        rows = work.append("user", [f"user {n}" for n in range(5 * day, 5 * day + 10)])
        items = work.append("item", range(day, day + 4))
        numbers = np.random.default_rng(day).standard_normal((len(rows), 40))
        work.table("user").scatter(rows, numbers)
        work.table("user").slot("m").scatter(rows[::2], numbers[::2])
        work.consumed.append(rows, np.resize(items, len(rows)), times=np.arange(len(rows)) / 2 + day)
        work.dense[f"day {day}"] = np.arange(day + 1)
        if day > 1:
            work.remove("user", [f"user {5 * day + 2}"])
        work.commit(f"day {day}", metadata={"day": day, "text": "é"})
"""
CREATE = """
store = embstore.create(place, schema=SCHEMA)
for day in range(3):
    grow(store, day)
store.tag("first", at="main~2")
store.branch("side", at="main~1")
store.tag("spent")
store.delete_tag("spent")
show(store)
"""
SHOW = "show(embstore.open(place))"
# Turns from one number up to another; what a turn does follows from its number, so that every order of libraries does the same.
TURNS = """
first, last, most = map(int, sys.argv[2:])
store = embstore.open(place)

def some(rng, ids):
    return rng.choice(ids, min(len(ids), 5), replace=False)

def drawn(rng, shape, dtype):
    return rng.integers(0, 9, shape).astype(dtype) if dtype.kind == "i" else rng.standard_normal(shape).astype(dtype)

def turn(n):
    rng = np.random.default_rng(n)
    with store.checkout("side" if n % 3 == 1 else "main") as work:
        rows = work.append("user", [f"user {k}" for k in rng.integers(0, 60, 6)])
        items = work.append("item", rng.integers(-9, 30, 4))
        for name in sorted(work.tables):
            table, live = work.table(name), work.ids(work.tables[name].entity).live_rows()
            for column in (table, *(table.slots[slot] for slot in sorted(table.slots))):
                at = live if n % 5 == 0 else some(rng, live)
                before = column.gather(at)
                column.scatter(at, drawn(rng, before.shape, before.dtype))
        work.consumed.append(rows[:4], items, times=rng.random(4) if n % 2 else None, replace=n % 4 == 0)
        work.dense[f"w{n % 3}"] = rng.random((n % 4, 3))
        if n % 4 == 2:
            work.remove("user", [some(rng, work.ids("user").ids()).tolist()[0]])
            work.remove("item", [some(rng, work.ids("item").ids()).tolist()[0]])
        if n % 5 == 3 and "w0" in work.dense:
            del work.dense["w0"]
        if n % 6 == 4:
            work.table("item").add_slot(SlotSpec(f"late{n}", None, "int16", fill=7))
            work.add_table(TableSpec(f"t{n}", "genre", 2))
            work.append("genre", [n, n + 1])
        work.commit(f"turn {n}", metadata={"n": n})
    if n % 4 == 3:
        store.revert("main~2", branch="side" if n % 8 == 7 else "main")
    if n % 6 == 5:
        store.compact()
    if n % 7 == 6:
        store.branch("side", at="main~1", move=True)

for n in range(first, last):
    turn(n)
show(store, most or None)
"""
GO_ON = """
store = embstore.open(place)
for day in range(3, 14):
    grow(store, day)
with store.checkout("side") as work:
    work.table("item").add_slot(SlotSpec("late", 3))
    work.add_table(TableSpec("late", "user", 2))
    work.commit("on the side")
store.revert("main~3")
store.compact()
store.delete_branch("side")
store.tag("second")
for name in ("spent", "spent2"):
    try:
        store.tag(name)
    except NameSpentError:
        print("spent", file=sys.stderr)
store.delete_tag("spent2")
store.export(place + "-export")
show(store)
"""


def _run(python: str, script: str, place: Path, *arguments: int) -> tuple[dict[str, Any], str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [python, "-c", HEAD + script, str(place), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found, done.stderr


@pytest.fixture(scope="module")
def pythons() -> list[str]:
    """Return the Pythons of both libraries: this one, and the other."""
    other = os.environ.get("EMBSTORE_OTHER_PYTHON")
    if not other:
        pytest.skip("EMBSTORE_OTHER_PYTHON not set: it names a Python with the other major version of icechunk")
    return [sys.executable, other]


@pytest.mark.parametrize("first", [0, 1], ids=["this one writes first", "the other writes first"])
def test_a_store_goes_from_one_library_to_the_other(tmp_path: Path, pythons: list[str], first: int) -> None:
    """Whoever reads says the same of every version, diff and name; whoever goes on, goes on from all of it."""
    place, writer, reader = tmp_path / "s", pythons[first], pythons[1 - first]
    written, _ = _run(writer, CREATE, place)
    for python, step in ((reader, SHOW), (reader, GO_ON), (writer, SHOW), (writer, GO_ON), (reader, SHOW)):
        if step == GO_ON and python == writer:
            continue
        seen, said = _run(python, step, place)
        assert (seen["problems"], len({*seen["log"]})) == ([], len(seen["log"]))
        if step == GO_ON:
            assert said.count("spent") == 1
            assert seen["log"][-4:] == written["log"]
            assert {id_: seen["versions"][id_] for id_ in written["log"]} == written["versions"]
            written = seen
        assert {key: value for key, value in seen.items() if key != "library"} == {
            key: value for key, value in written.items() if key != "library"
        }
    assert len(written["log"]) == 4 + 11 + 2
    exported, _ = _run(writer, "show(embstore.open(place + '-export'))", place)
    assert list(exported["versions"].values())[0]["ids user"] == written["versions"][written["log"][0]]["ids user"]


def test_the_libraries_are_two(pythons: list[str], tmp_path: Path) -> None:
    """The two Pythons have icechunk 1 and 2."""
    shown = [_run(python, CREATE, tmp_path / str(number))[0] for number, python in enumerate(pythons)]
    assert sorted(one["library"] for one in shown) == ["1", "2"]
    assert shown[0]["library"] == icechunk.__version__.split(".")[0]
    one, other = ([version | {"parents": None} for version in each["versions"].values()] for each in shown)
    assert one == other


def _told(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was shown of the versions but for ids, which are drawn anew in every store."""
    return [{**shown["versions"][id_], "parents": None} for id_ in shown["log"]]


@pytest.mark.parametrize("first", [0, 1], ids=["this one begins", "the other begins"])
def test_turn_by_turn(tmp_path: Path, pythons: list[str], first: int) -> None:
    """Both take turns on one store: each reads what the other wrote, and it becomes the store that one of them makes alone."""
    place, alone, n_turns = tmp_path / "s", tmp_path / "alone", 9
    _run(pythons[first], CREATE, place)
    seen: dict[str, Any] = {}
    for n in range(n_turns):
        shown, _ = _run(pythons[(first + n) % 2], TURNS, place, n, n + 1, 2)
        assert shown["problems"] == []
        assert {id_: shown["versions"][id_] for id_ in seen if id_ in shown["versions"]} == {
            id_: version for id_, version in seen.items() if id_ in shown["versions"]
        }
        seen |= shown["versions"]
    both = [_run(python, SHOW, place)[0] for python in pythons]
    assert sorted(one.pop("library") for one in both) == ["1", "2"]
    assert both[0] == both[1]
    assert (both[0]["problems"], len(both[0]["log"]) > n_turns) == ([], True)
    _run(pythons[1 - first], CREATE, alone)
    expected, _ = _run(pythons[1 - first], TURNS, alone, 0, n_turns, 0)
    assert _told(both[0]) == _told(expected)


def test_both_at_once(tmp_path: Path, pythons: list[str]) -> None:
    """Writers of both libraries on one branch at the same time: every acknowledged version is in the log, in one line."""
    place = tmp_path / "s"
    _run(pythons[0], CREATE, place)
    code = (
        HEAD
        + """
import os
from embstore.errors import ConflictError
store, made = embstore.open(place), []
while len(made) < 12:
    work = store.checkout()
    counted = work.dense["n"][0] if "n" in work.dense else 0
    work.dense["n"] = [counted + 1, os.getpid()]  # not what the other has: equal arrays do not conflict
    try:
        made.append(work.commit("one more").id)
    except ConflictError:
        pass
print(json.dumps(made))
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([python, "-c", code, str(place)], env=environment, stdout=subprocess.PIPE, text=True)
        for python in pythons
    ]
    made = [json.loads(one.communicate(timeout=180)[0]) for one in running]
    shown, _ = _run(pythons[1], SHOW, place)
    ids = [id_ for one in made for id_ in one]
    assert (len(ids), set(ids) <= set(shown["log"])) == (24, True)
    assert shown["versions"][shown["log"][0]]["dense"]["n"][0] == 24
    assert (shown["problems"], len(shown["log"])) == ([], 28)


@pytest.mark.parametrize(
    ("seed", "n_steps"),
    [(0, 24), *(pytest.param(seed, 200, marks=[pytest.mark.soak, pytest.mark.timeout(1000)]) for seed in range(1, 4))],
)
def test_two_actors(tmp_path: Path, pythons: list[str], seed: int, n_steps: int) -> None:
    """Both change, commit onto each other, rebase and merge in random turns, each with its own checkout; both see the model."""
    pair = Pair(tmp_path / "s")
    pair.store.branch("side")
    model, rng = pair.model, np.random.default_rng(seed)
    model.branches["side"] = model.branches["main"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["-m", "tests.store.actor", str(tmp_path / "s")]
    actors = [
        subprocess.Popen([python, *command], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for python in pythons
    ]
    asked = [(actors[rng.integers(2)], 1_000 * seed + n) for n in range(at_most(n_steps))]
    for actor, number in [*asked, *((actor, None) for actor in actors)]:
        assert actor.stdin is not None
        assert actor.stdout is not None
        send(actor.stdin, (model, number))
        answer = receive(actor.stdout)
        assert answer is not None, f"step {number} failed, see standard error"
        model = answer
    for actor in actors:
        assert (actor.communicate(timeout=60)[0], actor.returncode) == (b"", 0)
    assert len(model.versions) > n_steps / 10
