"""Models that LibRecommender 1.5 has saved, as versions.

Tables of users and items are called as our trainers call theirs; a column of features is a table of its own, and its categories'
vectors are one more, see `librecommender_columns`. Arrays that are no rows of anything are dense under ``librecommender/``;
hyper-parameters and the name mapping are in the version's metadata.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.checkout import Checkout
from embstore.consumed import ITEM, USER
from embstore.epochs import differ
from embstore.errors import ConflictError, InvalidInputError
from embstore.formats.librecommender_columns import add_columns, add_numbers, as_ids
from embstore.formats.librecommender_files import Saved, read_saved
from embstore.formats.librecommender_tables import (
    DENSE,
    ENDINGS,
    TABLES,
    Builder,
    Contents,
    Part,
    adam_steps,
    has_rows,
    seed_of,
    with_state,
)
from embstore.lineage import check_message
from embstore.store import Store
from embstore.tables import StagedSlot, StagedTable
from embstore.version import Version

Rows = NDArray[np.int64]
_TRAINER = "bpr"
_TRAINER_TABLES = {"user", "item", "item_bias"}
# Settings of their BPR that ours has too. Only it has a setting use_tf.
_SETTINGS = {"n_epochs": "epochs", "num_neg": "negatives", "batch_size": "batch_size"}


def import_librecommender(
    store: Store, path: str | os.PathLike[str], *, message: str, branch: str = "main", unpickle: bool = False
) -> Version:
    """Commit a model that LibRecommender 1.5 has saved: ids, vectors, optimizer state, features, and what users have had.

    A model's ids keep the order of its rows. Ids that the branch has already keep their rows, and get the model's values and
    record: the models of a chain of retrainings become versions one after the other.

    Adam's moments become slots ``exp_avg`` and ``exp_avg_sq``, its powers of beta the ``step`` of every row. The lineage names
    the trainer ``bpr`` where it gives the model's scores, for BPR and for all models of which only final vectors were saved;
    else it says why there is none.

    Parameters
    ----------
    store
        Any store; best a new one.
    path
        The folder, with the files of ``DataInfo.save`` and of ``save(manual=True)`` or ``save(inference_only=True)`` of one
        model; or ``folder/model_name``.
    message
        What this version is.
    branch
        To commit to.
    unpickle
        Read pickled parts too: what users have had, and ids and categories that are text. They are read as plain data by
        another process, see `embstore.formats.restricted`. Otherwise nobody has had anything, and the lineage says so.

    Raises
    ------
    InvalidInputError
        For files that are missing, damaged, contradict each other or are of another kind, and for pickled ids without
        ``unpickle``.
    SchemaMismatchError
        If the store has a table of the same name with another dim.
    IdTypeError
        If its ids are of another type.
    NonFiniteError
        For NaN or infinity among the model's numbers.
    ConflictError
        If the branch moves meanwhile; nothing is written.
    """
    check_message(message)
    saved = read_saved(Path(path), unpickle=unpickle)
    contents = contents_of(saved)
    with store.checkout(branch) as work:
        rows = _stage(work, contents)
        n_pairs = _stage_consumed(work, saved, rows)
        if saved.default_recs is not None:
            work.dense[f"{DENSE}/default_recs"] = _rows_at(rows[ITEM], saved.default_recs, "default_recs")
        work.lineage = _lineage(saved, contents, n_pairs)
        try:
            return work.commit(message, metadata=_metadata(saved, contents), allow_empty=True)
        except ConflictError as error:
            msg = f"branch {branch!r} has moved while model {saved.model!r} was imported; nothing is written, import it again"
            raise ConflictError(msg) from error


def contents_of(saved: Saved) -> Contents:
    """Return a saved model as entities, tables and arrays; what is neither number nor id is added to ``saved.left_out``.

    Raises
    ------
    InvalidInputError
        For arrays that contradict each other.
    """
    info, variables = dict(saved.info), with_state(saved)
    ids = {USER: as_ids(info.pop("user_unique_vals")), ITEM: as_ids(info.pop("item_unique_vals"))}
    contents = Contents(ids, steps=adam_steps(saved.variables))
    builder = Builder(contents, saved.settings.get("seed"))
    for name in [name for name in TABLES if name in variables]:
        entity, table = TABLES[name]
        if has_rows(variables[name][""], len(ids[entity])):
            builder.add(table, entity, variables.pop(name), source=name)
    add_columns(builder, saved.columns, info, variables)
    add_numbers(builder, saved.columns, info)
    rest = {name + ENDINGS.get(slot, slot): array for name, state in variables.items() for slot, array in state.items()}
    for name, array in {**rest, **{f"data_info/{name}": array for name, array in info.items()}}.items():
        if array.dtype.kind in "biuf":
            contents.dense[f"{DENSE}/{name}"] = array
        else:
            saved.left_out[name] = "neither numbers nor ids"
    return contents


def _stage(work: Checkout, contents: Contents) -> dict[str, Rows]:
    """Stage everything but the consumed record; return the rows of each entity's ids."""
    for entity in contents.entities:
        work.add_entity(entity)
    for part in contents.parts:
        work.add_table(part.spec)
    rows: dict[str, Rows] = {}
    # Categories first: the features of users and items are their rows.
    for entity in sorted(contents.entities, key=lambda entity: entity in (USER, ITEM)):
        rows[entity] = _stage_entity(work, entity, contents, rows)
    for name, array in contents.dense.items():
        work.dense[name] = array
    return rows


