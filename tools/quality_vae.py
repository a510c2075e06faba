"""Measure Mult-VAE on new users and items of MovieLens-100k: ``python -m tools.quality_vae [--seeds 3] [--inner] [--json FILE]``.

By the protocol of `tools.quality.protocol`: trained on the first stretch of time, then new users are encoded from their pairs
without training (*encoded*), and beside it the same net is trained on the second stretch with the items it brings (*retrained*).
``--inner`` takes the parts of the first stretch alone, to choose settings on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import embstore
from embstore import Interactions, Version
from tools.bench.figures import Cell, Grid, Result
from tools.bench.timing import note
from tools.quality.fresh import answer, data_folder
from tools.quality.protocol import DATA_SETS, Parts, load, load_inner
from trainers.mult_dae import MultDAE
from trainers.mult_trainer import MultTrainer
from trainers.mult_vae import MultVAE

# Chosen on the inner parts, as what is other on the second stretch.
TRAINERS: dict[str, MultTrainer] = {
    "Mult-VAE": MultVAE(epochs=40, batch_size=250, lr=3e-3, noise=0.1),
    "Mult-DAE": MultDAE(epochs=40, batch_size=250, lr=3e-3, dropout=0.6),
}
INCREMENT: dict[str, Any] = {"epochs": 20, "lr": 1e-3, "dropout": 0.3}
GOALS = {"new users, retrained": 0.21, "old users, retrained": 0.165}


def measure(parts: Parts, trainer: MultTrainer, folder: Path, *, increment: Mapping[str, Any]) -> dict[str, float]:
    """Return recall@20 of either stretch's users before and after, and CPU seconds of the increment with its commit."""
    store = embstore.create(folder / "store")
    base = embstore.fit(store, trainer, parts.train1, message="the first stretch")
    store.branch("encoded")
    encoded = embstore.fold_in(store, trainer, parts.train2, message="what they have had since", branch="encoded")
    start = time.process_time()
    grown = embstore.fit(store, replace(trainer, **increment), parts.train2, message="the second stretch")
    seconds = time.process_time() - start
    return {
        "first part's test, before": _recall(base, parts.test1),
        "new users, encoded": _recall(encoded, parts.new_users),
        "old users, encoded": _recall(encoded, parts.old_users),
        "new users, retrained": _recall(grown, parts.new_users),
        "old users, retrained": _recall(grown, parts.old_users),
        "first part's test, after": _recall(grown, parts.test1),
        "increment, CPU s": seconds,
    }


def _recall(version: Version, targets: Interactions) -> float:
    return embstore.evaluate(version, targets, metrics=("recall@20",))["recall@20"]


def _in_new_process(job: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    note(f"seed {job['seed']}")
    found: dict[str, dict[str, float]] = answer("tools.quality_vae", "--job", json.dumps(job))
    return found


def _work(job: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the figures of each trainer for one seed."""
    settings = {what: tuple(value) if isinstance(value, list) else value for what, value in job["settings"].items()}
    parts = (load_inner if job["inner"] else load)(DATA_SETS["ml-100k"], Path(job["folder"]))
    found = {}
    for name in job["trainers"]:
        trainer = replace(TRAINERS[name], seed=job["seed"], **settings)
        with tempfile.TemporaryDirectory(prefix="embstore-quality-") as folder:
            found[name] = measure(parts, trainer, Path(folder), increment=job["increment"])
    return found


def _report(runs: list[dict[str, dict[str, float]]]) -> Result:
    names = list(runs[0])
    lines: list[list[Cell]] = []
    for what in runs[0][names[0]]:
        values = [[run[name][what] for run in runs] for name in names]
        goal = GOALS.get(what)
        shown = [_spread(each) if "CPU" not in what else f"{median(each):.2f} ({min(each):.2f})" for each in values]
        verdicts = [""] if goal is None else [f">= {goal}", *("met" if mean(each) >= goal else "missed" for each in values[:1])]
        lines.append([what, *shown, *verdicts, "", ""][: len(names) + 3])  # type: ignore[arg-type]
    return Result(
        "MovieLens-100k, the newest fifth", grids=[Grid("recall@20: mean (lowest-highest)", ["", *names, "goal", ""], lines)]
    )


def _spread(values: list[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def main() -> None:
    """Measure in a fresh process for each seed, print means (lowest-highest), and write all of it where asked to."""
    parser = argparse.ArgumentParser(prog="python -m tools.quality_vae", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 1 on (default 3)")
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=list(TRAINERS), help="which (default both)")
    parser.add_argument("--settings", type=json.loads, default={}, help="other settings than those chosen, in JSON")
    parser.add_argument("--increment", type=json.loads, default=INCREMENT, help="settings on the second stretch, in JSON")
    parser.add_argument("--inner", action="store_true", help="measure on the parts of the first stretch")
    parser.add_argument("--json", type=Path, help="a file to write all figures to")
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.job:
        print(json.dumps(_work(chosen.job)))
        return
    folder = data_folder(parser)
    job = {"folder": str(folder), **{what: getattr(chosen, what) for what in ("inner", "settings", "increment", "trainers")}}
    runs = [_in_new_process({**job, "seed": seed}) for seed in range(1, chosen.seeds + 1)]
    print(_report(runs))
    if chosen.json:
        chosen.json.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
