"""The columns of one table: as stored, with their digests, and with what a checkout has staged over them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.errors import InvalidInputError, StaleCheckoutError
from embstore.ids import IdMap
from embstore.initial import row_digests
from embstore.schema import SlotSpec, TableSpec, is_another, other_slots
from embstore.staging import StagedColumn
from embstore.storage.arrays import Reader, Rows
from embstore.storage.chunks import WIDE_ROW_BYTES
from embstore.storage.segments import Column, Edit, StoredTable


def table_path(name: str) -> str:
    """Return where a table is stored."""
    return f"tables/{name}"


def column_of(spec: TableSpec | SlotSpec) -> Column:
    """Return the stored column of a table's values or of a slot."""
    shape = () if spec.dim is None else (spec.dim,)
    if isinstance(spec, SlotSpec):
        return Column(f"slots/{spec.name}", np.dtype(spec.dtype), shape, np.dtype(spec.dtype).type(spec.fill))
    return Column("values", np.dtype(spec.dtype), shape, np.dtype(spec.dtype).type(0))


def digest_column(column: Column) -> Column | None:
    """Return the column with the digests of ``column``'s rows; None where rows are narrow."""
    if column.row_bytes < WIDE_ROW_BYTES:
        return None
    fill = row_digests(np.full((1, *column.row_shape), column.fill, column.dtype))[0]
    return Column(f"digests/{column.name}", np.dtype(np.uint64), (), fill)


def data_columns(spec: TableSpec) -> list[Column]:
    """Return the columns of a table that callers see: values first, then the slots."""
    return [column_of(spec), *map(column_of, spec.slots)]


def all_columns(spec: TableSpec) -> list[Column]:
    """Return every stored column of a table, digests too."""
    columns = data_columns(spec)
    return [*columns, *(d for c in columns if (d := digest_column(c)))]


def with_digests(spec: TableSpec, edits: Mapping[str, Edit]) -> dict[str, Edit]:
    """Return ``edits`` with those of the digest columns that follow from them, to be computed while rows are being written."""
    out = dict(edits)
    for column in data_columns(spec):
        digests = digest_column(column)
        if digests and column.name in edits:
            edit = edits[column.name]
            out[digests.name] = Edit(edit.rows, partial(_digests_of, edit))
    return out


def _digests_of(edit: Edit) -> NDArray[np.uint64]:
    return row_digests(edit.values)


def lost_columns(have: TableSpec | None, wanted: TableSpec) -> set[str]:
    """Return the stored columns of ``have`` that are not those of ``wanted``, though they may have their names."""
    if have is None:
        return set()
    if is_another(have, wanted):
        return {column.name for column in all_columns(have)}
    slots = [column_of(slot) for slot in other_slots(have, wanted)]
    return {column.name for slot in slots for column in (slot, digest_column(slot)) if column is not None}


