"""The state of a checkout at the end of an epoch, kept in memory so that one can go back to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.checkout import Checkout
from embstore.columns import TableRows, data_columns, table_path
from embstore.storage.segments import Column, Edit, StoredTable
from embstore.version import Version


@dataclass(frozen=True)
class KeptState:
    """What a checkout had staged at one moment, over the version it was based on."""

    version: Version
    edits: Mapping[str, Mapping[str, Edit]]
    dense: Mapping[str, NDArray[Any] | None]

    @classmethod
    def of(cls, work: Checkout) -> KeptState:
        """Return copies of the staged rows and arrays without rows of ``work``."""
        edits = {name: _copies(table) for name, table in work.staged.tables.items()}
        dense = {name: None if array is None else array.copy() for name, array in work.dense.staged.items()}
        return cls(work.version, edits, dense)

    def put_back(self, work: Checkout) -> None:
        """Let the rows and arrays of ``work`` be what they were; ids, schema and consumed record stay as they are."""
        for table in work.staged.tables.values():
            if work.version == self.version:
                self._stage_again(table)
            else:
                self._stage_differences(table)
        self._put_back_dense(work)

    def _stage_again(self, table: TableRows) -> None:
        table.staged.clear()
        for name, edit in self.edits.get(table.spec.name, {}).items():
            table.staging(table.column(name)).scatter(edit.rows, edit.values)

    def _stage_differences(self, table: TableRows) -> None:
        """Stage the rows that differ: versions were committed since, so that what was staged then is stored now."""
        for column in data_columns(table.spec):
            wanted, have = self._column(table, column), table.read(column)
            rows = np.flatnonzero(differ(wanted, have))
            table.scatter(column, rows, wanted[rows])

    def _column(self, table: TableRows, column: Column) -> NDArray[Any]:
        """Return a whole column as it was."""
        entity = table.spec.entity
        n_stored = len(self.version.ids(entity)) if entity in self.version.entities else 0
        out = column.empty(len(table.idmap))
        StoredTable(self.version.reader, table_path(table.spec.name)).read(column, n_stored, out[:n_stored])
        out[n_stored:] = column.fill
        edit = self.edits.get(table.spec.name, {}).get(column.name)
        if edit is not None:
            out[edit.rows] = edit.values
        return out

    def _put_back_dense(self, work: Checkout) -> None:
        wanted = {**self.version.dense, **self.dense}
        for name in list(work.dense):
            if wanted.get(name) is None:
                del work.dense[name]
        for name, array in wanted.items():
            if array is not None:
                work.dense[name] = array


def differ(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows of two arrays of one shape and dtype differ in any bit, bool[n]."""
    width = int(np.prod(one.shape[1:], dtype=np.int64)) * one.itemsize
    mine, theirs = (np.ascontiguousarray(array).view(np.uint8).reshape(len(array), width) for array in (one, other))
    return np.asarray((mine != theirs).any(axis=1))


def _copies(table: TableRows) -> dict[str, Edit]:
    return {name: Edit(edit.rows.copy(), edit.values.copy()) for name, edit in table.edits().items()}
