"""What two states differ in beside their rows: the consumed record, and the arrays without rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.changes import ConsumedChanges
from embstore.consumed import ITEM, USER
from embstore.dense import StagedDense, array_path, same_bits
from embstore.entity import Ids
from embstore.storage.arrays import Rows
from embstore.storage.records import Records, RecordState, apply, read_parts
from embstore.version import View


def consumed_changes(base: View, target: View) -> ConsumedChanges:
    """Return what the consumed record gained; where ``base``'s segments do not begin ``target``'s, all of it anew."""
    if not {USER, ITEM} <= set(target.schema.entities or {}):
        return ConsumedChanges(reset=bool(RecordState.read(base.reader).segments), n_before=_n_pairs(base))
    before, after = RecordState.read(base.reader).segments, RecordState.read(target.reader).segments
    n_before = _n_pairs(base)
    users, items = target.ids(USER), target.ids(ITEM)
    if [s.name for s in after[: len(before)]] != [s.name for s in before]:
        records = target.consumed.records()
        return ConsumedChanges(
            users.at(records.users), items.at(records.items), records.times, reset=True, n_before=n_before, n_after=len(records)
        )
    parts = read_parts(target.reader, after[len(before) :])
    records = apply(Records.empty(), parts)
    dropped_users, dropped_items = (
        _dropped(base, USER, [part.dropped_users for part in parts]),
        _dropped(base, ITEM, [part.dropped_items for part in parts]),
    )
    return ConsumedChanges(
        users.at(records.users),
        items.at(records.items),
        records.times,
        dropped_users,
        dropped_items,
        n_before=n_before,
        n_after=len(target.consumed) if len(dropped_users) or len(dropped_items) else n_before + len(records),
    )


def _n_pairs(view: View) -> int:
    return len(view.consumed) if {USER, ITEM} <= set(view.schema.entities or {}) else 0


def _dropped(base: View, entity: str, parts: Sequence[Rows]) -> Ids:
    if not any(map(len, parts)):
        return np.empty(0, object)
    rows, idmap = np.unique(np.concatenate(parts)), base.ids(entity)
    # A row that was removed there too names nobody any more, and its records are gone already.
    return idmap.at(np.setdiff1d(rows[rows < len(idmap)], idmap.removed_rows()))


def dense_changes(base: View, target: View) -> dict[str, NDArray[Any] | None]:
    """Return the arrays whose bits differ as ``target`` has them; None for those it lacks."""
    changed: dict[str, NDArray[Any] | None] = {name: None for name in base.dense if name not in target.dense}
    for name in target.dense:
        if name in base.dense and _same_array(base, target, name):
            continue
        array = target.dense[name]
        if name not in base.dense or not same_bits(base.dense[name], array):
            changed[name] = array
    return changed


def _same_array(base: View, target: View, name: str) -> bool:
    """Return whether both have the very array that one commit wrote."""
    if any(isinstance(view.dense, StagedDense) and name in view.dense.staged for view in (base, target)):
        return False
    metas = [view.reader.meta(array_path(name)) for view in (base, target)]
    return all(metas) and len({meta.attributes.get("written") for meta in metas if meta}) == 1
