"""Tables and slots: one row for every id of an entity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from embstore.columns import TableRows, column_of
from embstore.errors import InvalidInputError
from embstore.ids import checked_rows
from embstore.initial import initial_vectors
from embstore.schema import SlotSpec, TableSpec
from embstore.storage.segments import Column

if TYPE_CHECKING:
    import pandas as pd


class _Rows:
    """What values and slots have in common: one stored column, and in a checkout what is staged over it."""

    def __init__(self, table: TableRows, column: Column) -> None:
        self._table = table
        self._column = column

    def __len__(self) -> int:
        return len(self._table.idmap)

    def gather(self, rows: object) -> NDArray[Any]:
        """Return the vectors of ``rows`` (int64[n], any order, repeats allowed): ``[n, dim]``.

        Raises
        ------
        InvalidInputError
            For rows that there are not.
        """
        return self._table.gather(self._column, checked_rows(rows, len(self), self._table.spec.name))

    def values(self, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return all rows ``[N, dim]``; into ``out`` where given, which saves the page faults of fresh memory.

        Raises
        ------
        InvalidInputError
            If ``out`` has another shape or dtype, is not contiguous or is read-only.
        """
        shape = (len(self), *self._column.row_shape)
        if out is not None:
            usable = isinstance(out, np.ndarray) and out.flags.c_contiguous and out.flags.writeable
            if not usable or out.shape != shape or out.dtype != self._column.dtype:
                wanted = f"a writable contiguous array of shape {shape}, {self._column.dtype}"
                given = f"of shape {out.shape}, {out.dtype}" if isinstance(out, np.ndarray) else repr(out)
                msg = f"out {given}: give {wanted}"
                raise InvalidInputError(msg)
        return self._table.read(self._column, out)

    def get(self, ids: object) -> NDArray[Any]:
        """Return the vectors of ``ids``: ``[n, dim]``.

        Raises
        ------
        UnknownIdError
            For ids that the entity does not have.
        """
        return self.gather(self._table.idmap.rows(ids))


class _WritableRows(_Rows):
    def scatter(self, rows: object, values: object) -> None:
        """Stage ``values`` ``[n, dim]`` for ``rows`` int64[n]; of rows given twice the last counts.

        Rows whose ids were removed stay as they are, so whole tables can be written back.
        Values of a table with ``rows_of`` are looked at by the commit.

        Raises
        ------
        InvalidInputError
            For rows that there are not, another number of rows or columns, or a dtype that does not fit.
        StaleCheckoutError
            If the checkout is closed.
        """
        self._table.check_open()
        self._table.scatter(self._column, checked_rows(rows, len(self), self._table.spec.name), values)


class Slot(_Rows):
    """Optimizer state in the row order of its table."""

    def __init__(self, table: TableRows, spec: SlotSpec) -> None:
        super().__init__(table, column_of(spec))
        self.spec = spec

    def __repr__(self) -> str:
        return f"Slot({self._table.spec.name}.{self.spec.name}, rows={len(self)})"


class StagedSlot(Slot, _WritableRows):
    """A slot of a checkout; what is scattered is seen at once and stored by the commit."""


class Table(_Rows):
    """A matrix with one row for every id of its entity."""

    def __init__(self, table: TableRows) -> None:
        super().__init__(table, column_of(table.spec))

    def __repr__(self) -> str:
        return f"Table({self.spec.name!r} of {self.spec.entity!r}, rows={len(self)}, dim={self.spec.dim})"

    @property
    def spec(self) -> TableSpec:
        """Return what kind of table this is."""
        return self._table.spec

    @property
    def slots(self) -> Mapping[str, Slot]:
        """Return the slots by name."""
        return {spec.name: self.slot(spec.name) for spec in self.spec.slots}

    def slot(self, name: str) -> Slot:
        """Return one slot.

        Raises
        ------
        UnknownNameError
            If there is none of that name.
        """
        return (StagedSlot if self._table.writable else Slot)(self._table, self.spec.slot(name))

    def get(self, ids: object, *, missing: Literal["raise", "initial", "mean"] = "raise") -> NDArray[Any]:
        """Return the vectors of ``ids``: ``[n, dim]``.

        Parameters
        ----------
        ids
            List or array of n ids.
        missing
            What unknown ids get: an error, their initial vector, or the mean of all live rows.

        Raises
        ------
        UnknownIdError
            For unknown ids, where ``missing="raise"``.
        InvalidInputError
            For what can be no id.
        """
        if missing == "raise":
            return self.gather(self._table.idmap.rows(ids))
        if missing not in ("initial", "mean"):
            msg = f"missing={missing!r}: give 'raise', 'initial' or 'mean'"
            raise InvalidInputError(msg)
        wanted = self._table.idmap.checked(ids)
        rows = self._table.idmap.rows(wanted, missing=-1)
        out = self._column.empty(len(rows))
        out[rows >= 0] = self.gather(rows[rows >= 0])
        if (rows < 0).any():
            out[rows < 0] = self.initial(wanted[rows < 0]) if missing == "initial" else self._mean()
        return out

    def _mean(self) -> NDArray[Any]:
        live = self.gather(self._table.idmap.live_rows())
        mean: NDArray[Any] = live.mean(axis=0, dtype=np.float64) if len(live) else np.zeros(self._column.row_shape)
        return mean.astype(self._column.dtype)

    def initial(self, ids: object) -> NDArray[Any]:
        """Return where these ids start or would start, stored or not: ``[n, dim]``.

        Raises
        ------
        InvalidInputError
            For what can be no id.
        """
        return initial_vectors(self.spec, self._table.idmap.checked(ids))

    def to_frame(self, ids: object = None) -> pd.DataFrame:
        """Return the vectors of ``ids`` (None: all live ones) as a data frame indexed by id."""
        import pandas as pd

        rows = self._table.idmap.live_rows() if ids is None else self._table.idmap.rows(ids)
        labels = self._table.idmap.ids(rows)
        return pd.DataFrame(self.gather(rows), index=pd.Index(labels, name=self.spec.entity))


class StagedTable(Table, _WritableRows):
    """A table of a checkout; what is scattered is seen at once and stored by the commit."""

    def __init__(self, table: TableRows, on_new_slot: Callable[[str, SlotSpec], None]) -> None:
        super().__init__(table)
        self._on_new_slot = on_new_slot

    def slot(self, name: str) -> StagedSlot:
        """Return one slot.

        Raises
        ------
        UnknownNameError
            If there is none of that name.
        """
        return StagedSlot(self._table, self.spec.slot(name))

    def add_slot(self, spec: SlotSpec) -> StagedSlot:
        """Add a slot, which all rows start at its fill; one that is there with the same shape is returned as it is.

        Raises
        ------
        SchemaMismatchError
            If there is one of that name with another shape or type.
        """
        self._table.check_open()
        self._on_new_slot(self.spec.name, spec)
        return self.slot(spec.name)
