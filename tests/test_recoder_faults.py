"""Faults that Recoder had: none of them is in matrix factorization here."""

from __future__ import annotations

from tests.recoder_faults import RecoderFaults
from trainers.factors import MatrixFactorization


class TestMatrixFactorization(RecoderFaults):
    """With sampled negatives, as Recoder's tutorial trains it."""

    trainer = MatrixFactorization(
        dim=6, epochs=2, batch_size=7, lr=0.02, loss="logistic", activation="tanh", dropout=0.5, negative_sampling=True
    )
    table = "item"
