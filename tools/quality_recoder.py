"""Measure autoencoder, factorization and negative sampling: ``python -m tools.quality_recoder [--seeds 3] [--json FILE]``.

``parts``: MovieLens-100k in two stretches of time (`tools.quality.protocol`), BPR beside. ``movielens``, ``catalogue``: what it
costs, and what it is worth, to score in a step what some sampled users have had in place of all items: on the first stretch, and
on a made catalogue of 100,000 items. ``memory``: the peak of a process that trains on all of MovieLens-100k.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

import embstore
from embstore import Interactions, Store, Version
from tools.bench.timing import note
from tools.quality.fresh import answer, data_folder
from tools.quality.measures import Clock, recall
from tools.quality.protocol import DATA_SETS, Parts, load, load_inner
from trainers.bpr import BPR
from trainers.dynamic_autoencoder import DynamicAutoencoder
from trainers.factors import MatrixFactorization

# Users whose items are scored in a step, in batches of at most BATCH; 0: all items.
BATCH, SAMPLES = 64, (0, 16, 32, 64, 128, 256)
N_ITEMS, N_USERS, N_JUDGED = 100_000, 2000, 500
Figures = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A trainer, and how it goes on with the second stretch."""

    trainer: Any
    increment: Mapping[str, Any]


def entries(seed: int) -> dict[str, Entry]:
    """Return what is measured on the two stretches, by name."""
    autoencoder, later = DynamicAutoencoder(seed=seed), {"epochs": 10}
    return {
        "autoencoder, softmax": Entry(autoencoder, later),
        "autoencoder, softmax, target had": Entry(autoencoder, {**later, "target": "had"}),
        "autoencoder, logistic": Entry(replace(autoencoder, loss="logistic", lr=0.01), later),
        "autoencoder, mse": Entry(replace(autoencoder, loss="mse", confidence=5.0), later),
        "factorization, softmax": Entry(MatrixFactorization(seed=seed), {}),
        "factorization, logistic": Entry(MatrixFactorization(loss="logistic", lr=0.02, epochs=50, seed=seed), {}),
        "factorization, mse": Entry(MatrixFactorization(loss="mse", confidence=5.0, seed=seed), {}),
        "BPR": Entry(BPR(seed=seed), {}),
    }


def parts(folder: Path, *, seed: int, inner: bool = False) -> Figures:
    """Train on both stretches; return recall@20 and CPU seconds."""
    found = (load_inner if inner else load)(DATA_SETS["ml-100k"], folder)
    return {name: _increment(found, entry) for name, entry in entries(seed).items()}


def _increment(found: Parts, entry: Entry) -> Figures:
    store, clock, trainer = _store(), Clock(), entry.trainer
    base = embstore.fit(store, trainer, found.train1, message="the first part", progress=clock)
    before = _recall(base, found.test1)
    store.branch("folded")
    folded = embstore.fold_in(store, trainer, found.newcomers, message="newcomers", branch="folded")
    start = time.process_time()
    version = embstore.fit(store, replace(trainer, **entry.increment), found.train2, message="the second part")
    seconds = time.process_time() - start
    targets = {"test1": found.test1, "new": found.new_users, "old": found.old_users}
    after = {name: _recall(version, pairs) for name, pairs in targets.items()}
    folded_in = recall(folded, found.new_users, trainer)
    return {"before": before, **after, "folded in": folded_in, "epoch CPU s": median(clock.seconds), "increment CPU s": seconds}


def movielens(folder: Path, *, seed: int) -> Figures:
    """Return recall@20 and CPU seconds of an epoch on the first stretch, by how many users are sampled."""
    found = load(DATA_SETS["ml-100k"], folder)
    return _curve(found.train1, found.test1, DynamicAutoencoder(seed=seed), _store)


def catalogue(folder: Path, *, seed: int) -> Figures:
    """Return the same on a made catalogue of 100,000 items, many of which nobody has had."""
    train, test = made_pairs(seed=seed).split("within", 0.2)
    trainer = DynamicAutoencoder(hidden=(64,), epochs=10, seed=seed)
    return _curve(train, test.take(test.user_ids < N_JUDGED), trainer, _store_of_all_items)


def _curve(train: Interactions, test: Interactions, base: DynamicAutoencoder, store: Callable[[], Store]) -> Figures:
    found: Figures = {}
    for loss, confidence in {"softmax": 0.0, "mse": 5.0}.items():
        for n_sampled in SAMPLES:
            shared = n_sampled if n_sampled > BATCH else 0
            size = min(n_sampled or BATCH, BATCH)
            sampling = {"batch_size": size, "negative_sampling": n_sampled > 0, "num_sampling_users": shared}
            clock, trainer = Clock(), replace(base, loss=loss, confidence=confidence, **sampling)
            version = embstore.fit(store(), trainer, train, message="fit", progress=clock)
            name, figures = f"{loss}, {n_sampled or 'all'}", (_recall(version, test), median(clock.seconds))
            note(f"{name}: recall@20 {figures[0]:.4f}, {figures[1]:.3f} CPU s an epoch")
            found[name] = dict(zip(("recall@20", "epoch CPU s"), figures, strict=True))
    return found


