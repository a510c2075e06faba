"""Walking along parents: what two versions share, and which rows changed on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from embstore.compare import Comparison
from embstore.storage.arrays import Rows
from embstore.version import Version

Find = Callable[[str], Version]


def ancestors(version: Version, find: Find) -> Iterator[Version]:
    """Yield the version and all before it, each once, newest first."""
    seen = {version.id}
    frontier = [version]
    while frontier:
        frontier.sort(key=lambda v: v.time)
        newest = frontier.pop()
        yield newest
        for parent in newest.parents:
            if parent not in seen:
                seen.add(parent)
                frontier.append(find(parent))


def line(version: Version, find: Find) -> Iterator[Version]:
    """Yield the version and those before it along first parents."""
    yield version
    while version.parent is not None:
        version = find(version.parent)
        yield version


def common_ancestor(base: Version, target: Version, find: Find) -> Version | None:
    """Return the newest version that both come from (itself, where one comes from the other); None if there is none."""
    sides = [ancestors(base, find), ancestors(target, find)]
    seen: list[dict[str, Version]] = [{}, {}]
    running = [True, True]
    while any(running):
        for i, side in enumerate(sides):
            version = next(side, None)
            if version is None:
                running[i] = False
            elif version.id in seen[1 - i]:
                return version
            else:
                seen[i][version.id] = version
    return None


def compare(base: Version, target: Version, find: Find) -> Comparison:
    """Return what turns ``base`` into ``target``, looking only at rows that a version between them recorded as changed."""
    ancestor = common_ancestor(base, target, find)
    if ancestor is None:
        return Comparison(base, target, {}, {})
    n_shared = {
        entity: len(ancestor.ids(entity))
        for entity in ancestor.schema.entities or {}
        if all(entity in (side.schema.entities or {}) for side in (base, target))
        and _is_one([side.ids(entity).made for side in (ancestor, base, target)])
    }
    between = [*_until(base, ancestor, find), *_until(target, ancestor, find)]
    for entity, n_rows in n_shared.items():
        for version in between:
            rows, ids = version.changed_ids(entity)
            shared = rows < n_rows  # later ones are other ids on another branch
            target.ids(entity).remember(rows[shared], ids[shared])
    return Comparison(base, target, n_shared, _candidates(between, ancestor, base, target))


def _is_one(tokens: Sequence[str | None]) -> bool:
    return len(set(tokens)) == 1


def _candidates(between: Sequence[Version], ancestor: Version, base: Version, target: Version) -> dict[tuple[str, str], Rows]:
    """Return the rows that a version between recorded, for each table and column that is the same one throughout."""
    candidates: dict[tuple[str, str], Rows] = {}
    for name in {*base.tables} & {*target.tables} & {*ancestor.tables}:
        made = [version.table_rows(name).made for version in (ancestor, base, target)]
        same = [column for column in made[0] if _is_one([tokens.get(column) for tokens in made])]
        rows = _changed(between, name)
        candidates.update(((name, column), rows) for column in same)
    return candidates


def _until(version: Version, ancestor: Version, find: Find) -> list[Version]:
    """Return every version that ``version`` comes from and ``ancestor`` does not, itself included."""
    if version.id == ancestor.id:
        return []
    if not version.parents[1:]:
        steps: list[Version] = []
        for step in line(version, find):
            if step.id == ancestor.id:
                return steps
            if step.parents[1:]:
                break
            steps.append(step)
    old = {v.id for v in ancestors(ancestor, find)}
    return [v for v in ancestors(version, find) if v.id not in old]


def _changed(versions: Sequence[Version], table: str) -> Rows:
    found = [rows for version in versions if len(rows := version.changed_rows(table))]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def blame(tip: Version, entity: str, id_: object, *, table: str | None, find: Find) -> list[Version]:
    """Return the versions that changed an id's row, newest first; the last appended it.

    Raises
    ------
    UnknownIdError
        If the entity does not have the id.
    UnknownNameError
        If there is no such entity or table.
    """
    row = int(tip.ids(entity).rows([id_])[0])
    names = [tip.schema.table(table).name] if table else [spec.name for spec in tip.schema.tables if spec.entity == entity]
    found: list[Version] = []
    for version in line(tip, find):
        counts = version.lineage.get("counts", {}).get("entities", {}).get(entity, {})
        if counts and row >= counts["rows"] - counts["new"]:
            return [*found, version]
        if any(row in version.changed_rows(name) for name in names) and _differs(version, names, row, find):
            found.append(version)
    return found


def _differs(version: Version, tables: Sequence[str], row: int, find: Find) -> bool:
    """Return whether a row that was written really has other bits than before."""
    assert version.parent is not None
    comparison = compare(find(version.parent), version, find)
    return any(row in changed.target_rows for name in tables for changed in comparison.rows.get(name, {}).values())
