"""Several who work on one store at once: commits laid on each other's, rebased and merged, against dictionaries by id."""

from __future__ import annotations

import numpy as np
import pytest

from tests.store.actor import Actor
from tests.store.agreement import assert_store_agrees
from tests.store.pair import Pair
from tests.store.sharing import Shared
from tests.store.sizes import at_most


def take_turns(url: str, *, seed: int, n_actors: int, n_steps: int) -> None:
    """Let actors take random steps in random order, and compare all that came of it with the model."""
    first = Pair(url)
    first.store.branch("side")
    model, rng = first.model, np.random.default_rng(seed)
    model.branches["side"] = model.branches["main"]
    actors = [Actor(Shared(url, model)) for _ in range(n_actors)]
    for n in range(n_steps):
        model = actors[rng.integers(n_actors)].step(model, 1_000 * seed + n)
    for actor in actors:
        actor.pair.check_all()
    assert_store_agrees(first.store, model)


@pytest.mark.parametrize("seed", range(at_most(2)))
def test_random_turns(url: str, seed: int) -> None:
    """Three checkouts on two branches: what each commits stands where nobody else changed it, else as the policy says."""
    take_turns(url, seed=seed, n_actors=3, n_steps=30)


@pytest.mark.soak
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("seed", range(100, 110))
def test_many_random_turns(url: str, seed: int) -> None:
    """The same, longer."""
    take_turns(url, seed=seed, n_actors=4, n_steps=200)
