"""Staging in a checkout, by id, what ``Changes`` say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.changes import Changes, ConsumedChanges, RowChanges
from embstore.columns import TableRows, data_columns
from embstore.consumed import ITEM, USER
from embstore.entity import Ids
from embstore.ids import IdMap
from embstore.storage.records import Part, Records
from embstore.workspace import Workspace


def replay(changes: Changes, work: Workspace) -> None:
    """Stage ``changes`` in ``work``, whose rows may be others than those the changes were made on."""
    work.adopt(changes.schema)
    for entity, ids in changes.removed.items():
        if entity in (work.schema.entities or {}):
            work.remove(entity, ids)
    for entity, ids in changes.appended.items():
        if entity in (work.schema.entities or {}):
            work.append(entity, ids)
    for table, columns in changes.rows.items():
        rows_of = work.schema.table(table).rows_of
        _replay_rows(work.table_rows(table), columns, work.ids(rows_of) if rows_of else None)
    _replay_consumed(changes.consumed, work)
    for name, array in changes.dense.items():
        if array is not None:
            work.dense[name] = array
        elif name in work.dense:
            del work.dense[name]


def renumbered(values: NDArray[Any], there: IdMap | None, here: IdMap | None) -> NDArray[Any]:
    """Return values that are rows of ``there`` as the rows that the same ids have here, -1 where there is none."""
    if there is None or here is None:
        return values
    out = np.full_like(values, -1)
    inside = (values >= 0) & (values < len(there))
    rows, back = np.unique(values[inside].astype(np.int64), return_inverse=True)
    live = ~np.isin(rows, there.removed_rows())
    found = np.full(len(rows), -1)
    found[live] = here.rows(there.at(rows[live]), missing=-1)
    out[inside] = found[back]
    return out


def _replay_rows(table: TableRows, columns: Mapping[str, RowChanges], renumber: IdMap | None) -> None:
    for column in data_columns(table.spec):
        change = columns.get(column.name)
        if change is not None and len(change):
            values = renumbered(change.values(), change.refers_to, renumber)
            table.scatter(column, table.idmap.rows(change.ids), values)


def _replay_consumed(changes: ConsumedChanges, work: Workspace) -> None:
    if changes.is_empty:
        return
    if not {USER, ITEM} <= set(work.schema.entities or {}):
        work.consumed.reset(Records.empty())
        return
    records = Records(_rows(work, USER, changes.users), _rows(work, ITEM, changes.items), changes.times)
    if changes.reset:
        work.consumed.reset(records)
        return
    dropped = [_rows(work, USER, changes.dropped_users), _rows(work, ITEM, changes.dropped_items)]
    work.consumed.stage(Part(records, *(rows[rows >= 0] for rows in dropped)))


def _rows(work: Workspace, entity: str, ids: Ids) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return work.ids(entity).rows(ids, missing=-1)
