"""What follows from two states that come from one, found row by row and keyed by id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.conflicts import Judge, is_undefined, mean_of
from embstore.dense import same_bits
from embstore.errors import RefusedError
from embstore.history import Find, common_ancestors
from embstore.merge_records import merge_records
from embstore.merge_rows import merge_all_rows
from embstore.merge_schema import merge_schema
from embstore.rowless import dense_changes
from embstore.sides import Sides
from embstore.version import Version, View
from embstore.workspace import Workspace

Arrays = Mapping[str, NDArray[Any] | None]


def merge_states(work: Workspace, base: View, incoming: View, judge: Judge, find: Find) -> None:
    """Stage in ``work``, on whose version nothing is staged yet, what ``incoming`` changed since ``base``.

    ::

        schema: what both have and what either added
        ids: appended ones are united, removed ones go
        rows: those that one side changed are as it has them; those that both did and that differ, as the judge says
        record: what both appended, that of work's version first
        arrays without rows: as rows, with a judgement of their own

    What nobody may decide is left open: the caller asks ``judge.check``.

    Raises
    ------
    SchemaMismatchError
        If both have a table, slot or entity of one name that are not the same.
    """
    sides = Sides.of(base, find(work.version_id), incoming, find)
    work.adopt(merge_schema(sides, judge))
    arrivals = merge_all_rows(work, sides, judge)
    merge_records(work, sides, judge, arrivals)
    _merge_dense(work, sides, judge)


def merge_base(one: Version, other: Version, find: Find) -> View:
    """Return what two versions both come from; where branches were merged into each other, what follows from both such versions.

    Raises
    ------
    RefusedError
        If there is none any more.
    """
    found = common_ancestors(one, other, find)
    if not found:
        msg = f"versions {one.id} and {other.id}: what both come from was expired; take one of them with branch(move=True)"
        raise RefusedError(msg)
    newest, *others = found
    if not others:
        return newest
    work = Workspace(newest.repo, newest.id)
    # Of more than two, the two newest: what the others have is in both sides as well, and is compared bit by bit.
    merge_states(work, merge_base(newest, others[0], find), others[0], Judge(None, ours_is_here=True), find)
    return work


def _merge_dense(work: Workspace, sides: Sides, judge: Judge) -> None:
    mine, theirs = (dense_changes(sides.base, side.view) for side in (sides.here, sides.incoming))
    for name, array in theirs.items():
        if name not in mine:
            _stage(work, name, array)
        elif not _same(mine[name], array):
            _decide(work, sides.base, judge, name, mine[name], array)


def _same(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    return one is other if one is None or other is None else same_bits(one, other)


def _stage(work: Workspace, name: str, array: NDArray[Any] | None) -> None:
    if array is not None:
        work.dense[name] = array
    elif name in work.dense:
        del work.dense[name]


def _mean(mine: NDArray[Any] | None, theirs: NDArray[Any] | None, name: str) -> NDArray[Any] | None:
    if mine is None or theirs is None:
        return None
    mean = mean_of(mine, theirs, name)
    return None if mean is None or is_undefined(mean, mine, theirs).any() else mean


def _decide(work: Workspace, base: View, judge: Judge, name: str, mine: NDArray[Any] | None, theirs: NDArray[Any] | None) -> None:
    winner, one = judge.of_dense(), np.array([name], object)
    if winner == "fail":
        judge.leave_open("dense", one)
        return
    if winner == "mean":
        mean = _mean(mine, theirs, name)
        if mean is None:
            judge.leave_open("dense (of another shape, whole numbers, infinite either way or deleted: there is no mean)", one)
            return
        work.dense[name] = mean
    elif winner != "here":
        _stage(work, name, theirs if winner == "incoming" else base.dense.get(name))
    judge.settle("dense", one)
