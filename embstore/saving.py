"""Saving a state dict of ``torch.distributed.checkpoint``: pieces that come from many ranks, staged as rows and dense arrays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributed.checkpoint.planner import SavePlanner, WriteItem, WriteItemType

from embstore.checkout import Checkout
from embstore.errors import EmbstoreError, InvalidInputError, SchemaMismatchError
from embstore.extras import encode
from embstore.initial import row_digests
from embstore.saved import RECORD, ROWS, Array, Column, Item, Shape, dense_names, read_record, table_of
from embstore.schema import SlotSpec, TableSpec
from embstore.store import Store
from embstore.tables import StagedSlot, StagedTable
from embstore.tensors import dtype_name, stored_dtype, to_numpy
from embstore.version import Version

_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class Piece:
    """What one rank has of one item: numbers of a tensor from ``offsets`` on, or a value as JSON."""

    name: str
    dtype: str = ""
    size: Shape | None = None
    offsets: Shape = ()
    array: Array | None = None
    value: Any = None

    @property
    def described(self) -> dict[str, Any]:
        """Return all but the numbers, as JSON data."""
        return {"name": self.name, "dtype": self.dtype, "size": self.size, "offsets": self.offsets, "value": self.value}

    @classmethod
    def received(cls, described: Mapping[str, Any], arrays: Iterator[Array]) -> Piece:
        """Return the piece that was described, with the next array."""
        if described["size"] is None:
            return cls(described["name"], value=described["value"])
        size, offsets = tuple(described["size"]), tuple(described["offsets"])
        return cls(described["name"], described["dtype"], size, offsets, next(arrays))


@dataclass
class Pieces:
    """All pieces of all items, by name."""

    of: dict[str, list[Piece]] = field(default_factory=dict)

    def add(self, pieces: Iterable[Piece]) -> None:
        """Add pieces."""
        for piece in pieces:
            self.of.setdefault(piece.name, []).append(piece)

    def whole(self, name: str) -> Array:
        """Return a tensor put together; its pieces are given up."""
        pieces = self.of[name]
        size = pieces[0].size
        assert size is not None
        arrays = [piece.array for piece in pieces if piece.array is not None]
        if len(arrays) == 1 and arrays[0].shape == size:
            pieces.clear()
            return arrays[0]
        out = np.zeros(size, arrays[0].dtype)
        while pieces:
            piece = pieces.pop()
            assert piece.array is not None
            out[tuple(slice(o, o + n) for o, n in zip(piece.offsets, piece.array.shape, strict=True))] = piece.array
        return out

    def by_rows(self, name: str) -> Iterator[tuple[int, Array]]:
        """Yield whole rows and where they begin; they are given up one after the other."""
        pieces = self.of[name]
        size = pieces[0].size
        if size is not None and any(piece.array is not None and piece.array.shape[1:] != size[1:] for piece in pieces):
            yield 0, self.whole(name)
        while pieces:
            piece = pieces.pop()
            if piece.array is not None:
                yield piece.offsets[0], piece.array


def piece_of(item: WriteItem, planner: SavePlanner) -> Piece:
    """Return one item of this rank.

    Raises
    ------
    InvalidInputError
        For a tensor of a dtype that numpy does not have, or what is no tensor and no JSON.
    """
    name = item.index.fqn
    if item.type == WriteItemType.BYTE_IO:
        return Piece(name, value=_encoded(name, planner, item))
    tensor, data = planner.resolve_data(item), item.tensor_data
    assert isinstance(tensor, torch.Tensor)
    assert data is not None
    stored_dtype(tensor, f"tensor {name!r}")
    array = to_numpy(tensor).reshape(tuple(data.chunk.sizes))
    return Piece(name, dtype_name(tensor), tuple(data.size), tuple(data.chunk.offsets), array)


def _encoded(name: str, planner: SavePlanner, item: WriteItem) -> Any:
    """Return what is no tensor as JSON; planners hand it out pickled, so the object itself is asked for."""
    lookup = getattr(planner, "lookup_object", None)
    if lookup is None:
        msg = f"{name!r} is no tensor, and {type(planner).__name__} only gives it pickled; use a DefaultSavePlanner"
        raise InvalidInputError(msg)
    arrays: list[Any] = []
    encoded = encode(lookup(item.index), name, arrays)
    if arrays:
        msg = f"{name!r}: an array or tensor inside it cannot be stored; make it an item of the state dict"
        raise InvalidInputError(msg)
    return encoded


def received(data: Any, arrays: Iterator[np.ndarray[Any, Any]]) -> Iterator[Piece]:
    """Yield what a rank sent; nothing from one that failed, whose error is told to all ranks later."""
    for described in data.get("items", ()):
        yield Piece.received(described, arrays)


def stage_items(
    work: Checkout,
    pieces: Pieces,
    columns: Mapping[str, Column],
    *,
    ids: Mapping[str, object],
    paths: Mapping[str, Sequence[str | int]],
) -> None:
    """Stage a state dict: rows that changed, dense arrays, and a record of all; what an earlier save had beyond it goes.

    Raises
    ------
    InvalidInputError, SchemaMismatchError, UnknownNameError
        If a tensor does not fit its table, or an item has a name that cannot be stored.
    """
    for name in pieces.of:
        if name == RECORD or name.startswith(ROWS):
            msg = f"item {name!r}: the store keeps its own record under this name; take another"
            raise InvalidInputError(msg)
    rows = {entity: _rows_of(work, entity, given) for entity, given in ids.items()}
    items: dict[str, Item] = {}
    for name in sorted(pieces.of):
        first = pieces.of[name][0]
        items[name] = Item(first.dtype, first.size, columns.get(name), first.value)
    arrays: dict[str, Array] = {}
    for name, item in items.items():
        if item.size is None:
            continue
        if item.column is not None:
            arrays |= _stage_rows(work, name, item, pieces, rows)
        else:
            arrays[name] = pieces.whole(name)
    for entity, given in rows.items():
        if not np.array_equal(given, np.arange(len(work.ids(entity)))):
            arrays[ROWS + entity] = given
    record = {"items": {name: item.to_json() for name, item in items.items()}, "paths": dict(paths)}
    for name in dense_names(read_record(work)["items"], work):
        if name not in arrays and name in work.dense:
            del work.dense[name]
    work.dense.update(arrays)
    work.dense[RECORD] = np.frombuffer(json.dumps(record, sort_keys=True).encode(), np.uint8)


def _rows_of(work: Checkout, entity: str, ids: object) -> NDArray[np.int64]:
    """Return the rows of ids, new ones appended."""
    rows = work.append(entity, ids)
    places = np.unique(rows, return_index=True)[1]
    if len(places) < len(rows):
        twice = work.ids(entity).at(np.delete(rows, places)[:1]).tolist()[0]
        msg = f"ids[{entity!r}]: {twice!r} stands there twice; give each id once, for a row of its own"
        raise InvalidInputError(msg)
    return rows


def _stage_rows(work: Checkout, name: str, item: Item, pieces: Pieces, rows: Mapping[str, NDArray[np.int64]]) -> dict[str, Array]:
    """Stage the rows of one tensor that differ from those that are there; return its leading rows, to be dense."""
    assert item.column is not None
    assert item.size is not None
    spec = table_of(work, item.column.table)
    at = rows.get(spec.entity, np.arange(len(work.ids(spec.entity))))
    _check_size(name, item, len(at), given=spec.entity in rows)
    dtype = next(piece.array.dtype for piece in pieces.of[name] if piece.array is not None)
    target = _target(work, item, spec, dtype, name)
    gone, first = work.ids(spec.entity).removed_rows(), item.column.first
    leading = np.zeros((first, *item.size[1:]), dtype)
    for start, array in pieces.by_rows(name):
        head = max(0, min(first - start, len(array)))
        leading[start : start + head] = array[:head]
        _stage_changed(target, at[start + head - first :][: len(array) - head], array[head:], gone)
    return {f"rows.{name}": leading} if first else {}


def _stage_changed(target: StagedTable | StagedSlot, rows: NDArray[np.int64], values: Array, gone: NDArray[np.int64]) -> None:
    height = max(1, _BLOCK_BYTES // max(1, values[:1].nbytes))
    for start in range(0, len(rows), height):
        here = rows[start : start + height]
        there = target.gather(here)
        block = values[start : start + height].reshape(there.shape)
        changed = (row_digests(block) != row_digests(there)) & ~np.isin(here, gone)
        target.scatter(here[changed], block[changed])


def _check_size(name: str, item: Item, n_ids: int, *, given: bool) -> None:
    assert item.column is not None
    size, needed = item.size or (), n_ids + item.column.first
    if len(size) not in (1, 2) or size[0] != needed:
        where = "ids were given" if given else "rows are in the store"
        msg = (
            f"tensor {name!r} of shape {size}: for table {item.column.table!r} it has {needed} rows ({n_ids} {where}), on axis 0"
        )
        raise SchemaMismatchError(msg)


def _target(work: Checkout, item: Item, spec: TableSpec, dtype: np.dtype[Any], name: str) -> StagedTable | StagedSlot:
    assert item.column is not None
    table, dim = work.table(spec.name), item.size[1] if item.size and len(item.size) == 2 else None
    if item.column.slot is not None:
        dim = None if dim == 1 and spec.dim != 1 else dim
        return table.add_slot(SlotSpec(item.column.slot, dim, dtype.name))
    if (dim or 1, dtype.name) != (spec.dim or 1, spec.dtype):
        mine, theirs = f"{dim or 1} numbers of {dtype.name}", f"{spec.dim or 1} of {spec.dtype}"
        msg = f"tensor {name!r} has {mine} a row, table {spec.name!r} has {theirs}"
        raise SchemaMismatchError(msg)
    return table


def tag_saved(store: Store, tag: str, version: Version) -> None:
    """Make the tag of a version that was saved.

    Raises
    ------
    NameSpentError, NameExistsError
        If it cannot have that name; the error names the version.
    """
    try:
        store.tag(tag, at=version.id)
    except EmbstoreError as error:
        saved = f"the state is saved as version {version.id}, without a tag: name that with store.tag, and do not save it again"
        msg = f"{error}; {saved}"
        raise type(error)(msg) from error
