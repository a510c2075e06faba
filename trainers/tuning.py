"""The best learning rate and L2, searched for without gradients, in a number of evaluations and seconds that is bounded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from embstore import InvalidInputError

METHODS = ("nelder-mead", "cobyla", "none")
# In powers of ten: where a search looks before it begins, its first step each way, and how far from the start it goes.
_AROUND = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, 1), (-1, 1), (1, -1))
_STEP = 0.5
_REACH = 3.0
# An optimizer cannot compute with NaN or infinity; nothing that has such a loss is ever taken.
_BAD = 1e6


@dataclass(frozen=True)
class Probe:
    """A learning rate and L2, how many epochs with them were best, and the held-out loss after these; infinity for none."""

    lr: float
    l2: float
    epochs: int
    loss: float


Judge = Callable[[float, float], Probe]


class _EnoughError(Exception):
    """The evaluations or the seconds are used up."""


@dataclass
class Search:
    """What was tried, in order.

    Parameters
    ----------
    judge
        Tries a learning rate and L2.
    lr, l2
        Where to start, above 0.
    evaluations
        Probes at most.
    seconds
        No probe begins later than this, but for the first.
    """

    judge: Judge
    lr: float
    l2: float
    evaluations: int
    seconds: float
    probes: list[Probe] = field(default_factory=list)
    timed_out: bool = False
    _known: dict[tuple[float, ...], float] = field(default_factory=dict)

    def run(self, method: str) -> None:
        """Look at the start and around it, then search from the best by Nelder-Mead (1965) or COBYLA (Powell 1994).

        All of it is on logarithms. Given time, the probes and their order are always the same.
        """
        start = time.monotonic()

        def loss(x: NDArray[np.float64]) -> float:
            known = self._known.get(tuple(x))
            if known is not None:
                return known
            self.timed_out = bool(self.probes) and time.monotonic() - start > self.seconds
            if self.timed_out or len(self.probes) >= self.evaluations:
                raise _EnoughError
            self._known[tuple(x)] = self._probe(x)
            return self._known[tuple(x)]

        with suppress(_EnoughError):
            losses = {point: loss(np.array(point, np.float64)) for point in _AROUND}
            best = min(losses, key=lambda point: losses[point])
            steps = np.array([_STEP * _downhill(losses, best, axis) for axis in (0, 1)])
            _minimize(lambda x: loss(np.array(best) + steps * x), method, self.evaluations)

    def _probe(self, x: NDArray[np.float64]) -> float:
        powers = 10 ** np.clip(x, -_REACH, _REACH)
        found = self.judge(self.lr * float(powers[0]), self.l2 * float(powers[1]))
        self.probes.append(found)
        return found.loss if math.isfinite(found.loss) else _BAD

    @property
    def best(self) -> Probe:
        """Return the first of the probes with the least loss."""
        return min(self.probes, key=lambda probe: probe.loss)


def _downhill(losses: Mapping[tuple[int, int], float], best: tuple[int, int], axis: int) -> int:
    """Return in which direction along an axis, 1 or -1, the better of the best point's neighbours lies."""
    beside = [point for point in losses if point != best and point[1 - axis] == best[1 - axis]]
    return 1 if min(beside, key=lambda point: losses[point])[axis] > best[axis] else -1


def _minimize(loss: Callable[[NDArray[np.float64]], float], method: str, evaluations: int) -> None:
    """Call ``loss`` from zero on, with first steps of 1, until it has been enough, or nothing is gained any more."""
    start = np.zeros(2)
    if method == "nelder-mead":
        simplex = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        minimize(loss, start, method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-6})
    else:
        minimize(loss, start, method="COBYLA", options={"rhobeg": 1.0, "tol": 1e-3, "maxiter": 10 * evaluations})


def check_method(method: object) -> None:
    """Raise InvalidInputError for an unknown method."""
    if method not in METHODS:
        msg = f"method {method!r}: use one of {', '.join(METHODS)}"
        raise InvalidInputError(msg)
