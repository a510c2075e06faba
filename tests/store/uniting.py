"""What three states come to, told the obvious way: one that two others come from, ours and theirs; by id, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from numpy.typing import NDArray

from tests.store.model import ITEM, USER, EntityModel, Id, Record, State, TableModel, Vector, filled, same_bits

Start = Callable[[str, Id], Vector]


class ClashError(Exception):
    """Both sides changed the same, and nobody said whose counts."""


def united(base: State, ours: State, theirs: State, start: Start, *, rows: str, dense: str) -> State:
    """Return what ours comes to on top of theirs; ``rows`` and ``dense`` are "fail", "ours" or "theirs".

    ``start`` gives the first vector of an id in a table. Which rows ids have is the store's business: see `adopt_rows`.
    Records are taken to have times, so that their order follows from them.

    Raises
    ------
    ClashError
        If one of both is "fail" where a choice is needed.
    """
    sides = _Sides(base, ours, theirs, start, rows)
    after = theirs.copy()
    for name in ours.entities:
        after.entities.setdefault(name, EntityModel(ours.entities[name].declared))
        after.entities[name].declared = after.entities[name].declared or ours.entities[name].declared
    for name, entity in after.entities.items():
        entity.rows = list(sides.live(name))
    after.tables = {
        name: sides.table(name, after.entities)
        for name in dict.fromkeys([*theirs.tables, *ours.tables])
        if not sides.dropped(name)
    }
    used = {table.spec.entity for table in after.tables.values()}
    for name in [name for name in after.entities if sides.forgotten(name, used)]:
        del after.entities[name]
    after.dense = _dense(base, ours, theirs, dense)
    after.records = sides.records(after)
    return after


class _Sides:
    """Three states, and whose row counts where both changed it."""

    def __init__(self, base: State, ours: State, theirs: State, start: Start, policy: str) -> None:
        self.base, self.ours, self.theirs, self.start, self.policy = base, ours, theirs, start, policy

    def live(self, entity: str) -> Iterable[Id]:
        """Yield the ids that there are in the end."""
        base, ours, theirs = (
            set(side.entities[entity].live()) if entity in side.entities else set()
            for side in (self.base, self.ours, self.theirs)
        )
        for id_ in sorted(ours | theirs, key=repr):
            if id_ not in base or id_ in ours & theirs:
                yield id_
                continue
            keeper = self.ours if id_ in ours else self.theirs
            if self._touched(keeper, entity, id_) and self._chosen(f"{entity} {id_!r}") is keeper:
                yield id_

    def dropped(self, table: str) -> bool:
        """Return whether one side has dropped a table, by a revert, that the other left alone or has no say of."""
        if table not in self.base.tables or (table in self.ours.tables and table in self.theirs.tables):
            return False
        keeper = self.ours if table in self.ours.tables else self.theirs
        entity = keeper.tables[table].spec.entity
        old = set(self.base.entities[entity].live())
        changed = any(self._changed(keeper, table, id_) for id_ in keeper.entities[entity].live() if id_ in old)
        return not (changed and self._chosen(table) is keeper)

    def forgotten(self, entity: str, used: set[str]) -> bool:
        """Return whether one side has dropped a kind of id that no table needs and of which the other has no new ones."""
        if entity in used or entity not in self.base.entities:
            return False
        having = [side for side in (self.ours, self.theirs) if entity in side.entities]
        old = set(self.base.entities[entity].live())
        return len(having) < 2 and not any(set(side.entities[entity].live()) - old for side in having)

    def _touched(self, side: State, entity: str, id_: Id) -> bool:
        return any(self._changed(side, n, id_) for n, table in side.tables.items() if table.spec.entity == entity)

    def _chosen(self, what: str) -> State:
        if self.policy == "fail":
            raise ClashError(what)
        return self.ours if self.policy == "ours" else self.theirs

    def _value(self, side: State, table: str, column: str, id_: Id) -> Vector:
        columns = side.tables[table].columns if table in side.tables else {}
        if id_ in columns.get(column, {}):
            return columns[column][id_]
        spec = next(
            s.tables[table].spec for s in (self.ours, self.theirs) if table in s.tables and column in s.tables[table].columns
        )
        return self.start(table, id_) if column == "values" else filled(spec.slot(column))

    def _columns(self, table: str) -> list[str]:
        sides = [side.tables[table].columns for side in (self.theirs, self.ours) if table in side.tables]
        before = self.base.tables[table].columns if table in self.base.tables else {}
        gone = {column for column in before if not all(column in columns for columns in sides)}
        return [column for column in dict.fromkeys(column for columns in sides for column in columns) if column not in gone]

    def _row(self, side: State, table: str, id_: Id) -> dict[str, Vector]:
        return {column: self._value(side, table, column, id_) for column in self._columns(table)}

    def _changed(self, side: State, table: str, id_: Id) -> bool:
        before, after = self._row(self.base, table, id_), self._row(side, table, id_)
        return any(not same_bits(before[column], after[column]) for column in before)

    def table(self, name: str, entities: dict[str, EntityModel]) -> TableModel:
        """Return a table of the end."""
        spec = (self.theirs if name in self.theirs.tables else self.ours).tables[name].spec
        table = TableModel(spec, {column: {} for column in self._columns(name)})
        table.spec = type(spec)(**{**spec.__dict__, "slots": tuple(slot for slot in spec.slots if slot.name in table.columns)})
        for slot in (slot for side in (self.theirs, self.ours) if name in side.tables for slot in side.tables[name].spec.slots):
            if slot.name not in table.columns:
                continue
            if slot.name not in {s.name for s in table.spec.slots}:
                table.spec = type(spec)(**{**table.spec.__dict__, "slots": (*table.spec.slots, slot)})
        for id_ in entities[spec.entity].live():
            for column, vector in self._end(name, id_).items():
                table.columns[column][id_] = vector
        return table

    def _end(self, table: str, id_: Id) -> dict[str, Vector]:
        ours, theirs = self._row(self.ours, table, id_), self._row(self.theirs, table, id_)
        if all(same_bits(ours[column], theirs[column]) for column in ours):
            return theirs
        sides = [side for side in (self.ours, self.theirs) if self._has(side, table, id_) and self._changed(side, table, id_)]
        if len(sides) == 2:
            return self._row(self._chosen(f"{table} {id_!r}"), table, id_)
        return self._row(sides[0], table, id_) if sides else self._row(self.base, table, id_)

    def records(self, after: State) -> list[Record]:
        """Return the records of both by time; of a user whose record one side replaced and to whose the other added, of one."""
        users = after.entities[USER].live() if USER in after.entities else []
        kept = [record for user in users for record in self._had(user, after)]
        return sorted(kept, key=lambda record: record.time or 0)

    def _had(self, user: Id, after: State) -> set[Record]:
        old, mine, yours = (
            {r for r in side.records if r.user == user and _knows(after, r)} for side in (self.base, self.ours, self.theirs)
        )
        ours_replaced, theirs_replaced = (self._replaced(side, user) for side in (self.ours, self.theirs))
        added, added_by_them = mine if ours_replaced else mine - old, yours if theirs_replaced else yours - old
        if mine != yours and ((ours_replaced and added_by_them) or (theirs_replaced and added)):
            return mine if self._chosen(f"record of {user!r}") is self.ours else yours
        sides = ((self.ours, mine), (self.theirs, yours))
        return {r for r in mine | yours if r not in old or all(r in had or not _knows(side, r) for side, had in sides)}

    def _replaced(self, side: State, user: Id) -> bool:
        """Return whether a side has dropped what a user had, though it has both ids."""
        return any(r.user == user and _knows(side, r) and r not in side.records for r in self.base.records)

    def _has(self, side: State, table: str, id_: Id) -> bool:
        entity = next(s.tables[table].spec.entity for s in (self.ours, self.theirs) if table in s.tables)
        return entity in side.entities and id_ in side.entities[entity].live()


def _dense(base: State, ours: State, theirs: State, policy: str) -> dict[str, Vector]:
    after = {}
    for name in sorted({*base.dense, *ours.dense, *theirs.dense}):
        mine, yours = (side.dense.get(name) for side in (ours, theirs))
        chosen = mine if _is_same(base.dense.get(name), yours) else yours
        if not any(
            _is_same(one, other) for one, other in ((base.dense.get(name), mine), (base.dense.get(name), yours), (mine, yours))
        ):
            if policy == "fail":
                raise ClashError(name)
            chosen = mine if policy == "ours" else yours
        if chosen is not None:
            after[name] = chosen
    return after


def _is_same(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    return one is other if one is None or other is None else same_bits(one, other)


def _knows(state: State, record: Record) -> bool:
    ids = ((USER, record.user), (ITEM, record.item))
    return all(entity in state.entities and id_ in state.entities[entity].live() for entity, id_ in ids)


def adopt_rows(state: State, rows: dict[str, tuple[int, list[Id], list[int]]]) -> None:
    """Let ids stand in the rows that the store has given them: how many there are, the ids, and where these are."""
    for name, (n_rows, ids, places) in rows.items():
        stands = dict(zip(places, ids, strict=True))
        assert set(ids) == set(state.entities[name].live()), name
        state.entities[name].rows = [stands.get(row) for row in range(n_rows)]
