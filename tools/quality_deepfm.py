"""Measure DeepFM and the two towers on MovieLens-100k: ``python -m tools.quality_deepfm [--seeds 3] [--json FILE]``.

``labels``: a random tenth of every user's ratings is the test, another tenth is left alone, and the rest is trained on; liked is
what has four or more. One split is RecBole's of its seed 2020, another is made for each seed. ``parts``: trained on the first
stretch of time, then on the second (`tools.quality.protocol`).
"""

from __future__ import annotations

import argparse
import json
import resource
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

import embstore
from embstore import Interactions, Version
from tools.bench.timing import note
from tools.quality.fresh import answer, data_folder
from tools.quality.protocol import DATA_SETS, Parts, load, load_inner
from trainers.deepfm import DeepFM
from trainers.two_tower import TwoTower

COLUMNS: dict[str, Any] = {
    "user_sparse": ("gender", "occupation", "age"),
    "item_sparse": ("year",),
    "item_multi": (("genre", 6),),
}
LIKED = 4.0


def frames(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the features of users and items as the trainers' columns name them."""
    users, items = (pd.read_csv(folder / "ml-100k" / f"ml-100k.{side}", sep="\t") for side in ("user", "item"))
    names = {"user_id": "user", "item_id": "item", "release_year": "year", "class": "genre"}
    users, items = (frame.rename(columns=lambda c: names.get(c.split(":")[0], c.split(":")[0])) for frame in (users, items))
    items["genre"] = items["genre"].str.replace(" ", "|")
    items["year"] = pd.to_numeric(items["year"], errors="coerce").astype("Int64")
    return {"user": users, "item": items}


def movielens(folder: Path) -> Interactions:
    """Return all ratings, with the features of all users and items."""
    return with_features(Interactions.from_file(folder / DATA_SETS["ml-100k"].file), frames(folder))


def with_features(pairs: Interactions, features: Mapping[str, pd.DataFrame]) -> Interactions:
    """Return pairs with the features of the users and items that are in them."""
    users, items = (
        features[side][features[side][side].isin(ids)] for side, ids in (("user", pairs.user_ids), ("item", pairs.item_ids))
    )
    return Interactions(pairs.user_ids, pairs.item_ids, pairs.ratings, pairs.times, user_features=users, item_features=items)


def random_parts(pairs: Interactions, *, seed: int) -> tuple[Interactions, Interactions, Interactions]:
    """Return train, validation and test, as RecBole 1.2.1 splits: of every user's pairs, in random order, the last two tenths."""
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).numpy()
    order = order[np.argsort(pairs.user_ids[order], kind="stable")]
    sizes = np.unique(pairs.user_ids, return_counts=True)[1]
    left, tenth = np.concatenate([np.arange(n, 0, -1) for n in sizes]), np.repeat(sizes // 10, sizes)
    is_test, is_held_out = left <= tenth, left <= 2 * tenth
    return pairs.take(order[~is_held_out]), pairs.take(order[is_held_out & ~is_test]), pairs.take(order[is_test])


def auc(liked: NDArray[np.bool_], scores: NDArray[Any]) -> float:
    """Return the chance that something liked scores above something not liked; equal scores count half."""
    ranks, n_liked = rankdata(scores), int(liked.sum())
    return float((ranks[liked].sum() - n_liked * (n_liked + 1) / 2) / (n_liked * (len(liked) - n_liked)))


def log_loss(liked: NDArray[np.bool_], logits: NDArray[Any]) -> float:
    """Return the mean of ``-log`` of the chance that was given to what is true."""
    return float(np.mean(np.logaddexp(0, logits) - liked * logits))


def labels(folder: Path, *, seed: int) -> dict[str, Any]:
    """Return AUC, log loss, CPU seconds and memory on RecBole's split, and AUC and log loss on another one."""
    first, other = _labels(folder, seed=seed, split=2020), _labels(folder, seed=seed, split=2020 + seed)
    return first | {f"another split, {name}": other[name] for name in ("auc", "log_loss")}


def _labels(folder: Path, *, seed: int, split: int) -> dict[str, Any]:
    """Train on labels; CPU seconds are those of the epochs after the first."""
    train, _, test = random_parts(movielens(folder), seed=split)
    trainer, stamps = DeepFM(threshold=LIKED, seed=seed, **COLUMNS), [0.0]
    version = embstore.fit(_store(), trainer, train, message="ratings", progress=lambda *_: stamps.append(time.process_time()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    logits = trainer.scores(version, np.arange(len(version.ids("user"))))
    rows = version.ids("user").rows(test.user_ids), version.ids("item").rows(test.item_ids, missing=-1)
    liked = np.asarray(test.ratings) >= LIKED
    figures = {"auc": auc(liked, logits[rows]), "log_loss": log_loss(liked, logits[rows])}
    return figures | {"epoch_cpu_s": np.diff(stamps[1:]).tolist(), "peak_mb": peak}


def parts(folder: Path, *, seed: int, inner: bool = False) -> dict[str, Any]:
    """Train on both stretches; return recall@20 of the first one's test before and after, and of new and old users."""
    found = (load_inner if inner else load)(DATA_SETS["ml-100k"], folder)
    liked = DeepFM(threshold=LIKED, seed=seed, **COLUMNS)
    drawn, towers = replace(liked, threshold=None), TwoTower(seed=seed, **COLUMNS)
    return {
        "DeepFM, negatives": _increment(found, folder, drawn),
        "DeepFM, ratings": _increment(found, folder, liked),
        "TwoTower": _increment(found, folder, towers) | _folded(found, folder, towers),
    }


def _increment(found: Parts, folder: Path, trainer: Any) -> dict[str, Any]:
    store, features = _store(), frames(folder)
    base = embstore.fit(store, trainer, with_features(found.train1, features), message="the first part")
    before = _recall(base, found.test1)
    start = time.process_time()
    later = replace(trainer, epochs=INCREMENT[trainer.name])
    version = embstore.fit(store, later, with_features(found.train2, features), message="the second part")
    seconds = time.process_time() - start
    targets = {"test1": found.test1, "new": found.new_users, "old": found.old_users}
    return {"before": before, **{name: _recall(version, pairs) for name, pairs in targets.items()}, "increment_cpu_s": seconds}


def _folded(found: Parts, folder: Path, trainer: Any) -> dict[str, float]:
    store, features = _store(), frames(folder)
    embstore.fit(store, trainer, with_features(found.train1, features), message="the first part")
    start = time.process_time()
    version = embstore.fold_in(store, trainer, with_features(found.newcomers, features), message="newcomers")
    return {"fold_in_cpu_s": time.process_time() - start, "new, folded in": _recall(version, found.new_users)}


# Epochs on the second stretch: more of them forget more of the first.
INCREMENT = {"deepfm": 3, "two_tower": 5}


def _recall(version: Version, targets: Interactions) -> float:
    return embstore.evaluate(version, targets, metrics=("recall@20",))["recall@20"]


def _store() -> embstore.Store:
    return embstore.create(f"memory://{uuid.uuid4().hex}")


TASKS: dict[str, Callable[..., dict[str, Any]]] = {"labels": labels, "parts": parts}


def _in_new_process(task: str, seed: int) -> dict[str, Any]:
    note(f"{task}, seed {seed}")
    found: dict[str, Any] = answer("tools.quality_deepfm", "--task", task, "--seed", str(seed))
    return found


def _line(name: str, figures: list[float]) -> str:
    return f"{name:32} {mean(figures):8.4f} ({min(figures):.4f}-{max(figures):.4f})"


def _flat(found: Mapping[str, Any], above: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in found.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}: ")
        else:
            flat[above + name] = float(np.median(value))
    return flat


def main() -> None:
    """Measure in a fresh process for each task and seed, print means (lowest-highest), and write all of it where asked to."""
    parser = argparse.ArgumentParser(prog="python -m tools.quality_deepfm", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 1 on (default 3)")
    parser.add_argument("--json", type=Path, help="a file to write all figures to")
    parser.add_argument("--task", choices=TASKS, help="one task alone, answered in JSON")
    parser.add_argument("--seed", type=int, default=1, help="its seed (default 1)")
    chosen = parser.parse_args()
    folder = data_folder(parser)
    if chosen.task:
        print(json.dumps(TASKS[chosen.task](folder, seed=chosen.seed)))
        return
    runs = {task: [_in_new_process(task, seed) for seed in range(1, chosen.seeds + 1)] for task in TASKS}
    for task, found in runs.items():
        figures = [_flat(run) for run in found]
        print(f"{task}\n" + "\n".join(_line(name, [run[name] for run in figures]) for name in figures[0]))
    if chosen.json:
        chosen.json.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
