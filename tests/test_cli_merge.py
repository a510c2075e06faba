"""The verb merge, the log that shows it, and the verbs of training where others commit meanwhile."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

import embstore
from embstore import Store, TableSpec
from tests.cli_running import TUESDAY, error_of, json_of, make_store, run, text_of
from tests.examples import state_of
from trainers.popularity import Popularity


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store whose branch exp has two versions of its own, the later with a user and a vector that main has too."""
    store = make_store(tmp_path / "store")
    for number, users in enumerate(([5, 6], [8])):
        change(store, "exp", users, number)
    change(store, "main", [8], 7)
    return store


def change(store: Store, branch: str, users: list[int], value: float) -> None:
    """Append users with vectors of one number, and commit."""
    with store.checkout(branch) as work:
        work.table("taste").scatter(work.append("user", users), np.full((len(users), 7), value))
        work.commit(f"{branch} {users}")


def test_a_conflict_names_tables_counts_and_ids(store: Store) -> None:
    """The error says what both changed and how to say whose stands; nothing is written."""
    before = store.branches()
    assert error_of("merge", store.url, "exp") == (
        4,
        "branch 'main' and 'exp': both sides changed table 'taste': 1 id (8); nothing is written; "
        "say whose stand, as in --on-conflict rows=mean,dense=ours",
    )
    assert store.branches() == before


@pytest.mark.parametrize(
    ("policy", "value"), [("ours", 7), ("theirs", 1), ("mean", 4), ("rows=mean,dense=ours", 4), ("rows=ours", 7)]
)
def test_merge(store: Store, policy: str, value: float) -> None:
    """What only one side changed stands, what both changed is as the policy says, and both parents are recorded."""
    main, exp = store.branches()["main"], store.branches()["exp"]
    made = json_of("merge", store.url, "exp", "--on-conflict", policy)
    assert (made["parents"], made["message"], made["branches"]) == ([main, exp], "merge exp", ["main"])
    assert store.at().table("taste").get([5, 6, 8])[:, 0].tolist() == [0, 0, value]
    assert store.at("exp").id == exp


def test_merge_says_what_it_made(store: Store) -> None:
    """The text has the version, the ids that came, whose rows stand, and how many were decided."""
    lines = text_of("merge", store.url, "exp", "--on-conflict", "mean", "-m", "exp is good").splitlines()
    assert [line.split() for line in lines[:2]] == [["main", store.at().id[:8], "exp", "is", "good"], ["ids", "+2", "user"]]
    facts = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[2:]}
    assert facts["merged"].startswith("source=exp  base=")
    assert facts["conflicts"] == "table 'taste'=1"


def test_merge_of_what_is_there_changes_nothing(store: Store) -> None:
    """Whatever the branch has all of, it has all of."""
    before = store.branches()
    for source in ("v1", "main~1", before["main"][:8]):
        assert text_of("merge", store.url, source) == f"main  {before['main'][:8]}  as it was: it has all of {source}\n"
    assert json_of("merge", store.url, "v1")["id"] == before["main"]
    assert store.branches() == before


def test_merge_moves_a_branch_forward(store: Store) -> None:
    """A branch on which nothing was committed since goes to where the source is; with a message a version says so."""
    store.branch("old", at="exp~1")
    before, tip = store.branches()["old"], store.branches()["exp"]
    text = text_of("merge", store.url, "exp", "--into", "old")
    assert text == f"old  {tip[:8]}  moved forward from {before[:8]} to exp: nothing was new here\n"
    assert store.branches()["old"] == tip
    store.branch("old", at="exp~1", move=True)
    assert json_of("merge", store.url, "exp", "--into", "old", "-m", "taken over")["parents"] == [before, tip]


def test_merge_takes_a_tag(store: Store) -> None:
    """Any ref can be the source."""
    store.tag("good", at="exp~1")
    made = json_of("merge", store.url, "good")
    assert (made["message"], made["parents"][1]) == ("merge good", store.at("exp~1").id)
    assert {5, 6} <= set(json_of("ids", store.url, "user"))


def test_graph_shows_what_was_merged(store: Store) -> None:
    """With --graph both sides are listed, each in a lane of its own; without it first parents only."""
    store.merge("exp", on_conflict="mean")
    change(store, "main", [9], 0)
    graph = [line.split("  ")[0].rstrip() for line in text_of("log", store.url, "--graph").splitlines()]
    assert graph == ["graph", "*", "*-.", "* |", "| *", "| *", "* |", "* |", "*-'", "*", "*"]
    merged = json_of("log", store.url, "--graph")
    assert len(merged) == len(json_of("log", store.url)) + 2
    assert [v["message"] for v in merged if "exp" in v["branches"]] == ["exp [8]"]
    shown = text_of("show", store.url, "main~1")
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("parent")] == list(store.at("main~1").parents)


PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar
import embstore
from trainers.popularity import Popularity

