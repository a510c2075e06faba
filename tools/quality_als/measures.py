"""One run of everything that is measured of least squares, on one data set with one seed and one set of settings."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import embstore
from embstore import Batch, Checkout, Interactions, Store, Version
from tools.quality.measures import quality, recall
from tools.quality.protocol import Parts
from tools.quality_als.peer import IS_THERE, peer
from trainers.als import ALS

TIMES = 5
WHO = {"new": "new users", "old": "old users", "test1": "first part's test"}
Figures = dict[str, Any]


@dataclass(frozen=True)
class TimedALS(ALS):
    """ALS that notes how long it trains and folds in, in CPU seconds without what the store does around it."""

    seconds: ClassVar[list[float]] = []

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Train, and note the seconds."""
        start, total = time.process_time(), 0.0
        for metrics in super().train(work, batch):
            total += time.process_time() - start
            yield metrics
            start = time.process_time()
        self.seconds.append(total)

    def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch, *, entity: str = "user") -> dict[str, float]:
        """Fold in, and note the seconds."""
        start = time.process_time()
        metrics = super().fold_in(work, rows, batch, entity=entity)
        self.seconds.append(time.process_time() - start)
        return metrics


@dataclass
class Timed:
    """The version of a step that was done ``TIMES`` times, and CPU seconds: the trainer's own, and all with the commit."""

    version: Version
    trainer: list[float]
    whole: list[float]

    def figures(self) -> Figures:
        """Return the seconds."""
        return {"trainer_cpu_s": self.trainer, "cpu_s": self.whole}


def _timed(store: Store, at: Version, step: Any, trainer: TimedALS, pairs: Interactions) -> Timed:
    """Take a step (`fit` or `fold_in`) on branches of their own."""
    trainer.seconds.clear()
    whole = []
    for _ in range(TIMES):
        branch = f"step-{uuid.uuid4().hex}"
        store.branch(branch, at=at.id)
        start = time.process_time()
        version = step(store, trainer, pairs, message="a step", branch=branch)
        whole.append(time.process_time() - start)
    return Timed(version, list(trainer.seconds), whole)


def measure(parts: Parts, folder: Path, *, settings: dict[str, Any], seed: int) -> Figures:
    """Return all figures of one seed; stores are made in ``folder``. implicit's are among them where it is installed."""
    trainer = TimedALS(**{**settings, "seed": seed})
    store = embstore.create(folder / "store")
    base = _timed(store, store.at(), embstore.fit, trainer, parts.train1)
    grown = _timed(store, base.version, embstore.fit, trainer, parts.train2)
    folded = _timed(store, base.version, embstore.fold_in, trainer, parts.newcomers)
    scratch = embstore.fit(embstore.create(folder / "scratch"), trainer, _both(parts.train1, parts.train2), message="both parts")
    versions = {"base": base.version, "grown": grown.version, "folded": folded.version, "scratch": scratch}
    found: Figures = {
        "ours": _judged(versions, parts),
        "fit": base.figures(),
        "increment": grown.figures(),
        "fold_in": folded.figures() | {"users": folded.version.lineage["new_ids"]},
        "rows": {name: table["rows"] for name, table in base.version.lineage["counts"]["tables"].items()},
        "changed": {name: table["changed"] for name, table in grown.version.lineage["counts"]["tables"].items()},
    }
    if IS_THERE:
        theirs, seconds = peer(trainer, store, versions, parts.train2)
        found |= {"implicit": _judged(theirs, parts), "implicit_cpu_s": seconds}
    return found


def _judged(versions: Mapping[str, Version], parts: Parts) -> Figures:
    """Return recall@20 by what it is of."""
    found = {"first part's test, before": embstore.evaluate(versions["base"], parts.test1, trainer=ALS())["recall@20"]}
    found["new users, folded in"] = recall(versions["folded"], parts.new_users, ALS())
    for name, words in (("grown", ""), ("scratch", ", trained on both parts at once")):
        for who, figures in quality(versions[name], parts).items():
            found[f"{WHO[who]}{words}"] = figures["recall@20"]
    return found


def _both(one: Interactions, other: Interactions) -> Interactions:
    columns = [(getattr(one, name), getattr(other, name)) for name in ("user_ids", "item_ids", "times")]
    users, items, times = (np.concatenate(pair) for pair in columns)
    return Interactions(users, items, times=times)


def scan(parts: Parts, *, points: list[dict[str, Any]], seed: int) -> list[Figures]:
    """Return recall@20 after an increment, and folded in, for each of some settings."""
    found = []
    for point in points:
        trainer = ALS(**{**point, "seed": seed})
        store = embstore.create(f"memory://{uuid.uuid4().hex}")
        base = embstore.fit(store, trainer, parts.train1, message="the first part")
        store.branch("folded")
        folded = embstore.fold_in(store, trainer, parts.newcomers, message="newcomers", branch="folded")
        start = time.process_time()
        grown = embstore.fit(store, trainer, parts.train2, message="the second part")
        seconds = time.process_time() - start
        figures = {WHO[who]: figures["recall@20"] for who, figures in quality(grown, parts).items()}
        figures["first part's test, before"] = embstore.evaluate(base, parts.test1)["recall@20"]
        found.append({**figures, "new users, folded in": recall(folded, parts.new_users, trainer), "increment_cpu_s": seconds})
    return found
