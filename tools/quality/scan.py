"""Settings tried on the inner parts: the defaults of BPR were decided there, not on the parts that are reported."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import embstore
from embstore import Store, Version
from tools.quality.measures import quality, recall
from tools.quality.protocol import Parts
from trainers.bpr import BPR

Point = dict[str, Any]

LEARNING: list[Point] = [{"lr": lr, "l2": l2} for lr, l2 in itertools.product((0.005, 0.01, 0.02), (0.005, 0.01, 0.02, 0.04))]
AMOUNT: list[Point] = [{"epochs": epochs, "negatives": n} for epochs, n in itertools.product((10, 20, 30), (1, 2, 4))]
FOLDING: list[Point] = [{"fold_lr": lr, "fold_l2": l2} for lr, l2 in itertools.product((0.05, 0.1, 0.2), (0.03, 0.1, 0.3))]
FOLDING += [{"fold_steps": steps} for steps in (10, 20, 40)]


def scan(parts: Parts, *, seed: int) -> list[Point]:
    """Return for every point of the grid its settings and recall@20; all other settings are the defaults."""
    return [*_trained(parts, seed), *_folded(parts, seed)]


def _trained(parts: Parts, seed: int) -> Iterator[Point]:
    for settings in LEARNING + AMOUNT:
        store, trainer = _store(), replace(BPR(seed=seed), **settings)
        embstore.fit(store, trainer, parts.train1, message="the first part")
        start = time.process_time()
        version = embstore.fit(store, trainer, parts.train2, message="the second part")
        seconds = time.process_time() - start
        found = {name: metrics["recall@20"] for name, metrics in quality(version, parts).items()}
        yield {"settings": settings, **found, "cpu_s": seconds}


def _folded(parts: Parts, seed: int) -> Iterator[Point]:
    store = _store()
    base = embstore.fit(store, BPR(seed=seed), parts.train1, message="the first part")
    for settings in FOLDING:
        start = time.process_time()
        version = _fold(store, base, replace(BPR(seed=seed), **settings), parts)
        seconds = time.process_time() - start
        yield {"settings": settings, "new": recall(version, parts.new_users, BPR()), "cpu_s": seconds}


def _fold(store: Store, base: Version, trainer: BPR, parts: Parts) -> Version:
    branch = f"fold-{uuid.uuid4().hex}"
    store.branch(branch, at=base.id)
    return embstore.fold_in(store, trainer, parts.newcomers, message="newcomers", branch=branch)


def _store() -> Store:
    return embstore.create(f"memory://{uuid.uuid4().hex}")
