"""Held-out users as the judges of an autoencoder's epochs: the paper's metrics, stopping, plateaus, the best version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Checkout, Interactions, InvalidInputError, Store, Validation, Version
from embstore.testing import example_interactions
from tests.examples import crash_after, new_store, state_of
from trainers.held_out_users import PAPER_METRICS, HeldOutUsers
from trainers.mult_dae import MultDAE
from trainers.mult_vae import MultVAE

SMALL = MultVAE(hidden=(12,), dim=4, epochs=6, batch_size=8, lr=0.02, anneal_steps=30)
TRAIN, HELD_OUT = example_interactions().split("user", 0.3)
GIVEN, TARGETS = HELD_OUT.split("within", 0.2)


def fitted(store: Store, trainer: Any = SMALL, **options: Any) -> Version:
    """Return a version trained on the users who are not held out."""
    return embstore.fit(store, trainer, TRAIN, message="fit", **options)


@dataclass
class Scripted:
    """A validation with an NDCG for each call, counted on through crashes by the number of the step."""

    script: tuple[float, ...]
    step: str = "mult_vae.step"

    def __call__(self, work: Checkout) -> Mapping[str, float]:
        """Return the figure of the epoch, which is three steps."""
        return {"ndcg@100": self.script[int(work.dense[self.step]) // 3 - 1]}


def _share(version: Version) -> float:
    """Return what share of the learning rate is left in a version."""
    return float(version.dense["mult_vae.plateau"][2])


def test_split_by_user_holds_whole_users_out() -> None:
    """Nobody is on both sides, and each held-out user of five or more pairs has some given and some asked for."""
    assert not set(TRAIN.user_ids.tolist()) & set(HELD_OUT.user_ids.tolist())
    assert set(TARGETS.user_ids.tolist()) <= set(GIVEN.user_ids.tolist())
    assert len(GIVEN) + len(TARGETS) == len(HELD_OUT)


@pytest.mark.parametrize("trainer", [SMALL, MultDAE(hidden=(), dim=5, epochs=6, batch_size=8)], ids=["vae", "dae"])
def test_held_out_users_are_judged_as_evaluate_does(trainer: Any) -> None:
    """Scored from what is given, without being in the store: the figures of ``evaluate(given=…)`` on the same version."""
    store = new_store()
    version = fitted(store, trainer)
    expected = embstore.evaluate(version, TARGETS, given=GIVEN, metrics=PAPER_METRICS)
    with store.checkout() as work:
        found = HeldOutUsers(trainer.scores_from, GIVEN, TARGETS)(work)
    assert list(found) == ["ndcg@100", "capped_recall@20", "capped_recall@50", "users"]
    assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-9)
    assert embstore.evaluate(version, TARGETS, given=GIVEN)["users"] == found["users"] == 5


def test_the_best_epoch_by_held_out_users_is_kept_and_can_be_tagged() -> None:
    """Of six epochs the best NDCG@100 is committed, its figures in the lineage; held-out users leave no trace."""
    store, seen = new_store(), []
    held_out = Validation(HeldOutUsers(SMALL.scores_from, GIVEN, TARGETS))
    version = fitted(store, validation=held_out, progress=lambda _, metrics: seen.append(metrics["ndcg@100"]))
    store.tag("best", at=version.id)
    assert len(seen) == 6
    assert version.lineage["epochs"] == np.argmax(seen) + 1
    assert version.lineage["metrics"]["ndcg@100"] == max(seen)
    again = embstore.evaluate(store.at("best"), TARGETS, given=GIVEN, metrics=PAPER_METRICS)
    assert again["ndcg@100"] == pytest.approx(max(seen), rel=1e-9)
    assert not set(version.ids("user").ids().tolist()) & set(HELD_OUT.user_ids.tolist())


def test_early_stopping() -> None:
    """After two epochs without a better one it stops, and the best is what is left."""
    judge, seen = Validation(Scripted((0.1, 0.3, 0.2, 0.3, 0.9, 0.9))), []
    version = fitted(new_store(), validation=judge, patience=2, progress=lambda epoch, _: seen.append(epoch))
    assert (seen, version.lineage["epochs"]) == ([1, 2, 3, 4], 2)
    assert state_of(version) == state_of(fitted(new_store(), replace(SMALL, epochs=2)))


PLATEAU = replace(SMALL, plateau=0.5, plateau_patience=1)


def test_plateau_lowers_the_learning_rate() -> None:
    """After two validations that were no better it is halved, for rows and for the layers between: they move half as far."""
    judge = Validation(Scripted((0.5, 0.4, 0.4, 0.4, 0.6, 0.7)))
    version = fitted(new_store(), replace(PLATEAU, epochs=6), validation=judge)
    assert (_share(version), version.lineage["epochs"]) == (0.5, 6)
    moves = []
    for plateau in (0.5, 0.05):
        store = new_store()
        before = fitted(store, replace(PLATEAU, epochs=3, dropout=0.0), validation=Validation(Scripted((0.1, 0.1, 0.2))))
        halved = replace(PLATEAU, epochs=1, dropout=0.0, plateau=plateau)
        with store.checkout() as work:
            work.dense["mult_vae.plateau"] = np.array([0.9, 1, 1.0])
            work.dense["mult_vae.judged"] = np.array(0.8)
            work.commit("a second bad one")
        after = fitted(store, halved)
        tables = [after.table(name).values() - before.table(name).values() for name in ("mult_vae.input", "mult_vae.output")]
        arrays = [after.dense[name] - before.dense[name] for name in before.dense if name.startswith("model.")]
        moves.append([float(np.abs(moved).max()) for moved in (*tables, *arrays)])
    assert len(moves[0]) == 7
    np.testing.assert_allclose(np.array(moves[0]) / np.array(moves[1]), 10, rtol=0.5)


def test_plateau_goes_on_through_a_crash() -> None:
    """Bad epochs are counted and learning rates stay lowered where a run is taken up: the same bits as uninterrupted."""
    judge = Validation(Scripted((0.1, 0.1, 0.1, 0.1, 0.1, 0.2)))
    whole, store = fitted(new_store(), PLATEAU, validation=judge), new_store()
    assert _share(whole) == 0.25
    for epoch in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            fitted(store, PLATEAU, validation=judge, run="night", commit_every=1, progress=crash_after(epoch))
    assert store.at().lineage["epochs"] == 4
    resumed = fitted(store, PLATEAU, validation=judge, run="night", commit_every=1)
    assert state_of(resumed) == state_of(whole)
    assert state_of(whole) != state_of(fitted(new_store(), validation=judge))


def test_plateau_without_its_figure_is_refused() -> None:
    """A validation that does not have NDCG@100 says nothing to the schedule, and the message says so."""
    judge = Validation(lambda work: {"recall@5": 0.5}, best="recall@5")
    with pytest.raises(InvalidInputError, match=r"plateau 0.5: no 'ndcg@100' among recall@5"):
        fitted(new_store(), PLATEAU, validation=judge)
    assert fitted(new_store(), validation=judge).lineage["metrics"]["recall@5"] == 0.5


def test_without_validation_the_rate_stays() -> None:
    """Nothing is a plateau where nothing is judged."""
    version = fitted(new_store(), PLATEAU)
    assert "mult_vae.plateau" not in version.dense
    assert state_of(version) == state_of(fitted(new_store()))


def test_held_out_items_that_are_unknown_do_not_count() -> None:
    """Given and asked-for items that the store lacks are left out, and a user without any target with them."""
    store = new_store()
    fitted(store)
    given, targets = (
        Interactions([900, 901, 900], ["item 03", "item 03", "no such"]),
        Interactions([900, 901], ["item 05", "none"]),
    )
    with store.checkout() as work:
        found = HeldOutUsers(SMALL.scores_from, given, targets, ("hit@100",))(work)
    assert found == {"hit@100": 1.0, "users": 1}
