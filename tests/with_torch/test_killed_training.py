"""Every trainer of the package that learns with torch, killed in an epoch and taken up by another process."""

from __future__ import annotations

import importlib
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from embstore.testing import KilledTrainingContract
from tests.retrain_semantics import FEATURED_PAIRS
from tests.three_generations import COLUMNS
from tests.with_torch.forked import Forked
from trainers.net_trainer import NetTrainer

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {"dim": 4, "hidden": (6,), "batch_size": 16}
# Settings under which more of a trainer has a state than by default.
MORE: dict[str, dict[str, Any]] = {
    "deepfm": COLUMNS,
    "dynamic_autoencoder": {"lr_milestones": (1, 2), "dropout": 0.2, "negative_sampling": True, "num_sampling_users": 32},
    "two_tower": COLUMNS,
}


def _registered() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = project["entry-points"]["embstore.trainers"]
    return found


def _with_torch() -> dict[str, Any]:
    """Return small trainers of all kinds that learn with torch: nets, and those that import it."""
    found = {}
    for name, place in _registered().items():
        module, _, kind = place.partition(":")
        trainer = getattr(importlib.import_module(module), kind)
        if issubclass(trainer, NetTrainer) or hasattr(importlib.import_module(module), "torch"):
            known = {field.name for field in fields(trainer)}
            settings = {what: value for what, value in SMALL.items() if what in known} | MORE.get(name, {})
            found[name] = trainer(**settings)
    return found


TRAINERS = _with_torch()


@pytest.mark.parametrize("name", sorted(TRAINERS))
class TestKilled(Forked, KilledTrainingContract):
    """All of them go on where they were."""

    interactions = FEATURED_PAIRS

    @pytest.fixture(autouse=True)
    def _one_of_them(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(self), "trainer", TRAINERS[name], raising=False)


def test_there_are_trainers_with_torch() -> None:
    """None of them is overlooked: at least those that the package began with are found."""
    assert {"deepfm", "two_tower"} <= TRAINERS.keys()
