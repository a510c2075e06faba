"""Pairs of users and items with features, for the tests of trainers that learn from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from embstore import Interactions
from embstore.testing import example_interactions

COLUMNS: dict[str, Any] = {
    "user_sparse": ("gender",),
    "user_multi": (("type", 3),),
    "user_dense": ("age",),
    "item_sparse": ("year", "gender"),
    "item_multi": (("tag.s", 2),),
    "item_dense": ("price",),
}


def user_frame(ids: list[int]) -> pd.DataFrame:
    """Return features of users; some values are missing."""
    return pd.DataFrame(
        {
            "user": ids,
            "gender": [(None, "f", "m")[id_ % 3] for id_ in ids],
            "type": [["a", "b", "c"][: id_ % 4] for id_ in ids],
            "age": [np.nan if id_ % 5 == 0 else 20.0 + id_ for id_ in ids],
        }
    )


def item_frame(ids: list[str]) -> pd.DataFrame:
    """Return features of items; the years are whole numbers, and one item has none."""
    numbers = [int(id_[-2:]) for id_ in ids]
    return pd.DataFrame(
        {
            "item": ids,
            "year": pd.array([None if n == 3 else 1990 + n % 4 for n in numbers], "Int64"),
            "gender": [("f", "m")[n % 2] for n in numbers],
            "tag.s": ["|".join("xyz"[: n % 3]) for n in numbers],
            "price": [float(n) for n in numbers],
        }
    )


def featured_interactions() -> Interactions:
    """Return the example's pairs, with ratings from 1 to 5, and features of all users and items."""
    pairs = example_interactions()
    users, items = np.unique(pairs.user_ids).tolist(), sorted(set(pairs.item_ids.tolist()))
    ratings = (np.arange(len(pairs)) * 7 + pairs.user_ids) % 5 + 1.0
    return Interactions(
        pairs.user_ids, pairs.item_ids, ratings, pairs.times, user_features=user_frame(users), item_features=item_frame(items)
    )
