"""Features of users and items: columns of a caller's frames as tables, categories as ids of entities of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embstore.checkout import Checkout
from embstore.consumed import ITEM, USER
from embstore.epochs import differ
from embstore.errors import InvalidInputError
from embstore.initializers import Constant, Zeros
from embstore.interactions import Interactions
from embstore.normalize import normalize_ids, normalize_ratings, rank_ids
from embstore.schema import TableSpec

if TYPE_CHECKING:
    import pandas as pd

Ids = NDArray[Any]
Rows = NDArray[np.int64]
NO_CATEGORY = -1
SEPARATOR = "|"


def sparse_feature(entity: str, column: str, *, n_values: int | None = None, of: str | None = None) -> TableSpec:
    """Return the table of a column of categories, ``<entity>.<column>``, int32.

    Parameters
    ----------
    entity
        ``"user"`` or ``"item"``, whose feature it is.
    column
        Of the frame.
    n_values
        How many categories an id has at most: ``[N, n_values]``, filled up with -1 behind. None: one, ``[N]``.
    of
        The entity whose ids are the categories, by default the column's name. Columns that share it share their categories.

    Raises
    ------
    InvalidInputError
        For names that no table or entity can have, and another ``n_values``.
    """
    rows_of = column if of is None else of
    return TableSpec(f"{entity}.{column}", entity, n_values, "int32", init=Constant(NO_CATEGORY), rows_of=rows_of)


def dense_feature(entity: str, column: str) -> TableSpec:
    """Return the table of a column of numbers, ``<entity>.<column>``, float32 ``[N]``; see `sparse_feature`."""
    return TableSpec(f"{entity}.{column}", entity, None, init=Zeros())


def stage_features(work: Checkout, interactions: Interactions, *, required: Iterable[TableSpec] = ()) -> None:
    """Stage the feature columns of ``interactions.user_features`` and ``.item_features`` in the tables of ``work``.

    ::

        for each of the two frames, and for each feature table of its entity that the checkout has:
            append new categories, sorted, to the column's entity
            the last row of an id wins; an id that the frame does not name keeps what it has

    The ids of a frame are in its column ``user`` (``item``); without one in its index, if that has a name or holds no
    integers; else in its first column. Items that have no row yet are appended, so that they can be recommended before
    anybody has had them; unknown users are passed over. Columns without a table are too.

    A missing value (None, NaN, NA) becomes -1 in a column of categories, 0.0 in one of numbers. Where an id may have several
    categories, a cell is a list of them, or text with ``|`` between them; one named twice counts once.

    Parameters
    ----------
    work
        Whose schema says which tables there are, see `sparse_feature` and `dense_feature`.
    interactions
        With the frames.
    required
        Tables whose column a frame must have, where there is a frame of their entity.

    Raises
    ------
    InvalidInputError
        For a frame without ids or without a required column, a column that is there twice, a category that can be no id,
        more categories than the table has room for, and numbers that are none or infinite. What was staged before, stays.
    IdTypeError
        For ids or categories of another type than the store's.
    """
    wanted = {spec.name for spec in required}
    for entity, frame in ((USER, interactions.user_features), (ITEM, interactions.item_features)):
        stage_frame(work, entity, frame, required=wanted)


def stage_frame(work: Checkout, entity: str, frame: Any, *, required: Collection[str] = (), since: int = 0) -> None:
    """Do for one frame what `stage_features` does; ids whose rows are below ``since`` keep what they have."""
    columns = {feature_column(spec): spec for spec in work.schema.tables if spec.entity == entity and feature_column(spec)}
    if frame is None or not columns:
        return
    ids = _ids_of_frame(frame, entity, columns)
    for column, spec in columns.items():
        if column not in frame.columns and spec.name in required:
            have = ", ".join(map(str, frame.columns))
            msg = f"{entity} features: no column {column!r} among {have}; give it, or leave it out of the trainer's settings"
            raise InvalidInputError(msg)
    if entity == ITEM:
        work.append(ITEM, sorted_ids(ids))
    rows = work.ids(entity).rows(ids, missing=-1)
    places = _last_places(ids, rows >= since)
    for column, spec in columns.items():
        if column in frame.columns:
            _stage_column(work, spec, rows[places], ids[places], frame[column].iloc[places])


def feature_column(spec: TableSpec) -> str | None:
    """Return the column that a feature table is filled from; None for any other table."""
    entity, column = spec.name[: len(spec.entity) + 1], spec.name[len(spec.entity) + 1 :]
    is_dense = spec.dtype == "float32" and spec.dim is None
    return column if entity == f"{spec.entity}." and not spec.slots and (spec.rows_of or is_dense) else None


def sorted_ids(ids: Ids) -> Ids:
    """Return the distinct ids, sorted; strings by code point."""
    if ids.dtype != object:
        return np.unique(ids)
    distinct = sorted(set(ids.tolist()))
    out = np.empty(len(distinct), object)
    out[:] = distinct
    return out


def _ids_of_frame(frame: Any, entity: str, features: Collection[str | None]) -> Ids:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        msg = f"{entity} features: {type(frame).__name__}; give a pandas DataFrame"
        raise InvalidInputError(msg)
    if not frame.columns.is_unique:
        msg = f"{entity} features: column {frame.columns[frame.columns.duplicated()][0]!r} is there twice; rename one"
        raise InvalidInputError(msg)
    index_has_ids = frame.index.name is not None or not pd.api.types.is_integer_dtype(frame.index.dtype)
    if entity in frame.columns:
        return normalize_ids(frame[entity], what=f"{entity} id")
    if index_has_ids:
        return normalize_ids(frame.index, what=f"{entity} id")
    if len(frame.columns) and frame.columns[0] not in features:
        return normalize_ids(frame.iloc[:, 0], what=f"{entity} id")
    msg = f"{entity} features: no column of ids among {', '.join(map(str, frame.columns))}; call it {entity!r}, or put it first"
    raise InvalidInputError(msg)


def _last_places(ids: Ids, wanted: NDArray[np.bool_]) -> Rows:
    """Return the place of the last row of each id, for the rows that are wanted."""
    places = np.flatnonzero(wanted)[::-1]
    return places[np.unique(rank_ids(ids)[places], return_index=True)[1]]


def _stage_column(work: Checkout, spec: TableSpec, rows: Rows, ids: Ids, cells: pd.Series[Any]) -> None:
    """Stage the values that differ from what the rows have."""
    values = _category_rows(work, spec, ids, cells) if spec.rows_of else _numbers(spec, ids, cells)
    table = work.table(spec.name)
    changed = differ(values, table.gather(rows))
    table.scatter(rows[changed], values[changed])


def _numbers(spec: TableSpec, ids: Ids, cells: pd.Series[Any]) -> NDArray[Any]:
    there = cells.notna().to_numpy()
    numbers = np.zeros(len(cells))
    numbers[there] = _checked(partial(normalize_ratings, what="value"), cells[there].to_numpy(), ids[there], spec)
    with np.errstate(over="ignore"):  # what overflows is infinite then, and refuses the commit
        return numbers.astype(np.float32)


def _category_rows(work: Checkout, spec: TableSpec, ids: Ids, cells: pd.Series[Any]) -> NDArray[Any]:
    """Return the rows of the categories, int32 ``[n]`` or ``[n, n_values]``, with new ones appended."""
    entity = str(spec.rows_of)
    owners, found = _single(cells) if spec.dim is None else _several(spec, ids, cells)
    categories = _checked(work.ids(entity).checked, found, ids[owners], spec)
    work.append(entity, sorted_ids(categories))
    rows = work.ids(entity).rows(categories)
    first = np.sort(np.unique(owners * len(work.ids(entity)) + rows, return_index=True)[1])
    owners, rows = owners[first], rows[first]
    places, n_values = np.arange(len(owners)) - np.searchsorted(owners, owners), spec.dim or 1
    if (places >= n_values).any():
        owner = owners[places >= n_values][0]
        msg = f"{spec.name} of {ids.tolist()[owner]!r}: {(owners == owner).sum()} categories; the table has room for {n_values}"
        raise InvalidInputError(msg)
    values = np.full((len(cells), n_values), NO_CATEGORY, np.int32)
    values[owners, places] = rows
    return values if spec.dim else values[:, 0]


def _single(cells: pd.Series[Any]) -> tuple[Rows, pd.Series[Any]]:
    """Return the categories of a column, and the place of the cell each is in."""
    there = cells.notna().to_numpy()
    return np.flatnonzero(there), cells[there]


def _several(spec: TableSpec, ids: Ids, cells: pd.Series[Any]) -> tuple[Rows, list[Any]]:
    """Return the categories of a column of lists one after the other, and the place of the cell each is in."""
    there = cells.notna().to_numpy()
    lists = [_listed(cell, id_, spec) for cell, id_ in zip(cells[there], ids[there].tolist(), strict=True)]
    return np.repeat(np.flatnonzero(there), list(map(len, lists))), [category for cell in lists for category in cell]


def _listed(cell: Any, id_: object, spec: TableSpec) -> list[Any]:
    if isinstance(cell, str):
        return cell.split(SEPARATOR) if cell else []
    if isinstance(cell, (list, tuple, np.ndarray)):
        return list(cell)
    msg = f"{spec.name} of {id_!r}: {cell!r}; give a list of categories, or text with {SEPARATOR!r} between them"
    raise InvalidInputError(msg)


def _checked(
    check: Callable[[Any], NDArray[Any]], values: Sequence[Any] | Ids | pd.Series[Any], ids: Ids, spec: TableSpec
) -> NDArray[Any]:
    """Return what ``check`` makes of values; where it refuses one alone, the message names its id."""
    try:
        return check(values)
    except InvalidInputError:
        for id_, value in zip(ids.tolist(), values, strict=True):
            try:
                check([value])
            except InvalidInputError as error:
                msg = f"{spec.name} of {id_!r}: {error}"
                raise type(error)(msg) from error
        raise
