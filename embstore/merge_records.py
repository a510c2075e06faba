"""The consumed record of a merge: what each side appended stands, that of here first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from embstore.conflicts import Judge, Winner
from embstore.consumed import ITEM, USER
from embstore.entity import Ids
from embstore.merge_rows import Arrivals
from embstore.replay import renumbered
from embstore.sides import Side, Sides
from embstore.storage.arrays import Rows
from embstore.storage.records import Part, Records, RecordState, apply, read_parts
from embstore.version import Version, View
from embstore.workspace import Workspace

_NO_ROWS: Rows = np.empty(0, np.int64)


def merge_records(work: Workspace, sides: Sides, judge: Judge, arrivals: Mapping[str, Arrivals]) -> None:
    """Stage what the other side recorded.

    A user's record is replaced where it no longer begins with what the base had of it (but for ids that are gone); one whose
    every pair has a time is read by time, so that it may hold what the base had in any place. It conflicts where one side
    replaced it and the other has recorded something else; where both are to stand, what the base had goes.
    """
    if not {USER, ITEM} <= set(work.schema.entities or {}):
        return
    here, incoming = (RecordDelta(side) for side in (sides.here, sides.incoming))
    came_back = {entity: _came_back(work, sides.incoming.view, arrivals[entity]) for entity in (USER, ITEM)}
    if incoming.is_empty and not any(map(len, came_back.values())):
        return
    merge = _RecordMerge(work, here, incoming, judge)
    merge.stage(came_back)


def _came_back(work: Workspace, incoming: View, arrivals: Arrivals) -> Ids:
    """Return the ids that were removed here and are again as the other side has them."""
    found = [ids for view, ids in arrivals.restored if view is incoming]
    return np.concatenate(found) if found else np.empty(0, object)


class RecordDelta:
    """What one side made of the record: pairs in its own rows.

    Parameters
    ----------
    side
        Of a merge.
    """

    def __init__(self, side: Side) -> None:
        self._side = side
        self.view = side.view

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was recorded and no record replaced."""
        return len(self.new) == 0 and len(self.replaced) == 0

    @cached_property
    def records(self) -> Records:
        """Return all records."""
        return self.view.consumed.records()

    @property
    def new(self) -> Records:
        """Return what the base lacks; of replaced records, all."""
        return self._new_and_replaced[0]

    @property
    def replaced(self) -> Rows:
        """Return the users whose record lacks what the base had, or has it in another order that times do not tell."""
        return self._new_and_replaced[1]

    @cached_property
    def is_new(self) -> NDArray[np.bool_]:
        """Return which of ``records`` are new."""
        if self._parts is not None:
            return np.arange(len(self.records)) >= len(self.records) - len(self.new)
        return self._compared[0]

    @cached_property
    def _new_and_replaced(self) -> tuple[Records, Rows]:
        if not _has_both(self.view):
            return Records.empty(), _NO_ROWS
        if self._parts is not None:
            return apply(Records.empty(), self._parts), _NO_ROWS
        is_new, replaced = self._compared
        return self.records.take(is_new), replaced

    @cached_property
    def _parts(self) -> list[Part] | None:
        """Return what was recorded since the base, unless segments were merged or records of living ids dropped."""
        base = self._side.base
        if not (isinstance(base, Version) and _has_both(base)):
            return None
        stored = RecordState.read(self.view.reader).segments
        before = RecordState.read(base.reader).segments
        if [s.name for s in stored[: len(before)]] != [s.name for s in before]:
            return None
        parts = read_parts(self.view.reader, stored[len(before) :])
        if isinstance(self.view, Workspace):
            if self.view.consumed.reset_to is not None:
                return None
            parts.append(self.view.consumed.part)
        dropped = {USER: [part.dropped_users for part in parts], ITEM: [part.dropped_items for part in parts]}
        return parts if all(self._are_gone(entity, rows) for entity, rows in dropped.items()) else None

    def _are_gone(self, entity: str, rows: Iterable[Rows]) -> bool:
        """Return whether all of these are rows of the base whose ids are not here again in other rows."""
        matching, dropped = self._side.comparison.matchings[entity], np.concatenate([_NO_ROWS, *rows])
        return bool((dropped < matching.n_shared).all() and (self._side.rows_of(entity, dropped) < 0).all())

    @cached_property
    def _compared(self) -> tuple[NDArray[np.bool_], Rows]:
        """Return which records are new and whose are replaced, found by comparing user by user."""
        before, now, n_users = self.base_records(), self.records, len(self.view.ids(USER))
        differ = np.unique(before.users[~_also_in(before, now, n_users)])
        is_new = _nth(now.users, n_users) >= np.bincount(before.users, minlength=n_users)[now.users]
        moved = np.setdiff1d(differ, before.users[~before.timed])
        replaced = np.union1d(np.setdiff1d(differ, moved), _lacking(before, now, moved))
        is_moved = np.isin(now.users, moved)
        is_new[is_moved] = ~_found_in(now.take(is_moved), before.take(np.isin(before.users, moved)))
        return is_new | np.isin(now.users, replaced), replaced

    def base_records(self) -> Records:
        """Return the base's records in the rows of this side, without those of ids that it lacks."""
        base = self._side.base
        if not _has_both(base):
            return Records.empty()
        records = base.consumed.records()
        users, items = self._side.rows_of(USER, records.users), self._side.rows_of(ITEM, records.items)
        return Records(users, items, records.times).take((users >= 0) & (items >= 0))


