"""Entities, tables and slots of a merge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from embstore.columns import column_of, data_columns
from embstore.conflicts import Judge
from embstore.errors import SchemaMismatchError
from embstore.names import IdType
from embstore.schema import Schema, SlotSpec, TableSpec
from embstore.sides import Sides
from embstore.storage.segments import Column
from embstore.version import View


def merge_schema(sides: Sides, judge: Judge) -> Schema:
    """Return what both sides have, and what one of them added; what one of them dropped, the other having left it alone, goes.

    The order is the same whichever side is which.

    Raises
    ------
    SchemaMismatchError
        If both have an entity with ids of another type, or a table or slot that is another.
    """
    tables = tuple(_merged_tables(sides, judge))
    used = {entity for table in tables for entity in (table.entity, table.rows_of) if entity is not None}
    here, incoming, base = (_entities(view) for view in (sides.here.view, sides.incoming.view, sides.base))
    entities = {
        name: _merged_type(name, sides)
        for name in sorted({*here, *incoming})
        if name in used or (name in here and name in incoming) or name not in base or _grew(sides, name)
    }
    return Schema(tables, entities)


def _entities(view: View) -> Mapping[str, IdType | None]:
    return view.schema.entities or {}


def _grew(sides: Sides, entity: str) -> bool:
    return any(len(side.gained(entity)) for side in (sides.here, sides.incoming))


def _merged_type(name: str, sides: Sides) -> IdType | None:
    views = [view for view in (sides.here.view, sides.incoming.view) if name in _entities(view)]
    types = {view.ids(name).id_type for view in views} - {None}
    if len(types) > 1:
        msg = f"entity {name!r}: its ids are int64 on one side and str on the other; one side must take another name"
        raise SchemaMismatchError(msg)
    return next((declared for view in views if (declared := _entities(view)[name])), None)


def _merged_tables(sides: Sides, judge: Judge) -> Iterable[TableSpec]:
    here, incoming, base = sides.here.view.tables, sides.incoming.view.tables, sides.base.tables
    for name in [*base, *sorted({*here, *incoming} - {*base})]:
        if name in here and name in incoming:
            yield _merged_table(sides, judge, name)
        elif name in base and (name in here or name in incoming):
            spec = here[name] if name in here else incoming[name]
            if _stays(sides, judge, spec, data_columns(spec), f"table {name!r}", is_here=name in here):
                yield spec
        elif name in here or name in incoming:
            yield here[name] if name in here else incoming[name]


def _stays(sides: Sides, judge: Judge, spec: TableSpec, columns: Sequence[Column], what: str, *, is_here: bool) -> bool:
    """Return whether a table or slot stays that one side dropped: where the other changed it and is the one that decides.

    ``spec`` is the table as that other side has it, ``columns`` those that would go.
    """
    ids, winner = (sides.here if is_here else sides.incoming).changed_ids(spec, columns), judge.of_removals()
    if len(ids) and winner == "fail":
        judge.leave_open(f"{what} (dropped on one side)", ids)
        return True
    judge.settle(f"{what} (dropped on one side)", ids)
    return bool(len(ids)) and winner in ("base", "here" if is_here else "incoming")


def _merged_table(sides: Sides, judge: Judge, name: str) -> TableSpec:
    here, incoming = sides.here.view.tables[name], sides.incoming.view.tables[name]
    for what in ("entity", "dim", "dtype", "rows_of", "init", "seed"):
        _check_same(f"table {name!r}: {what}", getattr(here, what), getattr(incoming, what))
    return replace(here, slots=tuple(_merged_slots(sides, judge, name)))


def _merged_slots(sides: Sides, judge: Judge, table: str) -> Iterable[SlotSpec]:
    ours, theirs, before = sides.here.view.tables[table], sides.incoming.view.tables[table], sides.base.tables.get(table)
    here, incoming, base = ({slot.name: slot for slot in (spec.slots if spec else ())} for spec in (ours, theirs, before))
    for name in [*base, *sorted({*here, *incoming} - {*base})]:
        what = f"slot {name!r} of table {table!r}"
        if name in here and name in incoming:
            for part in ("dim", "dtype", "fill"):
                _check_same(f"{what}: {part}", getattr(here[name], part), getattr(incoming[name], part))
            yield here[name]
        elif name in here or name in incoming:
            slot, spec = (here[name], ours) if name in here else (incoming[name], theirs)
            if name not in base or _stays(sides, judge, spec, [column_of(slot)], what, is_here=name in here):
                yield slot


def _check_same(what: str, one: Any, other: Any) -> None:
    if one != other:
        msg = f"{what} is {one!r} on one side and {other!r} on the other; one side must take another name"
        raise SchemaMismatchError(msg)
