"""Parameters whose rows are those of a table: which they are, whether they fit, and which of their rows changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embstore.errors import InvalidInputError, SchemaMismatchError, UnknownNameError
from embstore.initial import U64, row_digests
from embstore.schema import TableSpec
from embstore.tables import StagedSlot, StagedTable
from embstore.tensors import RowView, stored_dtype
from embstore.workspace import Workspace

RowNumbers = NDArray[np.int64]
_READ_BYTES = 1 << 25


@dataclass(frozen=True)
class Rows:
    """Where the rows of a table lie in a parameter.

    Parameters
    ----------
    table
        Of the store.
    axis
        The axis of the parameter on which rows lie: 1 for the weight of a linear layer with one input for every id.
    first
        How many leading rows are no id's, such as a padding row.

    Raises
    ------
    InvalidInputError
        For a table that is no text, an axis that is no whole number, or ``first`` below 0.
    """

    table: str
    axis: int = 0
    first: int = 0

    def __post_init__(self) -> None:
        numbers = all(isinstance(n, int) and not isinstance(n, bool) for n in (self.axis, self.first))
        if not isinstance(self.table, str) or not numbers or self.first < 0:
            msg = f"{self!r}: give the name of a table, an axis, and how many leading rows are no id's (0 or more)"
            raise InvalidInputError(msg)


@dataclass(frozen=True)
class Bound:
    """One parameter or buffer with the rows of a table.

    Parameters
    ----------
    name
        The first that the module has for it.
    table, entity
        What its rows are.
    axis, first
        As in ``Rows``.
    flat
        Whether a row is one number in the table.
    dtype
        Of the table.
    """

    name: str
    table: str
    entity: str
    axis: int
    first: int
    flat: bool
    dtype: str

    def view(self, tensor: torch.Tensor) -> RowView:
        """Return the rows of the parameter."""
        return RowView(tensor, self.axis, self.first, flat=self.flat)

    def check_length(self, tensor: torch.Tensor, n_ids: int) -> None:
        """Raise SchemaMismatchError unless the parameter has a row for each id and the leading ones."""
        n_rows, needed = tensor.shape[self.axis], n_ids + self.first
        if n_rows != needed:
            parts = f"{n_ids} ids" + (f" and {self.first} leading" if self.first else "")
            msg = (
                f"parameter {self.name!r} of shape {tuple(tensor.shape)} has {n_rows} rows on axis {self.axis}, table"
                f" {self.table!r} needs {needed} ({parts}); make the module with {needed} and bind again"
            )
            raise SchemaMismatchError(msg)

    def check_dtype(self, tensor: torch.Tensor) -> None:
        """Raise SchemaMismatchError unless the parameter is still of the numbers that the table has."""
        if stored_dtype(tensor, f"parameter {self.name!r}") != self.dtype:
            now = f"parameter {self.name!r} has become {tensor.dtype} since it was bound"
            msg = f"{now}, table {self.table!r} has {self.dtype}; convert the module back, or before it is bound"
            raise SchemaMismatchError(msg)


def tensors_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by their first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _first_names(model: torch.nn.Module) -> dict[str, str]:
    """Return the first name of everything that the module has, by each of its names."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in tensors}


def bound_parameters(work: Workspace, model: torch.nn.Module, parameters: Mapping[str, str | Rows]) -> list[Bound]:
    """Return the bound parameters in the order given.

    Raises
    ------
    UnknownNameError
        If the module has no such parameter, or the store no such table.
    SchemaMismatchError
        If a row of the parameter has another shape or dtype than one of the table, or there are more of them.
    InvalidInputError
        If a parameter or a table is named twice.
    """
    names, tensors = _first_names(model), tensors_of(model)
    found: list[Bound] = []
    for given, value in parameters.items():
        rows = Rows(value) if isinstance(value, str) else value
        if not isinstance(rows, Rows):
            msg = f"parameter {given!r}: {value!r}; give the name of a table, or embstore.Rows"
            raise InvalidInputError(msg)
        if given not in names:
            msg = f"parameter {given!r}: the module has {', '.join(names) or 'none'}"
            raise UnknownNameError(msg)
        if rows.table not in work.tables:
            msg = f"table {rows.table!r}: the store has {', '.join(work.tables) or 'none'}; make it with work.add_table(...)"
            raise UnknownNameError(msg)
        bound = _bound(names[given], tensors[names[given]], rows, work.tables[rows.table])
        _check_once(bound, given, found)
        n_ids = len(work.ids(bound.entity))
        if len(bound.view(tensors[bound.name])) > n_ids:
            bound.check_length(tensors[bound.name], n_ids)
        found.append(bound)
    return found


