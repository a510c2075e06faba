"""A half, a quarter and a quarter of some pairs with features: each trained in a process of its own, or all in one."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import embstore
from embstore import Checkout, Interactions, Store, View
from embstore.training import stage_pairs
from tests.featured import features_of

ROOT = Path(__file__).resolve().parents[1]
SHARES = (0, 1 / 2, 3 / 4, 1)
MADE = "made"  # the source of pairs that are made here; any other names the folder of real data
COLUMNS = {"user_sparse": ("gender", "zip"), "item_multi": (("genres", 6),)}
LATER_COLUMNS = {**COLUMNS, "user_sparse": ("gender", "zip", "occupation"), "user_dense": ("age",)}
Settings = dict[str, Any]


def generations(source: str) -> list[Interactions]:
    """Return three parts in the order of time, each with the features of its own users and items."""
    pairs, users, items = _made() if source == MADE else _movielens(Path(source))
    bounds = [int(share * len(pairs)) for share in SHARES]
    parts = [pairs.take(slice(*bounds[i : i + 2])) for i in range(3)]
    return [
        replace(
            part,
            user_features=users[users["user"].isin(part.user_ids)],
            item_features=items[items["item"].isin(part.item_ids)],
        )
        for part in parts
    ]


def _made() -> tuple[Interactions, pd.DataFrame, pd.DataFrame]:
    """Return 320 pairs: users, items, zips and genres come in as time goes on, some users have no gender."""
    random, n = np.random.default_rng(5), 320
    newest = 6 + np.arange(n) // 10
    users, items = random.integers(0, newest), random.integers(0, newest)
    pairs = Interactions(users, [f"item {i:02}" for i in items], times=np.arange(n))
    numbers = np.arange(40)
    genres = [[f"genre {g}" for g in random.permutation(2 + i // 4)[: 1 + i % 3]] for i in numbers]
    people = {
        "user": numbers,
        "gender": np.array([None, "F", "M"])[numbers % 3],
        "zip": 9000 + numbers // 3,
        "age": 20.0 + numbers,
    }
    user_frame = pd.DataFrame(people | {"occupation": [f"job {i % 4}" for i in numbers]})
    return pairs, user_frame, pd.DataFrame({"item": [f"item {i:02}" for i in numbers], "genres": genres})


def _movielens(folder: Path) -> tuple[Interactions, pd.DataFrame, pd.DataFrame]:
    """Return MovieLens-100k with the columns of its users and the genres of its films."""
    pairs = Interactions.from_inter(folder / "ml-100k.inter").ordered()
    users, items = (pd.read_csv(folder / f"ml-100k.{name}", sep="\t") for name in ("user", "item"))
    for frame in (users, items):
        frame.columns = [name.partition(":")[0].removesuffix("_id").removesuffix("_code") for name in frame.columns]
    return pairs, users, pd.DataFrame({"item": items["item"], "genres": items["class"].str.split()})


def train_in_processes(url: Path, kind: type, settings: list[Settings], source: str) -> Store:
    """Fit each generation in a process of its own; return the store."""
    embstore.create(url, durability="none")
    for number, setting in enumerate(settings):
        job = {"url": str(url), "module": kind.__module__, "class": kind.__name__, "settings": setting, "source": source}
        done = subprocess.run(
            [sys.executable, "-c", "from tests.three_generations import train_in_this_process as t; t()"],
            input=json.dumps(job | {"number": number}),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return embstore.open(url)


def train_in_this_process() -> None:
    """Do what ``train_in_processes`` asks of one of its processes, told in JSON."""
    job = json.load(sys.stdin)
    trainer = _made_of(getattr(importlib.import_module(job["module"]), job["class"]), job["settings"])
    pairs = generations(job["source"])[job["number"]]
    embstore.fit(embstore.open(job["url"]), trainer, pairs, message=f"generation {job['number'] + 1}")


def _made_of(kind: Any, settings: Settings) -> Any:
    return kind(**{name: _as_tuple(value) for name, value in settings.items()})


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def train_in_one(kind: Any, settings: list[Settings], source: str) -> Checkout:
    """Train the generations one after the other on one checkout in memory, of which nothing is ever committed."""
    work = embstore.create(f"memory://one-{os.urandom(8).hex()}").checkout()
    for setting, part in zip(settings, generations(source), strict=True):
        trainer = kind(**setting)
        batch = stage_pairs(work, trainer, part.ordered())
        assert len(list(trainer.train(work, batch))) == trainer.epochs
    return work


def check_three_generations(url: Path, kind: type, settings: list[Settings], source: str) -> Store:
    """Train both ways, compare and return the store; later generations bring new users, items and zips, the last a new column."""
    store = train_in_processes(url, kind, settings, source)
    expected = state_by_id(train_in_one(kind, settings, source))
    actual = state_by_id(store.at())
    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        assert actual[name] == value, name
    for base, target in (("main~2", "main~1"), ("main~1", "main")):
        ids = store.diff(base, target).ids
        assert [entity for entity in ("user", "item", "zip") if not len(ids[entity].appended)] == []
    assert "user.age" not in store.at("main~1").tables
    assert store.verify(deep=True).problems == []
    return store


def state_by_id(view: View) -> dict[str, Any]:
    """Return ids in row order, and by id: the bits of values and slots, categories, consumed items; and the arrays."""
    state: dict[str, Any] = {f"ids of {entity}": view.ids(entity).ids().tolist() for entity in view.entities}
    state["consumed"] = dict(zip(state["ids of user"], map(list, view.consumed.of("user", state["ids of user"])), strict=True))
    state |= {f"dense {name}": (view.dense[name].dtype, view.dense[name].tobytes()) for name in view.dense}
    for name, spec in view.tables.items():
        ids, table = view.ids(spec.entity).ids(), view.table(name)
        if spec.rows_of:
            state[name] = features_of(view, spec)
            continue
        for column, rows in {"": table, **table.slots}.items():
            state[f"{name} {column}"] = {id_: row.tobytes() for id_, row in zip(ids.tolist(), rows.get(ids), strict=True)}
    return state
