"""What both sides are given, how LibRecommender's side is run, and what is measured of either."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import embstore
from embstore import Interactions, Trainer, Version
from embstore.formats.librecommender import import_librecommender
from tools.quality.protocol import HELD_OUT_SHARE
from trainers.bpr import BPR
from trainers.popularity import Popularity

SCRIPT = Path(__file__).with_name("theirs.py")
SHARES = (0, 1 / 2, 3 / 4, 1)
# Chosen on --inner parts, see docs/migrating-from-librecommender.md; later generations take fewer epochs, as is usual there.
THEIR_SETTINGS: dict[str, Any] = {"embed_size": 64, "lr": 2e-3, "batch_size": 2048, "num_neg": 1}
THEIR_EPOCHS = (60, 15, 15)
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
FILE = "ml-100k/ml-100k.inter"


@dataclass(frozen=True)
class Generation:
    """Pairs to train on, and those held out: of users that an earlier generation has, and of new ones."""

    train: Interactions
    old: Interactions
    new: Interactions


@dataclass
class Side:
    """What is measured of one way to retrain: a number for each generation."""

    name: str
    old: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    n_bytes: list[int] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    consumed_shown: list[int] = field(default_factory=list)

    def evaluate(self, version: Version, generation: Generation) -> None:
        """Add recall@20 of a version; of users there were none before the first generation."""
        for figures, targets in ((self.old, generation.old), (self.new, generation.new)):
            figures.append(embstore.evaluate(version, targets, metrics=("recall@20",))["recall@20"] if len(targets) else np.nan)


def generations(folder: Path, *, inner: bool) -> list[Generation]:
    """Return a half, a quarter and a quarter of MovieLens-100k by time; ``inner``: of its first half.

    The last fifth of each user's pairs in a part is held out. Targets are those whose item is in this or an earlier ``train``.
    """
    pairs = Interactions.from_inter(folder / FILE).ordered()
    pairs = pairs.take(slice(0, len(pairs) // 2)) if inner else pairs
    bounds = [int(share * len(pairs)) for share in SHARES]
    made: list[Generation] = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        train, held_out = pairs.take(slice(start, end)).split("within", HELD_OUT_SHARE)
        users = np.concatenate([np.empty(0, np.int64), *(g.train.user_ids for g in made)])
        items = np.concatenate([train.item_ids, *(g.train.item_ids for g in made)])
        targets = held_out.take(np.isin(held_out.item_ids, items))
        is_old = np.isin(targets.user_ids, users)
        made.append(Generation(train, targets.take(is_old), targets.take(~is_old)))
    return made


@dataclass(frozen=True)
class Theirs:
    """LibRecommender in its own environment, and a folder for its files."""

    python: str
    folder: Path

    def train(
        self,
        name: str,
        frame: pd.DataFrame,
        *,
        settings: Mapping[str, Any],
        previous: Path | None = None,
        features: bool = False,
        users: Sequence[int] = (),
        k: int = 0,
    ) -> tuple[Path, dict[str, float]]:
        """Train one generation in a process of its own; return its folder and CPU seconds. ``answers_of`` has its lists."""
        place = self.folder / name
        files = {what: str(self.folder / f"{name}.{what}") for what in ("pairs", "figures", "answers.npz")}
        frame.to_csv(files["pairs"], index=False)
        job = {
            "pairs": files["pairs"],
            "figures": files["figures"],
            "answers": files["answers.npz"] if len(users) else None,
            "folder": str(place),
            "previous": str(previous) if previous else None,
            "features": features,
            "settings": dict(settings),
            "users": list(users),
            "k": k,
        }
        task = self.folder / f"{name}.job"
        task.write_text(json.dumps(job))
        command = [self.python, "-W", "ignore", str(SCRIPT), str(task)]
        done = subprocess.run(command, env={**os.environ, **QUIET}, check=False, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            msg = f"{name}: {done.stderr[-2000:]}"
            raise RuntimeError(msg)
        return place, json.loads(Path(files["figures"]).read_text())

    def answers_of(self, name: str) -> pd.DataFrame:
        """Return what a generation recommended: user, item and predicted score, best first."""
        with np.load(self.folder / f"{name}.answers.npz", allow_pickle=False) as arrays:
            return pd.DataFrame(dict(arrays))


def frame_of(pairs: Interactions) -> pd.DataFrame:
    """Return pairs as LibRecommender takes them."""
    return pd.DataFrame({"user": pairs.user_ids, "item": pairs.item_ids})


def their_chain(theirs: Theirs, parts: Sequence[Generation], *, settings: Mapping[str, Any], epochs: Sequence[int]) -> list[Side]:
    """Retrain in LibRecommender; return what is measured of it, and of its generations imported one after the other."""
    side, imported = Side("LibRecommender 1.5.2"), Side("its generations, imported")
    store = embstore.create(theirs.folder / "imported")
    previous: Path | None = None
    for number, part in enumerate(parts):
        users = sorted(set(part.old.user_ids.tolist()) | set(part.new.user_ids.tolist()))
        wanted = {**settings, "n_epochs": epochs[number]}
        name = f"generation-{number + 1}"
        previous, figures = theirs.train(name, frame_of(part.train), settings=wanted, previous=previous, users=users, k=20)
        side.n_bytes.append(folder_bytes(previous))
        side.cpu_seconds.append(sum(figures.values()))
        before = folder_bytes(Path(theirs.folder / "imported"))
        start = time.process_time()
        version = import_librecommender(store, previous, message=name, unpickle=True)
        imported.cpu_seconds.append(time.process_time() - start)
        imported.n_bytes.append(folder_bytes(theirs.folder / "imported") - (before if number else 0))
        side.evaluate(version, part)
        side.consumed_shown.append(consumed_shown(theirs.answers_of(name), parts[: number + 1]))
    return [side, imported]


def our_chains(folder: Path, parts: Sequence[Generation], *, seed: int) -> list[Side]:
    """Retrain here: BPR with its defaults, and what is most popular among all pairs so far or those of the generation alone."""
    trainers = {
        "embstore, BPR": BPR(seed=seed),
        "popularity, all so far": Popularity(),
        "popularity, newest": Popularity(decay=0.0),
    }
    return [_our_chain(folder / f"ours-{i}", parts, name, trainer) for i, (name, trainer) in enumerate(trainers.items())]


def _our_chain(folder: Path, parts: Sequence[Generation], name: str, trainer: Trainer) -> Side:
    side, store = Side(name), embstore.create(folder)
    for number, part in enumerate(parts):
        before, start = folder_bytes(folder) if number else 0, time.process_time()
        version = embstore.fit(store, trainer, part.train, message=f"generation {number + 1}")
        side.cpu_seconds.append(time.process_time() - start)
        side.n_bytes.append(folder_bytes(folder) - before)
        side.evaluate(version, part)
        users = sorted(set(part.old.user_ids.tolist()) | set(part.new.user_ids.tolist()))
        side.consumed_shown.append(consumed_shown(embstore.recommend(version, users, k=20), parts[: number + 1]))
    return side


def consumed_shown(frame: pd.DataFrame, parts: Sequence[Generation]) -> int:
    """Return how many recommended pairs somebody had had."""
    had = {pair for part in parts for pair in zip(part.train.user_ids.tolist(), part.train.item_ids.tolist(), strict=True)}
    column = "users" if "users" in frame else "user"
    return sum(pair in had for pair in zip(frame[column].tolist(), frame[column.replace("user", "item")].tolist(), strict=True))


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
