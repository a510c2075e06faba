"""One run of everything that is measured, on one data set with one seed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import embstore
from embstore import Batch, Checkout, Interactions, Store, Version
from tools.quality.protocol import Parts
from trainers.bpr import BPR
from trainers.popularity import Popularity

TIMES = 3
# Variants of the increment: bias correction by each row's own steps with slots kept is what BPR does.
KEPT, RESET, GLOBAL, NONE = "kept", "reset", "one step for all", "no correction"
POPULARITY = ("first part", "both parts", "second part")

Figures = dict[str, Any]


@dataclass(frozen=True)
class GlobalStep(BPR):
    """BPR with bias correction by the steps of the whole table, as Adam is usually written: only for comparison."""

    def _step(self, users: NDArray[np.int64], wanted: NDArray[np.int64], *learned: Any) -> float:
        # The largest count is that of the table: it goes to all rows of the batch, which then count one more.
        for table, rows in zip(learned, (users, wanted, wanted), strict=True):
            table.steps[rows] = table.steps.max()
        return super()._step(users, wanted, *learned)


@dataclass(frozen=True)
class TimedBPR(BPR):
    """BPR that notes how long it folds in, in CPU seconds without what the store does around it."""

    seconds: ClassVar[list[float]] = []

    def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch) -> dict[str, float]:
        """Fold in and note the seconds."""
        start = time.process_time()
        metrics = super().fold_in(work, rows, batch)
        self.seconds.append(time.process_time() - start)
        return metrics


@dataclass
class Clock:
    """CPU seconds of this process between calls; as ``progress`` of a fit, those of its epochs after the first."""

    stamps: list[float] = field(default_factory=list)

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Note the time at the end of an epoch."""
        self.stamps.append(time.process_time())

    @property
    def seconds(self) -> list[float]:
        """Return the seconds of each epoch but the first."""
        return np.diff(self.stamps).tolist()


def measure(parts: Parts, folder: Path, *, seed: int) -> Figures:
    """Return all figures of one seed; stores are made in ``folder``."""
    clock = Clock()
    store = embstore.create(folder / "kept")
    base = embstore.fit(store, BPR(seed=seed), parts.train1, message="the first part", progress=clock)
    increments = [_increment(store, f"kept-{i}", base, parts, BPR(seed=seed)) for i in range(TIMES)]
    reset, _ = _increment(store, "reset", base, parts, BPR(seed=seed), slots="reset")
    after = {
        KEPT: quality(increments[0][0], parts),
        RESET: quality(reset, parts),
        GLOBAL: quality(_trained(folder / "global", parts, GlobalStep(seed=seed)), parts),
        NONE: quality(_trained(folder / "none", parts, BPR(seed=seed, correction="none")), parts),
    }
    return {
        "before": embstore.evaluate(base, parts.test1),
        "after": after,
        "fold_in": fold_in(store, base, parts, seed=seed),
        "epoch_cpu_s": clock.seconds,
        "increment_cpu_s": [seconds for _, seconds in increments],
    }


def quality(version: Version, parts: Parts) -> Figures:
    """Return the metrics of new users, of old ones, and of what was held out of the first part."""
    targets = {"new": parts.new_users, "old": parts.old_users, "test1": parts.test1}
    return {name: embstore.evaluate(version, pairs) for name, pairs in targets.items()}


def _increment(
    store: Store, branch: str, base: Version, parts: Parts, trainer: BPR, *, slots: Any = "keep"
) -> tuple[Version, float]:
    """Train on the second part, on a branch of its own; return the version and CPU seconds, commit included."""
    store.branch(branch, at=base.id)
    start = time.process_time()
    version = embstore.fit(store, trainer, parts.train2, message="the second part", branch=branch, slots=slots)
    return version, time.process_time() - start


def _trained(folder: Path, parts: Parts, trainer: BPR) -> Version:
    """Return a version trained on both parts, one after the other, in a store of its own."""
    store = embstore.create(folder)
    embstore.fit(store, trainer, parts.train1, message="the first part")
    return embstore.fit(store, trainer, parts.train2, message="the second part")


def fold_in(store: Store, base: Version, parts: Parts, *, seed: int) -> Figures:
    """Fold the new users into the first part's version, and measure quality and CPU seconds."""
    trainer, whole = TimedBPR(seed=seed), []
    trainer.seconds.clear()
    for i in range(TIMES):
        store.branch(f"fold-{i}", at=base.id)
        start = time.process_time()
        version = embstore.fold_in(store, trainer, parts.newcomers, message="newcomers", branch=f"fold-{i}")
        whole.append(time.process_time() - start)
    return {
        "recall@20": recall(version, parts.new_users, trainer),
        "users": version.lineage["new_ids"],
        "trainer_cpu_s": list(trainer.seconds),
        "cpu_s": whole,
    }


def recall(version: Version, targets: Interactions, trainer: Any, *, k: int = 20) -> float:
    """Return recall@k where a target that the version does not know counts as missed, while `evaluate` leaves it out."""
    n_targets = Counter(targets.user_ids.tolist())
    frame = embstore.recommend(version, list(n_targets), k, trainer=trainer)
    wanted = set(zip(targets.user_ids.tolist(), targets.item_ids.tolist(), strict=True))
    shown = zip(frame["user"].tolist(), frame["item"].tolist(), strict=True)
    hits = Counter(user for user, item in shown if (user, item) in wanted)
    return mean(hits[user] / n for user, n in n_targets.items())


def popularity(parts: Parts, folder: Path) -> Figures:
    """Return recall@20 of new and old users where all get what was most popular in the first part, both, or the second.

    What a user has had in either part is left out in all three.
    """
    first, both, second = (embstore.create(folder / name) for name in ("first", "both", "second"))
    for store, decay in ((first, 1.0), (both, 1.0), (second, 0.0)):
        embstore.fit(store, Popularity(decay), parts.train1, message="the first part")
        if store is first:
            # Newcomers and what everybody has had come in, and counts stay.
            embstore.fold_in(store, Popularity(), parts.train2, message="the second part, not counted")
        else:
            embstore.fit(store, Popularity(decay), parts.train2, message="the second part")
    targets = {"new": parts.new_users, "old": parts.old_users}
    return {
        name: {who: recall(store.at(), pairs, Popularity()) for who, pairs in targets.items()}
        for name, store in zip(POPULARITY, (first, both, second), strict=True)
    }
