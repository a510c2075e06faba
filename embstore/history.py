"""Walking along parents: what two versions share, and which rows changed on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from embstore.compare import Comparison
from embstore.errors import UnknownNameError, UnknownRefError
from embstore.replay import renumbered
from embstore.storage.arrays import Rows
from embstore.version import Version, View
from embstore.workspace import Workspace

Find = Callable[[str], Version]


def parents_of(version: Version, find: Find) -> list[Version]:
    """Return the versions it was made from, the first that of its own branch; what was expired is left out."""
    found = []
    for parent in version.kept_parents:
        try:
            found.append(find(parent))
        except UnknownRefError:
            continue
    return found


def ancestors(version: Version, find: Find) -> Iterator[Version]:
    """Yield the version and all before it, each once, newest first."""
    seen = {version.id}
    frontier = [version]
    while frontier:
        frontier.sort(key=lambda v: v.time)
        newest = frontier.pop()
        yield newest
        new = [parent for parent in parents_of(newest, find) if parent.id not in seen]
        seen.update(parent.id for parent in new)
        frontier += new


def line(version: Version, find: Find) -> Iterator[Version]:
    """Yield the version and those before it along first parents."""
    while True:
        yield version
        first = [parent for parent in parents_of(version, find) if parent.id == version.parent]
        if not first:
            return
        version = first[0]


def common_ancestors(one: Version, other: Version, find: Find) -> list[Version]:
    """Return the versions that both come from and that none of the others comes from, newest first.

    One, but for branches that were merged into each other; where one version comes from the other, it is that one.
    """
    reached: dict[str, set[int]] = {one.id: {0}}
    reached.setdefault(other.id, set()).add(1)
    frontier = list({version.id: version for version in (one, other)}.values())
    found: list[Version] = []
    old: set[str] = set()  # what a common ancestor comes from is none that we look for
    while any(version.id not in old for version in frontier):
        frontier.sort(key=lambda v: (v.time, v.id))
        newest = frontier.pop()
        sides = reached[newest.id]
        if len(sides) == 2 and newest.id not in old:
            found.append(newest)
            old.add(newest.id)
        for parent in parents_of(newest, find):
            known = reached.setdefault(parent.id, set())
            stale = newest.id in old
            if sides <= known and (not stale or parent.id in old):
                continue  # seen already, with nothing new to be told
            known |= sides
            if stale:
                old.add(parent.id)
            if all(parent.id != version.id for version in frontier):
                frontier.append(parent)
    return [version for version in found if not _comes_before(version, found, find)]


def _comes_before(version: Version, others: Sequence[Version], find: Find) -> bool:
    """Return whether one of ``others`` comes from ``version``: only where clocks went wrong."""
    return any(
        version.id == before.id
        for other in others
        if other.id != version.id and other.time <= version.time
        for before in ancestors(other, find)
    )


def compare(base: View, target: View, find: Find) -> Comparison:
    """Return what turns ``base`` into ``target``, looking only at rows that were recorded as changed since they were one.

    Either may be a checkout, with what is staged in it. Rows are the same ids on both sides as far as both lines of first
    parents had them when they parted; whatever was merged into a line, is recorded by the merge.
    """
    sides = [_below(view, find) for view in (base, target)]
    met = _part(sides, find)
    if met is None:
        return Comparison(base, target, {}, {})
    root, between = met
    n_shared = {
        entity: len(root.ids(entity))
        for entity in root.schema.entities or {}
        if all(entity in (side.schema.entities or {}) for side in (base, target))
        and _is_one([side.ids(entity).made for side in (root, base, target)])
    }
    for entity, n_rows in n_shared.items():
        for version in between:
            rows, ids = version.changed_ids(entity)
            shared = rows < n_rows  # later ones are other ids on another branch
            target.ids(entity).remember(rows[shared], ids[shared])
    return Comparison(base, target, n_shared, _candidates(between, root, base, target))


def _below(view: View, find: Find) -> Version:
    if isinstance(view, Version):
        return view
    assert isinstance(view, Workspace)
    return find(view.version_id)


def _part(tips: Sequence[Version], find: Find) -> tuple[Version, list[Version]] | None:
    """Return the newest version on both tips' lines of first parents, and the versions since then on either."""
    lines = [line(tip, find) for tip in tips]
    seen: list[dict[str, Version]] = [{}, {}]
    running = [True, True]
    while any(running):
        for i, versions in enumerate(lines):
            version = next(versions, None) if running[i] else None
            if version is None:
                running[i] = False
                continue
            seen[i][version.id] = version
            if version.id in seen[1 - i]:
                return version, [v for side in seen for v in _before(side, version.id)]
    return None


