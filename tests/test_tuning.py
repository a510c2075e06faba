"""The search for a learning rate and L2: how good, how long, and what it never takes."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

import embstore
from tests.examples import new_store, state_of
from tests.retraining import BASES, PAIRS, RATED, SETTINGS, retrain, retrained, trained
from trainers.held_out import held_out_loss, without_repeats
from trainers.tuning import METHODS, Probe, Search


def bowl(lr: float, l2: float) -> Probe:
    """Return a loss that is least at a learning rate of 0.02 and an L2 of 0.3, and not to be had above 10."""
    x, y = math.log10(lr / 0.02), math.log10(l2 / 0.3)
    return Probe(lr, l2, 1, math.inf if lr > 10 else 1 + x * x + y * y + x * y)


@pytest.mark.parametrize("method", ["nelder-mead", "cobyla"])
def test_search_is_no_worse_than_a_grid_of_25(method: str) -> None:
    """From a decade away, 25 evaluations find as good a point as five times five over two decades each."""
    search = Search(bowl, 0.1, 0.1, evaluations=25, seconds=60)
    search.run(method)
    powers = np.linspace(-1, 1, 5)
    grid = min(bowl(0.1 * 10**a, 0.1 * 10**b).loss for a, b in itertools.product(powers, powers))
    assert len(search.probes) <= 25
    assert search.best.loss <= grid
    assert (search.best.lr, search.best.l2) == (pytest.approx(0.02, rel=0.3), pytest.approx(0.3, rel=0.3))


@pytest.mark.parametrize("base", ["softmax", "squared", "biases"])
def test_tuning_is_no_worse_than_a_grid_of_25(base: str) -> None:
    """Over real trainings too: 25 evaluations on all users, against every one of five times five settings a decade each way."""
    tuned = retrain(trained(base), retrained(base, evaluations=25, share=1.0)).lineage["metrics"]
    losses = []
    for a, b in itertools.product(10 ** np.linspace(-1, 1, 5), repeat=2):
        settings = SETTINGS[base] | {"fold_lr": BASES[base].fold_lr * a, "fold_l2": BASES[base].fold_l2 * b}
        version = retrain(trained(base), retrained(base, method="none", base_settings=json.dumps(settings)))
        losses.append(version.lineage["metrics"]["held_out_loss"])
    assert tuned["evaluations"] <= 25 == len(losses)
    assert tuned["held_out_loss"] <= min(losses)


@pytest.mark.parametrize("method", ["nelder-mead", "cobyla"])
@pytest.mark.parametrize("evaluations", [1, 2, 7])
def test_evaluations_are_bounded_and_repeatable(method: str, evaluations: int) -> None:
    """There are never more than were asked for; fewer are the first of more."""
    searches = [Search(bowl, 0.1, 0.1, evaluations=n, seconds=60) for n in (evaluations, 12)]
    for search in searches:
        search.run(method)
    assert searches[0].probes == searches[1].probes[:evaluations]
    assert not searches[0].timed_out


@pytest.mark.parametrize("method", ["nelder-mead", "cobyla"])
def test_time_is_bounded_and_said(method: str) -> None:
    """Without any time there is one evaluation and a word of it; as many without a limit of time give the same version."""
    hurried = retrain(trained("softmax"), retrained("softmax", method=method, seconds=0.0))
    metrics = hurried.lineage["metrics"]
    assert (metrics["evaluations"], metrics["timed_out"]) == (1, 1)
    calm = retrain(trained("softmax"), retrained("softmax", method=method, evaluations=1))
    assert state_of(hurried) == state_of(calm)
    assert calm.lineage["metrics"] == metrics | {"timed_out": 0}


def test_tuning_lowers_the_held_out_loss() -> None:
    """What is found for the sample is no worse than where the search began, and better for a start far off."""
    far = json.dumps(SETTINGS["softmax"] | {"fold_lr": 10.0})
    losses = {
        method: retrain(trained("softmax"), retrained("softmax", method=method, evaluations=15, base_settings=far)).lineage[
            "metrics"
        ]["held_out_loss"]
        for method in METHODS
    }
    assert losses["nelder-mead"] < losses["none"]
    assert losses["cobyla"] < losses["none"]


@pytest.mark.parametrize("base", ["softmax", "bpr"])
def test_held_out_pairs_are_ranked_as_evaluate_ranks_them(base: str) -> None:
    """The loss is 1 - NDCG@100 among what users have not had, removed items left out."""
    kept, held = PAIRS.split("within", 0.4)
    store = new_store()
    embstore.fit(store, BASES[base], kept, message="kept")
    with store.checkout() as work:
        work.remove("item", ["item 03"])
        version = work.commit("remove an item")
    known = np.isin(held.item_ids.astype(str), version.ids("item").ids().astype(str))
    held = held.take(np.flatnonzero(known & np.isin(held.user_ids, version.ids("user").ids())))
    kept = kept.take(np.flatnonzero(kept.item_ids != "item 03"))
    pairs = set(zip(kept.user_ids.tolist(), kept.item_ids.tolist(), strict=True))
    fresh = [pair not in pairs for pair in zip(held.user_ids.tolist(), held.item_ids.tolist(), strict=True)]
    held = held.take(np.flatnonzero(fresh))
    distinct = without_repeats(held.to_batch(version))
    expected = embstore.evaluate(version, held, trainer=BASES[base])["ndcg@100"]
    assert held_out_loss(BASES[base], version, kept.to_batch(version), distinct) == pytest.approx(1 - expected)


def test_ratings_are_judged_by_their_error() -> None:
    """The loss is the mean squared error; a score that is no number makes it NaN."""
    store = trained("squared")
    version, base = store.at(), BASES["squared"]
    batch = RATED.take(np.arange(9)).to_batch(version)
    scores = base.scores(version, batch.users)[np.arange(9), batch.items]
    found = held_out_loss(base, version, batch.__class__(batch.users[:0], batch.items[:0]), batch)
    assert found == pytest.approx(float(((scores - batch.ratings) ** 2).mean()))
    with store.checkout() as work:
        work.table("item_bias").scatter([0], [np.nan])
        assert math.isnan(held_out_loss(base, work, batch, batch))
        work.discard()
