"""Measure quality: ``python -m tools.quality [--data ml-100k|online-retail|both] [--seeds 3] [--scan] [--json FILE]``."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tools.bench.figures import Result
from tools.bench.timing import note
from tools.quality.fresh import answer, chosen_data
from tools.quality.report import report, scan_report
from trainers.bpr import BPR


def _task(task: str, data: str, folder: Path, *, seed: int) -> Any:
    """Return what a fresh process with one thread answers."""
    note(f"{data}: {task}, seed {seed}")
    return answer("tools.quality.worker", job={"task": task, "data": data, "folder": str(folder), "seed": seed})


def _measured(data: str, folder: Path, seeds: range) -> tuple[Result, dict[str, Any]]:
    popular = _task("popularity", data, folder, seed=0)
    runs = [_task("measure", data, folder, seed=seed) for seed in seeds]
    return report(data, runs, popular), {"popularity": popular, "runs": runs}


def _scanned(data: str, folder: Path, seeds: range) -> tuple[Result, dict[str, Any]]:
    runs = [_task("scan", data, folder, seed=seed) for seed in seeds]
    return scan_report(data, runs), {"scan": runs}


def main() -> None:
    """Measure what the command line asks for, print it in tables, and write all of it where asked to."""
    chosen = chosen_data("python -m tools.quality", __doc__)
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