def _bound(name: str, tensor: torch.Tensor, rows: Rows, spec: TableSpec) -> Bound:
    shape, what = tuple(tensor.shape), f"parameter {name!r}"
    if not -tensor.ndim <= rows.axis < tensor.ndim:
        msg = f"{what} of shape {shape}: it has no axis {rows.axis}; rows lie on one of its {tensor.ndim}"
        raise SchemaMismatchError(msg)
    axis, dtype = rows.axis % tensor.ndim, stored_dtype(tensor, what)
    width = math.prod(size for i, size in enumerate(shape) if i != axis)
    if (width, dtype) != (spec.dim or 1, spec.dtype):
        mine = f"of shape {shape}, {tensor.dtype} has {width} numbers of {dtype} a row on axis {axis}"
        msg = f"{what} {mine}; table {spec.name!r} of shape [n, {spec.dim or 1}] has {spec.dim or 1} of {spec.dtype}"
        raise SchemaMismatchError(msg)
    return Bound(name, spec.name, spec.entity, axis, rows.first, spec.dim is None, dtype)


def _check_once(bound: Bound, given: str, others: list[Bound]) -> None:
    for other in others:
        if other.name == bound.name:
            msg = f"parameter {given!r} is the same as {other.name!r}, which is bound to table {other.table!r}; name it once"
            raise InvalidInputError(msg)
        if other.table == bound.table:
            msg = f"table {bound.table!r}: bound to {other.name!r} and {given!r}; give each parameter a table of its own"
            raise InvalidInputError(msg)


class RowSet:
    """Rows of a working set: which rows a small parameter holds, in its order.

    Parameters
    ----------
    rows
        int64[n], distinct.
    """

    def __init__(self, rows: RowNumbers) -> None:
        self.rows = rows
        self._order = np.argsort(rows)

    def places(self, rows: RowNumbers) -> RowNumbers:
        """Return where ``rows`` lie; -1 for those that are not in the set."""
        if len(self.rows) == 0:
            return np.full(len(rows), -1, np.int64)
        at = np.searchsorted(self.rows, rows, sorter=self._order)
        places = self._order[np.minimum(at, len(self.rows) - 1)]
        return np.where(self.rows[places] == rows, places, -1)


@dataclass(frozen=True)
class Held:
    """One column of a table and the tensor that holds it, or some of its rows."""

    view: RowView
    column: StagedTable | StagedSlot
    rows: RowNumbers | None

    def load(self) -> U64:
        """Read the rows into the tensor; return their digests."""
        memory = self.view.memory()
        if self.rows is not None:
            for start, stop in self._read_at_once(self.rows):
                self.view.write(start, self.column.gather(self.rows[start:stop]))
        elif memory is not None:
            self.column.values(out=memory)
        else:
            self.view.write(0, self.column.values())
        return self._digests(stored=False)

    def _read_at_once(self, rows: RowNumbers) -> Iterator[tuple[int, int]]:
        """Yield where blocks of ascending rows start and stop, which share few chunks; others lie anywhere, and are one block."""
        height = len(rows)
        if height and np.all(rows[1:] > rows[:-1]):
            height = min(height, max(1, _READ_BYTES // max(1, self.view.read(0, 1).nbytes)))
        return ((start, min(start + height, len(rows))) for start in range(0, len(rows), max(1, height)))

    def stage(self, known: U64 | None, removed: RowNumbers) -> U64:
        """Scatter the rows whose bits are not those that ``known`` are the digests of; return the digests of all.

        Parameters
        ----------
        known
            uint64[n]; None: what the checkout has.
        removed
            Rows whose ids are removed: they stay as they are.
        """
        digests = self._digests(stored=True) if known is None else known
        for start, stop in self.view.blocks():
            block = self.view.read(start, stop)
            now = row_digests(block)
            changed = np.flatnonzero(now != digests[start:stop])
            rows = changed + start if self.rows is None else self.rows[changed + start]
            if len(removed):
                live = ~np.isin(rows, removed)
                rows, changed = rows[live], changed[live]
            self.column.scatter(rows, block[changed])
            digests[start:stop] = now
        return digests

    def _digests(self, *, stored: bool) -> U64:
        out = np.empty(len(self.view), np.uint64)
        if stored and self.rows is not None:  # at once: they lie anywhere, and a block of them in nearly every chunk
            out[:] = row_digests(self.column.gather(self.rows))
            return out
        for start, stop in self.view.blocks():
            out[start:stop] = row_digests(self.column.gather(np.arange(start, stop)) if stored else self.view.read(start, stop))
        return out
