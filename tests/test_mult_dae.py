"""Mult-DAE: the net of the paper, decay of rows, and what it shares with Mult-VAE."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import embstore
from embstore import InvalidInputError, Version
from embstore.testing import KilledTrainingContract, TrainerContract, example_interactions
from tests.examples import new_store, state_of
from tests.retrain_semantics import LATER
from trainers.mult_dae import MultDAE

SMALL = MultDAE(hidden=(), dim=6, epochs=2, batch_size=8, lr=0.01)
PAIRS = example_interactions()


class TestMultDAEContract(TrainerContract, KilledTrainingContract):
    """Mult-DAE keeps the contract, with a hidden layer at either end."""

    trainer = replace(SMALL, hidden=(10,), l2=0.01)


def fitted(trainer: MultDAE = SMALL) -> Version:
    """Return a version trained on the pairs."""
    return embstore.fit(new_store(), trainer, PAIRS, message="fit")


def test_the_net_of_the_paper_is_two_tables_and_a_tanh() -> None:
    """Without hidden layers: items to the code and back, with the bottleneck through tanh, and one array beside the tables."""
    version, rows = fitted(), np.arange(25)
    tables = {name: version.table(name).values() for name in ("mult_dae.input", "mult_dae.output", "mult_dae.bias")}
    assert {name: values.shape[1:] for name, values in tables.items()} == {
        "mult_dae.input": (6,),
        "mult_dae.output": (6,),
        "mult_dae.bias": (),
    }
    assert [name for name in version.dense if name.startswith("model.")] == ["model.mult_dae.encoder.bias"]
    had = version.consumed.to_csr().toarray()
    given = had / np.sqrt(had.sum(axis=1, keepdims=True))
    code = np.tanh(given @ tables["mult_dae.input"] + version.dense["model.mult_dae.encoder.bias"])
    expected = code @ tables["mult_dae.output"].T + tables["mult_dae.bias"]
    np.testing.assert_allclose(SMALL.scores(version, rows), expected, rtol=1e-4, atol=1e-5)


def test_decay_shrinks_rows() -> None:
    """L2 acts on the rows of items at both ends."""
    norms = [
        [float(np.square(version.table(f"mult_dae.{what}").values()).sum()) for what in ("input", "output")]
        for version in (fitted(replace(SMALL, l2=l2, epochs=20)) for l2 in (0.0, 0.1))
    ]
    assert norms[1][0] < norms[0][0] / 2
    assert norms[1][1] < norms[0][1] / 2


def test_dropout_is_drawn_anew_and_from_the_seed() -> None:
    """Another seed or share gives another store, the same ones the same."""
    states = [state_of(fitted(replace(SMALL, **more))) for more in ({}, {}, {"dropout": 0.2}, {"dropout": 0.0})]
    assert states[0] == states[1]
    assert len({str(state) for state in states}) == 3


def test_loss_falls() -> None:
    """What users had becomes likelier."""
    losses: list[float] = []
    trainer = replace(SMALL, epochs=30, lr=0.05, dropout=0.0)
    embstore.fit(new_store(), trainer, PAIRS, message="fit", progress=lambda _, metrics: losses.append(metrics["loss"]))
    assert losses[-1] < 0.9 * losses[0]


def test_vae_settings_are_not_the_dae_s() -> None:
    """There is nothing to anneal and no noise in the code: such settings are refused and not ignored."""
    with pytest.raises(TypeError):
        MultDAE(cap=0.2)  # type: ignore[call-arg]
    with pytest.raises(InvalidInputError, match=r"plateau 1: give a share below 1"):
        MultDAE(plateau=1)


def test_a_code_as_wide_as_another_net_s_is_refused() -> None:
    """A store that was trained with other sizes is not trained on, and says what differs."""
    store = new_store()
    embstore.fit(store, SMALL, PAIRS, message="fit")
    with pytest.raises(embstore.SchemaMismatchError, match=r"mult_dae\.input"):
        embstore.fit(store, replace(SMALL, dim=7), LATER, message="wider")
