"""A learning rate that falls where validations get no better (as torch's ReduceLROnPlateau by its defaults)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_LEAST_GAIN = 1e-4  # of the best figure: less is no better


class Plateau:
    """How often in a row a figure was no better, and what share of the learning rate is left.

    Parameters
    ----------
    factor
        What the share is multiplied by.
    patience
        Whenever more than so many figures in a row were no better.
    state
        As ``state`` gives it; None: no figure was seen yet.
    """

    def __init__(self, factor: float, patience: int, state: NDArray[np.float64] | None = None) -> None:
        self._factor, self._patience = factor, patience
        self._best, self._n_bad, self.share = map(float, (-math.inf, 0, 1) if state is None else state)

    @property
    def state(self) -> NDArray[np.float64] | None:
        """Return the best figure, how many since were no better, and the share, float64[3]; None before the first figure."""
        return None if self._best == -math.inf else np.array([self._best, self._n_bad, self.share])

    def see(self, figure: float) -> None:
        """Go by one more figure, of which more is better."""
        if figure > self._best + _LEAST_GAIN * abs(self._best) or self._best == -math.inf:
            self._best, self._n_bad = figure, 0.0
        else:
            self._n_bad += 1
        if self._n_bad > self._patience:
            self.share, self._n_bad = self.share * self._factor, 0.0
