"""The command line run inside this process, and a small store to run it on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from click.testing import CliRunner, Result

import embstore
from embstore import Interactions, Normal, Schema, SlotSpec, Store, TableSpec, Zeros
from embstore.cli import main
from trainers.popularity import Popularity

SCHEMA = Schema(
    (
        TableSpec("taste", "user", 7, slots=(SlotSpec("exp_avg", 7),), init=Normal(0.5)),
        TableSpec("popularity", "item", None, init=Zeros()),
    ),
    {"user": "int64", "item": "str"},
)
MONDAY = Interactions([1, 1, 2, 3], ["a", "b", "b", "c"], times=[10, 11, 12, 13])
TUESDAY = Interactions([-4, 2, 2], ["b", "d", "a"], times=[20, 21, 22])


def make_store(path: Path) -> Store:
    """Make a store of four versions after the first: monday, tuning, tuesday and a removal; tag v1 and branch exp at tuning."""
    store = embstore.create(path, schema=SCHEMA, durability="none")
    embstore.fit(store, Popularity(decay=0.5), MONDAY, message="monday")
    with store.checkout() as work:
        work.table("taste").scatter([0, 1], [[1.0] * 7, [2.0] * 7])
        work.table("taste").slot("exp_avg").scatter([0], [[0.25] * 7])
        work.dense["net.weight"] = [[1.0, 2.0]]
        work.commit("tune\n\nwith a second paragraph", metadata={"by": "ann"})
    store.tag("v1")
    store.branch("exp")
    embstore.fit(store, Popularity(decay=0.5), TUESDAY, message="tuesday")
    with store.checkout() as work:
        work.remove("user", [3])
        work.commit("forget 3")
    return store


def run(*arguments: object, input: str | bytes | IO[Any] | None = None) -> Result:
    """Run a verb; what is no error of embstore is raised."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=input, catch_exceptions=False)


def text_of(*arguments: object, input: str | bytes | IO[Any] | None = None) -> str:
    """Return what a verb that succeeds writes."""
    done = run(*arguments, input=input)
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout


def json_of(*arguments: object, input: str | bytes | IO[Any] | None = None) -> Any:
    """Return the one document that a verb writes with --json."""
    text = text_of(*arguments, "--json", input=input)
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return json.loads(text)


def error_of(*arguments: object, input: str | bytes | IO[Any] | None = None) -> tuple[int, str]:
    """Return the exit code and the message of a verb that fails, which are all that it gives."""
    done = run(*arguments, input=input)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.exit_code, done.stderr.removeprefix("error: ").rstrip("\n")


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of a store."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
