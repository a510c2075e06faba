"""Feature columns of users and items: settings of a trainer, tables of a schema, and arrays in rows of a view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embstore import Checkout, InvalidInputError, Normal, Schema, TableSpec, View, dense_feature, sparse_feature
from trainers.learned_arrays import adam_slots

SIDES = ("user", "item")
Rows = NDArray[np.int64]


class HasColumns(Protocol):
    """Settings that name the columns of users and items that a trainer learns from."""

    @property
    def user_sparse(self) -> tuple[str, ...]:
        """Return the columns of users with one category, by which an entity of categories is named too."""

    @property
    def user_multi(self) -> tuple[tuple[str, int], ...]:
        """Return those with several, and how many there may be."""

    @property
    def user_dense(self) -> tuple[str, ...]:
        """Return those with a number."""

    @property
    def item_sparse(self) -> tuple[str, ...]:
        """Return the columns of items with one category."""

    @property
    def item_multi(self) -> tuple[tuple[str, int], ...]:
        """Return those with several, and how many there may be."""

    @property
    def item_dense(self) -> tuple[str, ...]:
        """Return those with a number."""


@dataclass(frozen=True)
class Column:
    """What a net sees of a user or an item: the id, or a column of features.

    Parameters
    ----------
    side
        ``"user"`` or ``"item"``.
    name
        Of the column; of an id the side.
    kind
        ``"id"``, ``"sparse"``, ``"multi"`` or ``"dense"``.
    n_values
        Of a multi-value column, how many there may be.
    """

    side: str
    name: str
    kind: str
    n_values: int | None = None

    @property
    def entity(self) -> str:
        """Return whose rows the values are."""
        return self.name

    @property
    def key(self) -> str:
        """Return a name among all columns that a module can have too: torch wants no dots in it."""
        return f"{self.side}/{self.name.replace('.', '/')}"

    @property
    def feature(self) -> TableSpec | None:
        """Return the table that holds the column; None for an id."""
        if self.kind == "id":
            return None
        if self.kind == "dense":
            return dense_feature(self.side, self.name)
        return sparse_feature(self.side, self.name, n_values=self.n_values)


def columns_of(trainer: HasColumns) -> tuple[Column, ...]:
    """Return all columns of a trainer, users' before items', each with its id first.

    Raises
    ------
    InvalidInputError
        For settings that are no tuples of names, a column that is there twice, and one that is named as the ids are.
    """
    columns = tuple(column for side in SIDES for column in _columns(trainer, side))
    features = [column for column in columns if column.kind != "id"]
    keys = [column.key for column in features]
    for column in features:
        if keys.count(column.key) > 1 or column.name in SIDES:
            reason = "it is there twice" if keys.count(column.key) > 1 else "this is the name of ids"
            msg = f"{column.side} column {column.name!r}: {reason}; rename it or leave it out"
            raise InvalidInputError(msg)
    return columns


def _columns(trainer: HasColumns, side: str) -> Iterator[Column]:
    yield Column(side, side, "id")
    for kind in ("sparse", "multi", "dense"):
        given = getattr(trainer, f"{side}_{kind}")
        for entry in given if isinstance(given, tuple) else (given,):
            usual = (isinstance(entry, str), isinstance(entry, tuple) and len(entry) == 2)[kind == "multi"]
            if not isinstance(given, tuple) or not usual:
                wanted = "a tuple of pairs (column, number of values)" if kind == "multi" else "a tuple of columns"
                msg = f"{side}_{kind} {given!r}: give {wanted}"
                raise InvalidInputError(msg)
            name, n_values = entry if kind == "multi" else (entry, None)
            yield Column(side, name, kind, n_values)


def schema_of(columns: Sequence[Column], prefix: str, width: int, *, init_std: float, seed: int) -> Schema:
    """Return the tables of features, and for each entity a table ``<prefix>.<entity>`` of vectors with row-lazy Adam's slots."""
    features = [column.feature for column in columns if column.feature is not None]
    vectors = [
        TableSpec(f"{prefix}.{entity}", entity, width, slots=adam_slots(width), init=Normal(init_std), seed=seed)
        for entity in entities_of(columns)
    ]
    return Schema((*features, *vectors))


def entities_of(columns: Sequence[Column]) -> list[str]:
    """Return the entities that have vectors, each once."""
    return list(dict.fromkeys(column.entity for column in columns if column.kind != "dense"))


def column_values(view: View, column: Column) -> NDArray[Any]:
    """Return a column for all rows of its side: int64 rows of its entity ``[N]`` or ``[N, n_values]``; of a dense one float32[N].

    A category that was removed is none, -1.
    """
    if column.feature is None:
        return np.arange(len(view.ids(column.side)))
    values = view.table(column.feature.name).values()
    if column.kind == "dense":
        return values
    rows: Rows = values.astype(np.int64)
    gone = view.ids(column.entity).removed_rows()
    rows[np.isin(rows, gone)] = -1
    return rows


def no_values(column: Column, n: int) -> NDArray[Any]:
    """Return a column for ``n`` of whom nothing is known."""
    if column.kind == "dense":
        return np.zeros(n, np.float32)
    return np.full((n, column.n_values) if column.n_values else n, -1)


def scale_name(column: Column, prefix: str) -> str:
    """Return the dense array with the mean and the standard deviation of a dense column."""
    return f"{prefix}.scale.{column.side}.{column.name}"


def stage_scale(work: Checkout, column: Column, prefix: str) -> None:
    """Stage what a dense column is standardised by, once, as soon as anybody has a value; from then on it stays.

    0.0 is what ids without a value have, so it counts as none, and is standardised to the mean.
    """
    name = scale_name(column, prefix)
    if column.kind != "dense" or name in work.dense:
        return
    values = column_values(work, column)
    there = values[values != 0].astype(np.float64)
    if len(there):
        work.dense[name] = np.array([there.mean(), there.std() or 1.0])


def standardised(values: NDArray[Any], scale: NDArray[Any] | None) -> NDArray[Any]:
    """Return numbers less their mean, over their standard deviation, float32; 0.0 stays, and all are 0.0 without a scale."""
    if scale is None:
        return np.zeros_like(values)
    mean, deviation = scale
    return np.where(values != 0, (values - mean) / deviation, 0).astype(np.float32)


def inputs(view: View, columns: Sequence[Column], prefix: str) -> Mapping[str, NDArray[Any]]:
    """Return the columns by key as `column_values` gives them, numbers standardised."""
    found = {}
    for column in columns:
        values = column_values(view, column)
        if column.kind == "dense":
            values = standardised(values, view.dense.get(scale_name(column, prefix)))
        found[column.key] = values
    return found
