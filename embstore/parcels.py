"""What workers are given and what they give back as JSON data and arrays, to be sent without pickling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from embstore.entity import Ids
from embstore.initial import utf8
from embstore.layer import Array, Claims, Given, Layer
from embstore.schema import Schema
from embstore.storage.records import Part, Records
from embstore.storage.segments import Edit


def pack_given(given: Given) -> tuple[dict[str, Any], list[Array]]:
    """Return what a new worker is given."""
    (layer,) = given.layers
    arrays: list[Array] = []
    for ids, removed in given.ids.values():
        arrays += [*(utf8(ids) if ids.dtype == object else (ids, removed[:0])), removed]
    keys = [(table, column) for table, edits in layer.rows.items() for column in edits]
    arrays += [array for t, c in keys for array in (layer.rows[t][c].rows, layer.rows[t][c].values)]
    dense = {name: array for name, array in layer.dense.items() if array is not None}
    data = {
        "origin": given.origin,
        "seen": given.seen,
        "schema": layer.schema.to_json(),
        "ids": [[entity, ids.dtype == object] for entity, (ids, _) in given.ids.items()],
        "rows": keys,
        "dense": list(dense),
        "deleted": [name for name, array in layer.dense.items() if array is None],
    }
    return data, [*arrays, *_part_arrays(layer.consumed), *dense.values()]


def unpack_given(data: Any, arrays: Iterator[Array]) -> Given:
    """Return what ``pack_given`` gave."""
    ids = {}
    for entity, are_texts in data["ids"]:
        first, second, removed = next(arrays), next(arrays), next(arrays)
        ids[entity] = (_texts(first, second) if are_texts else first, removed)
    rows: dict[str, dict[str, Edit]] = {}
    for table, column in data["rows"]:
        rows.setdefault(table, {})[column] = Edit(next(arrays), next(arrays))
    part = _part(arrays)
    dense: dict[str, Array | None] = {name: next(arrays) for name in data["dense"]} | dict.fromkeys(data["deleted"])
    return Given(data["origin"], [Layer(Schema.from_json(data["schema"]), rows, part, dense)], ids, data["seen"])


def _texts(blob: Array, ends: Array) -> Ids:
    whole, stops = blob.tobytes(), ends.tolist()
    texts = np.empty(len(stops), object)
    texts[:] = [whole[a:b].decode() for a, b in zip([0, *stops][: len(stops)], stops, strict=True)]
    return texts


def pack_layer(claims: Claims, layer: Layer) -> tuple[dict[str, Any], list[Array]]:
    """Return what a worker has staged, but for the rows that its claims name."""
    dense = {name: array for name, array in layer.dense.items() if array is not None}
    deleted = [name for name, array in layer.dense.items() if array is None]
    values = [layer.rows[table][column].values for table, column in claims.rows]
    return {"dense": list(dense), "deleted": deleted}, [*values, *_part_arrays(layer.consumed), *dense.values()]


def unpack_layers(claims: Claims, data: Any, arrays: Iterator[Array]) -> Iterator[Layer]:
    """Yield what ``pack_layer`` gave column by column, so that one of them at a time is in memory twice."""
    for (table, column), (rows, _) in claims.rows.items():
        yield Layer(claims.schema, {table: {column: Edit(rows, next(arrays))}})
    part = _part(arrays)
    yield Layer(claims.schema, {}, part, {name: next(arrays) for name in data["dense"]} | dict.fromkeys(data["deleted"]))


def _part_arrays(part: Part) -> list[Array]:
    return [part.records.users, part.records.items, part.records.times, part.dropped_users, part.dropped_items]


def _part(arrays: Iterator[Array]) -> Part:
    users, items, times, dropped_users, dropped_items = (next(arrays) for _ in range(5))
    return Part(Records(users, items, times), dropped_users, dropped_items)
