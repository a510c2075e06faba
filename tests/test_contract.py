"""The contract that trainers keep finds those that do not keep it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embstore import Batch, Checkout, EmbstoreError, Interactions, View
from embstore.testing import TrainerContract, example_interactions
from tests.plugin.tinymf import TinyMF


@dataclass(frozen=True)
class Unstorable(TinyMF):
    """Has a setting that is another one when it comes back from JSON."""

    sizes: Any = frozenset({1})


@dataclass(frozen=True)
class Restless(TinyMF):
    """Moves rows although there are no pairs."""

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Change a row before the first epoch."""
        table = work.table("tinymf.item")
        table.scatter([0], table.gather([0]) + 1)
        yield from super().train(work, batch)


@dataclass(frozen=True)
class Idle(TinyMF):
    """Stages nothing."""

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Do nothing for as many epochs as are asked for."""
        for _ in range(self.epochs):
            yield {}


@dataclass(frozen=True)
class Forgetful(TinyMF):
    """Keeps the state of its generator to itself."""

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Draw anew in every training what was drawn in the one before."""
        if "tinymf.random" in work.dense:
            del work.dense["tinymf.random"]
        yield from super().train(work, batch)


@dataclass(frozen=True)
class Sociable(TinyMF):
    """Folds a user in with regard to the others that are folded in."""

    def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch, *, entity: str = "user") -> dict[str, float]:
        """Give all of them the mean of their items."""
        mean = work.table("tinymf.item").gather(batch.items).mean(axis=0)
        work.table("tinymf.user").scatter(rows, np.tile(mean, (len(rows), 1)))
        return {}


@dataclass(frozen=True)
class Meddling(TinyMF):
    """Moves items while it folds users in."""

    def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch, *, entity: str = "user") -> dict[str, float]:
        """Change the items of the pairs."""
        work.table("tinymf.item").scatter(batch.items, np.ones((len(batch), self.dim)))
        return {}


@dataclass(frozen=True)
class Distorting(TinyMF):
    """Scores a user with regard to the others that are asked for, or not at all."""

    fault: str = "company"

    def scores(self, view: View, user_rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return scores with the fault."""
        scores = super().scores(view, user_rows)
        if self.fault == "NaN":
            scores[:, 1] = np.nan
        return scores[:, 1:] if self.fault == "shape" else scores - scores.mean(axis=0)


def _contract(of: TinyMF) -> TrainerContract:
    class Contract(TrainerContract):
        trainer = of

    return Contract()


@pytest.mark.parametrize(
    ("trainer", "test"),
    [
        (Unstorable(), "test_settings_survive_json"),
        (Idle(), "test_an_epoch_changes_rows"),
        (Sociable(), "test_fold_in_is_the_same_alone_and_together"),
        (Meddling(), "test_fold_in_is_the_same_alone_and_together"),
        (Distorting(fault="company"), "test_scores_are_finite_and_of_the_right_shape"),
        (Distorting(fault="NaN"), "test_scores_are_finite_and_of_the_right_shape"),
        (Distorting(fault="shape"), "test_scores_are_finite_and_of_the_right_shape"),
        (Distorting(fault="NaN"), "test_consumed_and_removed_items_are_not_recommended"),
    ],
)
def test_fault_is_found(trainer: TinyMF, test: str) -> None:
    """A trainer with a fault fails the test that is there for it."""
    with pytest.raises((AssertionError, EmbstoreError)):
        getattr(_contract(trainer), test)()


@pytest.mark.parametrize("trainer", [Forgetful(), Restless()])
def test_lost_state_is_found(trainer: TinyMF, tmp_path: Path) -> None:
    """A trainer that does not go on where it was fails."""
    with pytest.raises(AssertionError):
        _contract(trainer).test_resumed_training_equals_uninterrupted(tmp_path)


def test_example_has_what_it_promises() -> None:
    """The example has users with few pairs and many, pairs that come twice, and a time for each."""
    pairs = example_interactions()
    assert (len(pairs), len(set(pairs.user_ids.tolist())), len(set(pairs.item_ids.tolist()))) == (150, 25, 19)
    n_pairs = np.bincount(pairs.user_ids)
    assert (n_pairs.min() <= 3, n_pairs.max() >= 9) == (True, True)
    assert len(set(zip(pairs.user_ids.tolist(), pairs.item_ids.tolist(), strict=True))) < 150
    assert isinstance(pairs, Interactions)
    assert sorted(np.asarray(pairs.times).tolist()) == list(range(150))
