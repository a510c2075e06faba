"""LibRecommender's columns of features as entities and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.consumed import ITEM, USER
from embstore.errors import InvalidInputError
from embstore.features import dense_feature, sparse_feature
from embstore.formats.librecommender_tables import TABLES, Builder

Array = NDArray[Any]
# Variable of all columns -> what their tables' names end with.
PACKED = {
    "embedding/sparse_embeds_var": "",
    "embedding/sparse_deep_var": "",
    "embedding/sparse_linear_var": "_linear",
    "embedding/sparse_wide_var": "_wide",
}
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class _Column:
    """A column of categories, or several that share theirs; ``places`` is where it stands in the matrix of its owner."""

    name: str
    owner: str
    places: list[int]
    first_row: int
    unknown_row: int


def as_ids(values: Array) -> Array:
    """Return ids as the store takes them: whole floats as int64, other floats and truth values as text."""
    is_float = values.dtype.kind == "f"
    if is_float and (np.abs(values) < 2.0**53).all() and (values == np.floor(values)).all():
        return values.astype(np.int64)
    return np.array([repr(value) for value in values.tolist()], object) if is_float or values.dtype.kind == "b" else values


def add_columns(
    builder: Builder, names: Mapping[str, Any], info: dict[str, Array], variables: dict[str, dict[str, Array]]
) -> None:
    """Add the columns of categories: their entities, their vectors, and which categories users and items have."""
    columns, taken = list(_columns(names, info)), {USER, ITEM, *(table for _, table in TABLES.values())}
    packed = {name: variables.pop(name) for name in PACKED if name in variables and columns}
    n_rows = max((column.unknown_row + 1 for column in columns), default=0)
    for name, state in packed.items():
        if state[""].ndim not in (1, 2) or len(state[""]) != n_rows:
            msg = f"{name}: shape {state[''].shape}; the columns of categories have {n_rows}: files of two models?"
            raise InvalidInputError(msg)
    matrices = {owner: info.pop(f"{owner}_sparse_unique", None) for owner in (USER, ITEM) if columns}
    endings = ["", *(PACKED[name] for name in packed)]
    for column in columns:
        entity = _free_name(column.name, endings, taken)
        builder.contents.entities[entity] = as_ids(_pop_categories(info, column))
        for name, state in packed.items():
            rows = {slot: array[column.first_row : column.unknown_row + 1] for slot, array in state.items()}
            builder.add(entity + PACKED[name], entity, rows, source=f"{name} from row {column.first_row}")
        matrix = matrices[column.owner]
        if matrix is not None:
            _add_categories(builder, entity, column, matrix)


def _columns(names: Mapping[str, Any], info: dict[str, Array]) -> Iterator[_Column]:
    places, shared = names.get("sparse_col", {}), names.get("multi_sparse", {})
    if not places or "sparse_offset" not in info or "sparse_oov" not in info:
        return
    first_rows, unknown_rows = info.pop("sparse_offset").ravel(), info.pop("sparse_oov").ravel()
    for name, place in places.items():
        if name in shared:
            continue
        members = [name, *(member for member, main in shared.items() if main == name)]
        owner = USER if name in names.get("user_sparse_col", {}) else ITEM
        mine = list(names.get(f"{owner}_sparse_col", {}))
        if not 0 <= place < min(first_rows.size, unknown_rows.size) or not set(members) <= set(mine):
            msg = f"column {name!r}: the name mapping does not fit the offsets of the columns: files of two models?"
            raise InvalidInputError(msg)
        yield _Column(name, owner, [mine.index(m) for m in members], int(first_rows[place]), int(unknown_rows[place]))


def _pop_categories(info: dict[str, Array], column: _Column) -> Array:
    found = [info.pop(key) for key in (f"unique_{column.name}", f"munique_{column.name}") if key in info]
    if len(found) != 1 or len(found[0]) != column.unknown_row - column.first_row:
        n_rows = column.unknown_row - column.first_row
        msg = f"column {column.name!r}: {len(found[0]) if found else 'no'} categories for {n_rows} rows: files of two models?"
        raise InvalidInputError(msg)
    return found[0]


def _add_categories(builder: Builder, entity: str, column: _Column, matrix: Array) -> None:
    """Add which categories users or items have: places, -1 behind them where there are fewer."""
    n_ids, n_categories = len(builder.contents.entities[column.owner]), column.unknown_row - column.first_row
    if matrix.ndim != 2 or len(matrix) != n_ids or matrix.shape[1] <= max(column.places):
        msg = f"{column.owner}_sparse_unique: {matrix.shape} for {n_ids} ids and column {column.name!r}: files of two models?"
        raise InvalidInputError(msg)
    values = (matrix[:, column.places] - column.first_row).astype(np.int32)
    if ((values < 0) | (values > n_categories)).any():
        msg = f"column {column.name!r}: {column.owner}_sparse_unique points outside of its categories"
        raise InvalidInputError(msg)
    values[values == n_categories] = -1
    several = len(column.places) > 1
    values = np.take_along_axis(values, np.argsort(values < 0, axis=1, kind="stable"), axis=1)
    spec = sparse_feature(column.owner, entity, n_values=len(column.places) if several else None)
    source = f"{column.owner}_sparse_unique, column {column.name}"
    builder.add_feature(spec, values if several else values[:, 0], source=source)


def add_numbers(builder: Builder, names: Mapping[str, Any], info: dict[str, Array]) -> None:
    """Add the columns of numbers."""
    taken: set[str] = set()
    for owner in (USER, ITEM):
        columns, matrix = list(names.get(f"{owner}_dense_col", {})), info.get(f"{owner}_dense_unique")
        n_ids = len(builder.contents.entities[owner])
        if matrix is None or matrix.ndim != 2 or matrix.shape[1] != len(columns) or len(matrix) != n_ids:
            continue
        del info[f"{owner}_dense_unique"]
        for place, column in enumerate(columns):
            spec = dense_feature(owner, _free_name(column, [""], taken))
            source = f"{owner}_dense_unique, column {column}"
            builder.add_feature(spec, matrix[:, place].astype(np.float32), source=source)


def _free_name(column: str, endings: Sequence[str], taken: set[str]) -> str:
    """Return a name for an entity, as near to the column's as possible, and add it with each ending to those taken."""
    name = _NOT_IN_NAMES.sub("-", column).strip("-._")[:40] or "column"
    numbered = (name if n == 1 else f"{name}-{n}" for n in count(1))
    free = next(name for name in numbered if not taken & {name + ending for ending in endings})
    taken |= {free + ending for ending in endings}
    return free
