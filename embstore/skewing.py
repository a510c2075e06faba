"""Skew: how far vectors that training left are from those that ``fold_in`` would give the same ids from the same pairs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embstore.checkout import Checkout
from embstore.consumed import ITEM, USER
from embstore.errors import InvalidInputError
from embstore.foldin import fold_rows
from embstore.interactions import Batch, Interactions
from embstore.recommending import scratch
from embstore.registry import trainer_of
from embstore.trainer import Trainer, check_trainer, that_folds_in
from embstore.version import Version

Rows = NDArray[np.int64]
_N_FARTHEST = 10


@dataclass(frozen=True)
class Difference:
    """One id whose vectors differ.

    Parameters
    ----------
    id
        The caller's id.
    largest
        The largest absolute difference between two numbers of its vectors.
    relative
        The length of the difference of all its vectors, by the length of the trained ones where that is not 0.
    """

    id: int | str
    largest: float
    relative: float


@dataclass(frozen=True)
class Skew:
    """Vectors as served against vectors as trained.

    Parameters
    ----------
    version, trainer, entity
        What was compared.
    n_ids
        How many ids were.
    largest
        The largest absolute difference between two numbers; 0 without any id.
    mean
        The mean absolute difference.
    relative
        The mean of the ids' relative differences.
    tables
        The largest absolute difference in each table.
    farthest
        The ids that differ most by ``largest``, at most ten; those without any difference are not among them.
    """

    version: str
    trainer: str
    entity: str
    n_ids: int
    largest: float
    mean: float
    relative: float
    tables: dict[str, float]
    farthest: list[Difference]

    def to_dict(self) -> dict[str, Any]:
        """Return the report, JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        head = f"skew of {self.n_ids} ids of {self.entity!r}, trainer {self.trainer!r}: at most {self.largest:.3g}"
        lines = [f"  {found.id}: {found.largest:.3g}, relative {found.relative:.3g}" for found in self.farthest]
        return "\n".join([f"{head} (mean {self.mean:.3g}, relative {self.relative:.3g})", *lines])


def skew(
    view: Version | Checkout,
    trainer: Trainer | None = None,
    *,
    interactions: Interactions | None = None,
    entity: Literal["user", "item"] = "user",
    sample: int | None = 1000,
) -> Skew:
    """Return how far serving-time vectors are from training-time ones; nothing is committed.

    Ids are set back to their initial vectors and folded in from their pairs, as if they came in now, while all else stays as
    it is in the version.

    Parameters
    ----------
    view
        A version, or a checkout without staged changes.
    trainer
        That folds in; None: the trainer in the newest lineage of ``view`` that has one.
    interactions
        The pairs that the vectors were trained on; None: those that the version has recorded, which have no ratings. Pairs with
        unknown ids are left out.
    entity
        Whose vectors.
    sample
        At most so many of the ids that have pairs, spread evenly over the rows; None: all of them.

    Raises
    ------
    InvalidInputError
        If the trainer cannot fold in, or needs ratings; for an entity or a sample that cannot be, and a checkout with staged
        changes.
    """
    _check(view, entity=entity, sample=sample)
    learner = trainer_of(view) if trainer is None else trainer
    check_trainer(learner)
    that_folds_in(learner)
    version = view.version if isinstance(view, Checkout) else view
    names = [t.name for t in learner.schema().tables if t.entity == entity and np.dtype(t.dtype).kind == "f"]
    batch = _recorded(version, entity) if interactions is None else _known(version, interactions)
    rows = _spread(np.unique(batch.users if entity == USER else batch.items), sample)
    trained = _vectors(version, names, rows)
    work = scratch(version)
    served = _served(work, learner, names, rows, _of_rows(batch, rows, entity), entity) if len(rows) else trained
    return _compared(version, learner.name, entity, rows, trained, served)


