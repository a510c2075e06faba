"""Whether an imported model is the one that was saved: scores, lists, every variable, and training that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import embstore
from embstore import Interactions, Version
from embstore.formats.librecommender import import_librecommender
from embstore.formats.librecommender_tables import ENDINGS
from embstore.registry import trainer_of
from tools.librecommender.ours import THEIR_SETTINGS, Generation, Theirs, frame_of

Line = tuple[str, object]
N_USERS, K = 100, 10
TOLERANCE = 1e-5
FM_SETTINGS = {"embed_size": 16, "n_epochs": 3, "batch_size": 2048, "seed": 42}


def same(theirs: Theirs, data: Path, parts: list[Generation]) -> Iterator[Line]:
    """Yield what was compared, a name and a figure each.

    Raises
    ------
    RuntimeError
        If anything differs that should not.
    """
    first, second = parts[0].train, parts[1].train
    users = np.unique(first.user_ids)[:: len(np.unique(first.user_ids)) // N_USERS][:N_USERS].tolist()
    settings = {**THEIR_SETTINGS, "n_epochs": 20, "seed": 42}
    saved, _ = theirs.train("bpr", frame_of(first), settings=settings, users=users, k=K)
    store = embstore.create(theirs.folder / "bpr-store")
    version = import_librecommender(store, saved, message="BPR of LibRecommender", unpickle=True)
    yield from _compare_lists(version, theirs.answers_of("bpr"), users)
    yield from _compare_variables("BPR", version, saved)
    yield from _train_on(store, version, second)
    saved, _ = theirs.train("fm", _with_features(first, data), settings=FM_SETTINGS, features=True)
    version = import_librecommender(embstore.create(theirs.folder / "fm-store"), saved, message="FM", unpickle=True)
    yield from _compare_variables("FM", version, saved)
    yield "FM: ids", ", ".join(f"{n} {entity}" for entity, n in version.entities.items())
    yield "FM: scores", version.lineage["no_trainer"]


def _compare_lists(version: Version, theirs: pd.DataFrame, users: list[int]) -> Iterator[Line]:
    scorer: Any = trainer_of(version)
    scores = scorer.scores(version, version.ids("user").rows(theirs["users"].to_numpy()))
    rows = version.ids("item").rows(theirs["items"].to_numpy())
    ours = scores[np.arange(len(rows)), rows].astype(np.float64)
    predicted = theirs["predicted"].to_numpy().astype(np.float64)
    yield "users, items shown to each", f"{len(users)}, {K}"
    yield "largest difference of predict()", _small(np.abs(1 / (1 + np.exp(-ours)) - predicted).max())
    yield "largest difference of its logit", _small(np.abs(ours - np.log(predicted / (1 - predicted))).max())
    mine = embstore.recommend(version, users, k=K)
    same_places = (mine["item"].to_numpy() == theirs["items"].to_numpy()).mean()
    yield "places of the lists that are equal", f"{same_places:.2%}"


def _small(difference: float) -> str:
    if not difference < TOLERANCE:
        msg = f"scores differ by {difference}; at most {TOLERANCE} was expected"
        raise RuntimeError(msg)
    return f"{difference:.1e}"


def _compare_variables(what: str, version: Version, saved: Path) -> Iterator[Line]:
    """Put every saved variable together from tables and arrays, and compare all bits."""
    with np.load(saved / "m_tf_variables.npz", allow_pickle=False) as arrays:
        variables = dict(arrays)
    pieces: dict[str, list[tuple[int, str]]] = {}
    for table, source in version.metadata["librecommender"]["tables"].items():
        variable, _, row = source.partition(" from row ")
        pieces.setdefault(variable, []).append((int(row or 0), table))
    rebuilt = {
        f"{n.removeprefix('librecommender/')}:0": version.dense[n] for n in version.dense if n.startswith("librecommender/")
    }
    for slot, ending in {"": "", **ENDINGS}.items():
        for variable, tables in pieces.items():
            if f"{variable}{ending}:0" in variables:
                whole = np.concatenate([_rows(version, table, slot) for _, table in sorted(tables)])
                rebuilt[f"{variable}{ending}:0"] = whole.reshape(variables[f"{variable}{ending}:0"].shape)
    wrong = [n for n, array in variables.items() if n not in rebuilt or rebuilt[n].tobytes() != array.tobytes()]
    if wrong:
        msg = f"{what}: {', '.join(wrong)} cannot be put together again"
        raise RuntimeError(msg)
    yield f"{what}: variables found again, to the bit", f"{len(variables)} of {len(variables)}"
    yield f"{what}: steps of Adam", version.lineage["adam_steps"]


def _rows(version: Version, table: str, slot: str) -> NDArray[Any]:
    rows = version.table(table).slot(slot) if slot else version.table(table)
    default = f"default.{table}.{slot}" if slot else f"default.{table}"
    return np.concatenate([rows.values(), version.dense[default][None]]) if default in version.dense else rows.values()


def _train_on(store: embstore.Store, before: Version, pairs: Interactions) -> Iterator[Line]:
    """Train the imported model here on pairs with new users and items."""
    train, held_out = pairs.split("within", 0.2)
    after = embstore.fit(store, trainer_of(before), train, message="trained here, with new users and items")
    new = {entity: after.entities[entity] - before.entities[entity] for entity in ("user", "item")}
    quiet = np.setdiff1d(before.ids("user").ids(), train.user_ids)
    kept = (after.table("user").get(quiet) == before.table("user").get(quiet)).all()
    yield "trained on here: new users, new items", f"{new['user']}, {new['item']}"
    yield "rows of users without new pairs unchanged", f"{kept} ({len(quiet)})"
    for name, version in (("before", before), ("after", after)):
        yield f"recall@20 of the next pairs {name}", f"{embstore.evaluate(version, held_out)['recall@20']:.3f}"


def _with_features(pairs: Interactions, folder: Path) -> pd.DataFrame:
    """Return pairs with what MovieLens knows of users and items; genres in three columns, as LibRecommender wants them."""
    users, items = (pd.read_csv(folder / f"ml-100k/ml-100k.{name}", sep="\t") for name in ("user", "item"))
    users.columns, items.columns = ([column.partition(":")[0] for column in frame.columns] for frame in (users, items))
    genres = items["class"].str.split(expand=True).reindex(columns=range(3)).fillna("missing")
    genres.columns = ["genre1", "genre2", "genre3"]
    frame = frame_of(pairs).merge(users.rename(columns={"user_id": "user"})[["user", "gender", "occupation", "age"]], on="user")
    return frame.merge(pd.concat([items.rename(columns={"item_id": "item"})["item"], genres], axis=1), on="item")
