"""Rows for new ids, in every table of their entity at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.columns import TableRows, as_array, checked_values, column_of, data_columns
from embstore.entity import Ids
from embstore.errors import InvalidInputError, UnknownNameError
from embstore.ids import IdMap
from embstore.initial import initial_vectors
from embstore.storage.arrays import Rows


def append_ids(idmap: IdMap, tables: Sequence[TableRows], ids: object, init: Mapping[str, object]) -> Rows:
    """Stage a row for every id that is new, in all ``tables``; return the rows of all ``ids``.

    Raises
    ------
    IdTypeError
        For ids of another type than the entity's.
    InvalidInputError
        For what can be no id, or ``init`` of another shape or dtype.
    UnknownNameError
        If ``init`` names another table.
    """
    wanted = idmap.checked(ids)
    rows = idmap.rows(wanted, missing=-1)
    unknown = np.flatnonzero(rows < 0)
    new, first, place = _distinct(wanted[unknown])
    starts = _checked_init(idmap, tables, init, len(wanted), unknown[first])
    if len(unknown) == 0:
        return rows
    for table in tables:
        values = starts.get(table.spec.name)
        start = initial_vectors(table.spec, new) if values is None else values
        table.staging(column_of(table.spec)).append(start)
    rows[unknown] = len(idmap) + place
    idmap.staged.append(new)
    return rows


def _distinct(ids: Ids) -> tuple[Ids, Rows, Rows]:
    """Return the distinct ids in order of appearance, where each is given first, and for each id its place among them."""
    if ids.dtype == np.int64:
        _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        order = np.argsort(first)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return ids[first[order]], first[order], place[inverse]
    places: dict[str, int] = {}
    place = np.fromiter((places.setdefault(id_, len(places)) for id_ in ids.tolist()), np.int64, len(ids))
    first = np.unique(place, return_index=True)[1]
    return ids[first], first, place


def _checked_init(
    idmap: IdMap, tables: Sequence[TableRows], init: Mapping[str, object], n_given: int, first: Rows
) -> dict[str, NDArray[Any]]:
    """Return where new rows start, by table: ``init`` has a row for each given id, or for each new one.

    ``first``: where each new id is first given.
    """
    specs = {table.spec.name: table.spec for table in tables}
    starts = {}
    for name, values in init.items():
        if name not in specs:
            msg = f"init of table {name!r}: {idmap.entity!r} has the tables {', '.join(specs) or 'none'}"
            raise UnknownNameError(msg)
        array = as_array(values, f"init of table {name!r}")
        if array.ndim == 0:
            msg = f"init of table {name!r}: {values!r}; give an array with one row for each id"
            raise InvalidInputError(msg)
        for_given = len(array) == n_given
        checked = checked_values(array, column_of(specs[name]), n_given if for_given else len(first), name)
        starts[name] = checked[first] if for_given and n_given != len(first) else checked
    return starts


def zero_rows(table: TableRows, rows: Rows) -> None:
    """Stage zeros for rows whose ids are removed (-1 where values are rows); a slot never written holds nothing of them."""
    for column in data_columns(table.spec):
        if table.holds(column) or column.fill:
            nothing = -1 if table.spec.rows_of and column.name == "values" else 0
            table.staging(column).scatter(rows, np.full((len(rows), *column.row_shape), nothing, column.dtype))


def fill_table(table: TableRows) -> None:
    """Stage initial vectors of a new table for the ids that its entity has."""
    live, gone = table.idmap.live_rows(), table.idmap.removed_rows()
    staged = table.staging(column_of(table.spec))
    staged.scatter(live, initial_vectors(table.spec, table.idmap.at(live)))
    staged.scatter(gone, np.full((len(gone), *staged.column.row_shape), -1 if table.spec.rows_of else 0, staged.column.dtype))
