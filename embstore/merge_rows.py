"""Ids and rows of a merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.columns import TableRows, astray, checked_values, data_columns
from embstore.compare import bits
from embstore.conflicts import Conflict, Judge, Resolve, is_undefined, mean_of
from embstore.entity import Ids
from embstore.errors import InvalidInputError, NonFiniteError
from embstore.replay import renumbered
from embstore.schema import TableSpec
from embstore.sides import Side, Sides, off_start, rows_as_in
from embstore.storage.arrays import Rows
from embstore.storage.segments import Column
from embstore.version import View
from embstore.workspace import Workspace


def _no_ids() -> Ids:
    return np.empty(0, object)


@dataclass
class Arrivals:
    """Ids of one entity whose rows are not, or not only, those that are here.

    Parameters
    ----------
    new
        Which the base lacks, and this side: the other appended them.
    both
        Which the base lacks and both sides appended.
    restored
        Which one side removed, and which stay nevertheless: as they are in these views.
    """

    new: Ids = field(default_factory=_no_ids)
    both: Ids = field(default_factory=_no_ids)
    restored: list[tuple[View, Ids]] = field(default_factory=list)


def merge_ids(work: Workspace, sides: Sides, judge: Judge, entity: str) -> Arrivals:
    """Stage the ids that the other side appended and removed; return those whose rows are to be taken over."""
    arrivals = Arrivals()
    if entity in (sides.base.schema.entities or {}):
        _remove(work, sides, judge, entity, arrivals)
        _bring_back(work, sides, judge, entity, arrivals)
    gained = sides.incoming.gained(entity)
    if len(gained):
        ids = sides.incoming.view.ids(entity).at(gained)
        known = _among(sides.here.view, entity, ids)
        arrivals.new, arrivals.both = ids[~known], ids[known]
    work.append(entity, arrivals.new)
    for _, ids in arrivals.restored:
        work.append(entity, ids)
    return arrivals


def _among(view: View, entity: str, ids: Ids) -> NDArray[np.bool_]:
    if entity not in (view.schema.entities or {}) or len(view.ids(entity)) == 0:
        return np.zeros(len(ids), bool)
    return view.ids(entity).rows(ids, missing=-1) >= 0


def _remove(work: Workspace, sides: Sides, judge: Judge, entity: str, arrivals: Arrivals) -> None:
    """Remove what the other side removed, unless it was changed here and that counts."""
    rows = sides.incoming.lost(entity)
    rows = rows[sides.here.rows_of(entity, rows) >= 0]
    disputed = _dispute(work, sides.here, judge, entity, rows) if len(rows) else rows
    gone = np.setdiff1d(rows, disputed)
    ids = sides.base.ids(entity).at(disputed)
    winner = judge.of_removals()
    if winner in ("mean", "incoming"):
        gone = rows
    elif winner == "base":
        arrivals.restored.append((sides.base, ids))
    work.remove(entity, sides.base.ids(entity).at(gone))


def _bring_back(work: Workspace, sides: Sides, judge: Judge, entity: str, arrivals: Arrivals) -> None:
    """Take up again what was removed here, where the other side changed it and that counts."""
    rows = sides.here.lost(entity)
    rows = rows[sides.incoming.rows_of(entity, rows) >= 0]
    disputed = _dispute(work, sides.incoming, judge, entity, rows) if len(rows) else rows
    sources = {"incoming": sides.incoming.view, "base": sides.base}
    source = sources.get(judge.of_removals())
    if source is not None and len(disputed):
        arrivals.restored.append((source, sides.base.ids(entity).at(disputed)))


def _dispute(work: Workspace, changer: Side, judge: Judge, entity: str, removed: Rows) -> Rows:
    """Return which of the rows that one side removed the other has changed, and tell the judge of them."""
    found = [removed[:0]]
    for name, spec in changer.view.tables.items():
        if spec.entity != entity:
            continue
        both = np.intersect1d(changer.changed_rows(work.tables.get(name, spec)), removed)
        found.append(both)
        what, ids = f"table {name!r} (removed on one side)", changer.base.ids(entity).at(both)
        if judge.of_removals() == "fail":
            judge.leave_open(what, ids)
        else:
            judge.settle(what, ids)
    return np.unique(np.concatenate(found))


def merge_rows(work: Workspace, sides: Sides, judge: Judge, spec: TableSpec, arrivals: Arrivals) -> None:
    """Stage the rows of one table that the other side changed, and what is decided of those that both did."""
    merge = _TableMerge(work, sides, judge, spec)
    incoming = sides.incoming.view
    if spec.name in incoming.tables and spec.name not in sides.here.view.tables:
        merge.copy(incoming, incoming.ids(spec.entity).ids())
    elif spec.name in incoming.tables:
        merge.copy(incoming, arrivals.new)
        merge.keep_slots()
        if len(sides.incoming.changed_rows(spec)):
            merge.take_over()
        merge.decide(arrivals.both)
    for view, ids in arrivals.restored:
        merge.copy(view, ids)


def _column_names(view: View, table: str) -> set[str]:
    return {column.name for column in data_columns(view.tables[table])} if table in view.tables else set()


class _TableMerge:
    def __init__(self, work: Workspace, sides: Sides, judge: Judge, spec: TableSpec) -> None:
        self._work, self._sides, self._judge, self._spec = work, sides, judge, spec
        self._table: TableRows = work.table_rows(spec.name)
        self._columns = data_columns(spec)

    def copy(self, view: View, ids: Ids, columns: Sequence[Column] | None = None) -> None:
        """Take the rows of ids, those that there are, as ``view`` has them; all columns unless some are named."""
        ids = ids[self._table.idmap.rows(ids, missing=-1) >= 0] if len(ids) else ids
        for column in (self._columns if columns is None else columns) if len(ids) else ():
            self._scatter(column, ids, self._rows(view, column, ids))

    def keep_slots(self) -> None:
        """Take as the other side has them the slots that were dropped here and stay nevertheless."""
        base, here = (_column_names(view, self._spec.name) for view in (self._sides.base, self._sides.here.view))
        dropped = [column for column in self._columns if column.name in base - here]
        incoming = self._sides.incoming.view
        self.copy(incoming, incoming.ids(self._spec.entity).ids() if dropped else _no_ids(), dropped)

    def take_over(self) -> None:
        """Take the rows that only the other side changed, column by column."""
        sides, spec = self._sides, self._spec
        changed_here = sides.here.changed_rows(spec)
        gone = self._table.idmap.removed_rows()
        theirs = sides.incoming.view.table_rows(spec.name)
        for name, changed in sides.incoming.changed(spec.name).items():
            if name not in [column.name for column in self._columns]:
                continue
            rows = sides.here.rows_of(spec.entity, changed.base_rows)
            free = (rows >= 0) & ~np.isin(changed.base_rows, changed_here) & ~np.isin(rows, gone)
            column = theirs.column(name)
            values = theirs.gather(column, changed.target_rows[free])
            self._table.scatter(column, rows[free], self._in_work(sides.incoming.view, column, values))

    def decide(self, new_in_both: Ids) -> None:
        """Find the rows that both sides changed and that differ, and stage what the judge says."""
        sides = self._sides
        ids = [self._changed_by_both()]
        if len(new_in_both):
            views = (sides.here.view, sides.incoming.view)
            here, incoming = (off_start(view, self._spec, self._columns, new_in_both) for view in views)
            self.copy(sides.incoming.view, new_in_both[incoming & ~here])
            ids.append(new_in_both[incoming & here])
        wanted = np.concatenate([one for one in ids if len(one)] or [ids[0]])
        if not len(wanted):
            return
        values = [{c.name: self._rows(view, c, wanted) for c in self._columns} for view in self._views()]
        differ = np.zeros(len(wanted), bool)
        for column in self._columns:
            differ |= bits(values[1][column.name]) != bits(values[2][column.name])
        if differ.any():
            self._settle(wanted[differ], [{name: rows[differ] for name, rows in one.items()} for one in values])

    def _views(self) -> list[View]:
        return [self._sides.base, self._sides.here.view, self._sides.incoming.view]

    def _changed_by_both(self) -> Ids:
        sides, spec = self._sides, self._spec
        rows = sides.incoming.changed_rows(spec)
        rows = np.intersect1d(sides.here.changed_rows(spec), rows) if len(rows) else rows
        if not len(rows):
            return _no_ids()
        return sides.base.ids(spec.entity).at(rows)

    def _settle(self, ids: Ids, values: list[dict[str, NDArray[Any]]]) -> None:
        """Stage what the judge says of rows that both sides changed: values of the base, here and incoming."""
        what, winner = f"table {self._spec.name!r}", self._judge.of_rows()
        if winner == "fail":
            self._judge.leave_open(what, ids)
            return
        self._judge.settle(what, ids)
        for column in self._columns:
            base, here, incoming = (one[column.name] for one in values)
            if callable(winner):
                self._scatter(column, ids, self._asked(winner, column, ids, base, here, incoming))
            elif winner == "mean":
                self._scatter(column, ids, self._mean(column, ids, here, incoming))
            elif winner != "here":
                self._scatter(column, ids, incoming if winner == "incoming" else base)

    def _mean(self, column: Column, ids: Ids, here: NDArray[Any], incoming: NDArray[Any]) -> NDArray[Any]:
        name = column.name.removeprefix("slots/")
        mean = mean_of(here, incoming, name)
        why, without = "whole numbers have no mean", bits(here) != bits(incoming)
        if mean is not None:
            why, without = "infinite either way, there is no mean", is_undefined(mean, here, incoming)
        rows = without.reshape(len(ids), -1).any(axis=1)
        self._judge.leave_open(f"{name} of table {self._spec.name!r} ({why})", ids[rows])
        return here if mean is None else mean

    def _asked(
        self, resolve: Resolve, column: Column, ids: Ids, base: NDArray[Any], here: NDArray[Any], incoming: NDArray[Any]
    ) -> NDArray[Any]:
        ours, theirs = (here, incoming) if self._judge.ours_is_here else (incoming, here)
        slot = None if column.name == "values" else column.name.removeprefix("slots/")
        answer = resolve(Conflict(self._spec.name, slot, ids.copy(), base.copy(), ours.copy(), theirs.copy()))
        checked = checked_values(answer, column, len(ids), f"{self._spec.name}, as on_conflict returns them")
        if checked.dtype.kind == "f" and not self._judge.allow_nonfinite:
            bad = ~np.isfinite(checked.reshape(len(ids), -1)).all(axis=1)
            if bad.any():
                shown = ", ".join(map(repr, ids[bad][:3].tolist()))
                msg = (
                    f"on_conflict: {bad.sum()} rows of table {self._spec.name!r} are not finite (ids {shown}); mend the callable"
                )
                raise NonFiniteError(msg)
        of = self._spec.rows_of if column.name == "values" else None
        problem = astray(self._table, self._table.idmap.rows(ids), checked, self._work.ids(of)) if of else ""
        if problem:
            msg = f"on_conflict: {problem}; mend the callable"
            raise InvalidInputError(msg)
        return checked

    def _rows(self, view: View, column: Column, ids: Ids) -> NDArray[Any]:
        return self._in_work(view, column, rows_as_in(view, self._spec, column, ids))

    def _in_work(self, view: View, column: Column, values: NDArray[Any]) -> NDArray[Any]:
        """Return values that are rows of another entity as the rows that the same ids have in the merged version."""
        of = self._spec.rows_of
        if of is None or column.name != "values" or of not in (view.schema.entities or {}):
            return values
        return renumbered(values, view.ids(of), self._work.ids(of))

    def _scatter(self, column: Column, ids: Ids, values: NDArray[Any]) -> None:
        self._table.scatter(column, self._table.idmap.rows(ids), values)


def merge_all_rows(work: Workspace, sides: Sides, judge: Judge) -> Mapping[str, Arrivals]:
    """Stage ids and rows of every entity and table; return what came, by entity."""
    arrivals = {entity: merge_ids(work, sides, judge, entity) for entity in work.schema.entities or {}}
    for spec in work.schema.tables:
        merge_rows(work, sides, judge, spec, arrivals[spec.entity])
    return arrivals
