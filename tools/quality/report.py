"""Figures of several seeds in tables, beside the goals and the peer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from statistics import mean, median
from typing import Any

from tools.bench.figures import Cell, Grid, Result
from trainers.bpr import BPR

GOALS = {
    "ml-100k": {"new": 0.205, "old": 0.170, "test1": 0.150, "fold-in": 0.205, "increment": 0.60, "fold-in CPU": 0.12},
    "online-retail": {"new": 0.130, "old": 0.110, "increment": 2.2},
}
# recall@20 of LibRecommender 1.5.2: BPR, 64 numbers, 15 epochs after rebuild_model, on the same parts.
PEER = {"ml-100k": {"new": 0.200, "old": 0.129}, "online-retail": {"new": 0.118, "old": 0.099}}
USERS = {"new": "new users", "old": "old users", "test1": "first part's test"}

Figures = dict[str, Any]


def report(data: str, runs: Sequence[Figures], popular: Figures) -> Result:
    """Return the tables of one data set: ``runs`` are what each seed gave."""
    title = f"{data}: {len(runs)} seeds"
    return Result(title, grids=[_quality(data, runs), _popularity(popular), _ablation(runs), _seconds(data, runs)])


def _quality(data: str, runs: Sequence[Figures]) -> Grid:
    goals, peer = GOALS[data], PEER[data]
    lines: list[list[Cell]] = [["first part's test, before", *_both(run["before"] for run in runs), "", "", "", _users(runs)]]
    for who, name in USERS.items():
        after = [run["after"]["kept"][who] for run in runs]
        recalls = [found["recall@20"] for found in after]
        lines.append([name, *_both(after), *_beside(recalls, goals.get(who)), _digits(peer.get(who)), after[0]["users"]])
    recalls = [run["fold_in"]["recall@20"] for run in runs]
    lines.append(["new users, folded in", _spread(recalls), "", *_beside(recalls, goals.get("fold-in")), "", _users(runs, "new")])
    columns = ["after the increment", "recall@20", "ndcg@100", "goal", "", "LibRecommender", "users"]
    return Grid("quality: mean (lowest-highest) over seeds", columns, lines)


def _users(runs: Sequence[Figures], who: str = "test1") -> Cell:
    users: int = runs[0]["after"]["kept"][who]["users"]
    return users


def _both(found: Iterable[Figures]) -> list[Cell]:
    metrics = list(found)
    return [_spread([each[name] for each in metrics]) for name in ("recall@20", "ndcg@100")]


def _beside(values: Sequence[float], goal: float | None) -> list[Cell]:
    if goal is None:
        return ["", ""]
    return [f">= {goal:.3f}", "met" if mean(values) >= goal else "missed"]


def _popularity(popular: Figures) -> Grid:
    lines: list[list[Cell]] = [[name, _digits(found["new"]), _digits(found["old"])] for name, found in popular.items()]
    return Grid("popularity, recall@20", ["counted in", "new users", "old users"], lines)


def _ablation(runs: Sequence[Figures]) -> Grid:
    lines: list[list[Cell]] = []
    for name in runs[0]["after"]:
        found = [run["after"][name] for run in runs]
        lines.append([name, *(_spread([each[who]["recall@20"] for each in found]) for who in USERS)])
    return Grid("slots and bias correction in the increment, recall@20", ["slots", *USERS.values()], lines)


def _seconds(data: str, runs: Sequence[Figures]) -> Grid:
    kinds: dict[str, tuple[str, Callable[[Figures], list[float]]]] = {
        "increment, fit with commit": ("increment", lambda run: run["increment_cpu_s"]),
        "epoch of the first part": ("epoch", lambda run: run["epoch_cpu_s"]),
        "fold-in, the trainer alone": ("fold-in CPU", lambda run: run["fold_in"]["trainer_cpu_s"]),
        "fold-in, whole with commit": ("fold-in whole", lambda run: run["fold_in"]["cpu_s"]),
    }
    lines: list[list[Cell]] = []
    for name, (goal_name, of) in kinds.items():
        seconds, goal = [second for run in runs for second in of(run)], GOALS[data].get(goal_name)
        verdict = "" if goal is None else "met" if median(seconds) <= goal else "missed"
        lines.append([name, _digits(median(seconds)), _digits(min(seconds)), "" if goal is None else f"<= {goal:.2f}", verdict])
    return Grid("CPU seconds, one thread", ["", "median", "lowest", "goal", ""], lines)


def scan_report(data: str, runs: Sequence[Sequence[Figures]]) -> Result:
    """Return a table of the settings tried, marking the defaults; the points of all ``runs`` are the same."""
    lines = [_scan_line([run[i] for run in runs]) for i in range(len(runs[0]))]
    columns = ["", "settings", *USERS.values(), "CPU s of the second part"]
    title = f"{data}: settings on the inner parts, {len(runs)} seeds"
    return Result(title, grids=[Grid("recall@20: mean (lowest-highest) over seeds", columns, lines)])


def _scan_line(points: Sequence[Figures]) -> list[Cell]:
    settings, defaults = points[0]["settings"], asdict(BPR())
    is_default = all(defaults[name] == value for name, value in settings.items())
    found: list[Cell] = [_spread([p[who] for p in points]) if who in points[0] else "" for who in USERS]
    name = ", ".join(f"{key} {value:g}" for key, value in settings.items())
    return ["*" if is_default else "", name, *found, _digits(min(p["cpu_s"] for p in points))]


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"
