"""What a trainer learns, in memory with Adam's state: tables row by row, and arrays without rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore import Checkout, InvalidInputError, SchemaMismatchError, SlotSpec, View
from trainers.row_adam import row_adam_

I64 = NDArray[np.int64]
Floats = NDArray[Any]
_SLOTS = ("exp_avg", "exp_avg_sq", "step")
# So many numbers and what is computed of them stay in the cache, and take little memory.
_BLOCK = 1 << 17


def adam_slots(dim: int | None) -> tuple[SlotSpec, ...]:
    """Return the slots of row-lazy Adam for a table of that width."""
    first, second, steps = _SLOTS
    return SlotSpec(first, dim), SlotSpec(second, dim), SlotSpec(steps, None, "int32")


class LearnedTable:
    """A table and its optimizer state; rows that took a step are staged at the end of an epoch.

    Parameters
    ----------
    work
        That has the table, with `adam_slots`.
    name
        Of the table.
    lazy
        Leave rows without a gradient alone. False: all live rows move at every step, the others with a gradient of zero.
    """

    def __init__(self, work: Checkout, name: str, *, lazy: bool = True) -> None:
        self._table = work.table(name)
        self._all_rows = None if lazy else work.ids(self._table.spec.entity).live_rows()
        self.values = self._table.values()
        self._exp_avg, self._exp_avg_sq, self._steps = (self._table.slot(slot).values() for slot in _SLOTS)
        self._staged_steps = self._steps.copy()

    def step(self, rows: I64, gradient: Floats, *, lr: float, l2: float = 0.0, correction: str = "row") -> None:
        """Take one Adam step on ``rows``, each there once; ``l2`` times a row is added to its ``gradient``."""
        if self._all_rows is not None:
            whole = np.zeros((len(self._all_rows), *gradient.shape[1:]), gradient.dtype)
            whole[np.searchsorted(self._all_rows, rows)] = gradient
            rows, gradient = self._all_rows, whole
        state = self._exp_avg, self._exp_avg_sq, self._steps
        height = max(1, _BLOCK // max(1, self.values[:1].size))
        for start in range(0, len(rows), height):
            mine, slopes = rows[start : start + height], gradient[start : start + height]
            if l2:
                slopes = slopes + self.values[mine] * slopes.dtype.type(l2)
            row_adam_(self.values, mine, slopes, *state, lr=lr, correction=correction)

    def stage(self) -> None:
        """Stage the rows that took a step since the last call."""
        rows = np.flatnonzero(self._steps != self._staged_steps)
        self._staged_steps = self._steps.copy()
        self._table.scatter(rows, self.values[rows])
        for name, state in zip(_SLOTS, (self._exp_avg, self._exp_avg_sq, self._steps), strict=True):
            self._table.slot(name).scatter(rows, state[rows])


class LearnedArrays:
    """Arrays without rows and their optimizer state.

    A view has them as ``model.<trainer>.<name>``, with ``optim.net.<trainer>.<name>.exp_avg``, ``.exp_avg_sq`` and ``.step``.

    Parameters
    ----------
    work
        That may have them.
    trainer
        Whose they are.
    start
        By name, what they are before any training.

    Raises
    ------
    SchemaMismatchError
        If the checkout has one in another shape.
    """

    def __init__(self, work: Checkout, trainer: str, start: Mapping[str, Floats]) -> None:
        self._work, self._trainer = work, trainer
        self.values = {name: self._restored(f"model.{trainer}.{name}", array) for name, array in start.items()}
        self._state = {name: self._state_of(name, array) for name, array in start.items()}

    def _state_of(self, name: str, array: Floats) -> tuple[Floats, ...]:
        fresh = np.zeros_like(array), np.zeros_like(array), np.zeros((), np.int32)
        return tuple(self._restored(self._slot(name, slot), state) for slot, state in zip(_SLOTS, fresh, strict=True))

    def _slot(self, name: str, slot: str) -> str:
        return f"optim.net.{self._trainer}.{name}.{slot}"

    def _restored(self, name: str, fresh: Floats) -> Floats:
        if name not in self._work.dense:
            return fresh
        stored = self._work.dense[name]
        if stored.shape != fresh.shape:
            msg = (
                f"dense array {name!r} has shape {stored.shape}, trainer {self._trainer!r} wants {fresh.shape}: set the layers"
                " that it was trained with, or train in another store"
            )
            raise SchemaMismatchError(msg)
        return stored.astype(fresh.dtype)

    def step(self, gradients: Mapping[str, Floats], *, lr: float) -> None:
        """Take one Adam step on each array that has a gradient."""
        for name, gradient in gradients.items():
            first, second, steps = self._state[name]
            param, grad, first, second = (array.reshape(1, -1) for array in (self.values[name], gradient, first, second))
            row_adam_(param, np.zeros(1, np.int64), grad, first, second, steps.reshape(1), lr=lr)

    def stage(self) -> None:
        """Stage all of them."""
        for name, array in self.values.items():
            self._work.dense[f"model.{self._trainer}.{name}"] = array
            for slot, state in zip(_SLOTS, self._state[name], strict=True):
                self._work.dense[self._slot(name, slot)] = state


def load_arrays(view: View, trainer: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Floats]:
    """Return the arrays of a trainer that a view has.

    Raises
    ------
    InvalidInputError
        If it lacks one of them, or has it in another shape.
    """
    found = {}
    for name, shape in shapes.items():
        at = f"model.{trainer}.{name}"
        if at not in view.dense or view.dense[at].shape != shape:
            reason = f"trainer {trainer!r} was not trained with these layers"
            msg = f"no array {at!r} of shape {shape}: {reason}; fit first, or set what was set then"
            raise InvalidInputError(msg)
        found[name] = view.dense[at]
    return found
