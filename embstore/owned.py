"""Which optimizer owns which parameter, and the entries of its state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from embstore.errors import InvalidInputError
from embstore.names import check_name
from embstore.schema import SlotSpec, TableSpec
from embstore.tensors import RowView, dtype_name, from_numpy, new_like, stored_dtype, to_numpy

T = TypeVar("T")
Shape = tuple[int | None, ...]
_SCALARS: dict[str, type] = {"bool": bool, "int": int, "float": float}
# What a row starts with that has no gradient yet, where that is not 0: the option of the parameter group that says it.
_FILLS = {("Adagrad", "sum"): "initial_accumulator_value", ("Rprop", "step_size"): "lr"}
# What has one number for all on an axis of the parameter, counted from behind: shapes do not tell where there is one row.
_MEANS = {("Adafactor", "row_var"): -1, ("Adafactor", "col_var"): -2}


@dataclass(frozen=True)
class Entry:
    """One entry of the state of a parameter.

    Parameters
    ----------
    key
        As the optimizer names it.
    type
        Of a tensor its dtype (``"bfloat16"``); ``"python:int"`` (``float``, ``bool``) of a number.
    shape
        Of a tensor with rows, None in place of their number; it is None for what is dense.
    """

    key: str
    type: str
    shape: Shape | None = None

    @property
    def width(self) -> int:
        """Return how many numbers a row has."""
        return math.prod(size for size in self.shape or () if size is not None)


@dataclass(frozen=True)
class Owned:
    """One parameter of one optimizer.

    Parameters
    ----------
    optimizer
        That changes it.
    name, param
        The parameter.
    path
        What the names of its dense arrays begin with: ``optim.<name>``.
    slot_prefix
        What the names of its slots begin with: nothing, but where several optimizers hold the parameter.
    axis
        On which its rows lie; None if it has none.
    """

    optimizer: torch.optim.Optimizer
    name: str
    param: torch.Tensor
    path: str
    slot_prefix: str
    axis: int | None

    @property
    def state(self) -> dict[str, Any]:
        """Return what the optimizer holds; asking makes no entry."""
        found: dict[str, Any] = self.optimizer.state.get(self.param, {})
        return found

    @property
    def group(self) -> dict[str, Any]:
        """Return the options."""
        return next(g for g in self.optimizer.param_groups if any(p is self.param for p in g["params"]))

    @property
    def classes(self) -> list[str]:
        """Return the names of the optimizer's class and of those it derives from."""
        ours = [c for c in type(self.optimizer).__mro__ if c not in (torch.optim.Optimizer, object)]
        return [f"{c.__module__}.{c.__qualname__}" for c in ours]

    def dense_name(self, key: str) -> str:
        """Return where a dense entry is stored."""
        return f"{self.path}.{key}"

    def entries(self) -> list[Entry]:
        """Return what the state holds now.

        Raises
        ------
        InvalidInputError
            For what is no tensor and no number.
        """
        return [self._entry(key, value) for key, value in self.state.items() if value is not None]

    def _entry(self, key: object, value: object) -> Entry:
        what = f"optimizer state {key!r} of {self.name!r}"
        if not isinstance(key, str) or not isinstance(value, (torch.Tensor, *_SCALARS.values())):
            msg = f"{what}: {type(value).__name__} cannot be stored, only tensors and numbers; use another optimizer"
            raise InvalidInputError(msg)
        if not isinstance(value, torch.Tensor):
            return Entry(key, "python:" + next(name for name, kind in _SCALARS.items() if isinstance(value, kind)))
        stored_dtype(value, what)
        return Entry(key, dtype_name(value), self._row_shape(key, tuple(value.shape)))

    @property
    def row_shape(self) -> Shape:
        """Return the shape of the parameter, None in place of the number of rows."""
        return tuple(None if i == self.axis else size for i, size in enumerate(self.param.shape))

    def _row_shape(self, key: str, shape: tuple[int, ...]) -> Shape | None:
        """Return the shape of a tensor with the parameter's rows, None in place of their number; None if it has none."""
        if self.axis is None or self._said(_MEANS, key) == self.axis - self.param.ndim:
            return None
        n_rows = self.param.shape[self.axis]
        if shape == (n_rows,):
            return (None,)
        same = len(shape) == self.param.ndim and shape[self.axis] == n_rows
        return (*shape[: self.axis], None, *shape[self.axis + 1 :]) if same else None

    def slot_spec(self, entry: Entry, table: TableSpec) -> SlotSpec:
        """Return the slot in which an entry with rows is kept.

        Raises
        ------
        InvalidInputError
            For a key that cannot be the name of a slot, or a dtype that no slot has.
        """
        dtype = stored_dtype(self.state[entry.key], f"optimizer state {entry.key!r} of {self.name!r}")
        dim = table.dim if entry.shape == self.row_shape else None if entry.width == 1 else entry.width
        return SlotSpec(self.slot_prefix + entry.key, dim, dtype, self.fill(entry.key))

    def fill(self, key: str) -> float:
        """Return what a row that was never trained has in an entry."""
        option = self._said(_FILLS, key)
        return float(self.group[option]) if option else 0.0

    def _said(self, of_classes: Mapping[tuple[str, str], T], key: str) -> T | None:
        """Return what is said of an entry of this optimizer, or of one that it derives from."""
        found = [of_classes.get((name.rpartition(".")[2], key)) for name in self.classes]
        return next((said for said in found if said is not None), None)

    def view(self, entry: Entry, first: int, *, flat: bool) -> RowView:
        """Return the rows of an entry that has them."""
        return RowView(self.state[entry.key], (entry.shape or ()).index(None), first, flat=flat)

    def make_rows(self, entry: Entry) -> None:
        """Make room for an entry with rows, in what memory there is where it fits, and set it to its fill."""
        n_rows = self.param.shape[self.axis or 0]
        shape = tuple(n_rows if size is None else size for size in entry.shape or ())
        state, have = self.optimizer.state[self.param], self.state.get(entry.key)
        fits = isinstance(have, torch.Tensor) and tuple(have.shape) == shape and dtype_name(have) == entry.type
        state[entry.key] = have if fits else new_like(self.param, entry.type, shape)
        state[entry.key].fill_(self.fill(entry.key))

    def get_dense(self, key: str) -> NDArray[Any]:
        """Return a dense entry as an array."""
        value = self.state[key]
        return to_numpy(value) if isinstance(value, torch.Tensor) else np.asarray(value)

    def set_dense(self, entry: Entry, array: NDArray[Any]) -> None:
        """Set a dense entry, in the type that it had."""
        word, _, scalar = entry.type.partition(":")
        on_host = entry.key == "step" and not self.group.get("capturable") and not self.group.get("fused")
        device = "cpu" if on_host else self.param.device
        value = _SCALARS[scalar](array) if word == "python" else from_numpy(array, entry.type, device)
        self.optimizer.state[self.param][entry.key] = value


