"""Measure on random splits of MovieLens-100k: ``python -m tools.quality_random [--recbole PYTHON] [--models …] [--json FILE]``.

Three splits; of every user's pairs a random tenth is the test, another one is for choosing settings, and the rest is trained
on. With an interpreter that has RecBole 1.2.1 (``--recbole`` or EMBSTORE_RECBOLE) it is run in turn on the same files; without
one only what is here is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, median
from typing import Any

from embstore import Interactions
from tools.bench.figures import Cell, Grid, Result
from tools.bench.timing import note
from tools.quality.protocol import DATA_SETS
from tools.quality_deepfm import random_parts
from tools.quality_random import recbole_peer
from tools.quality_random.ours import METRICS, SETTINGS
from tools.quality_random.splits import write

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
FIRST_SPLIT, N_SPLITS = 2020, 3
LARGEST_GAP = 0.005
MOST_MB = 320.0
THEIRS = {"BPR": "BPR", "MultVAE": "MultiVAE", "MultDAE": "MultiDAE"}
Runs = dict[str, list[dict[str, Any]]]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.quality_random", description=__doc__)
    parser.add_argument("--recbole", default=os.environ.get("EMBSTORE_RECBOLE"), help="a Python that has RecBole 1.2.1")
    parser.add_argument("--models", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="which (default all)")
    parser.add_argument("--settings", type=json.loads, default={}, help="other settings of the trainers here, in JSON")
    parser.add_argument("--json", type=Path, help="a file to write all figures to")
    found = parser.parse_args()
    found.file = Path(os.environ.get("EMBSTORE_DATA", ".")) / DATA_SETS["ml-100k"].file
    if not found.file.is_file():
        parser.error(f"no {found.file.name}: set EMBSTORE_DATA to the folder with the data sets")
    return found


def _answer(command: list[str], job: dict[str, Any]) -> dict[str, Any]:
    """Return what a fresh process with one thread answers to a job."""
    note(f"{Path(command[-1]).stem}: {job['model']}, split {job['seed']}")
    environment = {**os.environ, **ONE_THREAD}
    done = subprocess.run(command, input=json.dumps(job), env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _runs(chosen: argparse.Namespace, folders: dict[int, Path]) -> Runs:
    """Return the answers of all, in turn, so that both meet the same machine."""
    ours, runs = [sys.executable, "-m", "tools.quality_random.ours"], {}
    for model in chosen.models:
        for seed, folder in folders.items():
            job = {"folder": str(folder), "seed": seed}
            mine = _answer(ours, {**job, "model": model, "settings": chosen.settings})
            runs.setdefault(model, []).append(mine)
            _write(chosen.json, runs)
            if chosen.recbole:
                command = [chosen.recbole, recbole_peer.__file__]
                runs.setdefault(f"RecBole {model}", []).append(_answer(command, {**job, "model": THEIRS[model]}))
                _write(chosen.json, runs)
    return runs


def _write(file: Path | None, runs: Runs) -> None:
    """Write what there is so far: all of it takes long."""
    if file:
        file.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def _report(runs: Runs) -> Result:
    columns = ["", *(f"test {name}" for name in METRICS), "valid recall@20", "valid ndcg@100", "CPU s an epoch", "peak MB"]
    grids = [Grid("means of the splits; CPU seconds: median (lowest)", columns, [_line(*each) for each in runs.items()])]
    verdicts = [_verdict(name, runs[name], runs[f"RecBole {name}"]) for name in runs if f"RecBole {name}" in runs]
    if verdicts:
        columns = ["", *(f"{name} beside RecBole" for name in METRICS), "CPU s an epoch", "peak MB"]
        grids.append(Grid(f"not more than {LARGEST_GAP} below RecBole, not slower, at most {MOST_MB:.0f} MB", columns, verdicts))
    return Result("MovieLens-100k, random splits", grids=grids)


def _line(name: str, found: list[dict[str, Any]]) -> list[Cell]:
    test = [f"{mean(run['test'][m] for run in found):.4f}" for m in METRICS]
    valid = [f"{mean(run['valid'][m] for run in found):.4f}" if "valid" in run else "" for m in METRICS for run in found[:1]]
    seconds = [s for run in found for s in run["epoch_cpu_s"]]
    return [name, *test, *valid, f"{median(seconds):.3f} ({min(seconds):.3f})", f"{max(run['peak_mb'] for run in found):.0f}"]


def _verdict(name: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[Cell]:
    gaps = [mean(run["test"][m] for run in ours) - mean(run["test"][m] for run in theirs) for m in METRICS]
    mine, other = (median(s for run in found for s in run["epoch_cpu_s"]) for found in (ours, theirs))
    peak = max(run["peak_mb"] for run in ours)
    cells: list[Cell] = [f"{gap:+.4f} {_met(gap >= -LARGEST_GAP)}" for gap in gaps]
    return [name, *cells, f"{mine:.3f} / {other:.3f} {_met(mine <= other)}", f"{peak:.0f} {_met(peak <= MOST_MB)}"]


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"


def main() -> None:
    """Measure what the command line asks for, print it in tables, and write all of it where asked to."""
    chosen = _arguments()
    if not chosen.recbole:
        note("no --recbole, no EMBSTORE_RECBOLE: RecBole is not run beside")
    pairs = Interactions.from_file(chosen.file)
    with tempfile.TemporaryDirectory(prefix="embstore-splits-") as folder:
        folders = {seed: Path(folder) / str(seed) for seed in range(FIRST_SPLIT, FIRST_SPLIT + N_SPLITS)}
        for seed, place in folders.items():
            write(place, random_parts(pairs, seed=seed))
        runs = _runs(chosen, folders)
    print(_report(runs))


if __name__ == "__main__":
    main()
