"""Measure least squares: ``python -m tools.quality_als [--data ml-100k|online-retail|both] [--seeds 3] [--scan] [--json FILE]``.

Where implicit is installed (tried with 0.7.3) it is run beside on the same pairs and settings, and judged by the same code.
"""

from __future__ import annotations

import itertools
import json
from statistics import mean, median
from typing import Any

from tools.bench.figures import Cell, Grid, Result
from tools.bench.timing import note
from tools.quality.fresh import answer, chosen_data

# The settings that ALS comes with, and those that implicit is often run with.
SETTINGS: dict[str, dict[str, Any]] = {"defaults": {}, "alpha 10, l2 .05": {"alpha": 10.0, "l2": 0.05}}
GOALS = {"ml-100k": 0.220, "online-retail": 0.165}
FOLD_IN_GOAL = {"ml-100k": 0.014}
POINTS: list[dict[str, Any]] = [
    {"alpha": a, "l2": b} for a, b in itertools.product((5.0, 10.0, 20.0), (0.05, 5.0, 10.0, 20.0, 30.0))
]
POINTS += [{"epochs": n} for n in (5, 10, 15, 20)] + [{"steps": n} for n in (1, 2, 3, 5)] + [{"dim": n} for n in (32, 64, 128)]
POINTS += [{"half_sweeps": n} for n in (0, 1, 2, 4)]


def _task(job: dict[str, Any]) -> Any:
    """Return what a fresh process with one thread answers."""
    note(f"{job['data']}: {job['task']}, seed {job['seed']}")
    return answer("tools.quality_als.worker", job=job)


def _report(data: str, name: str, runs: list[dict[str, Any]]) -> Result:
    grids = [_quality(data, runs), _seconds(data, runs)]
    share = {table: f"{runs[0]['changed'][table]} of {n_rows} {table}s" for table, n_rows in runs[0]["rows"].items()}
    return Result(f"{data}, {name}: {len(runs)} seeds; an increment changes {' and '.join(share.values())}", grids=grids)


def _quality(data: str, runs: list[dict[str, Any]]) -> Grid:
    lines: list[list[Cell]] = []
    for what in runs[0]["ours"]:
        goal = GOALS[data] if what == "new users" else None
        ours = [run["ours"][what] for run in runs]
        theirs = _spread([run["implicit"][what] for run in runs]) if "implicit" in runs[0] else ""
        lines.append([what, _spread(ours), theirs, *_verdict(mean(ours), goal, at_least=True)])
    return Grid("recall@20: mean (lowest-highest) over seeds", ["", "ALS", "implicit", "goal", ""], lines)


def _seconds(data: str, runs: list[dict[str, Any]]) -> Grid:
    lines: list[list[Cell]] = []
    for what, their_name in (("fit", "fit"), ("increment", "grow"), ("fold_in", "fold_in")):
        own, whole = ([s for run in runs for s in run[what][kind]] for kind in ("trainer_cpu_s", "cpu_s"))
        theirs = _times([run["implicit_cpu_s"][their_name] for run in runs]) if "implicit" in runs[0] else ""
        goal = FOLD_IN_GOAL.get(data) if what == "fold_in" else None
        lines.append([what, _times(own), _times(whole), theirs, *_verdict(median(own), goal, at_least=False)])
    if "implicit" in runs[0]:
        lines.append(["fit without conjugate gradients", "", "", _times([run["implicit_cpu_s"]["fit_exactly"] for run in runs])])
    title = "CPU seconds, one thread: median (lowest)"
    return Grid(
        title, ["", "the trainer alone", "with the commit", "implicit", "goal", ""], [[*line, "", ""][:6] for line in lines]
    )


def _verdict(value: float, goal: float | None, *, at_least: bool) -> list[Cell]:
    if goal is None:
        return ["", ""]
    met = value >= goal if at_least else value <= goal
    return [f"{'>=' if at_least else '<='} {goal:.3f}", "met" if met else "missed"]


def _scan_report(data: str, runs: list[list[dict[str, float]]]) -> Result:
    names = list(runs[0][0])
    lines: list[list[Cell]] = []
    for point, *found in zip(POINTS, *runs, strict=True):
        label = ", ".join(f"{key} {value:g}" for key, value in point.items())
        lines.append([label, *(f"{mean(run[name] for run in found):.3f}" for name in names)])
    return Result(
        f"{data}: settings on the inner parts", grids=[Grid("recall@20 and CPU seconds, means over seeds", ["", *names], lines)]
    )


def _spread(values: list[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def _times(values: list[float]) -> str:
    return f"{median(values):.4f} ({min(values):.4f})"


def main() -> None:
    """Measure what the command line asks for, print it in tables, and write all of it where asked to."""
    chosen = chosen_data("python -m tools.quality_als", __doc__)
    document: dict[str, Any] = {}
    for data in chosen.names:
        job = {"data": data, "folder": str(chosen.folder)}
        seeds = range(1, chosen.seeds + 1)
        if chosen.scan:
            found = {"scan": [_task({**job, "task": "scan", "points": POINTS, "seed": seed}) for seed in seeds]}
            print(f"\n{_scan_report(data, found['scan'])}\n", flush=True)
        else:
            jobs = {name: {**job, "task": "measure", "settings": settings} for name, settings in SETTINGS.items()}
            found = {name: [_task({**each, "seed": seed}) for seed in seeds] for name, each in jobs.items()}
            for name, runs in found.items():
                print(f"\n{_report(data, name, runs)}\n", flush=True)
        document[data] = found
    if chosen.json:
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
