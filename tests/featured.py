"""Trainers with feature columns, in numpy and small, and what is needed to give them features and to read these by id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from embstore import Batch, Checkout, Interactions, Schema, SlotSpec, TableSpec, View, dense_feature, sparse_feature
from tests.examples import DAY_1
from trainers.bpr import BPR

GENDER, AGE = sparse_feature("user", "gender"), dense_feature("user", "age")
TAGS, FOR = sparse_feature("item", "tags", n_values=2, of="tag"), sparse_feature("item", "for", of="gender")
TABLES = (GENDER, AGE, TAGS, FOR)
NO_PAIRS = DAY_1.take([])


@dataclass(frozen=True)
class FeaturedBPR(BPR):
    """BPR whose categories have vectors too: each follows the mean vector of the ids it is a category of.

    Parameters
    ----------
    user_sparse, item_sparse
        Columns of one category.
    item_multi
        Columns of several, with how many.
    user_dense
        Columns of numbers.
    """

    user_sparse: tuple[str, ...] = ()
    item_sparse: tuple[str, ...] = ()
    item_multi: tuple[tuple[str, int], ...] = ()
    user_dense: tuple[str, ...] = ()
    name: ClassVar[str] = "featured-bpr"

    def schema(self) -> Schema:
        """Return BPR's tables, those of the columns, and one of vectors for each kind of category."""
        sparse = self._sparse()
        vectors = [
            TableSpec(f"{kind}.vector", kind, self.dim, slots=(SlotSpec("step", None, "int32"),), seed=self.seed)
            for kind in dict.fromkeys(spec.rows_of for spec in sparse)
            if kind
        ]
        dense = [dense_feature("user", column) for column in self.user_dense]
        return Schema((*super().schema().tables, *sparse, *dense, *vectors))

    def _sparse(self) -> list[TableSpec]:
        users = [sparse_feature("user", column) for column in self.user_sparse]
        items = [sparse_feature("item", column) for column in self.item_sparse]
        return users + items + [sparse_feature("item", column, n_values=n) for column, n in self.item_multi]

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Train as BPR does; after each epoch the categories' vectors follow, and an array has the mean of each table."""
        for metrics in super().train(work, batch):
            for spec in self._sparse():
                self._follow(work, spec)
            yield metrics

    def _follow(self, work: Checkout, spec: TableSpec) -> None:
        """Take a step of ``lr`` from each category's vector to the mean of its ids' vectors."""
        values, vectors = work.table(spec.name).values(), work.table(f"{spec.rows_of}.vector")
        owners, columns = np.nonzero(values.reshape(len(values), -1) >= 0)
        categories = values.reshape(len(values), -1)[owners, columns]
        moved = vectors.values().astype(np.float64)
        sums, counts = np.zeros_like(moved), np.bincount(categories, minlength=len(moved))
        np.add.at(sums, categories, work.table(spec.entity).values()[owners])
        rows = np.flatnonzero(counts)
        moved[rows] += self.lr * (sums[rows] / counts[rows, None] - moved[rows])
        vectors.scatter(rows, moved[rows].astype(np.float32))
        vectors.slot("step").scatter(rows, vectors.slot("step").gather(rows) + np.int32(1))
        work.dense[f"default.{spec.rows_of}"] = vectors.values().sum(axis=0) / max(1, len(vectors))


def features_of(view: View, spec: TableSpec) -> dict[Any, Any]:
    """Return what a feature table says of each id: a number, a category or None, or a list of categories."""
    ids = view.ids(spec.entity).ids()
    values = dict(zip(ids.tolist(), view.table(spec.name).get(ids).tolist(), strict=True))
    if spec.rows_of is None:
        return values
    categories = [*view.ids(spec.rows_of).ids().tolist(), None]
    if spec.dim is None:
        return {id_: categories[row] for id_, row in values.items()}
    return {id_: [categories[row] for row in rows if row >= 0] for id_, rows in values.items()}


def by_id(view: View, name: str) -> dict[Any, Any]:
    """Return what the feature table of that name says of each id."""
    return features_of(view, view.tables[name])


def with_frames(*, users: Any = None, items: Any = None, pairs: Interactions = NO_PAIRS) -> Interactions:
    """Return pairs with these frames."""
    return replace(pairs, user_features=users, item_features=items)


def frame_of(first: int, genders: list[Any]) -> pd.DataFrame:
    """Return users from ``first`` with these genders, each as old as its number."""
    users = np.arange(first, first + len(genders))
    return pd.DataFrame({"user": users, "gender": pd.Series(genders, dtype=object), "age": users})


@dataclass(frozen=True)
class Featured:
    """Learns nothing; its columns are settings, and each kind of category has a vector."""

    columns: tuple[str, ...] = ("user.gender", "user.age")
    name: ClassVar[str] = "featured"

    def schema(self) -> Schema:
        """Return the feature tables it was told, and a table of vectors for genders."""
        features = [spec for spec in TABLES if spec.name in self.columns]
        return Schema((*features, TableSpec("vectors", "gender", 3, slots=(SlotSpec("sum", 3),))))

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Tell how many users of the pairs have a gender."""
        yield {"known": float((work.table("user.gender").gather(batch.users) >= 0).sum())}

    def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch) -> dict[str, float]:
        """Do nothing, but tell how many of the new users have a gender."""
        return {"known": float((work.table("user.gender").gather(rows) >= 0).sum())}
