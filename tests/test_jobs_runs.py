"""Runs: a piece of work with a name is trained and recorded once, wherever it got to."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import embstore
from embstore import Batch, Checkout, ConflictError, Interactions, InvalidInputError, Store, Version
from tests.examples import DAY_1, DAY_2, crash_after
from tests.jobs import OURS, THEIRS, begun, count, fitted, had, never, trained_alone, while_another
from tests.plugin.tinymf import TinyMF
from trainers.popularity import Popularity

JOB = """
import sys
import embstore
from embstore import Interactions
from tests.plugin.tinymf import TinyMF

store = embstore.open(sys.argv[1])
version = embstore.fit(store, TinyMF(), Interactions([1, 2, 5], ["a", "b", "x"]), message="ours", run="day-2")
print(version.id, flush=True)
sys.stdin.read()
"""


def test_a_run_that_landed_is_found() -> None:
    """A job that never learned that its version got through gets it when it is run again; nothing is recorded twice."""
    store = begun()
    lost = fitted(store, run="day-2", on_conflict={"rows": "mean", "dense": "ours"})
    assert lost.lineage["run"] == "day-2"
    again = embstore.fit(store, TinyMF(), OURS, message="again", run="day-2", progress=never)
    assert (again, had(again, [5])) == (lost, [["x"]])


def test_a_run_that_conflicted_is_not_trained_again() -> None:
    """Run again it conflicts again, or comes home if it may; then it is found on the branch, however often it is asked for."""
    store = begun()
    with pytest.raises(ConflictError) as first:
        fitted(store, run="day-2")
    branches = store.branches()
    with pytest.raises(ConflictError) as second:
        embstore.fit(store, TinyMF(), OURS, message="again", run="day-2", progress=never)
    assert str(second.value).rpartition("; the work is")[2] == str(first.value).rpartition("; the work is")[2]
    assert store.branches() == branches
    home = embstore.fit(
        store, TinyMF(), OURS, message="again", run="day-2", on_conflict={"rows": "ours", "dense": "ours"}, progress=never
    )
    assert (home, home.message) == (store.at(), "ours (from main-day-2)")
    assert home.parents == (branches["main"], branches["main-day-2"])
    np.testing.assert_array_equal(home.table("tinymf.user").get([1]), trained_alone(OURS).table("tinymf.user").get([1]))
    embstore.fit(store, Popularity(), DAY_2, message="later")
    assert embstore.fit(store, TinyMF(), OURS, message="again", run="day-2", progress=never) == home
    assert had(store.at(), [5]) == [["x"]]


def test_a_run_brought_home_by_hand_is_found() -> None:
    """After a merge as the error says it, the run is one of the branch."""
    store = begun()
    with pytest.raises(ConflictError):
        fitted(store, run="day-2")
    merged = store.merge("main-day-2", on_conflict={"rows": "mean", "dense": "ours"})
    assert embstore.fit(store, TinyMF(), OURS, message="again", run="day-2", progress=never) == merged


def test_another_branch_of_such_a_name_is_no_work_of_the_run() -> None:
    """A branch that happens to be called as the run's own would be is left alone, as is a run of its own on it."""
    store = begun()
    store.branch("main-eu")
    elsewhere = embstore.fit(store, TinyMF(), OURS, message="elsewhere", run="eu", branch="main-eu")
    with pytest.raises(ConflictError, match=r"on branch 'main-[0-9a-f]{8}'"):
        fitted(store, run="eu")
    assert store.branches()["main-eu"] == elsewhere.id
    home = embstore.fit(
        store, TinyMF(), OURS, message="x", run="eu", on_conflict={"rows": "mean", "dense": "ours"}, progress=never
    )
    assert len(home.parents) == 2


def test_a_run_is_of_one_kind() -> None:
    """The name of a training does not answer for a folding in, nor the other way round."""
    store = begun()
    embstore.fit(store, TinyMF(), OURS, message="trained", run="monday")
    with pytest.raises(InvalidInputError, match="run 'monday': version .* is a training of this name; take another name"):
        embstore.fold_in(store, TinyMF(), THEIRS, message="folded", run="monday")
    embstore.fold_in(store, TinyMF(), THEIRS, message="folded", run="monday-new")
    with pytest.raises(InvalidInputError, match="run 'monday-new': version .* is a folding in of this name"):
        embstore.fit(store, TinyMF(), DAY_2, message="trained", run="monday-new")


def test_a_run_cut_short_goes_on_apart() -> None:
    """Interrupted on its own branch it is taken up there, and comes home from there."""
    store = begun()
    other = while_another(store)

    def interfere_and_crash(epoch: int, metrics: Mapping[str, float]) -> None:
        other(epoch, metrics)
        crash_after(3)(epoch, metrics)

    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, TinyMF(epochs=4), OURS, message="ours", run="r", commit_every=2, progress=interfere_and_crash)
    assert store.at("main-r").lineage["unfinished"]
    seen: list[int] = []
    version = embstore.fit(
        store,
        TinyMF(epochs=4),
        OURS,
        message="ours",
        run="r",
        on_conflict={"rows": "ours", "dense": "ours"},
        progress=lambda epoch, metrics: seen.append(epoch),
    )
    assert (seen, version, len(version.parents)) == ([3, 4], store.at(), 2)
    alone = embstore.fit(begun(), TinyMF(epochs=4), OURS, message="alone")
    np.testing.assert_array_equal(version.table("tinymf.user").get([1, 2]), alone.table("tinymf.user").get([1, 2]))