class TableRows:
    """The columns of one table at one version, and what a checkout has staged over them."""

    def __init__(
        self, reader: Reader, spec: TableSpec, idmap: IdMap, *, writable: bool = False, replaced: TableSpec | None = None
    ) -> None:
        self.spec = spec
        self.idmap = idmap
        self.writable = writable
        self.closed: str | None = None
        self.stored = StoredTable(reader, table_path(spec.name), ignored=lost_columns(replaced, spec))
        self.staged: dict[str, StagedColumn] = {}

    def reload(self, reader: Reader, spec: TableSpec) -> None:
        """Begin anew on what was committed."""
        self.spec = spec
        self.stored = StoredTable(reader, table_path(spec.name))
        self.staged.clear()

    @property
    def made(self) -> dict[str, str]:
        """Return for each column a token of the commit that added it."""
        return self.stored.state.made

    def holds(self, column: Column) -> bool:
        """Return whether a row of the column was ever written; else all are at its fill."""
        return column.name in self.staged or bool(self.stored.segments(column.name)) or self.stored.base(column.name) is not None

    def column(self, name: str) -> Column:
        """Return the column called ``name`` on disk."""
        return next(column for column in all_columns(self.spec) if column.name == name)

    def gather(self, column: Column, rows: Rows) -> NDArray[Any]:
        """Return ``rows`` of a column."""
        staged = self.staged.get(column.name)
        if staged is None:
            return self.stored.gather(column, rows)
        out = column.empty(len(rows))
        pending = staged.overlay(rows, out)
        if pending.any():
            out[pending] = self.stored.gather(column, rows[pending])
        return out

    def read(self, column: Column, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return a whole column."""
        n_rows, n_stored = len(self.idmap), self.idmap.n_stored
        out = column.empty(n_rows) if out is None else out
        self.stored.read(column, n_stored, out[:n_stored])
        out[n_stored:] = column.fill
        if column.name in self.staged:
            self.staged[column.name].overlay_all(out)
        return out

    def scatter(self, column: Column, rows: Rows, values: object) -> None:
        """Stage rows of a column; those of removed ids stay as they are, or a job that puts back whole tables would undo it."""
        self.check_open()
        checked, gone = checked_values(values, column, len(rows), self.spec.name), self.idmap.removed_rows()
        if len(gone):
            live = ~np.isin(rows, gone)
            rows, checked = rows[live], checked[live]
        self.staging(column).scatter(rows, checked)

    def staging(self, column: Column) -> StagedColumn:
        """Return the column's staged rows, made where there are none yet."""
        if column.name not in self.staged:
            self.staged[column.name] = StagedColumn(column, self.idmap.n_stored, n_rows=len(self.idmap))
        return self.staged[column.name]

    def check_open(self) -> None:
        """Raise if the checkout has ended."""
        if self.closed is not None:
            raise StaleCheckoutError(self.closed)

    def edits(self) -> dict[str, Edit]:
        """Return what is staged, by column; columns written for the same rows have one array of them."""
        edits: dict[str, Edit] = {}
        for name, staged in self.staged.items():
            if staged.is_empty:
                continue
            edit = staged.edit()
            same = next((other.rows for other in edits.values() if np.array_equal(other.rows, edit.rows)), edit.rows)
            edits[name] = Edit(same, edit.values)
        return edits


def checked_values(values: object, column: Column, n_rows: int, table: str) -> NDArray[Any]:
    """Return ``values`` as ``[n_rows, dim]`` of the column's dtype.

    Raises
    ------
    InvalidInputError
        For another shape, or a dtype that does not fit (wider floats are rounded, floats never become integers).
    """
    what = f"{column.name} of table {table!r}"
    array = as_array(values, what)
    shape = (n_rows, *column.row_shape)
    if array.shape != shape:
        msg = f"{what}: values of shape {array.shape}; give {shape}, one row for each"
        raise InvalidInputError(msg)
    if array.dtype != column.dtype and not np.can_cast(array.dtype, column.dtype, "same_kind"):
        msg = f"{what}: {array.dtype} does not fit {column.dtype}; convert it"
        raise InvalidInputError(msg)
    if column.dtype.kind in "iu" and array.size:
        low, high = np.iinfo(column.dtype).min, np.iinfo(column.dtype).max
        if int(array.min()) < low or int(array.max()) > high:
            worst = array.min() if int(array.min()) < low else array.max()
            msg = f"{what}: {worst} does not fit {column.dtype} ({low} to {high})"
            raise InvalidInputError(msg)
    with np.errstate(over="ignore"):  # what overflows is infinite then, and refuses the commit
        return array.astype(column.dtype, copy=False)


def astray(table: TableRows, rows: Rows, values: NDArray[Any], of: IdMap) -> str:
    """Return what is wrong with values that are to be rows of another entity (-1: of none); nothing where all are."""
    if not values.size or (values.min() >= -1 and values.max() < len(of)):
        return ""
    wrong = (values < -1) | (values >= len(of))
    at = np.flatnonzero(wrong if wrong.ndim == 1 else wrong.any(axis=1))
    ids = ", ".join(map(repr, table.idmap.at(rows[at[:3]]).tolist()))
    what = f"{len(at)} {'row points' if len(at) == 1 else 'rows point'} to no row of {of.entity!r}, which has {len(of)}"
    return f"table {table.spec.name!r}: {what} ({values[wrong][0]}; ids {ids})"


def as_array(values: object, what: str) -> NDArray[Any]:
    """Return ``values`` as an array.

    Raises
    ------
    InvalidInputError
        If it is a list of lists of different lengths, or nothing like an array.
    """
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        msg = f"{what}: cannot be made an array ({error})"
        raise InvalidInputError(msg) from error
