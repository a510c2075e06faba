"""A recommender retrained month after month: what the demo runs, and the figures that it shows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.columns import data_columns
from embstore.consumed import USER
from embstore.errors import InvalidInputError
from embstore.interactions import Interactions
from embstore.recommending import evaluate
from embstore.store import Store
from embstore.trainer import Trainer
from embstore.training import fit
from embstore.version import Version

TEST_SHARE = 0.2
# Times in files come in seconds, milli-, micro- or nanoseconds since 1970; a year of the one is no year of the other.
_UNITS = (1, 10**3, 10**6, 10**9)
_LATEST_SECOND = 4_102_444_800  # 2100-01-01


@dataclass(frozen=True)
class Quality:
    """Ranking metrics of some users, and of popularity for the same users; None where there are no such users."""

    users: int
    metrics: dict[str, float] | None
    popularity: dict[str, float] | None


@dataclass(frozen=True)
class Month:
    """One month's retraining.

    Parameters
    ----------
    name
        As ``1997-09``.
    users, items
        How many there are, and how many of them are new.
    rows_changed
        Users and items that were there before and are not as they were.
    version_bytes
        What the store has grown by on disk, metadata of the engine included; where it is in no folder, what the version says
        that it wrote, without that metadata.
    full_bytes
        What all vectors, slots and ids take: a checkpoint written whole.
    seconds
        For appending, training and committing.
    returning, new
        Quality on each user's last pairs of the month, which were held out.
    """

    name: str
    users: tuple[int, int]
    items: tuple[int, int]
    rows_changed: int
    version_bytes: int
    full_bytes: int
    seconds: float
    returning: Quality
    new: Quality


@dataclass(frozen=True)
class Retraining:
    """A store and the trainer that keeps it up to date.

    Parameters
    ----------
    store
        With nothing in it.
    trainer
        For every month; of its pairs.
    baseline_store, baseline
        For the figures of popularity, on the same pairs.
    """

    store: Store
    trainer: Trainer
    baseline_store: Store
    baseline: Trainer

    def run(self, interactions: Interactions) -> Iterator[Month]:
        """Retrain month by month, and yield what each month came to.

        Raises
        ------
        InvalidInputError
            If there are no interactions, or they have no times.
        """
        for name, part in months(interactions):
            train, test = part.split("within", TEST_SHARE)
            known = self._known_users(train)
            before, started = taken_bytes(self.store), time.perf_counter()
            version = fit(self.store, self.trainer, train, message=f"retrain on {name}")
            seconds = time.perf_counter() - started
            popular = fit(self.baseline_store, self.baseline, train, message=f"count {name}")
            returning, new = _by_novelty(test, known)
            yield Month(
                name,
                users=_grown(version, "user"),
                items=_grown(version, "item"),
                rows_changed=rows_changed(version),
                version_bytes=taken_bytes(self.store) - before,
                full_bytes=full_bytes(version),
                seconds=seconds,
                returning=quality(version, popular, returning),
                new=quality(version, popular, new),
            )

    def _known_users(self, part: Interactions) -> set[Any]:
        view = self.store.at()
        if USER not in view.entities:
            return set()
        rows = view.ids(USER).rows(part.user_ids, missing=-1)
        return set(part.user_ids[rows >= 0].tolist())


def months(interactions: Interactions) -> Iterator[tuple[str, Interactions]]:
    """Yield the interactions of each calendar month (UTC), oldest first, with its name.

    Raises
    ------
    InvalidInputError
        If there are no interactions or no times, or these cannot be times since 1970.
    """
    if not len(interactions):
        msg = "no pairs: a retraining month by month needs some, with times"
        raise InvalidInputError(msg)
    if interactions.times is None:
        msg = "a retraining month by month needs interactions with times; name their column with --columns time=…"
        raise InvalidInputError(msg)
    seconds = _seconds(interactions.times)
    names = np.array([f"{datetime.fromtimestamp(int(day) * 86_400, UTC):%Y-%m}" for day in np.unique(seconds // 86_400)])
    of_day = names[np.unique(seconds // 86_400, return_inverse=True)[1]]
    for name in np.unique(of_day):
        yield str(name), interactions.take(of_day == name)


def _seconds(times: NDArray[Any]) -> NDArray[np.int64]:
    for unit in _UNITS:
        if times.min() >= 0 and times.max() / unit <= _LATEST_SECOND:
            seconds: NDArray[np.int64] = np.floor_divide(times, unit).astype(np.int64)
            return seconds
    msg = f"times from {times.min()} to {times.max()}: give seconds, milli-, micro- or nanoseconds since 1970, or dates"
    raise InvalidInputError(msg)


def _by_novelty(test: Interactions, known: set[Any]) -> tuple[Interactions, Interactions]:
    returning = np.array([user in known for user in test.user_ids.tolist()], bool)
    return test.take(returning), test.take(~returning)


def quality(version: Version, popular: Version, targets: Interactions) -> Quality:
    """Return the metrics of both versions on held-out pairs."""
    found = evaluate(version, targets)
    if not found["users"]:
        return Quality(0, None, None)
    return Quality(int(found["users"]), found, evaluate(popular, targets))


def _grown(version: Version, entity: str) -> tuple[int, int]:
    counts = version.lineage["counts"]["entities"].get(entity, {"new": 0})
    return version.entities[entity], counts["new"]


def rows_changed(version: Version) -> int:
    """Return how many rows of all entities, there before, the version changed, be it in one table or in several."""
    written: dict[str, set[int]] = {entity: set() for entity in version.entities}
    for name, spec in version.tables.items():
        written[spec.entity].update(version.changed_rows(name).tolist())
    return sum(map(len, written.values()))


def full_bytes(version: Version) -> int:
    """Return the bytes of all vectors, slots and ids of a version."""
    total = 0
    for name, spec in version.tables.items():
        total += len(version.table(name)) * sum(column.row_bytes for column in data_columns(spec))
    for entity in version.entities:
        ids = version.ids(entity).ids()
        total += ids.nbytes if ids.dtype != object else sum(len(id_.encode()) for id_ in ids.tolist())
    return total


def taken_bytes(store: Store) -> int:
    """Return the bytes of all files of a store in a folder, or what the versions on its branch wrote where it is in none."""
    if "://" in store.url:
        return sum(version.lineage["bytes"] for version in store.log())
    return sum(path.stat().st_size for path in Path(store.url).rglob("*") if path.is_file())
