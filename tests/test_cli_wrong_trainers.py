"""What a trainer cannot do, and work of it that cannot land: told with the verb that helps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli_running import error_of, make_store, run

PLUGIN = """
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
import embstore

@dataclass(frozen=True)
class Trains:
    name: ClassVar[str] = "trains"
    def schema(self):
        return embstore.Schema((embstore.TableSpec("taste", "user", 7),))
    def train(self, work, batch):
        yield {}

@dataclass(frozen=True)
class Folds(Trains):
    name: ClassVar[str] = "folds"
    def fold_in(self, work, rows, batch):
        work.table("taste").scatter(rows, np.full((len(rows), 7), np.inf))
        return {}

@dataclass(frozen=True)
class Slow(Trains):
    name: ClassVar[str] = "slow"
    def _both(self, work, number):
        rows = work.append("user", [9])
        work.table("taste").scatter(rows, np.full((1, 7), number))
    def train(self, work, batch):
        with embstore.open(work.repo.url).checkout(work.branch) as other:
            self._both(other, 1)
            other.commit("theirs")
        self._both(work, 2)
        yield {}
    def fold_in(self, work, rows, batch):
        list(self.train(work, batch))
        return {}
"""


@pytest.mark.parametrize(
    ("call", "code", "ending"),
    [
        ("fold-in {store} {pairs} -m x --trainer trains", 2, "cannot fold in; use the verb train, or another trainer"),
        ("fold-in {store} {pairs} -m x --trainer folds --entity item", 2, "users only; use the verb train for new items"),
        ("fold-in {store} {pairs} -m x --trainer folds", 5, "nothing is committed; mend the data, or take other settings"),
        (
            "train {store} {pairs} -m x --trainer slow --run r",
            4,
            " on branch 'main-r': the verb merge brings it home: main-r --on-conflict rows=mean,dense=ours",
        ),
        (
            "train {store} {pairs} -m x --trainer slow --run r --branch exp",
            4,
            " on branch 'exp-r': the verb merge brings it home: exp-r --into exp --on-conflict rows=mean,dense=ours",
        ),
        (
            "fold-in {store} {pairs} -m x --trainer slow",
            4,
            "nothing is written, run it again, or say whose stand, as in --on-conflict mean",
        ),
        ("recommend {trained} 9", 2, "trainer 'trains' cannot rank items; train with another one"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_trainers_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, ending: str) -> None:
    """What a trainer cannot do is told with the verb that helps, not with a method."""
    info = tmp_path / "awkward-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: awkward\nVersion: 1.0\n", encoding="utf-8")
    names = "".join(f"{name.lower()} = awkward_plugin:{name}\n" for name in ("Trains", "Folds", "Slow"))
    (info / "entry_points.txt").write_text(f"[embstore.trainers]\n{names}", encoding="utf-8")
    (tmp_path / "awkward_plugin.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "pairs.csv").write_text("user,item\n9,a\n1,new\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "awkward_plugin", raising=False)
    places = {"store": str(tmp_path / "store"), "pairs": str(tmp_path / "pairs.csv"), "trained": str(tmp_path / "trained")}
    make_store(Path(places["store"]))
    run("init", places["trained"], "--entity", "user=int64", "-q")
    run("train", places["trained"], places["pairs"], "-m", "x", "--trainer", "trains", "-q")
    found_code, message = error_of(*(word.format(**places) for word in call.split()))
    assert (found_code, message[-len(ending) :]) == (code, ending)
