"""Measure what a merge does to quality: ``python -m tools.merging [--data DIR] [--seeds 3] [--json FILE]``.

One version is trained on all months of MovieLens-100k before a month. Two jobs go on from it, each with half of the month's
pairs, and are merged row by row; beside them stand the version they began with, one job with both halves, and one job with
one half after the other. Every user's last fifth of the month is held out. So that all are asked the same, each version knows
all ids of the month and what everybody has had before it is evaluated: only vectors differ. As a half knows nothing of users
who came in the other, each half is also measured on the users it trained, beside what the merge makes of these.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

import embstore
from embstore import Interactions, Store, Version
from embstore.demo import months
from tools.bench.figures import Cell, Grid, Result
from tools.bench.timing import note
from trainers.bpr import BPR

FILE = "ml-100k/ml-100k.inter"
MONTHS = ("1997-11", "1997-12", "1998-01", "1998-02", "1998-03")
HELD_OUT_SHARE = 0.2
METRICS = ("recall@20", "ndcg@100")
BASE, FIRST, SECOND, MEAN, OURS, BOTH, AFTER = "before", "first half", "second half", "mean", "ours", "both halves", "one by one"
KINDS = {BASE: "before the month", MEAN: "both, merged: mean", OURS: "both, merged: ours", BOTH: "one job, both halves"}
KINDS |= {AFTER: "one job, one half after the other"}
OWN = {
    f"{FIRST}, users of the {FIRST}": "first half, its own users",
    f"{MEAN}, users of the {FIRST}": "  merged: mean, the same users",
    f"{SECOND}, users of the {SECOND}": "second half, its own users",
    f"{MEAN}, users of the {SECOND}": "  merged: mean, the same users ",
}
POLICIES = {MEAN: {"rows": "mean", "dense": "ours"}, OURS: {"rows": "ours", "dense": "ours"}}

Figures = dict[str, dict[str, float]]


def halves(pairs: Interactions, by: str) -> tuple[Interactions, Interactions]:
    """Return two halves: ``by`` time (the earlier and the later pairs) or by user (every other user who came)."""
    if by == "time":
        return pairs.split("time", 0.5)
    users = np.unique(pairs.user_ids)
    is_first = np.isin(pairs.user_ids, users[::2])
    return pairs.take(is_first), pairs.take(~is_first)


def measure(before: Interactions, month: Interactions, folder: Path, *, by: str, seed: int) -> Figures:
    """Return the metrics of every version of one month, with one seed; the store is made in ``folder``."""
    trainer = BPR(seed=seed)
    train, test = month.split("within", HELD_OUT_SHARE)
    parts = dict(zip((FIRST, SECOND), halves(train, by), strict=True))
    store = embstore.create(folder / f"{by}-{seed}", durability="none")
    base = embstore.fit(store, trainer, before, message="the months before")
    for name in (BASE, FIRST, SECOND, MEAN, OURS, BOTH, AFTER):
        store.branch(_branch(name), at=base.id)
    for name, pairs in {**parts, BOTH: train}.items():
        embstore.fit(store, trainer, pairs, message=name, branch=_branch(name))
    for part in parts.values():
        embstore.fit(store, trainer, part, message="one half after the other", branch=_branch(AFTER))
    for name, policy in POLICIES.items():
        store.branch(_branch(name), at=_branch(FIRST), move=True)
        store.merge(_branch(SECOND), into=_branch(name), on_conflict=policy)
    names = (BASE, FIRST, SECOND, MEAN, OURS, BOTH, AFTER)
    versions = {name: _levelled(store, _branch(name), train) for name in names}
    found = {name: _metrics(version, trainer, test) for name, version in versions.items()}
    for half, part in parts.items():
        own = test.take(np.isin(test.user_ids, part.user_ids))
        found |= {f"{name}, users of the {half}": _metrics(versions[name], trainer, own) for name in (half, MEAN)}
    return found


def _branch(name: str) -> str:
    return name.replace(" ", "-")


def _levelled(store: Store, branch: str, train: Interactions) -> Version:
    """Return a version with the branch's vectors that has all ids and records of the month, whoever trained on them."""
    with store.checkout(branch) as work:
        work.append("user", np.unique(train.user_ids))
        work.append("item", np.unique(train.item_ids))
        batch = train.ordered().to_batch(work)
        work.consumed.append(batch.users, batch.items, times=batch.times)
        return work.commit("the month's ids and records")


def _metrics(version: Version, trainer: BPR, test: Interactions) -> dict[str, float]:
    found = embstore.evaluate(version, test, trainer=trainer, metrics=METRICS)
    return {name: found[name] for name in (*METRICS, "users")}


def report(by: str, runs: Mapping[str, list[Figures]]) -> Result:
    """Return a table of one kind of halves: ``runs`` are months with what each seed gave."""
    grids = []
    for metric in METRICS:
        means = {month: {name: mean(run[name][metric] for run in seeds) for name in seeds[0]} for month, seeds in runs.items()}
        found = {month: figures | {"better half": max(figures[FIRST], figures[SECOND])} for month, figures in means.items()}
        lines: list[list[Cell]] = []
        for name, says in {FIRST: FIRST, SECOND: SECOND, "better half": "the better half", **KINDS, **OWN}.items():
            each = [figures[name] for figures in found.values()]
            lines.append([says, *(f"{value:.3f}" for value in each), f"{mean(each):.3f}"])
        all_runs = [run for seeds in runs.values() for run in seeds]
        kept = sum(run[MEAN][metric] >= max(run[FIRST][metric], run[SECOND][metric]) for run in all_runs)
        title = f"{metric}, means of {len(all_runs) // len(runs)} seeds; mean at least as good as the better half"
        grids.append(Grid(f"{title} in {kept} of {len(all_runs)} runs", ["", *found, "mean"], lines))
    return Result(f"halves by {by}", grids=grids)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.merging", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("EMBSTORE_DATA"), help="folder with the data sets")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 1 on (default 3)")
    parser.add_argument("--month", nargs="+", choices=MONTHS, default=list(MONTHS), help="which months (default all)")
    parser.add_argument("--json", type=Path, help="a file to write all figures to")
    found = parser.parse_args()
    if found.data is None or not (found.data / FILE).is_file():
        parser.error(f"no {FILE}: give --data, or set EMBSTORE_DATA to the folder with the data sets")
    return found


def main() -> None:
    """Measure what the command line asks for, print it in tables, and write all of it where asked to."""
    chosen = _arguments()
    pairs = Interactions.from_file(chosen.data / FILE)
    named = dict(months(pairs))
    document: dict[str, Any] = {}
    for by in ("time", "user"):
        runs: dict[str, list[Figures]] = {}
        for month in chosen.month:
            first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).timestamp()
            before = pairs.take(np.asarray(pairs.times) < first)
            note(f"{month}, halves by {by}: {len(before)} pairs before, {len(named[month])} in it")
            with tempfile.TemporaryDirectory(prefix="embstore-merging-") as folder:
                runs[month] = [
                    measure(before, named[month], Path(folder), by=by, seed=seed) for seed in range(1, chosen.seeds + 1)
                ]
        result = report(by, runs)
        document[by] = runs
        print(f"\n{result}\n", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
