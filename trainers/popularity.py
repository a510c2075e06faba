"""The smallest useful trainer: everybody gets what was taken most often."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from embstore import Batch, Checkout, InvalidInputError, Schema, TableSpec, Version, Zeros


@dataclass(frozen=True)
class Popularity:
    """Counts pairs of each item, and scores items by that.

    Parameters
    ----------
    decay
        What earlier counts are worth when new pairs come: 1 counts all pairs alike, 0 only the newest part.

    Raises
    ------
    InvalidInputError
        If ``decay`` is no number from 0 to 1.
    """

    decay: float = 1.0
    name: ClassVar[str] = "popularity"

    def __post_init__(self) -> None:
        if isinstance(self.decay, bool) or not isinstance(self.decay, (int, float)) or not 0 <= self.decay <= 1:
            msg = f"decay {self.decay!r}: give a number from 0 to 1"
            raise InvalidInputError(msg)

    def schema(self) -> Schema:
        """Return one table: a number for each item, float32."""
        return Schema((TableSpec("popularity", "item", None, init=Zeros()),))

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Add the pairs of ``batch`` to what is left of the earlier counts, in one epoch."""
        table = work.table("popularity")
        before = table.values()
        counts = self.decay * before + np.bincount(batch.items, minlength=len(before))
        rows = np.flatnonzero(counts != before)
        table.scatter(rows, counts[rows])
        yield {"pairs": len(batch)}

    def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch) -> dict[str, float]:
        """Do nothing: users have no vectors here."""
        return {}

    def scores(self, view: Version | Checkout, user_rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the counts, the same for every user: ``[len(user_rows), n_items]``."""
        counts = view.table("popularity").values()
        return np.broadcast_to(counts, (len(user_rows), len(counts)))