def test_a_run_that_left_the_branch_goes_on_where_it_got_to() -> None:
    """The first versions on the way are on the branch, the later ones apart: it goes on from the latest."""
    store = begun()

    def interfere_and_crash(epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch == 2:
            embstore.fit(store, Popularity(), THEIRS, message="theirs")
        crash_after(4)(epoch, metrics)

    options: Any = {"message": "ours", "run": "r", "commit_every": 1}
    with pytest.raises(KeyboardInterrupt):
        embstore.fit(store, TinyMF(epochs=5), OURS, progress=interfere_and_crash, **options)
    assert [version.message for version in store.log()][:2] == ["theirs", "ours (epoch 1)"]
    assert [version.message for version in store.log("main-r")][:2] == ["ours (epoch 3)", "ours (epoch 2)"]
    seen: list[int] = []
    version = embstore.fit(store, TinyMF(epochs=5), OURS, progress=lambda epoch, metrics: seen.append(epoch), **options)
    assert (seen, version, sorted(store.branches())) == ([4, 5], store.at(), ["main", "main-r"])
    alone = embstore.fit(begun(), TinyMF(epochs=5), OURS, message="alone")
    users = alone.ids("user").ids()
    np.testing.assert_array_equal(version.table("tinymf.user").get(users), alone.table("tinymf.user").get(users))
    assert had(version, [5, 6]) == [["x"], ["a", "y"]]


def test_the_same_run_started_twice_lands_once() -> None:
    """Of two jobs of one run that train at the same time, the second finds the first's version and records nothing."""
    store = begun()
    first: list[Version] = []

    def start_again(epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch == 1 and not first:
            first.append(embstore.fit(store, TinyMF(), OURS, message="first", run="r"))

    second = embstore.fit(store, TinyMF(), OURS, message="second", run="r", on_conflict="ours", progress=start_again)
    assert (second, list(store.branches())) == (first[0], ["main"])
    assert had(store.at(), [5]) == [["x"]]


def test_fold_in_of_a_run_happens_once() -> None:
    """The same run again gives the version that there is, on another branch it is another piece of work."""
    store = begun()
    store.branch("eu")
    version = embstore.fold_in(store, TinyMF(), THEIRS, message="new", run="new-1")
    assert embstore.fold_in(store, TinyMF(), THEIRS, message="new", run="new-1") == version
    assert had(store.at(), [3]) == [["d", "b", "c"]]
    assert embstore.fold_in(store, TinyMF(), THEIRS, message="new", run="new-1", branch="eu") != version
    with pytest.raises(InvalidInputError, match="run name 'a/b'"):
        embstore.fold_in(store, TinyMF(), THEIRS, message="new", run="a/b")


def test_a_job_killed_before_it_knew(tmp_path: Path) -> None:
    """A job is killed as soon as its version is on the branch; run again it gets that version, and records stand once."""
    store = embstore.create(tmp_path / "s")
    before = embstore.fit(store, TinyMF(), DAY_1, message="day 1").id
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", JOB, str(tmp_path / "s")]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as job:
        until = time.monotonic() + 60
        while store.branches()["main"] == before:
            assert (time.monotonic() < until, job.poll()) == (True, None)
        job.kill()
    landed = store.at()
    for _ in range(2):
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as job:
            assert job.communicate(timeout=60)[0].strip() == landed.id
    assert (store.at(), had(landed, [5])) == (landed, [["x"]])


def test_a_run_that_lands_before_the_checkout_is_found_at_the_end() -> None:
    """Another job of the same run that got in between looking for it and checking out is noticed before the commit."""
    store = begun()
    first: list[Version] = []

    class Late(Store):
        def checkout(self, branch: str = "main") -> Checkout:
            first.append(embstore.fit(store, TinyMF(), OURS, message="first", run="r"))
            return super().checkout(branch)

    late = Late(store._repo)
    assert embstore.fit(late, TinyMF(), OURS, message="second", run="r") == first[0]
    assert (store.at(), had(store.at(), [5])) == (first[0], [["x"]])


def test_the_same_folding_in_started_twice_lands_once() -> None:
    """So it is with folding in."""
    store, pairs = begun(), Interactions([7, 1], ["a", "b"])
    first: list[Version] = []

    class Slow(TinyMF):
        def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch, *, entity: str = "user") -> dict[str, float]:
            first.append(embstore.fold_in(store, TinyMF(), pairs, message="first", run="new"))
            return super().fold_in(work, rows, batch, entity=entity)

    assert embstore.fold_in(store, Slow(), pairs, message="second", run="new") == first[0]
    assert (store.at(), had(store.at(), [7])) == (first[0], [["a"]])


def test_processes_that_count_together(tmp_path: Path) -> None:
    """Two runs, each started in two processes, at once: both are counted and recorded once, and whoever asks is told where."""
    store = embstore.create(tmp_path / "s")
    embstore.fit(store, Popularity(), DAY_1, message="day 1")
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        made = pool.map(count, [(store.url, run) for run in "AABB"], chunksize=1)
    tip = store.at()
    assert (made[0] == made[1], made[2] == made[3], made[0] != made[2]) == (True, True, True)
    assert {made[0], made[2]} <= {version.id for version in store.log()}
    assert had(tip, [1, 2, 65, 66]) == [["a", "c", "a", "a"], ["b", "a", "b", "b", "b"], ["a"], ["a", "a"]]
    assert tip.table("popularity").get(["a", "b", "c", "d"]).tolist() == [2 + 2 + 3, 2 + 1 + 2, 1, 1]
