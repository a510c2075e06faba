"""How epochs are judged: by pairs or a callable of one's own, ties, and the best one of a run that is taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

import embstore
from embstore import Batch, Checkout, Interactions, InvalidInputError, NonFiniteError, Validation
from tests.examples import DAY_1, HELD_OUT, Scripted, crash_after, new_store, state_of

SCRIPT = (3.0, 1.0, 2.0, 1.0, 4.0, 0.5)


def staged_score(work: Checkout) -> dict[str, float]:
    """Return what the script gave item d in this epoch."""
    return {"staged": float(work.table("score").get(["d"])[0])}


@pytest.mark.parametrize(
    ("least", "ties", "patience", "epoch", "trained"),
    [
        (False, "first", None, 5, 6),
        (True, "first", None, 6, 6),
        (True, "first", 2, 2, 4),
        (True, "last", 2, 6, 6),
        (False, "first", 3, 1, 4),
        (False, "last", 4, 5, 6),
    ],
)
def test_figure_of_ones_own_decides(least: bool, ties: Any, patience: int | None, epoch: int, trained: int) -> None:
    """The epoch with most or least of a figure is committed; of equal ones the first or the last, which begins patience anew."""
    judged = Validation(staged_score, best="staged", least=least, ties=ties)
    version = embstore.fit(new_store(), Scripted(SCRIPT, epochs=6), DAY_1, message="fit", validation=judged, patience=patience)
    assert (version.lineage["epochs"], version.lineage["epochs_trained"], version.dense["epoch"].item()) == (
        epoch,
        trained,
        epoch,
    )
    assert version.lineage["metrics"] == {"score": SCRIPT[epoch - 1], "staged": SCRIPT[epoch - 1]}


def test_stopping_as_recbole_does() -> None:
    """RecBole's ``stopping_step=1``: a tie is no bad epoch, the second bad one in a row ends the training."""
    judged = Validation(staged_score, best="staged", ties="last")
    trainer = Scripted((2.0, 2.0, 1.0, 2.0, 1.0, 1.0, 9.0), epochs=7)
    version = embstore.fit(new_store(), trainer, DAY_1, message="fit", validation=judged, patience=2)
    assert (version.lineage["epochs"], version.lineage["epochs_trained"]) == (4, 6)


def test_pairs_with_other_metrics() -> None:
    """Pairs are ranked by the metrics that are asked for, one of which decides."""
    judged = Validation(HELD_OUT, metrics=("mrr@2", "hit@1"), best="mrr@2")
    version = embstore.fit(new_store(), Scripted((-9.0, 9.0), epochs=2), DAY_1, message="fit", validation=judged)
    figures = {"score": 9.0, "mrr@2": 1.0, "hit@1": 1.0, "users": 2, "dropped_users": 0, "dropped_targets": 0}
    assert figures == version.lineage["metrics"]


@pytest.mark.parametrize(
    ("figures", "error", "match"),
    [
        ({"staged": float("nan")}, NonFiniteError, "validation: staged is nan"),
        ({"other": 1.0}, InvalidInputError, "validation: no figure 'staged' among other"),
        ({}, InvalidInputError, "validation: no figure 'staged' among none"),
        (None, InvalidInputError, "validation: NoneType; give figures by name, such as {'loss': 0.5}"),
        (0.5, InvalidInputError, "validation: float; give figures by name"),
        ({"staged": "0.5"}, InvalidInputError, "validation: staged is '0.5'; give a number"),
        ({"staged": None}, InvalidInputError, "validation: staged is None; give a number"),
        ({"staged": [1.0, 2.0]}, InvalidInputError, r"validation: staged is \[1.0, 2.0\]; give a number"),
    ],
)
def test_figures_that_judge_nothing_are_refused(figures: Any, error: type[Exception], match: str) -> None:
    """NaN is not "no improvement" but an error, and nothing is committed; so is a figure that nobody gives, or no number."""
    store = new_store()
    with pytest.raises(error, match=match):
        embstore.fit(store, Scripted(), DAY_1, message="fit", validation=Validation(lambda work: figures, best="staged"))
    assert len(list(store.log())) == 1


@dataclass(frozen=True)
class Yielding(Scripted):
    """Yields what it is told in place of metrics."""

    what: Any = None

    def train(self, work: Checkout, batch: Batch) -> Iterator[Any]:
        """Train nothing."""
        yield self.what


