"""The tables of one entity of a factor model side by side: one matrix of factors, in memory and in a checkout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore import Checkout, Normal, TableSpec, View, Zeros
from trainers.learned_arrays import adam_slots
from trainers.row_adam import row_adam_

I64 = NDArray[np.int64]
Floats = NDArray[Any]
_MOMENTS = ("exp_avg", "exp_avg_sq")
_STEP = "step"


@dataclass(frozen=True)
class Side:
    """What one entity has in a factor model: a vector, called as the entity is, and perhaps a bias.

    A score is ``user vector · item vector + user bias + item bias``, so it is one product of two matrices: factors of users are
    ``[vector, bias, 1]`` and of items ``[vector, 1, bias]``, where the columns of ones stand against the other side's bias.

    Parameters
    ----------
    entity
        ``"user"`` or ``"item"``.
    dim
        Length of the vector; 0: there is none.
    bias, other_bias
        Whether this side has a bias, and the other one.
    """

    entity: str
    dim: int
    bias: bool
    other_bias: bool

    @property
    def names(self) -> list[str]:
        """Return the names of the tables, the vector's first."""
        vector = [self.entity] if self.dim else []
        return [*vector, f"{self.entity}_bias"] if self.bias else vector

    @property
    def width(self) -> int:
        """Return the number of columns that are learned."""
        return self.dim + self.bias

    def specs(self, *, init_std: float, seed: int) -> Iterator[TableSpec]:
        """Yield the tables, each with the slots of row-lazy Adam."""
        for name in self.names:
            dim, start = (self.dim, Normal(init_std)) if name == self.entity else (None, Zeros())
            yield _spec(name, self.entity, dim, start, seed)

    def gather(self, view: View, rows: I64) -> Floats:
        """Return what is learned of some rows, float32 ``[n, width]``."""
        return _side_by_side([view.table(name).gather(rows) for name in self.names], len(rows))

    def scatter(self, work: Checkout, rows: I64, values: Floats) -> None:
        """Stage what is learned of some rows, ``[n, width]``."""
        for name, part in zip(self.names, self.split(values), strict=True):
            work.table(name).scatter(rows, part.astype(np.float32))

    def split(self, values: Floats) -> list[Floats]:
        """Return the columns of each table, in the order of ``names``; a bias as ``[n]``."""
        vector = [values[:, : self.dim]] if self.dim else []
        return [*vector, values[:, self.dim]] if self.bias else vector

    @property
    def _place(self) -> int:
        """Return the column of ones: the last of a user, before the bias of an item."""
        return self.width if self.entity == "user" else self.dim

    def factors(self, values: Floats) -> Floats:
        """Return the factors ``[n, k]`` of what is learned."""
        ones = np.ones((len(values), int(self.other_bias)), values.dtype)
        return np.concatenate([values[:, : self._place], ones, values[:, self._place :]], axis=1)

    def learned(self, factors: Floats) -> Floats:
        """Return the columns that are learned out of factors, their gradient, or what stands against them."""
        return np.delete(factors, self._place, axis=1) if self.other_bias else factors

    def against_ones(self, others: Floats) -> Floats:
        """Return the column of the other side's factors that stands against ones, its bias, ``[n_others]``; else zeros."""
        return others[:, self._place] if self.other_bias else np.zeros(len(others), others.dtype)


def _spec(name: str, entity: str, dim: int | None, init: Normal | Zeros, seed: int) -> TableSpec:
    return TableSpec(name, entity, dim, slots=adam_slots(dim), init=init, seed=seed)


def _side_by_side(columns: list[Floats], n_rows: int) -> Floats:
    """Return matrices and vectors of so many rows as one matrix, float32."""
    wide = [column if column.ndim == 2 else column[:, None] for column in columns]
    return np.concatenate([np.empty((n_rows, 0), np.float32), *wide], axis=1)


class LearnedSide:
    """A side and its optimizer state in memory; rows that took a step are staged at the end of an epoch."""

    def __init__(self, side: Side, work: Checkout) -> None:
        self.side = side
        self._work = work
        every = np.arange(len(work.ids(side.entity)))
        self.values = side.gather(work, every)
        self._exp_avg, self._exp_avg_sq = (self._slot(name) for name in _MOMENTS)
        slots = [work.table(name).slot(_STEP).values() for name in side.names]
        self._steps: Floats = slots[0] if slots else np.zeros(len(every), np.int32)
        self._staged_steps = self._steps.copy()

    def _slot(self, name: str) -> Floats:
        return _side_by_side([self._work.table(table).slot(name).values() for table in self.side.names], len(self.values))

    def factors(self, rows: I64) -> Floats:
        """Return the factors of some rows."""
        return self.side.factors(self.values[rows])

    def step(self, rows: I64, gradient: Floats, *, lr: float) -> None:
        """Take one Adam step on distinct rows; ``gradient`` is by their factors."""
        row_adam_(self.values, rows, self.side.learned(gradient), self._exp_avg, self._exp_avg_sq, self._steps, lr=lr)

    def stage(self) -> None:
        """Stage the rows that took a step since the last call."""
        rows = np.flatnonzero(self._steps != self._staged_steps)
        self._staged_steps = self._steps.copy()
        self.side.scatter(self._work, rows, self.values[rows])
        parts = [self.side.split(moment[rows]) for moment in (self._exp_avg, self._exp_avg_sq)]
        for place, name in enumerate(self.side.names):
            table = self._work.table(name)
            for moment, values in zip(_MOMENTS, parts, strict=True):
                table.slot(moment).scatter(rows, values[place])
            table.slot(_STEP).scatter(rows, self._steps[rows])