def owners(
    optimizers: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer] | None,
    names: Mapping[torch.Tensor, str],
    axes: Mapping[str, int],
) -> list[Owned]:
    """Return every parameter of every optimizer.

    Parameters
    ----------
    optimizers
        One, several by name, or None.
    names
        Of the parameters of the module.
    axes
        On which rows lie, for the parameters that have them.

    Raises
    ------
    InvalidInputError
        For what is no optimizer, or a parameter that is not in the module.
    """
    named = {"": optimizers} if not isinstance(optimizers, Mapping) else optimizers
    found = []
    for name, optimizer in named.items():
        if optimizer is None and not isinstance(optimizers, Mapping):
            return []
        if not isinstance(optimizer, torch.optim.Optimizer):
            msg = f"optimizer {type(optimizer).__name__}: give a torch optimizer, several by name, or None"
            raise InvalidInputError(msg)
        prefix = f"optim.{check_name(name, 'optimizer')}" if isinstance(optimizers, Mapping) else "optim"
        for param in (p for group in optimizer.param_groups for p in group["params"]):
            parameter = _known(param, names)
            shared = sum(_holds(other, param) for other in named.values()) > 1
            path, slot_prefix = f"{prefix}.{parameter}", f"{name}." if shared else ""
            found.append(Owned(optimizer, parameter, param, path, slot_prefix, axes.get(parameter)))
    return found


def _known(param: torch.Tensor, names: Mapping[torch.Tensor, str]) -> str:
    if param not in names:
        msg = f"the optimizer has a parameter of shape {tuple(param.shape)} that is not in the module; make it part of the module"
        raise InvalidInputError(msg)
    return names[param]


def _holds(optimizer: torch.optim.Optimizer | None, param: torch.Tensor) -> bool:
    return optimizer is not None and any(param is p for group in optimizer.param_groups for p in group["params"])