@pytest.mark.parametrize(
    ("what", "match"),
    [
        (None, "trainer 'scripted', epoch 1: NoneType; give figures by name, such as {'loss': 0.5}"),
        ({"loss": "low"}, "trainer 'scripted', epoch 1: loss is 'low'; give a number"),
        ({"loss": 10**400}, "trainer 'scripted', epoch 1: loss is 1000.*; give a number"),
    ],
)
def test_trainers_yield_figures(what: Any, match: str) -> None:
    """What a trainer yields is checked as a validation's figures are, and nothing is committed."""
    store = new_store()
    with pytest.raises(InvalidInputError, match=match):
        embstore.fit(store, Yielding(what=what), DAY_1, message="fit")
    assert len(list(store.log())) == 1


def test_validation_that_cannot_be_is_refused() -> None:
    """Ties and targets are what they may be."""
    with pytest.raises(InvalidInputError, match="ties='both': give 'first' or 'last'"):
        Validation(HELD_OUT, ties="both")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="targets dict: give Interactions, or a callable"):
        Validation({})  # type: ignore[arg-type]


@pytest.mark.parametrize("commit_every", [1, 2, 3])
@pytest.mark.parametrize("epoch", range(2, 8))
def test_run_taken_up_knows_its_best_epoch(epoch: int, commit_every: int) -> None:
    """Cut short after any epoch and started again, a run stops where it would have, and commits the same epoch, to the bit."""
    trainer = Scripted((5.0, 1.0, 6.0, 2.0, 3.0, 2.0, 1.0), epochs=7, late=2)
    judged = Validation(staged_score, best="staged")
    whole = embstore.fit(new_store(), trainer, DAY_1, message="m", validation=judged, patience=3)
    store = new_store()

    def fit(progress: Callable[[int, Mapping[str, float]], None] | bool = False) -> embstore.Version:
        keep = {"run": "r", "commit_every": commit_every, "progress": progress}
        return embstore.fit(store, trainer, DAY_1, message="m", validation=judged, patience=3, **keep)  # type: ignore[arg-type]

    if epoch <= whole.lineage["epochs_trained"]:
        with pytest.raises(KeyboardInterrupt):
            fit(crash_after(epoch))
    version = fit()
    assert state_of(version) == state_of(whole)
    said = ("epochs", "epochs_trained", "metrics")
    assert [version.lineage[what] for what in said] == [whole.lineage[what] for what in said]


def test_versions_on_the_way_are_in_the_order_of_epochs() -> None:
    """Where the best epoch is not the one to be committed, it becomes a version before it."""
    store = new_store()
    judged = Validation(staged_score, best="staged")
    trainer = Scripted((5.0, 1.0, 6.0, 2.0, 3.0), epochs=5)
    embstore.fit(store, trainer, DAY_1, message="m", validation=judged, commit_every=2)
    log = list(store.log())
    assert [version.lineage.get("epochs") for version in log] == [3, 4, 3, 2, 1, None]
    assert state_of(log[0]) == state_of(log[2])
    assert [version.lineage.get("best", {}).get("epoch") for version in log] == [None, 3, None, 1, None, None]


def test_run_taken_up_names_what_it_resumed() -> None:
    """The lineage has the version that a run went on from, and a later one none."""
    store = new_store()
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, Scripted(epochs=3), DAY_1, message="m", run="r", commit_every=1, progress=crash_after(3))
    begun = store.at()
    version = embstore.fit(store, Scripted(epochs=3), DAY_1, message="m", run="r")
    assert (version.lineage["resumed"], begun.lineage["epochs"]) == (begun.id, 2)
    assert "resumed" not in embstore.fit(store, Scripted(), DAY_1, message="m").lineage


def test_best_epoch_by_another_figure_is_not_taken_up() -> None:
    """A run whose best epoch was judged by something else is refused, and says by what."""
    store = new_store()
    judged = Validation(staged_score, best="staged")
    trainer = Scripted((5.0, 1.0, 2.0), epochs=3)
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, trainer, DAY_1, message="m", run="r", validation=judged, commit_every=1, progress=crash_after(3))
    with pytest.raises(InvalidInputError, match="best epoch so far: judged by score, staged, not by 'ndcg@100'"):
        embstore.fit(store, trainer, DAY_1, message="m", run="r", validation=Interactions([1], ["d"]))
