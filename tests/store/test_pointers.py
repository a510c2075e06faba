"""Tables whose values are rows of another entity: what is no row of it is not committed, and where it was, it can be mended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Checkout, Constant, Schema, Store, TableSpec
from embstore.committing import Commit
from embstore.errors import InvalidInputError
from tests.store.forked import edit

GENRES = Schema(
    (
        TableSpec("genres", "item", 2, "int32", init=Constant(-1), rows_of="genre"),
        TableSpec("main_genre", "item", None, "int16", init=Constant(-1), rows_of="genre"),
    )
)


@pytest.fixture
def pointing(url: str) -> Store:
    """Return a store with items 1 to 4 and genres "x" and "y", of which "x" is removed; items 1 and 2 are of "y"."""
    store = embstore.create(url, schema=GENRES)
    with store.checkout() as work:
        work.append("genre", ["x", "y"])
        work.append("item", [1, 2, 3, 4])
        work.table("genres").scatter([0, 1], [[1, -1], [-1, 1]])
        work.remove("genre", ["x"])
        work.commit("start")
    return store


def commit_unchecked(store: Store, branch: str, table: str, rows: list[int], values: Any) -> None:
    """Commit rows that point anywhere, as it was once possible."""
    work = store.checkout(branch)
    work.table(table).scatter(rows, values)
    assert Commit(branch, f"broken on {branch}").write(work.repo, work.staged, work.version) is not None
    work.discard()


def _collect(work: Checkout) -> None:
    worker = work.fork()
    worker.table("genres").scatter([2, 3], [[99, 0], [-1, 99]])
    work.collect([worker])


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (
            lambda w: w.table("genres").scatter([2, 3], [[99, 0], [-1, 2]]),
            r"table 'genres': 2 rows point to no row of 'genre', which has 2 \(99; ids 3, 4\)",
        ),
        (lambda w: w.table("genres").scatter([2], [[1, -7]]), r"1 row points .* \(-7; ids 3\)"),
        (lambda w: w.table("main_genre").scatter([0], [2]), r"table 'main_genre': 1 row .* \(2; ids 1\)"),
        (lambda w: w.append("item", [5], init={"main_genre": [77]}), r"\(77; ids 5\)"),
        (_collect, r"\(99; ids 3, 4\)"),
    ],
)
def test_what_is_no_row_is_not_committed(pointing: Store, act: Callable[[Checkout], object], says: str) -> None:
    """Whichever way it came in, also onto a branch that has moved; it stays staged and can be mended."""
    work, late, rebased = (pointing.checkout() for _ in range(3))
    for one in (work, late, rebased):
        act(one)
    before = pointing.branches()
    with pytest.raises(InvalidInputError, match=f"{says}; take rows from ids\\('genre'\\), -1 for none"):
        work.commit("wrong")
    assert (pointing.branches(), work.dirty) == (before, True)
    edit(pointing, "main", lambda w: w.append("genre", ["z"]))
    for refused in (lambda: late.commit("wrong", branch="main"), rebased.rebase, lambda: work.commit("wrong", branch="other")):
        with pytest.raises(InvalidInputError, match="of 'genre'"):
            refused()
    for name in ("genres", "main_genre"):
        late.table(name).scatter(range(len(late.ids("item"))), np.full_like(late.table(name).values(), -1))
    assert late.commit("mended").table("genres").values().max() == -1
    assert pointing.branches().keys() == {"main"}


def test_rows_of_tombstones_and_of_ids_staged_later(pointing: Store) -> None:
    """A row whose id was removed is still a row, and one that the same commit appends is one when it is committed."""
    work = pointing.checkout()
    work.table("genres").scatter([2], [[0, 2]])
    work.append("genre", ["z"])
    assert work.commit("z").table("genres").get([3]).tolist() == [[0, 2]]
    assert pointing.verify().problems == []


def test_a_callable_that_points_nowhere(pointing: Store) -> None:
    """What it returns is looked at too, in a merge and in a commit on a moved branch; nothing is written."""
    pointing.branch("side")
    late = pointing.checkout()
    late.table("main_genre").scatter([0], [0])
    edit(pointing, "main", lambda w: w.table("main_genre").scatter([0], [1]))
    edit(pointing, "side", lambda w: w.append("genre", ["z"]), lambda w: w.table("main_genre").scatter([0], [2]))
    before = pointing.branches()
    for act in (
        lambda: pointing.merge("side", on_conflict=lambda c: c.ours * 0 + 77),
        lambda: late.commit("late", on_conflict=lambda c: c.ours + 50),
    ):
        with pytest.raises(InvalidInputError, match=r"'main_genre'.*ids 1\); mend the callable"):
            act()
    assert pointing.branches() == before


def test_a_store_that_has_such_rows_is_mended(pointing: Store) -> None:
    """They are reported, count as pointing nowhere, and are no obstacle to a diff, a merge, a replay or a revert."""
    pointing.branch("side")
    commit_unchecked(pointing, "main", "genres", [2, 3], [[99, 1], [-7, 1]])
    commit_unchecked(pointing, "side", "main_genre", [3], [50])
    for ref, table in (("main", "genres"), ("side", "main_genre")):
        (problem,) = pointing.verify(ref).problems
        assert f"table {table!r}" in problem
    late = pointing.checkout()
    late.append("genre", ["v"])
    edit(pointing, "main", lambda w: w.append("genre", ["w"]))
    edit(pointing, "side", lambda w: w.append("genre", ["z", "w"]), lambda w: w.table("genres").scatter([0], [[2, 3]]))
    assert pointing.diff("main", "side").tables["genres"].changed_ids.tolist() == [1, 3, 4]
    merged = pointing.merge("side")
    names = merged.ids("genre").at(np.arange(len(merged.ids("genre")))).tolist()
    assert [names[row] for row in merged.table("genres").get([1])[0]] == ["z", "w"]
    assert merged.table("main_genre").get([4]).tolist() == [-1]
    assert late.commit("late").table("genres").get([1, 2]).max() < 5
    with pointing.checkout() as work:
        work.table("genres").scatter([2, 3], [[-1, 1], [-1, 1]])
        work.commit("mended")
    assert pointing.verify().problems == []
    pointing.revert("side")
    assert pointing.verify().problems == []
