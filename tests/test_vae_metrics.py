"""Metrics have the values that the functions of vae_cf (Liang et al. 2018) define, on fixed random matrices."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from embstore.metrics import evaluate_ranked, top_k

N_USERS, N_ITEMS = 60, 150


def ndcg_of(scores: NDArray[np.float64], held_out: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Return NDCG of each user as the paper defines it: gains over the best k, against those of the first min(k, n) places."""
    values = []
    for mine, wanted in zip(scores, held_out, strict=True):
        best = np.argsort(-mine)[:k]
        gains = 1 / np.log2(np.arange(2, k + 2))
        values.append((wanted[best] * gains).sum() / gains[: min(wanted.sum(), k)].sum())
    return np.array(values)


def recall_of(scores: NDArray[np.float64], held_out: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Return Recall of each user as the paper defines it: hits among the best k, by how many there can be."""
    best = np.argsort(-scores, axis=1)[:, :k]
    hits = np.take_along_axis(held_out, best, axis=1).sum(axis=1)
    return np.asarray(hits / np.minimum(k, held_out.sum(axis=1)))


def _matrices(seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return scores, what was given and what is held out; every user has some of both, some users more than a hundred."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(N_USERS, N_ITEMS))
    kinds = random.random((N_USERS, N_ITEMS)) + np.linspace(-0.75, 0.3, N_USERS)[:, None]
    held_out, given = kinds < 0.05, kinds > 0.9
    held_out[:, 0], given[:, 0], given[:, 1], held_out[:, 1] = True, False, True, False
    return scores, given, held_out


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 20, 50, 100])
def test_metrics_equal_the_vae_cf_definitions(seed: int, k: int) -> None:
    """With what was given at minus infinity, NDCG@k and capped Recall@k are those of the paper's code."""
    scores, given, held_out = _matrices(seed)
    scores[given] = -np.inf
    assert held_out.sum(axis=1).max() > 100 > 20 > held_out.sum(axis=1).min()
    found = evaluate_ranked(top_k(scores, k), sp.csr_array(held_out), [f"ndcg@{k}", f"capped_recall@{k}"])
    assert found[f"ndcg@{k}"] == pytest.approx(ndcg_of(scores, held_out, k).mean(), rel=1e-12)
    assert found[f"capped_recall@{k}"] == pytest.approx(recall_of(scores, held_out, k).mean(), rel=1e-12)
    assert (found["users"], found["dropped_users"]) == (N_USERS, 0)


def test_a_user_without_targets_is_no_nan() -> None:
    """Where the paper's code divides zero by zero, the user is left out and counted."""
    scores, given, held_out = _matrices(0)
    scores[given] = -np.inf
    held_out[7] = False
    with np.errstate(invalid="ignore"):
        assert np.isnan(recall_of(scores, held_out, 20).mean())
    found = evaluate_ranked(top_k(scores, 100), sp.csr_array(held_out), ["ndcg@100", "capped_recall@20"])
    others = np.arange(N_USERS) != 7
    assert found["ndcg@100"] == pytest.approx(ndcg_of(scores[others], held_out[others], 100).mean(), rel=1e-12)
    assert (found["users"], found["dropped_users"]) == (N_USERS - 1, 1)


def test_recall_by_all_targets_is_another_metric() -> None:
    """``recall@20`` divides by all targets, so that it is below the paper's where there are more than twenty."""
    scores, given, held_out = _matrices(0)
    scores[given] = -np.inf
    found = evaluate_ranked(top_k(scores, 20), sp.csr_array(held_out), ["recall@20", "capped_recall@20"])
    hits = recall_of(scores, held_out, 20) * np.minimum(20, held_out.sum(axis=1))
    assert found["recall@20"] == pytest.approx((hits / held_out.sum(axis=1)).mean(), rel=1e-12)
    assert found["recall@20"] < found["capped_recall@20"]
