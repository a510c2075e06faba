"""DeepFM and TwoTower retrained day by day: growth, steps, refusals, and three generations in three processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import embstore
from tests.examples import new_store
from tests.retrain_semantics import FEATURED_PAIRS, RetrainSemantics
from tests.three_generations import COLUMNS, LATER_COLUMNS, MADE, check_three_generations, generations
from trainers.deepfm import DeepFM
from trainers.two_tower import TwoTower

SMALL: dict[str, Any] = {"dim": 4, "hidden": (8, 4), "epochs": 2, "batch_size": 256}


class TestDeepFM(RetrainSemantics):
    """DeepFM over ids and features keeps what every trainer keeps."""

    trainer = DeepFM(**SMALL, **COLUMNS)
    pairs = FEATURED_PAIRS


class TestTwoTower(RetrainSemantics):
    """So does TwoTower."""

    trainer = TwoTower(dim=4, hidden=(8,), epochs=2, batch_size=64, **COLUMNS)
    pairs = FEATURED_PAIRS


def test_three_generations_equal_one_process(tmp_path: Path) -> None:
    """New users, items and categories each time, and new columns in the last: tables, slots, arrays and records are equal."""
    settings = [{**SMALL, **columns} for columns in (COLUMNS, COLUMNS, LATER_COLUMNS)]
    store = check_three_generations(tmp_path / "store", DeepFM, settings, MADE)
    assert len(store.diff("main~1").ids["genres"].appended) > 0


def test_three_generations_of_movielens_equal_one_process(tmp_path: Path, data_dir: Path) -> None:
    """So they are for a half, a quarter and a quarter of 100,000 real pairs."""
    settings = [{**SMALL, "epochs": 1, "batch_size": 8192, **columns} for columns in (COLUMNS, COLUMNS, LATER_COLUMNS)]
    store = check_three_generations(tmp_path / "store", DeepFM, settings, str(data_dir / "ml-100k"))
    assert len(store.at().consumed) == 100_000


def test_default_vectors_are_means_and_follow() -> None:
    """After each fit what stands for an unknown user, item or category is the mean of all live rows there are then."""
    store, trainer = new_store(), DeepFM(**SMALL, **COLUMNS)
    for part in generations(MADE):
        version = embstore.fit(store, replace(trainer, epochs=1), part, message="a part")
        for entity in ("user", "item", "gender", "zip", "genres"):
            table = version.table(f"deepfm.{entity}")
            mean = table.get(version.ids(entity).ids()).mean(axis=0, dtype=np.float64)
            np.testing.assert_allclose(version.dense[f"default.deepfm.{entity}"], mean, rtol=1e-5, atol=1e-7)


def test_slots_reset_begins_anew_for_the_net_too() -> None:
    """Weights stay, but moments and steps of parameters without rows are those of this training alone."""
    steps = {}
    for slots in ("keep", "reset"):
        store, trainer = new_store(), DeepFM(**SMALL)
        before = embstore.fit(store, trainer, FEATURED_PAIRS, message="fit")
        still = embstore.fit(store, replace(trainer, lr=0.0, epochs=1), FEATURED_PAIRS, message="still", slots=slots)
        weights = [name for name in before.dense if name.startswith("model.")]
        assert [still.dense[name].tobytes() for name in weights] == [before.dense[name].tobytes() for name in weights]
        counters = [name for name in still.dense if name.startswith("optim.") and name.endswith(".step")]
        steps[slots] = {float(still.dense[name]) for name in counters}
        assert sorted(counters) == sorted(name for name in before.dense if name in counters)
        assert len(weights) == len(counters) > 0
    (kept,), (anew,) = steps["keep"], steps["reset"]
    assert kept == 3 * anew > 0
