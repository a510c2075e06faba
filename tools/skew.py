"""Measure skew, tuning and quality of retrained users: python -m tools.skew [--data DIR] [--model NAME …] [--no-grid].

For each factor model, on the parts of MovieLens-100k of `tools.quality.protocol`: users as training left them against users as
``fold_in`` serves them, before and after they were retrained; beside it the way of the Julia system, whose Adam has one step
count and momentum in every row, so that serving replays the updates with a gradient of zero in which a user had no part; the
learning rate and L2 that were found against a grid of 25; and what retraining does to quality.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import embstore
from embstore import Interactions, Store, Version
from tools.quality.protocol import DATA_SETS, Parts, load
from trainers.bpr import BPR
from trainers.factor_losses import LOSSES
from trainers.factors import Biases, MatrixFactorization
from trainers.held_out import SHARE
from trainers.pairs import Pairs
from trainers.retrained import Retrained
from trainers.sampling import shuffled_batches

F64 = NDArray[np.float64]
MODELS: dict[str, Any] = {
    "softmax": MatrixFactorization(),
    "squared": MatrixFactorization(loss="squared", l2=0.3),
    "biases": Biases(),
    "bpr": BPR(),
}
_BETAS, _EPS = (0.9, 0.999), 1e-8
_REPLAY_BATCH = 64


def main() -> None:
    """Measure what the command line asks for, and print it."""
    parser = argparse.ArgumentParser(prog="python -m tools.skew", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("EMBSTORE_DATA"), help="folder with the data sets")
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS), help="which models (default all)")
    parser.add_argument("--no-grid", action="store_true", help="leave out the grid, which takes longest")
    chosen = parser.parse_args()
    if chosen.data is None:
        parser.error("give --data, or set EMBSTORE_DATA to the folder with the data sets")
    if not (chosen.data / "ml-100k").is_dir():
        parser.error(f"--data {chosen.data}: no folder with ml-100k in it")
    parts = load(DATA_SETS["ml-100k"], chosen.data)
    for name in chosen.model:
        print(f"\n{name}", flush=True)
        measure(MODELS[name], parts, with_grid=not chosen.no_grid)


def measure(base: Any, parts: Parts, *, with_grid: bool) -> None:
    """Print all figures of one model."""
    store = _trained(base, parts.train1)
    tuned = _retrain(store, Retrained(base.name, _settings(base)), parts.train1)
    _say("found", tuned.version.lineage["metrics"], tuned.cpu)
    _print_skew(store, base, tuned, parts.train1)
    if base == MODELS["softmax"]:
        _say("one step count for all", shared_step(tuned.version))
    _print_quality(store, base, tuned, parts)
    if with_grid:
        _print_tuning(base, parts.train1)


def _print_skew(store: Store, base: Any, tuned: Tuned, pairs: Interactions) -> None:
    given = pairs if getattr(base, "learns_ratings", False) else None
    _say("skew before", embstore.skew(store.at(), interactions=given, sample=None).largest)
    n_users = len(set(pairs.user_ids.tolist()))
    for sample in (1, n_users // 2, None):
        found = embstore.skew(tuned.version, interactions=given, sample=sample)
        _say(f"skew after, {found.n_ids} users", found.largest)


def _print_quality(store: Store, base: Any, tuned: Tuned, parts: Parts) -> None:
    """Also of what is found where the items have not seen the pairs that are held out, and then kept."""
    early, _ = parts.train1.split("within", SHARE)
    found = _retrain(_trained(base, early), Retrained(base.name, _settings(base)), parts.train1).version.lineage["metrics"]
    _say("found on unseen pairs", found)
    fixed = replace(base, fold_lr=found["lr"], fold_l2=found["l2"], fold_steps=int(found["epochs"]))
    kept = _retrain(store, Retrained(base.name, _settings(fixed), method="none", patience=None), parts.train1)
    rows = {"before": (base, store.at()), "after": (tuned.trainer, tuned.version), "after, unseen": (kept.trainer, kept.version)}
    for what, (trainer, at) in rows.items():
        branch = _branched(store, at)
        newcomers = embstore.fold_in(store, trainer, parts.newcomers, message="newcomers", branch=branch)
        figures = {"users of the first part": quality(at, trainer, parts.test1)}
        _say(f"{what} ({_metric(base)})", figures | {"users folded in": quality(newcomers, trainer, parts.new_users)})


def _print_tuning(base: Any, pairs: Interactions) -> None:
    """Of every fourth user, for the grid takes long."""
    pairs = pairs.take(np.flatnonzero(pairs.user_ids % 4 == 0))
    store, losses = _trained(base, pairs), []
    for lr, l2 in itertools.product(10 ** np.linspace(-1, 1, 5), repeat=2):
        point = replace(base, fold_lr=base.fold_lr * lr, fold_l2=base.fold_l2 * l2)
        grid = _retrain(store, Retrained(base.name, _settings(point), method="none"), pairs)
        losses.append(grid.version.lineage["metrics"]["held_out_loss"])
    _say("held-out loss, best of a grid of 25", min(losses))
    for method in ("nelder-mead", "cobyla"):
        found = _retrain(store, Retrained(base.name, _settings(base), method=method, share=1.0), pairs)
        metrics = found.version.lineage["metrics"]
        _say(f"{method}, {metrics['evaluations']:.0f} evaluations", metrics["held_out_loss"], found.cpu)


@dataclass(frozen=True)
class Tuned:
    """A trainer, what it came to, and how many CPU seconds that took."""

    trainer: Retrained
    version: Version
    cpu: float


def _trained(base: Any, pairs: Interactions) -> Store:
    store = embstore.create(f"memory://{uuid.uuid4().hex}")
    embstore.fit(store, base, pairs, message="the first part")
    return store


def _branched(store: Store, version: Version) -> str:
    name = f"b-{uuid.uuid4().hex[:12]}"
    store.branch(name, at=version.id)
    return name


def _retrain(store: Store, trainer: Retrained, pairs: Interactions) -> Tuned:
    branch, start = _branched(store, store.at()), time.process_time()
    version = embstore.fit(store, trainer, pairs, message="again", branch=branch, consumed="replace")
    return Tuned(trainer, version, time.process_time() - start)


def _settings(base: Any) -> str:
    return json.dumps(asdict(base))


def _metric(base: Any) -> str:
    return "RMSE" if getattr(base, "learns_ratings", False) else "recall@20"


def quality(version: Version, trainer: Any, targets: Interactions) -> float:
    """Return recall@20 of a ranking, or the root of the mean squared error of ratings, kept within 1 to 5."""
    base = trainer.model if isinstance(trainer, Retrained) else trainer
    if not getattr(base, "learns_ratings", False):
        return embstore.evaluate(version, targets, trainer=trainer)["recall@20"]
    assert targets.ratings is not None
    users = version.ids("user").rows(targets.user_ids, missing=-1)
    items = version.ids("item").rows(targets.item_ids, missing=-1)
    known = (users >= 0) & (items >= 0)
    rows, places = np.unique(users[known], return_inverse=True)
    found = np.clip(trainer.scores(version, rows)[places, items[known]], 1, 5)
    return float(np.sqrt(((found - targets.ratings[known]) ** 2).mean()))


@dataclass
class SharedStep:
    """Adam as it is usually written: one step count, and momentum moves every row at every step."""

    values: F64
    lr: float
    steps: int = 0

    def __post_init__(self) -> None:
        self.first, self.second = np.zeros_like(self.values), np.zeros_like(self.values)

    def step(self, gradient: F64) -> None:
        """Take one step on all rows."""
        self.steps += 1
        self.first += (1 - _BETAS[0]) * (gradient - self.first)
        self.second += (1 - _BETAS[1]) * (gradient * gradient - self.second)
        root = np.sqrt(self.second / (1 - _BETAS[1] ** self.steps)) + _EPS
        self.values -= self.lr / (1 - _BETAS[0] ** self.steps) * self.first / root


def shared_step(version: Version) -> dict[str, float]:
    """Return how far users served alone are from users trained together where Adam has one step count.

    Items, losses, learning rate, L2 and epochs are those of ``version``; users are trained in batches of 64, in another order in
    each epoch. Served alone a user takes one step in an epoch, and with the replay as many with a gradient of zero as there are
    other batches.
    """
    items, bias = (version.table(name).values().astype(np.float64) for name in ("item", "item_bias"))
    lr, l2, epochs = (version.dense[f"retrained.user.{what}"].item() for what in ("lr", "l2", "epochs"))
    csr = version.consumed.to_csr()
    pairs = Pairs(csr.indptr.astype(np.int64), csr.indices.astype(np.int64), np.ones(csr.nnz), np.ones(csr.nnz))
    start = version.table("user").initial(version.ids("user").ids()).astype(np.float64)
    n_users, counts = len(start), np.diff(pairs.ends)

    def gradient(values: F64, at: NDArray[np.int64]) -> F64:
        found = np.zeros_like(values)
        slopes = LOSSES["softmax"].function(values[at], items, bias, pairs.take(at))[1]
        found[at] = slopes @ items + l2 * counts[at, None] * values[at]
        return found

    together = SharedStep(start.copy(), lr)
    for epoch in range(epochs):
        for at in shuffled_batches(n_users, batch_size=_REPLAY_BATCH, seed=0, epoch=epoch):
            together.step(gradient(together.values, at))
    figures = {}
    n_batches = -(-n_users // _REPLAY_BATCH)
    for what, n_replayed in (("with replay", n_batches - 1), ("without", 0)):
        alone = SharedStep(start.copy(), lr)  # rows do not mix where all have the same steps, so this is each by itself
        for _ in range(epochs):
            alone.step(gradient(alone.values, np.arange(n_users)))
            for _ in range(n_replayed):
                alone.step(np.zeros_like(start))
        apart = np.abs(alone.values - together.values)
        scores = np.abs((alone.values - together.values) @ items.T)
        figures |= {f"{what}: vectors": float(apart.max()), f"{what}: scores": float(scores.max())}
        figures |= {f"{what}: scores, mean": float(scores.mean())}
    return figures


def _say(what: str, figure: Any, cpu: float | None = None) -> None:
    shown = {name: float(f"{value:.4g}") for name, value in figure.items()} if isinstance(figure, dict) else f"{figure:.6g}"
    print(f"  {what}: {shown}" + (f"  ({cpu:.1f} CPU s)" if cpu is not None else ""), flush=True)


if __name__ == "__main__":
    main()