def _stage_entity(work: Checkout, entity: str, contents: Contents, rows: Mapping[str, Rows]) -> Rows:
    parts = [part for part in contents.parts if part.spec.entity == entity]
    values = {part.spec.name: _in_rows(part, rows) for part in parts}
    n_before = len(work.ids(entity))
    mine = work.append(entity, contents.entities[entity], init=values)
    if len(np.unique(mine)) < len(mine):
        msg = f"{entity}: {len(mine)} ids, of which {len(np.unique(mine))} differ; each should be there once"
        raise InvalidInputError(msg)
    known = mine < n_before
    for part in parts:
        table = work.table(part.spec.name)
        _scatter_changed(table, mine[known], values[part.spec.name][known])
        for slot, state in part.slots.items():
            _scatter_changed(table.slot(slot), mine, state)
    return mine


def _scatter_changed(table: StagedTable | StagedSlot, rows: Rows, values: NDArray[Any]) -> None:
    changed = differ(values, table.gather(rows))
    table.scatter(rows[changed], values[changed])


def _in_rows(part: Part, rows: Mapping[str, Rows]) -> NDArray[Any]:
    """Return a part's values; places among the ids of another entity as their rows, -1 as it is."""
    if part.spec.rows_of is None:
        return part.values
    return np.append(rows[part.spec.rows_of], -1)[part.values].astype(np.int32)


def _stage_consumed(work: Checkout, saved: Saved, rows: Mapping[str, Rows]) -> int:
    if saved.consumed is None:
        return 0
    users = _rows_at(rows[USER], saved.consumed.users, "user_consumed")
    items = _rows_at(rows[ITEM], saved.consumed.items, "user_consumed")
    work.consumed.append(users, items, replace=True)
    return len(users)


def _rows_at(rows: Rows, places: NDArray[Any], what: str) -> Rows:
    """Return the rows of LibRecommender's inner ids."""
    if places.dtype.kind not in "iu" or ((places < 0) | (places >= len(rows))).any():
        msg = f"{what}: an inner id that none of {len(rows)} ids has: files of two models?"
        raise InvalidInputError(msg)
    found: Rows = rows[places]
    return found


def _lineage(saved: Saved, contents: Contents, n_pairs: int) -> dict[str, Any]:
    lineage: dict[str, Any] = {"imported": "librecommender", "model": saved.model, **_trainer(saved, contents)}
    if contents.steps is not None:
        lineage["adam_steps"] = contents.steps
    is_there = any(name.endswith("_user_consumed.pkl") for name in saved.left_out)
    why = "it is pickled; unpickle=True (--unpickle-consumed) reads it" if is_there else "there is no file of it"
    return {
        **lineage,
        "consumed": {"pairs": n_pairs} if saved.consumed else {"pairs": 0, "not_read": why},
        "left_out": saved.left_out,
    }


def _metadata(saved: Saved, contents: Contents) -> dict[str, Any]:
    known = {"hyper_parameters": dict(saved.settings), "name_mapping": dict(saved.columns), "tables": contents.sources}
    return {DENSE: {"model": saved.model, **known}}


def _trainer(saved: Saved, contents: Contents) -> dict[str, Any]:
    """Return the trainer that gives this model's scores, with its settings; why there is none, if so."""
    dims = {part.spec.name: part.spec.dim for part in contents.parts}
    has_tables = dims.keys() >= _TRAINER_TABLES and dims["user"] == dims["item"]
    is_vectors = contents.sources.get("user") == "user_embed"
    if not has_tables or not (is_vectors or saved.settings.get("use_tf")):
        return {"no_trainer": f"none that is built in has this network; its arrays are dense, under {DENSE}/"}
    if saved.settings.get("norm_embed") and not is_vectors:
        return {"no_trainer": "norm_embed=True: its scores are of vectors of length 1, which no built-in trainer has"}
    settings = _settings(saved.settings, dims["user"])
    return {"trainer": _TRAINER, "settings": settings, "seed": settings["seed"]}


def _settings(theirs: Mapping[str, Any], dim: int | None) -> dict[str, Any]:
    """Return our trainer's settings by those of their BPR; of another model's only what any model has."""
    lr, reg = theirs.get("lr"), theirs.get("reg")
    settings: dict[str, Any] = {"dim": dim, "seed": seed_of(theirs.get("seed"))}
    if "use_tf" not in theirs:
        return settings
    counts = {ours: theirs.get(name) for name, ours in _SETTINGS.items()}
    return {
        **settings,
        **{name: count for name, count in counts.items() if type(count) is int and count > 0},
        **({"lr": float(lr)} if isinstance(lr, (int, float)) and lr >= 0 else {}),
        # The gradient of reg * w**2, which they add to the loss, is 2 * reg * w.
        "l2": 2.0 * reg if isinstance(reg, float) and reg > 0 else 0.0,
    }