@dataclass(frozen=True)
class Beside(Popularity):
    name: ClassVar[str] = "beside"
    def train(self, work, batch):
        theirs = embstore.Interactions([1], ["a"])
        embstore.fit(embstore.open(work.repo.url), Popularity(), theirs, message="theirs", branch=work.branch, run="theirs")
        yield from super().train(work, batch)
"""


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Install a trainer beside whom another commits while it trains; return a store and a file of pairs."""
    info = tmp_path / "beside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: beside\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[embstore.trainers]\nbeside = beside_plugin:Beside\n", encoding="utf-8")
    (tmp_path / "beside_plugin.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "pairs.csv").write_text("user,item\n1,a\n2,a\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "beside_plugin", raising=False)
    embstore.fit(embstore.create(tmp_path / "store", durability="none"), Popularity(), TUESDAY, message="tuesday")
    return {"store": str(tmp_path / "store"), "pairs": str(tmp_path / "pairs.csv")}


def test_train_beside_another(beside: Mapping[str, str]) -> None:
    """--on-conflict says whose counts stand."""
    made = json_of("train", beside["store"], beside["pairs"], "-m", "ours", "--trainer", "beside", "--on-conflict", "rows=ours")
    store = embstore.open(beside["store"])
    assert (made["id"], [v.message for v in store.log()][:2]) == (store.at().id, ["ours", "theirs"])
    assert store.at().table("popularity").get(["a"]).tolist() == [3]


def test_train_again_brings_a_run_home(beside: Mapping[str, str]) -> None:
    """A run that conflicted is not trained again: train with a policy, or merge as the error says, brings it home."""
    store = embstore.open(beside["store"])
    train = ("train", beside["store"], beside["pairs"], "-m", "ours", "--trainer", "beside", "--run", "r")
    code, message = error_of(*train)
    assert code == 4
    assert "both sides changed table 'popularity': 1 id ('a'); the work is version " in message
    assert message.endswith(" on branch 'main-r': the verb merge brings it home: main-r --on-conflict rows=mean,dense=ours")
    apart = state_of(store.at("main-r"))
    assert error_of(*train)[1].rpartition("; the work")[2] == message.rpartition("; the work")[2]
    assert state_of(store.at("main-r")) == apart
    store.branch("copy")
    home = json_of(*train, "--on-conflict", "ours")
    assert (home["message"], home["parents"][1]) == ("ours (from main-r)", store.at("main-r").id)
    assert json_of(*train)["id"] == home["id"]
    merged = json_of("merge", beside["store"], "main-r", "--into", "copy", "--on-conflict", "rows=theirs,dense=ours")
    assert state_of(store.at(merged["id"])) == state_of(store.at(home["id"]))


def test_fold_in_of_a_run_happens_once(store: Store, tmp_path: Path) -> None:
    """--run guards a folding in too."""
    (tmp_path / "pairs.csv").write_text("user,item\n70,a\n", encoding="utf-8")
    fold = ("fold-in", store.url, tmp_path / "pairs.csv", "-m", "late ones", "--run", "late", "--on-conflict", "mean")
    assert json_of(*fold)["id"] == json_of(*fold)["id"] == store.at().id
    assert text_of(*fold) == f"main  {store.at().id[:8]}  as it was: the run late is done already\n"
    assert store.at().consumed.of("user", [70])[0].tolist() == ["a"]


def test_promotion_and_the_way_back(store: Store) -> None:
    """branch --move points a branch to any version; nothing is lost by it."""
    text_of("branch", store.url, "production", "--at", "v1")
    assert json_of("branch", store.url, "production", "--at", "main", "--move")["version"] == store.at().id
    assert json_of("branch", store.url, "production", "--at", "production~1", "--move")["version"] == store.at("main~1").id


class _CommitsWhenRead(io.RawIOBase):
    """Standard input that somebody else uses to change the store first."""

    def __init__(self, change: Callable[[], object], *lines: bytes) -> None:
        self._change = change
        self._left = [*lines, b""]

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Let the other one be first, then give one line."""
        self._change()
        self._change = lambda: None
        data = self._left.pop(0) if self._left else b""
        buffer[: len(data)] = data
        return len(data)


def _commit_theirs(store: Store) -> None:
    with store.checkout() as work:
        work.append("user", [7])
        work.add_table(TableSpec("theirs", "user", 2))
        work.commit("theirs")


def test_append_beside_another(tmp_path: Path) -> None:
    """Where somebody else committed first, both are there."""
    store = make_store(tmp_path / "store")
    stdin = io.BufferedReader(_CommitsWhenRead(lambda: _commit_theirs(store), b"8\n"))
    assert run("append", store.url, "user", "-", "-m", "ours", input=stdin).exit_code == 0
    assert [version.message for version in store.log()][:3] == ["ours", "theirs", "forget 3"]
    assert {7, 8} <= set(store.at().ids("user").ids().tolist())
