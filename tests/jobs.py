"""Two training jobs on one store, one of which commits while the other trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

import embstore
from embstore import Conflict, Interactions, Store, Version
from tests.examples import DAY_1, new_store
from tests.plugin.tinymf import TinyMF
from trainers.popularity import Popularity

OURS, THEIRS = Interactions([1, 2, 5], ["a", "b", "x"]), Interactions([1, 3, 6, 6], ["a", "c", "y", "a"])


def begun() -> Store:
    """Return a store in which day 1 was trained."""
    store = new_store()
    embstore.fit(store, TinyMF(), DAY_1, message="day 1")
    return store


def while_another(store: Store, pairs: Interactions = THEIRS, *, epochs: int = 3) -> Callable[[int, Mapping[str, float]], None]:
    """Return, for ``progress``, what lets another job train and commit while the first is at its first epoch."""

    def train(epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch == 1:
            embstore.fit(store, TinyMF(epochs=epochs), pairs, message="theirs")

    return train


def fitted(store: Store, **options: Any) -> Version:
    """Train ours while another job does."""
    return embstore.fit(store, TinyMF(), OURS, message="ours", progress=while_another(store), **options)


def never(epoch: int, metrics: Mapping[str, float]) -> None:
    """Fail: nothing was to be trained."""
    raise AssertionError(f"epoch {epoch} was trained")


def had(version: Version, users: list[int]) -> list[list[object]]:
    """Return what users have had."""
    return [items.tolist() for items in version.consumed.of("user", users)]


def trained_alone(pairs: Interactions) -> Version:
    """Return what a job comes to that trains on ``pairs`` after day 1 with nobody beside it."""
    return embstore.fit(begun(), TinyMF(), pairs, message="alone")


def added(conflict: Conflict) -> NDArray[Any]:
    """Return what both sides have added to what both began with: right for counts, unless both have added the same."""
    return conflict.ours + conflict.theirs - conflict.base


def count(job: tuple[str, str]) -> str:
    """Count pairs that follow from the run's name, beside whoever does the same; return the version's id."""
    url, run = job
    pairs = {"A": Interactions([1, 2, 65], ["a", "b", "a"]), "B": Interactions([1, 2, 2, 66, 66], ["a", "b", "b", "a", "a"])}[run]
    return embstore.fit(
        embstore.open(url), Popularity(), pairs, message=run, run=run, on_conflict={"rows": added, "dense": "ours"}
    ).id
