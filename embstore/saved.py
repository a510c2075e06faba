"""A state dict of ``torch.distributed.checkpoint`` in a store: which item lies where, and parts of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.dense import array_path
from embstore.errors import InvalidInputError, UnknownNameError
from embstore.schema import TableSpec
from embstore.tables import Slot, Table
from embstore.version import Version, View

RECORD = "dcp"
ROWS = "dcp.rows."
Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Column:
    """Where the rows of a tensor lie in a store.

    Parameters
    ----------
    table, slot
        A table, or a slot of it: optimizer state with a number, or a row of numbers, for every row.
    first
        How many leading rows are no id's, such as a padding row.
    """

    table: str
    slot: str | None = None
    first: int = 0

    @classmethod
    def named(cls, given: Mapping[str, str | Column]) -> dict[str, Column]:
        """Return a mapping in which every value is a column.

        Raises
        ------
        InvalidInputError
            For another value, or two tensors of one column.
        """
        columns = {name: cls(value) if isinstance(value, str) else value for name, value in given.items()}
        for name, column in columns.items():
            if not isinstance(column, cls) or column.first < 0:
                msg = f"tables[{name!r}]: {column!r}; give the name of a table, or a Column with first of 0 or more"
                raise InvalidInputError(msg)
        if len({(column.table, column.slot) for column in columns.values()}) < len(columns):
            msg = f"tables {given}: give each tensor a table, or a slot, of its own"
            raise InvalidInputError(msg)
        return columns


@dataclass(frozen=True)
class Item:
    """One item of a saved state dict: a tensor of some size, in a column or dense; or, without a size, a JSON value."""

    dtype: str = ""
    size: Shape | None = None
    column: Column | None = None
    value: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return the item as JSON data."""
        if self.size is None:
            return {"value": self.value}
        column = None if self.column is None else [self.column.table, self.column.slot, self.column.first]
        return {"dtype": self.dtype, "size": self.size, "column": column}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Item:
        """Return the item that ``to_json`` gave."""
        if "value" in data:
            return cls(value=data["value"])
        return cls(data["dtype"], tuple(data["size"]), None if data["column"] is None else Column(*data["column"]))


def read_record(view: View) -> dict[str, Any]:
    """Return what is recorded of the last save: ``items`` and their ``paths``."""
    if RECORD not in view.dense:
        return {"items": {}, "paths": {}}
    record: dict[str, Any] = json.loads(view.dense[RECORD].tobytes())
    return record


def dense_names(items: Mapping[str, Any], view: View) -> list[str]:
    """Return the dense arrays that a save has made."""
    found = {name: Item.from_json(data) for name, data in items.items()}
    own = [name for name, item in found.items() if item.size is not None and item.column is None]
    leading = [f"rows.{name}" for name, item in found.items() if item.column is not None and item.column.first]
    return [*own, *leading, *(name for name in view.dense if name.startswith(ROWS))]


def table_of(view: View, name: str) -> TableSpec:
    """Return what a table is.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    """
    if name not in view.tables:
        msg = f"table {name!r}: the store has {', '.join(view.tables) or 'none'}; make it with add_table first"
        raise UnknownNameError(msg)
    return view.tables[name]


class Saved:
    """What a version has for ``dcp.load``.

    Parameters
    ----------
    version
        Saved by ``dcp.save``, or not.
    columns
        Of tensors, in place of those recorded.
    ids
        Entity -> ids, in place of those recorded: row i of its tensors is that of the i-th id.
    """

    def __init__(self, version: Version, columns: Mapping[str, Column], ids: Mapping[str, object]) -> None:
        self.version = version
        self._columns = columns
        self._rows = {entity: version.ids(entity).rows(given) for entity, given in ids.items()}
        record = read_record(version)
        self.paths: dict[str, list[str | int]] = record["paths"]
        self._recorded = {name: Item.from_json(data) for name, data in record["items"].items()}

    @cached_property
    def items(self) -> dict[str, Item]:
        """Return every item by name, with the size that it has now."""
        found = {name: item for name, item in self._recorded.items() if name not in self._columns}
        found |= {name: Item(self._dtype(name, column), (), column) for name, column in self._columns.items()}
        known = {RECORD, *dense_names({name: item.to_json() for name, item in self._recorded.items()}, self.version)}
        names = [name for name in self.version.dense if name not in known]
        metas = zip(names, self.version.reader.metas([array_path(name) for name in names]), strict=True)
        others = {name: Item(meta.dtype.name, meta.shape) for name, meta in metas}
        return {name: self._sized(item) for name, item in (others | found).items()}

    def _column(self, column: Column) -> Table | Slot:
        table = self.version.table(table_of(self.version, column.table).name)
        return table if column.slot is None else table.slot(column.slot)

    def _dtype(self, name: str, column: Column) -> str:
        recorded = self._recorded.get(name)
        return recorded.dtype if recorded and recorded.dtype else self._column(column).spec.dtype

    def _sized(self, item: Item) -> Item:
        if item.column is None:
            return item
        dim = self._column(item.column).spec.dim
        shape = item.size[1:] if item.size else () if dim is None else (dim,)
        return Item(item.dtype, (len(self.rows(item.column)) + item.column.first, *shape), item.column)

    def rows(self, column: Column) -> NDArray[np.int64]:
        """Return the rows of the store that a tensor has, in its order."""
        entity = self.version.tables[column.table].entity
        if entity not in self._rows:
            name = ROWS + entity
            dense = self.version.dense
            self._rows[entity] = dense[name] if name in dense else np.arange(len(self.version.ids(entity)))
        return self._rows[entity]

    def read(self, name: str, offsets: Shape, lengths: Shape) -> Array:
        """Return a part of a tensor; of a large one only the chunks that hold it are read."""
        item = self.items[name]
        if not lengths:
            whole: Array = self.version.dense[name]
            return whole
        start, stop = offsets[0], offsets[0] + lengths[0]
        if item.column is None:
            array = self.version.reader.gather(array_path(name), np.arange(start, stop))
        else:
            first = item.column.first
            array = self._column(item.column).gather(self.rows(item.column)[max(0, start - first) : max(0, stop - first)])
            if start < first:
                leading = self.version.dense[f"rows.{name}"][start:stop]
                array = np.concatenate([leading, array.reshape(len(array), *leading.shape[1:])])
            array = array.reshape(stop - start, *(item.size or ())[1:])
        part: Array = array[tuple(slice(o, o + n) for o, n in zip((0, *offsets[1:]), lengths, strict=True))]
        return part
