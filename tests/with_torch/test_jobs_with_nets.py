"""Two jobs that train one network at the same time: whose weights stand, and what becomes of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import ConflictError, Interactions, Store, Version
from tests.examples import new_store
from tests.with_torch.featured_pairs import COLUMNS, featured_interactions
from trainers.two_tower import TwoTower

PAIRS = featured_interactions()
FIRST, OURS, THEIRS = (PAIRS.take(np.arange(i, len(PAIRS), 3)) for i in range(3))
TOWERS = TwoTower(dim=4, hidden=(6, 5), epochs=2, batch_size=32, lr=0.01, **COLUMNS)


def begun() -> Store:
    """Return a store in which the first pairs were trained."""
    store = new_store()
    embstore.fit(store, TOWERS, FIRST, message="first")
    return store


def trained(store: Store, **options: Any) -> Version:
    """Train ours while another job trains theirs."""

    def beside(epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch == 1:
            embstore.fit(store, TOWERS, THEIRS, message="theirs")

    return embstore.fit(store, TOWERS, OURS, message="ours", progress=beside, **options)


def network(version: Version) -> dict[str, bytes]:
    """Return the arrays without rows."""
    return {name: np.asarray(array).tobytes() for name, array in version.dense.items()}


def recommended(version: Version, pairs: Interactions) -> list[Any]:
    """Return what the users of pairs are shown."""
    return embstore.recommend(version, np.unique(pairs.user_ids).tolist(), 3)["item"].tolist()


def test_nets_always_conflict_and_fit_says_what_helps() -> None:
    """Without a word the work is on a branch of its own; the advice in the error brings it home: rows of both, main's network."""
    store = begun()
    with pytest.raises(ConflictError, match=r"dense '.*on_conflict=\{'rows': 'mean', 'dense': 'ours'\}\) brings it home"):
        trained(store, run="day-2")
    theirs = store.at()
    merged = store.merge("main-day-2", on_conflict={"rows": "mean", "dense": "ours"})
    assert network(merged) == network(theirs)
    assert set(merged.ids("user").ids()) == {*theirs.ids("user").ids(), *store.at("main-day-2").ids("user").ids()}
    assert recommended(merged, OURS)


def test_the_network_is_that_of_the_job_that_lands_last() -> None:
    """With rows mean and dense ours a fit lands at once, its network whole; it can be served and trained on."""
    store = begun()
    version = trained(store, on_conflict={"rows": "mean", "dense": "ours"})
    assert network(version) == network(embstore.fit(begun(), TOWERS, OURS, message="alone"))
    assert (store.at(), version.parent) == (version, store.at("main~1").id)
    assert recommended(version, THEIRS)
    assert embstore.fit(store, TOWERS, THEIRS, message="goes on").lineage["epochs"] == 2
