"""Entities, tables and slots of a merge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from embstore.conflicts import Judge
from embstore.errors import SchemaMismatchError
from embstore.names import IdType
from embstore.schema import Schema, SlotSpec, TableSpec
from embstore.sides import Side, Sides
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
            yield _merged_table(here[name], incoming[name], base.get(name))
        elif name in base and (name in here or name in incoming):
            keeper, is_here = (sides.here, True) if name in here else (sides.incoming, False)
            if _stays(keeper, name, judge, is_here=is_here):
                yield keeper.view.tables[name]
        elif name in here or name in incoming:
            yield here[name] if name in here else incoming[name]


def _stays(keeper: Side, table: str, judge: Judge, *, is_here: bool) -> bool:
    """Return whether a table stays that one side dropped: where the other changed it and is the one that decides."""
    base = keeper.base
    rows = keeper.changed_rows(keeper.view.tables[table])
    winner = judge.of_removals()
    what, ids = f"table {table!r} (dropped on one side)", base.ids(base.tables[table].entity).at(rows)
    if len(rows) and winner == "fail":
        judge.leave_open(what, ids)
        return True
    judge.settle(what, ids)
    return bool(len(rows)) and winner in ("base", "here" if is_here else "incoming")


def _merged_table(here: TableSpec, incoming: TableSpec, base: TableSpec | None) -> TableSpec:
    for what in ("entity", "dim", "dtype", "rows_of", "init", "seed"):
        _check_same(f"table {here.name!r}: {what}", getattr(here, what), getattr(incoming, what))
    ours, theirs, before = ({slot.name: slot for slot in (spec.slots if spec else ())} for spec in (here, incoming, base))
    order = [*before, *sorted({*ours, *theirs} - {*before})]
    return replace(here, slots=tuple(_merged_slots(here.name, order, ours, theirs, before)))


def _merged_slots(
    table: str, order: Iterable[str], here: Mapping[str, SlotSpec], incoming: Mapping[str, SlotSpec], base: Mapping[str, SlotSpec]
) -> Iterable[SlotSpec]:
    for name in order:
        if name in here and name in incoming:
            for what in ("dim", "dtype", "fill"):
                _check_same(f"slot {name!r} of table {table!r}: {what}", getattr(here[name], what), getattr(incoming[name], what))
            yield here[name]
        elif name not in base:
            yield here[name] if name in here else incoming[name]


def _check_same(what: str, one: Any, other: Any) -> None:
    if one != other:
        msg = f"{what} is {one!r} on one side and {other!r} on the other; one side must take another name"
        raise SchemaMismatchError(msg)