def _before(side: dict[str, Version], stop: str) -> list[Version]:
    """Return the versions of a line that come after ``stop``, newest first."""
    ids = list(side)
    return [side[version_id] for version_id in ids[: ids.index(stop)]]


def _is_one(tokens: Sequence[str | None]) -> bool:
    return len(set(tokens)) == 1


def _candidates(between: Sequence[Version], root: Version, base: View, target: View) -> dict[tuple[str, str], Rows]:
    """Return the rows that were recorded or staged, for each table and column that is the same one throughout."""
    candidates: dict[tuple[str, str], Rows] = {}
    for name in {*base.tables} & {*target.tables} & {*root.tables}:
        made = [view.table_rows(name).made for view in (root, base, target)]
        same = [column for column in made[0] if _is_one([tokens.get(column) for tokens in made])]
        rows = _changed(between, [base, target], name)
        candidates.update(((name, column), rows) for column in same)
    return candidates


def _changed(versions: Sequence[Version], views: Sequence[View], table: str) -> Rows:
    found = [rows for version in versions if len(rows := version.changed_rows(table))]
    staged = [view.table_rows(table).edits() for view in views if isinstance(view, Workspace)]
    found += [edit.rows for edits in staged for edit in edits.values()]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def blame(tip: Version, entity: str, id_: object, *, table: str | None, find: Find) -> list[Version]:
    """Return the versions that changed an id's row, newest first; the last appended it.

    Where a merge brought the row as the other parent had it, they are those of that parent's line; where it mixed both
    parents' rows, the merge and those of both lines.

    Raises
    ------
    UnknownIdError
        If the entity does not have the id.
    UnknownNameError
        If there is no such entity or table, or the table is another entity's.
    """
    row = int(tip.ids(entity).rows([id_])[0])
    if table and tip.schema.table(table).entity != entity:
        msg = f"table {table!r}: its rows are those of {tip.schema.table(table).entity!r}, not of {entity!r}; take one of these"
        raise UnknownNameError(msg)
    names = [tip.schema.table(table).name] if table else [spec.name for spec in tip.schema.tables if spec.entity == entity]
    found: list[Version] = []
    wanted, seen = [(tip, row)], {tip.id}
    while wanted:
        wanted.sort(key=lambda one: one[0].time)
        version, row = wanted.pop()
        changed, before = _brought(version, row, entity, names, find)
        found += [version] if changed else []
        wanted += [(parent, row) for parent, row in before if parent.id not in seen]
        seen.update(parent.id for parent, _ in before)
    return found


def _brought(
    version: Version, row: int, entity: str, tables: Sequence[str], find: Find
) -> tuple[bool, Sequence[tuple[Version, int]]]:
    """Return whether a version changed a row, and the parents that it may have it from, with the row there."""
    counts = version.lineage.get("counts", {}).get("entities", {}).get(entity, {})
    appended = bool(counts) and row >= counts["rows"] - counts["new"]
    parents = parents_of(version, find)
    before = [(parent, row) for parent in parents if parent.id == version.parent and not appended]
    if before and not any(row in version.changed_rows(name) for name in tables if name in version.tables):
        return False, before
    before += _in_others(version, row, entity, [parent for parent in parents if parent.id != version.parent])
    same = [one for one in before if not _differs(one, (version, row), tables)]
    return not same, same[:1] or before


def _in_others(version: Version, row: int, entity: str, parents: Sequence[Version]) -> list[tuple[Version, int]]:
    """Return those of ``parents`` that have the id of a row, with the row there."""
    id_ = version.ids(entity).at(np.array([row])).tolist()
    having = [parent for parent in parents if entity in (parent.schema.entities or {}) and id_[0] in parent.ids(entity)]
    return [(parent, int(parent.ids(entity).rows(id_)[0])) for parent in having]


def _differs(before: tuple[Version, int], after: tuple[Version, int], tables: Sequence[str]) -> bool:
    """Return whether a row has other bits in two versions, in a column that both have.

    What points to other rows is compared by their ids, unless one version follows the other in its own line, whose rows stay.
    """
    among = after[0] if before[0].id != after[0].parent else None
    return any(
        _row_bits(*before, name, column, among) != _row_bits(*after, name, column, among)
        for name in tables
        if name in before[0].tables and name in after[0].tables
        for column in before[0].table_rows(name).made.keys() & after[0].table_rows(name).made.keys()
    )


def _row_bits(version: Version, row: int, table: str, column: str, among: Version | None) -> Any:
    """Return the bits of a row; those of rows that it points to as they are numbered in ``among``."""
    rows = version.table_rows(table)
    values, of = rows.gather(rows.column(column), np.array([row])), rows.spec.rows_of
    if among is not None and of is not None and column == "values":
        values = renumbered(values, version.ids(of), among.ids(of))
    return values.tobytes()
