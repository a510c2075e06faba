"""Factors of some rows, found with everything else standing still: each row's from its own pairs alone.

Training with the other side frozen and folding in at serving are both this: Adam with a step count and moments for each row, on a
loss that is a sum over the row's own pairs, in float64 and blocks of one shape. So it does not matter to the bits of a row which
other rows there are, or how many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.factor_losses import Function
from trainers.pairs import Pairs
from trainers.row_adam import row_adam_

Floats = NDArray[Any]
Seen = Callable[[Floats], tuple[Floats, Floats | None]]
# Matrix products choose their order of adding by shape: in blocks of one height a row has the same bits alone.
BLOCK = 24


class Folding:
    """Rows on their way from where they start.

    Parameters
    ----------
    start
        ``[n, k]``.
    fixed
        Factors of the other side ``[n_fixed, k]``.
    offset
        ``[n_fixed]``, what a score has without the rows.
    pairs
        Of n groups, with columns below n_fixed.
    loss
        As in `trainers.factor_losses`.
    seen
        What the loss sees of rows ``[m, k]``, and the slope of each number of it; None: 1.
    lr, l2
        Of Adam; L2 by a row's summed weights.
    """

    def __init__(
        self, start: Floats, fixed: Floats, offset: Floats, pairs: Pairs, *, loss: Function, seen: Seen, lr: float, l2: float
    ) -> None:
        self._n_rows, self._lr, self._l2, self._loss, self._seen = len(start), lr, l2, loss, seen
        n_padded = -(-len(start) // BLOCK) * BLOCK
        self._values = np.zeros((n_padded, start.shape[1]))
        self._values[: len(start)] = start
        self._fixed, self._offset = fixed.astype(np.float64), offset.astype(np.float64)
        ends = np.concatenate([pairs.ends, np.full(n_padded - len(start), pairs.ends[-1])])
        padded = Pairs(ends, pairs.columns, pairs.values, pairs.weights)
        self._pairs = [padded.take(np.arange(at, at + BLOCK)) for at in range(0, n_padded, BLOCK)]
        self._shrink = l2 * padded.sums(pairs.weights)
        self._moments = np.zeros_like(self._values), np.zeros_like(self._values)
        self._steps = np.zeros(n_padded, np.int32)

    @property
    def values(self) -> Floats:
        """Return the rows as they are now, float64 ``[n, k]``."""
        return self._values[: self._n_rows]

    def step(self) -> float:
        """Let every row take one step; return the loss before it, without L2."""
        return sum(self._step(place, pairs) for place, pairs in enumerate(self._pairs))

    def _step(self, place: int, pairs: Pairs) -> float:
        at = slice(place * BLOCK, (place + 1) * BLOCK)
        values = self._values[at]
        seen, slope = self._seen(values)
        loss, slopes = self._loss(seen, self._fixed, self._offset, pairs)
        gradient = slopes @ self._fixed
        if slope is not None:
            gradient *= slope
        gradient += values * self._shrink[at, None]
        first, second = (moment[at] for moment in self._moments)
        row_adam_(values, np.arange(BLOCK), gradient, first, second, self._steps[at], lr=self._lr)
        return float(loss.sum())
