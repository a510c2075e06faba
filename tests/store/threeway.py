"""What two states that come from one should be merged to, told the obvious way: dictionaries by id, one row after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore import View
from embstore.initial import initial_vectors
from tests.store.model import ITEM, USER

Id = Any
Row = dict[str, Any]  # by column; what a row of other rows points to, by id
Average = Callable[[str, NDArray[Any], NDArray[Any]], NDArray[Any]]


class ClashError(Exception):
    """Both sides changed the same, and the policy does not say whose counts."""


@dataclass
class Plain:
    """Everything that a view holds, by id."""

    ids: dict[str, set[Id]] = field(default_factory=dict)
    tables: dict[str, dict[Id, Row]] = field(default_factory=dict)
    entity_of: dict[str, str] = field(default_factory=dict)
    starts: dict[str, Callable[[Id], Row]] = field(default_factory=dict)
    records: dict[Id, list[tuple[Id, Any]]] = field(default_factory=dict)
    dense: dict[str, NDArray[Any]] = field(default_factory=dict)

    def row(self, table: str, id_: Id) -> Row:
        """Return a row; what it would start with, where there is none."""
        return self.tables.get(table, {}).get(id_) or {}

    def had(self, user: Id) -> list[tuple[Id, Any]]:
        """Return the items of a user and their times, as recorded."""
        return self.records.get(user, [])


def read(view: View) -> Plain:
    """Return what a view holds."""
    plain = Plain({entity: set(view.ids(entity).ids().tolist()) for entity in view.entities})
    for name, spec in view.tables.items():
        idmap = view.ids(spec.entity)
        live = idmap.live_rows()
        columns = {"values": _pointing(view, name, view.table(name).gather(live))}
        columns |= {slot: list(view.table(name).slot(slot).gather(live)) for slot in view.table(name).slots}
        ids = idmap.ids().tolist()
        plain.tables[name] = {id_: {column: rows[i] for column, rows in columns.items()} for i, id_ in enumerate(ids)}
        plain.entity_of[name] = spec.entity
        plain.starts[name] = _starting(view, name)
    records = view.consumed.records()
    users, items = view.ids(USER).at(records.users).tolist(), view.ids(ITEM).at(records.items).tolist()
    for user, item, time in zip(users, items, records.times, strict=True):
        plain.records.setdefault(user, []).append((item, None if np.isnan(time[0]) else float(time.sum())))
    plain.dense = {name: np.asarray(view.dense[name]) for name in view.dense}
    return plain


def _pointing(view: View, table: str, values: NDArray[Any]) -> list[Any]:
    of = view.tables[table].rows_of
    if of is None:
        return list(values)
    flat = [None if row < 0 else view.ids(of).ids([row]).tolist()[0] for row in values.ravel().tolist()]
    width = values.shape[1]
    return [tuple(flat[i : i + width]) for i in range(0, len(flat), width)]


def _starting(view: View, table: str) -> Callable[[Id], Row]:
    spec = view.tables[table]

    def start(id_: Id) -> Row:
        ids = np.array([id_], np.int64 if isinstance(id_, int) else object)
        values = initial_vectors(spec, ids)[0] if spec.rows_of is None else (None,) * (spec.dim or 1)
        shapes = {slot.name: () if slot.dim is None else (slot.dim,) for slot in spec.slots}
        return {"values": values} | {s.name: np.full(shapes[s.name], s.fill, s.dtype) for s in spec.slots}

    return start


def same(one: Any, other: Any) -> bool:
    """Return whether two rows or arrays are equal in every bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[column], other[column]) for column in one)
    if one is None or other is None or isinstance(one, tuple):
        return bool(one == other) if type(one) is type(other) else False
    one, other = np.asarray(one), np.asarray(other)
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


def assert_same(found: Plain, expected: Plain, *, ordered: bool = True) -> None:
    """Both hold the same; without ``ordered`` pairs that were recorded in another order are the same too."""
    assert found.ids == expected.ids
    assert found.tables.keys() == expected.tables.keys()
    for name, rows in expected.tables.items():
        assert found.tables[name].keys() == rows.keys()
        for id_, row in rows.items():
            assert same(found.tables[name][id_], row), (name, id_, found.tables[name][id_], row)
    for user in {*found.records, *expected.records}:
        one, other = found.had(user), expected.had(user)
        assert one == other if ordered else Counter(one) == Counter(other), (user, one, other)
    assert found.dense.keys() == expected.dense.keys()
    assert all(same(found.dense[name], array) for name, array in expected.dense.items())


