"""Measure quality: ``python -m tools.quality [--data ml-100k|online-retail|both] [--seeds 3] [--scan] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tools.bench.figures import Result
from tools.bench.timing import note
from tools.quality.protocol import DATA_SETS
from tools.quality.report import report, scan_report
from trainers.bpr import BPR

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.quality", description=__doc__)
    parser.add_argument("--data", choices=[*DATA_SETS, "both"], default="both", help="which pairs (default both)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 1 on (default 3)")
    parser.add_argument("--scan", action="store_true", help="try the grid of settings on the inner parts instead")
    parser.add_argument("--json", type=Path, help="a file to write all figures to")
    found = parser.parse_args()
    if found.seeds < 1:
        parser.error(f"--seeds {found.seeds}: give a whole number from 1")
    folder = Path(os.environ.get("EMBSTORE_DATA", "."))
    names = DATA_SETS if found.data == "both" else [found.data]
    missing = [DATA_SETS[name].file for name in names if not (folder / DATA_SETS[name].file).is_file()]
    if missing:
        parser.error(f"no {', '.join(missing)} in {folder}: set EMBSTORE_DATA to the folder with the data sets")
    found.folder, found.names = folder, list(names)
    return found


def _task(task: str, data: str, folder: Path, *, seed: int) -> Any:
    """Return what a fresh process with one thread answers."""
    note(f"{data}: {task}, seed {seed}")
    job = json.dumps({"task": task, "data": data, "folder": str(folder), "seed": seed})
    command = [sys.executable, "-m", "tools.quality.worker"]
    done = subprocess.run(command, input=job, env={**os.environ, **ONE_THREAD}, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def _measured(data: str, folder: Path, seeds: range) -> tuple[Result, dict[str, Any]]:
    popular = _task("popularity", data, folder, seed=0)
    runs = [_task("measure", data, folder, seed=seed) for seed in seeds]
    return report(data, runs, popular), {"popularity": popular, "runs": runs}


def _scanned(data: str, folder: Path, seeds: range) -> tuple[Result, dict[str, Any]]:
    runs = [_task("scan", data, folder, seed=seed) for seed in seeds]
    return scan_report(data, runs), {"scan": runs}


def main() -> None:
    """Measure what the command line asks for, print it in tables, and write all of it where asked to."""
    chosen = _arguments()
    machine = {"python": platform.python_version(), **{name: version(name) for name in ("numpy", "scipy", "icechunk")}}
    document: dict[str, Any] = {"machine": machine, "settings": asdict(BPR()), "data": {}}
    for data in chosen.names:
        run = _scanned if chosen.scan else _measured
        result, figures = run(data, chosen.folder, range(1, chosen.seeds + 1))
        document["data"][data] = figures | result.to_dict()
        print(f"\n{result}\n", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