def _has_both(view: View) -> bool:
    return {USER, ITEM} <= set(view.schema.entities or {})


def _nth(kinds: Rows, n_kinds: int) -> Rows:
    """Return for each of ``kinds`` how many of the same stand before it."""
    order = np.argsort(kinds, kind="stable")
    counts = np.bincount(kinds, minlength=n_kinds)
    places = np.empty(len(kinds), np.int64)
    places[order] = np.arange(len(kinds)) - (np.cumsum(counts) - counts)[kinds[order]]
    return places


def _also_in(records: Records, others: Records, n_users: int) -> NDArray[np.bool_]:
    """Return which records others have too, in the same place of the same user."""
    order = np.argsort(others.users, kind="stable")
    counts = np.bincount(others.users, minlength=n_users)
    places = _nth(records.users, n_users)
    found = places < counts[records.users]
    mine = records.take(found)
    theirs = others.take(order[(np.cumsum(counts) - counts)[mine.users] + places[found]])
    same_times = (mine.times.view(np.uint64) == theirs.times.view(np.uint64)).all(axis=1)
    found[found] = (mine.items == theirs.items) & same_times
    return found


def _found_in(records: Records, others: Records) -> NDArray[np.bool_]:
    """Return which records others have too, wherever they stand; of equal ones as many as others have."""
    if not (len(records) and len(others)):
        return np.zeros(len(records), bool)
    both = Records.concat([records, others])
    _, kind = np.unique(np.column_stack([both.users, both.items, both.times.view(np.int64)]), axis=0, return_inverse=True)
    mine, theirs = kind[: len(records)], kind[len(records) :]
    n_kinds = int(kind.max()) + 1
    found: NDArray[np.bool_] = _nth(mine, n_kinds) < np.bincount(theirs, minlength=n_kinds)[mine]
    return found


def _lacking(before: Records, now: Records, users: Rows) -> Rows:
    """Return those of ``users`` who lack something that they had before."""
    before, now = (records.take(np.isin(records.users, users)) for records in (before, now))
    return np.unique(before.users[~_found_in(before, now)])


def _equal_users(one: Records, other: Records, users: Rows, n_users: int) -> Rows:
    """Return which of ``users`` have the same records in both, in the order that they are read in."""
    one, other = (records.take(np.isin(records.users, users)) for records in (one, other))
    counts = [np.bincount(records.users, minlength=n_users) for records in (one, other)]
    differ = np.unique(one.users[~_also_in(one, other, n_users)])
    by_time = np.setdiff1d(differ, one.users[~one.timed])
    differ = np.union1d(np.setdiff1d(differ, by_time), _lacking(one, other, by_time))
    equal: Rows = users[(counts[0] == counts[1])[users] & ~np.isin(users, differ)]
    return equal


