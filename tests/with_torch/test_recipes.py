"""The recipes: alternating objectives, mixed precision, rates of their own, and a loop of which one part is another."""

from __future__ import annotations

import importlib.util
import re
import sys
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import embstore
from tests.examples import crash_after, new_store, state_of
from trainers.net_trainer import NetTrainer

DOCS = Path(__file__).resolve().parents[2] / "docs"
FOLDER = DOCS / "recipes"
PAGES = sorted(FOLDER.glob("*.md"))


def _blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def _run(page: Path, folder: Path) -> ModuleType:
    """Run a page as a module of its own, and return what it has defined."""
    file = folder / f"page_{page.stem.replace('-', '_')}.py"
    file.write_text("\n".join(_blocks(page)), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _trainers(module: ModuleType) -> list[Any]:
    found = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, NetTrainer)]
    return [kind(epochs=2) for kind in found if kind is not NetTrainer]


def test_three_recipes_and_one_more_are_there() -> None:
    """Those of RecBole's guide, and one about the loop itself; the net is the same on all pages."""
    assert [page.stem for page in PAGES] == ["alternating", "learning-rates", "loop", "mixed-precision"]
    assert len({_blocks(page)[0] for page in PAGES}) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_recipe_runs_and_goes_on_where_it_was(page: Path, tmp_path: Path) -> None:
    """A page runs. What its trainers learn when they are cut short and taken up is what they learn uninterrupted, to the bit."""
    module = _run(page, tmp_path)
    trainers, pairs = _trainers(module), module.pairs
    assert len(trainers) >= 3
    for trainer in trainers:
        whole = embstore.fit(new_store(), trainer, pairs, message="whole")
        store = new_store()
        with pytest.raises(KeyboardInterrupt):
            embstore.fit(store, trainer, pairs, message="m", run="r", commit_every=1, progress=crash_after(2))
        resumed = embstore.fit(store, trainer, pairs, message="m", run="r")
        assert state_of(resumed) == state_of(whole), type(trainer).__name__


def test_trainers_of_the_guide_keep_their_contracts(tmp_path: Path) -> None:
    """The guide to trainers of one's own shows tests to subclass; those of its two trainers that need no process pass."""
    tests = {name: kind for name, kind in vars(_run(DOCS / "extending.md", tmp_path)).items() if name.startswith("Test")}
    assert list(tests) == ["TestCounting", "TestLiking"]
    for kind in tests.values():
        methods = [getattr(kind(), name) for name in dir(kind) if name.startswith("test_")]
        for method in [method for method in methods if not signature(method).parameters]:
            method()