def _check(view: Version | Checkout, *, entity: str, sample: int | None) -> None:
    if isinstance(view, Checkout) and view.dirty:
        msg = "skew of a checkout that has staged changes: commit them, and take the version"
        raise InvalidInputError(msg)
    if entity not in (USER, ITEM):
        msg = f"entity {entity!r}: pairs are of 'user' and 'item'; give one of them"
        raise InvalidInputError(msg)
    if sample is not None and (isinstance(sample, bool) or not isinstance(sample, int) or sample < 1):
        msg = f"sample {sample!r}: give a number of ids from 1, or None for all"
        raise InvalidInputError(msg)


def _recorded(version: Version, entity: str) -> Batch:
    """Return what the version has recorded, of each id of ``entity`` oldest first."""
    ids = version.ids(entity).ids()
    others = version.consumed.of(entity, ids)
    mine = np.repeat(version.ids(entity).live_rows(), [len(part) for part in others])
    theirs = version.ids(ITEM if entity == USER else USER).rows([id_ for part in others for id_ in part.tolist()])
    return Batch(mine, theirs) if entity == USER else Batch(theirs, mine)


def _known(version: Version, interactions: Interactions) -> Batch:
    pairs = interactions.ordered()
    known = version.ids(USER).rows(pairs.user_ids, missing=-1) >= 0
    known &= version.ids(ITEM).rows(pairs.item_ids, missing=-1) >= 0
    return pairs.take(known).to_batch(version)


def _spread(rows: Rows, n: int | None) -> Rows:
    if n is None or n >= len(rows):
        return rows
    return rows[np.arange(n) * len(rows) // n]


def _of_rows(batch: Batch, rows: Rows, entity: str) -> Batch:
    which = np.isin(batch.users if entity == USER else batch.items, rows)
    ratings = None if batch.ratings is None else batch.ratings[which]
    times = None if batch.times is None else batch.times[which]
    return Batch(batch.users[which], batch.items[which], ratings, times)


def _served(work: Checkout, trainer: Trainer, names: list[str], rows: Rows, batch: Batch, entity: str) -> dict[str, NDArray[Any]]:
    """Return the vectors of some rows after they were folded in anew."""
    ids = work.ids(entity).ids(rows)
    for name in names:
        table = work.table(name)
        table.scatter(rows, table.initial(ids))
        for spec in table.spec.slots:
            slot = table.slot(spec.name)
            slot.scatter(rows, np.full_like(slot.gather(rows), spec.fill))
    fold_rows(work, trainer, rows, batch, entity)
    return _vectors(work, names, rows)


def _vectors(view: Version | Checkout, names: list[str], rows: Rows) -> dict[str, NDArray[Any]]:
    """Return the rows of each table, float64 ``[n, dim]``."""
    found = {name: view.table(name).gather(rows).astype(np.float64) for name in names}
    return {name: values if values.ndim == 2 else values[:, None] for name, values in found.items()}


def _compared(
    version: Version, trainer: str, entity: str, rows: Rows, trained: dict[str, NDArray[Any]], served: dict[str, NDArray[Any]]
) -> Skew:
    tables = {name: np.abs(served[name] - before) for name, before in trained.items()}
    apart, before = _side_by_side(tables, len(rows)), _side_by_side(trained, len(rows))
    largest = apart.max(axis=1, initial=0.0)
    norms = np.linalg.norm(before, axis=1)
    relative = np.linalg.norm(apart, axis=1) / np.where(norms > 0, norms, 1.0)
    order = np.argsort(-largest, kind="stable")[:_N_FARTHEST]
    order = order[largest[order] > 0]
    figures = zip(version.ids(entity).ids(rows[order]).tolist(), largest[order].tolist(), relative[order].tolist(), strict=True)
    return Skew(
        version.id,
        trainer,
        entity,
        n_ids=len(rows),
        largest=float(largest.max(initial=0.0)),
        mean=float(apart.mean()) if apart.size else 0.0,
        relative=float(relative.mean()) if len(rows) else 0.0,
        tables={name: float(table.max(initial=0.0)) for name, table in tables.items()},
        farthest=[Difference(*figure) for figure in figures],
    )


def _side_by_side(tables: dict[str, NDArray[Any]], n_rows: int) -> NDArray[np.float64]:
    return np.concatenate([np.empty((n_rows, 0)), *tables.values()], axis=1)
