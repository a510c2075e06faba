"""The state of torch optimizers as slots and dense arrays, and back.

A tensor with a number, or a row of numbers, for every row of its parameter is a slot of the table; all else is dense, under
``optim.<parameter>.<key>`` (``optim.<name>.<parameter>.<key>`` where optimizers have names). The dense array ``optim`` is a
JSON text in utf-8: for the state of each parameter its slots, the class that wrote it, the parameter's dtype and the type of each
entry, so that a step that was an int is one again, and bfloat16, stored as float32, is bfloat16 again. What had the parameter's
dtype has that of the parameter it is laid under.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from embstore.bound import Bound, Held, RowNumbers
from embstore.columns import column_of
from embstore.errors import SchemaMismatchError
from embstore.initial import U64
from embstore.owned import Entry, Owned
from embstore.tensors import dtype_name
from embstore.workspace import Workspace

RECORDS = "optim"
Digests = dict[tuple[str, str], U64]


class OptimizerState:
    """The state of one parameter of one optimizer, between the optimizer and a checkout.

    Parameters
    ----------
    work
        The checkout.
    owned
        The parameter and its optimizer.
    bound
        Where its rows lie; None if it has none.
    """

    def __init__(self, work: Workspace, owned: Owned, bound: Bound | None) -> None:
        self._work = work
        self.owned = owned
        self.bound = bound

    @property
    def _slots(self) -> str | None:
        """Return a name for the slots that the state takes up."""
        return f"{self.bound.table}/{self.owned.slot_prefix}" if self.bound else None

    def stored(self) -> list[Entry]:
        """Return the entries that the checkout has; none if it lacks one of them.

        Raises
        ------
        SchemaMismatchError
            If an optimizer of another kind wrote them (what both call ``step`` need not be the same), or the slots of the table
            are another parameter's.
        """
        records = read_records(self._work.dense)
        record = records.get(self.owned.path)
        others = [path for path, other in records.items() if self._slots and other["slots"] == self._slots]
        if record is None and others:
            self._refuse(f"the slots of table {self.bound and self.bound.table!r} belong to {others[0]!r}")
        if record is None:
            return self._unrecorded()
        if not set(record["classes"]) & set(self.owned.classes):
            self._refuse(f"it was stored by {record['classes'][0]}, this is {self.owned.classes[0]}")
        entries = [Entry(e["key"], e["type"], None if e["shape"] is None else tuple(e["shape"])) for e in record["state"]]
        return [self._converted(entry, record.get("dtype")) for entry in entries] if all(map(self._has, entries)) else []

    def _refuse(self, reason: str) -> NoReturn:
        advice = "to begin with fresh state, restore a binding with optimizer None, then bind again and do not restore"
        msg = f"optimizer state {self.owned.path!r}: {reason}; {advice}"
        raise SchemaMismatchError(msg)

    def _has(self, entry: Entry) -> bool:
        if entry.shape is None:
            return self.owned.dense_name(entry.key) in self._work.dense
        slots = self._work.tables[self.bound.table].slots if self.bound else ()
        return self.owned.slot_prefix + entry.key in {slot.name for slot in slots}

    def _converted(self, entry: Entry, before: str | None) -> Entry:
        """Return an entry in the parameter's dtype if it had that of the parameter ``before``; single numbers keep theirs."""
        is_number = entry.shape is None and self._work.dense[self.owned.dense_name(entry.key)].ndim == 0
        if entry.type != before or entry.key == "step" or is_number:
            return entry
        return replace(entry, type=dtype_name(self.owned.param))

    def _unrecorded(self) -> list[Entry]:
        """Return the entries of state that no binding has recorded: dense arrays, and slots if one was ever written to."""
        owned, dense, begin = self.owned, self._work.dense, f"{self.owned.path}."
        keys = [name.removeprefix(begin) for name in dense if name.startswith(begin)]
        entries = [Entry(key, self._type_of(dense[begin + key])) for key in keys if "." not in key]
        if self.bound is None:
            return entries
        table = self._work.table_rows(self.bound.table)
        slots = [slot for slot in table.spec.slots if slot.name.startswith(owned.slot_prefix)]
        slots = [slot for slot in slots if "." not in slot.name[len(owned.slot_prefix) :]]
        if not entries and not any(table.holds(column_of(slot)) for slot in slots):
            return []
        for slot in slots:
            shape = owned.row_shape if slot.dim == table.spec.dim else (None,) if slot.dim is None else (None, slot.dim)
            entries.append(Entry(slot.name[len(owned.slot_prefix) :], self._type_of(np.empty(1, slot.dtype)), shape))
        return entries

    def _type_of(self, array: NDArray[Any]) -> str:
        """Return the dtype that torch would give such state of this parameter."""
        halved = self.owned.param.dtype is torch.bfloat16 and array.dtype == np.float32 and array.ndim > 0
        return "bfloat16" if halved else array.dtype.name

    def load(self, entries: Sequence[Entry], rows: RowNumbers | None) -> Digests:
        """Lay entries into the optimizer; return the digests of the rows.

        Parameters
        ----------
        entries
            As ``stored`` gave them.
        rows
            Those of a working set, whose state is all from the store; None for all rows.
        """
        owned = self.owned
        digests: Digests = {}
        if rows is not None:
            self._empty_rows({entry.key for entry in entries})
        for entry in entries:
            if entry.shape is None:
                owned.set_dense(entry, self._work.dense[owned.dense_name(entry.key)])
            else:
                digests |= self._load_rows(entry, rows)
        return digests

    def _empty_rows(self, stored: set[str]) -> None:
        for entry in self.owned.entries():
            if entry.shape is not None and entry.key not in stored:
                self.owned.make_rows(entry)

    def _load_rows(self, entry: Entry, rows: RowNumbers | None) -> Digests:
        owned, bound = self.owned, self.bound
        assert bound is not None
        table = self._work.table(bound.table)
        slot = table.slot(owned.slot_prefix + entry.key)
        owned.make_rows(entry)
        view = owned.view(entry, bound.first, flat=slot.spec.dim is None)
        leading = f"rows.{owned.dense_name(entry.key)}"
        if leading in self._work.dense:
            view.write_leading(self._work.dense[leading])
        return {(bound.table, slot.spec.name): Held(view, slot, rows).load()}

    def held(self, entries: Sequence[Entry], rows: RowNumbers | None) -> dict[tuple[str, str], Held]:
        """Return the columns of the entries that have rows; slots that the table lacks are added to it.

        Raises
        ------
        SchemaMismatchError
            If a slot of that name is there with another shape or type.
        InvalidInputError
            For a key that cannot be the name of a slot.
        """
        bound = self.bound
        found: dict[tuple[str, str], Held] = {}
        for entry in entries:
            if bound is not None and entry.shape is not None:
                table = self._work.table(bound.table)
                slot = table.add_slot(self.owned.slot_spec(entry, table.spec))
                view = self.owned.view(entry, bound.first, flat=slot.spec.dim is None)
                found[bound.table, slot.spec.name] = Held(view, slot, rows)
        return found

    def stage_dense(self, entries: Sequence[Entry]) -> None:
        """Store the entries without rows, leading rows, and what is recorded of all; what an earlier record names goes."""
        owned, dense = self.owned, self._work.dense
        if not entries:
            return
        arrays = {owned.dense_name(entry.key): owned.get_dense(entry.key) for entry in entries if entry.shape is None}
        if self.bound is not None and self.bound.first:
            for entry in entries:
                if entry.shape is not None:
                    leading = owned.view(entry, self.bound.first, flat=entry.width == 1).read_leading()
                    arrays[f"rows.{owned.dense_name(entry.key)}"] = leading
        records = read_records(dense)
        for entry in records.get(owned.path, {"state": []})["state"]:
            stale = owned.dense_name(entry["key"])
            if stale in dense and stale not in arrays:
                del dense[stale]
        state = [asdict(entry) for entry in sorted(entries, key=lambda entry: entry.key)]
        records[owned.path] = {"slots": self._slots, "classes": owned.classes, "dtype": dtype_name(owned.param), "state": state}
        arrays[RECORDS] = np.frombuffer(json.dumps(records, sort_keys=True).encode(), np.uint8)
        dense.update(arrays)


def read_records(dense: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return what is recorded of the state of each parameter, by path."""
    records: dict[str, Any] = json.loads(dense[RECORDS].tobytes()) if RECORDS in dense else {}
    return records
