"""Matrix factorization with the losses and options of Recoder: activation, dropout, confidence, and negatives by mini-batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Interactions, InvalidInputError
from embstore.testing import KilledTrainingContract, TrainerContract, example_interactions
from tests.examples import crash_after, new_store, state_of
from trainers.factors import MatrixFactorization

PAIRS = example_interactions()
LOGISTIC = MatrixFactorization(dim=6, epochs=2, batch_size=7, loss="logistic", activation="tanh", init_std=0.5)
SAMPLED = replace(LOGISTIC, dropout=0.25, negative_sampling=True, num_sampling_users=14, lr_milestones=(1,))


class TestSampledContract(TrainerContract, KilledTrainingContract):
    """With all of them it keeps the contract, and goes on where it was killed."""

    trainer = SAMPLED


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"confidence": 1.0}, "confidence 1.0: only the loss mse takes one"),
        ({"activation": "swish"}, "activation 'swish': use one of none, relu"),
        ({"dropout": 1.0}, "dropout 1.0: give a share below 1"),
        ({"negative_sampling": 1}, "negative_sampling 1: give True or False"),
        ({"loss": "squared", "negative_sampling": True}, "negative_sampling with loss 'squared'"),
        ({"num_sampling_users": 64}, "num_sampling_users 64 without negative_sampling"),
        (
            {"negative_sampling": True, "num_sampling_users": 48},
            "48: give 0, or a multiple of batch_size 32",
        ),
        ({"lr_milestones": 60}, "lr_milestones 60: give a tuple"),
        ({"lr_milestones": (80, 60)}, "lr_milestones .80, 60.: give each epoch once"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    """Each setting is checked when the trainer is made, and the message names it."""
    with pytest.raises(InvalidInputError, match=message):
        MatrixFactorization(**settings)


def test_vectors_of_users_go_through_the_activation() -> None:
    """Scores are the activated vector times items, and dropout has no part in them; the mean user is the mean of those."""
    store = new_store()
    version = embstore.fit(store, SAMPLED, PAIRS, message="fit")
    items, bias = (version.table(name).values().astype(np.float64) for name in ("item", "item_bias"))
    vectors = np.tanh(version.table("user").values().astype(np.float64))
    expected = vectors @ items.T + bias
    np.testing.assert_allclose(SAMPLED.scores(version, np.arange(len(vectors))), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(SAMPLED.scores(version, np.array([-1]))[0], expected.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_confidence_raises_what_was_had() -> None:
    """With more confidence in what was had, scores of it come nearer to 1."""
    found = []
    for confidence in (0.0, 20.0):
        trainer = replace(LOGISTIC, loss="mse", confidence=confidence, epochs=40, lr=0.02)
        version = embstore.fit(new_store(), trainer, PAIRS, message="fit")
        had = version.consumed.to_csr().toarray() > 0
        found.append(np.square(trainer.scores(version, np.arange(25))[had] - 1).mean())
    assert found[1] < found[0] / 4


def test_only_sampled_items_are_scored() -> None:
    """With negative sampling an increment moves what its users have in it and no other item; without, every item."""
    changed = {}
    for sampled in (True, False):
        store, trainer = new_store(), replace(LOGISTIC, negative_sampling=sampled)
        before = embstore.fit(store, trainer, PAIRS, message="base")
        after = embstore.fit(store, trainer, Interactions([3, 4], ["item 02", "item 05"]), message="two pairs")
        changed[sampled] = store.diff(before.id, after.id).tables["item"].changed_ids.tolist()
    assert changed == {True: ["item 02", "item 05"], False: before.ids("item").ids().tolist()}


def test_a_run_cut_short_goes_on_exactly() -> None:
    """After a crash the epochs since the last commit are done again, and the rest follows: every bit as if uninterrupted."""
    trainer, store = replace(SAMPLED, epochs=4), new_store()
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, trainer, PAIRS, message="fit", run="night", commit_every=1, progress=crash_after(3))
    resumed = embstore.fit(store, trainer, PAIRS, message="fit", run="night", commit_every=1)
    assert [version.lineage["epochs"] for version in store.log() if "epochs" in version.lineage] == [4, 3, 2, 1]
    assert state_of(resumed) == state_of(embstore.fit(new_store(), trainer, PAIRS, message="fit"))