class _RecordMerge:
    """Both deltas in the rows of the merged version."""

    def __init__(self, work: Workspace, here: RecordDelta, incoming: RecordDelta, judge: Judge) -> None:
        self._work, self._here, self._incoming, self._judge = work, here, incoming, judge

    def stage(self, came_back: Mapping[str, Ids]) -> None:
        """Stage what follows from both."""
        here_replaced, replaced = self._here.replaced, self._users(self._incoming)
        met = self._met(here_replaced, replaced)
        equal = self._equal(met)
        conflicts = np.setdiff1d(met, equal)
        winner = self._decide(conflicts)
        lost = np.union1d(equal, conflicts if winner in ("here", "fail", "base") else _NO_ROWS)
        won = conflicts if winner == "incoming" else _NO_ROWS
        both = np.intersect1d(conflicts, replaced) if winner == "mean" else _NO_ROWS
        taken = self._taken(lost, won, here_replaced, came_back)
        parts = [taken]
        if len(both):
            mine = self._live(self._here.new, self._here)
            parts = [mine.take(np.isin(mine.users, both)), taken]
        dropped = np.union1d(np.setdiff1d(replaced, lost), won)
        if winner == "base":
            base = self._here.base_records()
            parts.append(self._live(base.take(np.isin(base.users, conflicts)), self._here))
            dropped = np.union1d(dropped, conflicts)
        self._work.consumed.stage(Part(Records.concat(parts), dropped_users=dropped))

    def _users(self, delta: RecordDelta) -> Rows:
        """Return the users whose record was replaced, those that there still are."""
        rows = renumbered(delta.replaced, delta.view.ids(USER), self._work.ids(USER)) if len(delta.replaced) else _NO_ROWS
        return np.unique(rows[rows >= 0])

    def _live(self, records: Records, delta: RecordDelta) -> Records:
        """Return records in rows of the merged version, without those of ids that it lacks."""
        return self._mapped(records, delta)[0]

    def _mapped(self, records: Records, delta: RecordDelta) -> tuple[Records, NDArray[np.bool_]]:
        if len(records) == 0:
            return records, np.empty(0, bool)
        users = renumbered(records.users, delta.view.ids(USER), self._work.ids(USER))
        items = renumbered(records.items, delta.view.ids(ITEM), self._work.ids(ITEM))
        live = (users >= 0) & (items >= 0)
        return Records(users, items, records.times).take(live), live

    def _met(self, here_replaced: Rows, replaced: Rows) -> Rows:
        """Return the users whose record one side replaced and to whose the other has added."""
        if not (len(here_replaced) or len(replaced)):
            return _NO_ROWS
        here, incoming = self._live(self._here.new, self._here), self._live(self._incoming.new, self._incoming)
        return np.union1d(np.intersect1d(replaced, here.users), np.intersect1d(here_replaced, incoming.users))

    def _equal(self, users: Rows) -> Rows:
        """Return which of these users have the same record on both sides now."""
        if not len(users):
            return users
        here, incoming = (self._live(delta.records, delta) for delta in (self._here, self._incoming))
        return _equal_users(here, incoming, users, len(self._work.ids(USER)))

    def _decide(self, users: Rows) -> Winner:
        """Tell the judge of users; what a callable decides is of rows, so that both records stand."""
        winner = self._judge.of_removals()
        what, ids = "the consumed record of users", self._work.ids(USER).at(users)
        if winner == "fail":
            self._judge.leave_open(what, ids)
        else:
            self._judge.settle(what, ids)
        return winner

    def _taken(self, lost: Rows, won: Rows, here_replaced: Rows, came_back: Mapping[str, Ids]) -> Records:
        """Return the records of the other side that are to follow: the new ones, and all of ids that are to be as it has them."""
        delta = self._incoming
        if not (len(lost) or len(won) or any(map(len, came_back.values()))):
            return self._live(delta.new, delta)
        records, live = self._mapped(delta.records, delta)
        is_new = delta.is_new[live]
        back = {entity: self._work.ids(entity).rows(ids, missing=-1) for entity, ids in came_back.items() if len(ids)}
        old = np.isin(records.users, back.get(USER, _NO_ROWS)) | np.isin(records.items, back.get(ITEM, _NO_ROWS))
        old &= ~np.isin(records.users, here_replaced)
        return records.take(((is_new | old) & ~np.isin(records.users, lost)) | np.isin(records.users, won))