@dataclass
class Merged:
    """The merge of two states: ``here`` is what it is laid on, ``coming`` what comes to it.

    ``rows`` and ``dense`` are "fail", "here", "coming" or "mean".
    """

    base: Plain
    here: Plain
    coming: Plain
    rows: str
    dense: str
    restored: set[tuple[str, Id]] = field(default_factory=set)

    def state(self) -> Plain:
        """Return what comes out.

        Raises
        ------
        ClashError
            If a policy is "fail" where one is needed.
        """
        out = Plain(entity_of={**self.here.entity_of, **self.coming.entity_of}, starts={**self.here.starts, **self.coming.starts})
        for entity in {*self.here.ids, *self.coming.ids}:
            ids = self.here.ids.get(entity, set()) | self.coming.ids.get(entity, set())
            out.ids[entity] = {id_ for id_ in ids if self._stays(entity, id_)}
        for table, entity in out.entity_of.items():
            out.tables[table] = {id_: self._row(table, id_, out) for id_ in out.ids[entity]}
        out.records = {user: had for user in out.ids[USER] if (had := self._had(user, out))}
        names = {*self.here.dense, *self.coming.dense}
        arrays = {name: self._array(name) for name in names}
        out.dense = {name: array for name, array in arrays.items() if array is not None}
        return out

    def _stays(self, entity: str, id_: Id) -> bool:
        base, here, coming = (id_ in side.ids.get(entity, set()) for side in (self.base, self.here, self.coming))
        if not base or (here and coming):
            return True
        keeper, name = (self.here, "here") if here else (self.coming, "coming")
        if not any(self._changed(keeper, table, id_) for table, of in keeper.entity_of.items() if of == entity):
            return False
        if self.rows == "fail":
            raise ClashError(entity, id_)
        if self.rows == name:
            self.restored |= {(entity, id_)} if name == "coming" else set()
            return True
        return False

    def _full(self, side: Plain, table: str, id_: Id) -> Row:
        """Return a row with all columns of the end."""
        known = {**self.here.starts, **self.coming.starts}[table](id_)
        if table in self.here.starts:
            known |= self.here.starts[table](id_)
        return known | side.row(table, id_)

    def _changed(self, side: Plain, table: str, id_: Id) -> bool:
        return not same(self._full(side, table, id_), self._full(self.base, table, id_))

    def _row(self, table: str, id_: Id, out: Plain) -> Row:
        here, coming = self._full(self.here, table, id_), self._full(self.coming, table, id_)
        entity = out.entity_of[table]
        if id_ not in self.here.ids.get(entity, set()):
            return coming
        if id_ not in self.coming.ids.get(entity, set()) or not self._changed(self.coming, table, id_) or same(here, coming):
            return here
        if not self._changed(self.here, table, id_):
            return coming
        if self.rows == "fail":
            raise ClashError(table, id_)
        if self.rows == "mean":
            return {column: average(column, here[column], coming[column]) for column in here}
        return here if self.rows == "here" else coming

    def _had(self, user: Id, out: Plain) -> list[tuple[Id, Any]]:
        def there(pairs: list[tuple[Id, Any]]) -> list[tuple[Id, Any]]:
            return [pair for pair in pairs if pair[0] in out.ids[ITEM]]

        here, coming = there(self.here.had(user)), there(self.coming.had(user))
        if user not in self.here.ids[USER]:
            return coming
        new_here, new_coming = self._new(self.here, user), self._new(self.coming, user)
        added_here, added = (
            whole if new is None else there([side.had(user)[i] for i in sorted(new)])
            for side, whole, new in ((self.here, here, new_here), (self.coming, coming, new_coming))
        )
        if (new_coming is None and added_here) or (new_here is None and added):
            if self.rows == "here" or here == coming or (by_time(here) and Counter(here) == Counter(coming)):
                return here
            if self.rows == "fail":
                raise ClashError("consumed", user)
            return coming if self.rows == "coming" else (added_here if new_coming is None else here) + added
        if new_coming is None:
            return coming
        back = {id_ for entity, id_ in self.restored if entity == ITEM} if new_here is not None else set()
        return here + there([pair for i, pair in enumerate(self.coming.had(user)) if i in new_coming or pair[0] in back])

    def _new(self, side: Plain, user: Id) -> set[int] | None:
        """Return which of its records a side has beyond those of the base; None if it does not have all of these as they were."""
        before = [r for r in self.base.had(user) if r[0] in side.ids.get(ITEM, set())] if user in side.ids[USER] else []
        now = side.had(user)
        if now[: len(before)] == before:
            return set(range(len(before), len(now)))
        left = Counter(before)
        new = {i for i, record in enumerate(now) if record not in before or now[:i].count(record) >= left[record]}
        return new if by_time(before) and len(now) - len(new) == len(before) else None

    def _array(self, name: str) -> NDArray[Any] | None:
        base, here, coming = (side.dense.get(name) for side in (self.base, self.here, self.coming))
        if same(here, coming) or same(coming, base):
            return here
        if same(here, base):
            return coming
        if self.dense in ("here", "coming"):
            return here if self.dense == "here" else coming
        if self.dense == "fail" or here is None or coming is None or here.shape != coming.shape or here.dtype.kind != "f":
            raise ClashError(name)
        return average(name, here, coming)


def by_time(had: list[tuple[Id, Any]]) -> bool:
    """Return whether each of a user's records has a time, so that the order they were recorded in does not matter."""
    return all(time is not None for _, time in had)


def average(column: str, one: Any, other: Any) -> Any:
    """Return the mean of two rows; of steps the larger; no mean of whole numbers that differ.

    Raises
    ------
    ClashError
        For whole numbers, and for what points elsewhere.
    """
    if same(one, other):
        return one
    if isinstance(one, tuple) or (one.dtype.kind != "f" and column != "step"):
        raise ClashError(column)
    if column == "step":
        return np.maximum(one, other)
    return ((np.asarray(one, np.float64) + other) / 2).astype(np.asarray(one).dtype)
