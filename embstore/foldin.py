"""Vectors for new ids from their own pairs, with everything else left as it is."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embstore.checkout import Checkout
from embstore.columns import TableRows
from embstore.conflicts import OnConflict, Policies
from embstore.consumed import ITEM, USER
from embstore.epochs import differ
from embstore.errors import ConflictError, InvalidInputError, RefusedError
from embstore.features import sorted_ids, stage_frame
from embstore.interactions import Batch, Interactions, check_interactions
from embstore.runs import DoneError, commit_once, find_run, what_clashed
from embstore.store import Store
from embstore.trainer import Trainer, check_tables, finite_metrics, settings_of, that_folds_in
from embstore.version import Version


def fold_in(
    store: Store,
    trainer: Trainer,
    interactions: Interactions,
    *,
    message: str,
    entity: Literal["user", "item"] = "user",
    branch: str = "main",
    on_conflict: OnConflict = "fail",
    run: str | None = None,
) -> Version:
    """Give new users (or items) vectors from their pairs with known items (or users), and commit; nothing else moves.

    Ids already known keep their vectors and features. Pairs whose other side is unknown are dropped, all others become
    consumed. A new id that is left without pairs starts from its initial vector. The lineage counts ``new_ids``,
    ``ids_without_pairs`` and ``dropped_pairs``.

    What others commit meanwhile stands beside it; where they gave the same new id another vector, ``on_conflict`` decides, as
    `Checkout.commit` takes it. ``run``: a name of this piece of work; where the branch has a version of it, that one is returned
    and no pair is recorded twice.

    Raises
    ------
    InvalidInputError
        If the trainer cannot fold in, or the store lacks its tables (has them otherwise: SchemaMismatchError); for what are no
        pairs, an ``entity`` that is neither user nor item, and an ``on_conflict`` or ``run`` that cannot be used.
    RefusedError
        If the trainer changed anything but the rows of new ids.
    NonFiniteError
        For NaN or infinity in the vectors or metrics.
    ConflictError
        If others gave the same id another vector meanwhile; nothing is written.
    """
    settings = settings_of(trainer)
    that_folds_in(trainer)
    check_interactions(interactions, "interactions")
    Policies.of(on_conflict)
    done = find_run(store, branch, run, folded_in=True)
    if done is not None:
        return done.version
    with store.checkout(branch) as work:
        counts = fold(work, trainer, interactions, entity=entity)
        work.lineage |= {"trainer": trainer.name, "settings": settings, "data": data_window(interactions), **counts}
        if run is not None:
            work.lineage["run"] = run
        try:
            return commit_once(store, work, branch, message, run=run, on_conflict=on_conflict, folded_in=True)
        except DoneError as error:
            work.discard()
            return error.found.version
        except ConflictError as error:
            work.discard()
            msg = f"{what_clashed(error, branch)}; nothing is written, fold in again or say with on_conflict= whose vectors stand"
            raise ConflictError(msg) from error


def fold(work: Checkout, trainer: Trainer, interactions: Interactions, *, entity: str = USER) -> dict[str, Any]:
    """Stage in ``work`` what `fold_in` commits; return counts and metrics for its lineage."""
    if entity not in (USER, ITEM):
        msg = f"entity {entity!r}: pairs are of 'user' and 'item'; give one of them"
        raise InvalidInputError(msg)
    check_tables(work, trainer, to="fold into")
    pairs = interactions.ordered()
    mine, theirs = (pairs.user_ids, pairs.item_ids) if entity == USER else (pairs.item_ids, pairs.user_ids)
    known = work.ids(ITEM if entity == USER else USER).rows(theirs, missing=-1) >= 0
    n_before = len(work.ids(entity))
    work.append(entity, sorted_ids(mine))
    features = pairs.user_features if entity == USER else pairs.item_features
    stage_frame(work, entity, features, required={table.name for table in trainer.schema().tables}, since=n_before)
    batch = pairs.take(known).to_batch(work)
    work.consumed.append(batch.users, batch.items, times=batch.times)
    rows = batch.users if entity == USER else batch.items
    new = np.unique(rows[rows >= n_before])
    metrics = fold_rows(work, trainer, new, _take(batch, rows >= n_before), entity) if len(new) else {}
    _check_only_new(work, trainer)
    n_new = len(work.ids(entity)) - n_before
    return {
        "entity": entity,
        "new_ids": n_new,
        "ids_without_pairs": n_new - len(new),
        "dropped_pairs": int((~known).sum()),
        "metrics": metrics,
    }


def data_window(interactions: Interactions) -> dict[str, Any]:
    """Return how many pairs there are and, where they have times, the first and the last, for a lineage."""
    window: dict[str, Any] = {"pairs": len(interactions)}
    if interactions.times is not None and len(interactions):
        window |= {"first": interactions.times.min().item(), "last": interactions.times.max().item()}
    return window


def _take(batch: Batch, which: NDArray[np.bool_]) -> Batch:
    columns = (batch.users, batch.items, batch.ratings, batch.times)
    return Batch(*(None if column is None else column[which] for column in columns))  # type: ignore[arg-type]


def fold_rows(work: Checkout, trainer: Trainer, rows: NDArray[np.int64], batch: Batch, entity: str) -> dict[str, float]:
    """Stage vectors for rows that are at their initial vectors, from the pairs in ``batch``; return the trainer's metrics."""
    folder: Any = that_folds_in(trainer)
    if "entity" in inspect.signature(folder.fold_in).parameters:
        metrics = folder.fold_in(work, rows, batch, entity=entity)
    elif entity == USER:
        metrics = folder.fold_in(work, rows, batch)
    else:
        msg = f"trainer {trainer.name!r} folds in users only: its fold_in takes no entity; use fit for new {entity}s"
        raise InvalidInputError(msg)
    return finite_metrics(metrics or {}, f"trainer {trainer.name!r}, fold_in")


def _check_only_new(work: Checkout, trainer: Trainer) -> None:
    """Raise RefusedError if a stored row or an array without rows has changed."""
    staged = work.staged
    moved = [f"{n} rows of table {name!r}" for name, table in staged.tables.items() if (n := _n_moved(table))]
    moved += [f"dense array {name!r}" for name in staged.dense.changed()]
    if moved:
        msg = f"trainer {trainer.name!r}, fold_in: it changed {', '.join(moved)}; only rows of new ids may change"
        raise RefusedError(msg)


def _n_moved(table: TableRows) -> int:
    """Return how many stored rows have other bits than they had, in the column with the most."""
    most = 0
    for name, edit in table.edits().items():
        n_old = int(np.searchsorted(edit.rows, table.idmap.n_stored))
        if n_old:
            before = table.stored.gather(table.column(name), edit.rows[:n_old])
            most = max(most, int(differ(before, edit.values[:n_old]).sum()))
    return most