def made_pairs(*, seed: int, n_users: int = N_USERS, n_items: int = N_ITEMS, n_kinds: int = 400) -> Interactions:
    """Return some 35 pairs of each user: a user likes three kinds of items, and of a kind some items are far more popular."""
    random = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users), 40 + random.geometric(1 / 20, n_users))
    liked, of_a_kind = random.integers(0, n_kinds, (n_users, 3)), n_items // n_kinds
    kinds = liked[users, random.integers(0, 3, len(users))]
    ranks = np.minimum(random.zipf(1.3, len(users)) - 1, of_a_kind * 50) % of_a_kind
    pairs = random.permutation(np.unique(users * n_items + kinds * of_a_kind + ranks))
    return Interactions(pairs // n_items, pairs % n_items, times=np.arange(len(pairs)))


# numpy alone reads the pairs, since pandas takes 60 MB.
_TRAIN = """
import json, resource, sys
import numpy as np
import embstore
from trainers.dynamic_autoencoder import DynamicAutoencoder

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

columns = np.loadtxt(sys.argv[1], skiprows=1)
pairs = embstore.Interactions(columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64), times=columns[:, 3])
before, store = peak(), embstore.create(sys.argv[2])
embstore.fit(store, DynamicAutoencoder(seed=int(sys.argv[3]), epochs=3), pairs, message="fit")
print(json.dumps({"before MB": before, "trained MB": peak()}))
"""


def memory(folder: Path, *, seed: int) -> Figures:
    """Return megabytes at the peak of a process that trains, and before it does; and where large blocks go back at once."""
    found: Figures = {}
    for name, more in {"": {}, ", blocks given back": {"MALLOC_MMAP_THRESHOLD_": "131072"}}.items():
        with tempfile.TemporaryDirectory() as place:
            given = [str(folder / DATA_SETS["ml-100k"].file), str(Path(place) / "store"), str(seed)]
            command = [sys.executable, "-c", _TRAIN, *given]
            done = subprocess.run(command, env={**os.environ, **more}, stdout=subprocess.PIPE, text=True, check=True)
        found |= {what + name: value for what, value in json.loads(done.stdout).items()}
    return found


def _recall(version: Version, targets: Interactions) -> float:
    return embstore.evaluate(version, targets, metrics=("recall@20",))["recall@20"]


def _store() -> Store:
    return embstore.create(f"memory://{uuid.uuid4().hex}")


def _store_of_all_items() -> Store:
    store = _store()
    with store.checkout() as work:
        work.add_entity("item", "int64")
        work.append("item", np.arange(N_ITEMS))
        work.commit("the catalogue")
    return store


TASKS: dict[str, Callable[..., Figures]] = {"parts": parts, "movielens": movielens, "catalogue": catalogue, "memory": memory}


def _in_new_process(task: str, seed: int) -> Figures:
    note(f"{task}, seed {seed}")
    found: Figures = answer("tools.quality_recoder", "--task", task, "--seed", str(seed))
    return found


def _flat(found: Mapping[str, Any], above: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in found.items():
        flat |= _flat(value, f"{above}{name}: ") if isinstance(value, Mapping) else {above + name: float(value)}
    return flat


def main() -> None:
    """Measure in a fresh process for each task and seed, print means (lowest-highest), and write all of it where asked to."""
    parser = argparse.ArgumentParser(prog="python -m tools.quality_recoder", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 1 on (default 3)")
    parser.add_argument("--json", type=Path, help="a file to write all figures to")
    parser.add_argument("--task", choices=TASKS, help="one task alone, answered in JSON")
    parser.add_argument("--seed", type=int, default=1, help="its seed (default 1)")
    parser.add_argument("--inner", action="store_true", help="measure the parts inside the first stretch, to choose settings on")
    chosen = parser.parse_args()
    folder = data_folder(parser)
    if chosen.task:
        options = {"inner": True} if chosen.inner and chosen.task == "parts" else {}
        print(json.dumps(TASKS[chosen.task](folder, seed=chosen.seed, **options)))
        return
    runs = {task: [_in_new_process(task, seed) for seed in range(1, chosen.seeds + 1)] for task in TASKS}
    for task, found in runs.items():
        figures = [_flat(run) for run in found]
        lines = ({name: [run[name] for run in figures]} for name in figures[0])
        print(task, *(f"{n:60} {mean(f):8.4f} ({min(f):.4f}-{max(f):.4f})" for line in lines for n, f in line.items()), sep="\n")
    if chosen.json:
        chosen.json.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
