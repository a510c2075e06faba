"""Several writers at once, threads and processes: no acknowledged version is lost, and the log is one line."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import numpy as np
import pytest

import embstore
from embstore import Schema, SlotSpec, Store, TableSpec
from embstore.errors import ConflictError, NameExistsError
from tools import writers

SCHEMA = Schema((TableSpec("user", "user", 8, slots=(SlotSpec("n", None),)),))


def _add(store: Store, writer: int, number: int) -> str:
    """Append one user of this writer and count in an array, as often as others get in between."""
    while True:
        work = store.checkout()
        rows = work.append("user", [1_000 * writer + number], init={"user": np.full((1, 8), writer)})
        work.table("user").slot("n").scatter(rows, [number])
        counted = work.dense["n"][0] if "n" in work.dense else 0
        work.dense["n"] = [counted + 1, writer, number]  # nobody else's: equal arrays do not conflict
        try:
            return work.commit(f"{writer} {number}").id
        except ConflictError:
            work.discard()


def _check(store: Store, made: list[list[str]]) -> None:
    ids = [id_ for one in made for id_ in one]
    log = [version.id for version in store.log()]
    assert (set(ids) == set(log[:-1]), len(log) - 1) == (True, len(ids))
    tip = store.at()
    assert (tip.entities["user"], int(tip.dense["n"][0])) == (len(ids), len(ids))
    users = tip.ids("user").ids()
    assert as_writers(tip.table("user").get(users)[:, 0]) == (users // 1_000).tolist()
    assert tip.table("user").slot("n").get(users).astype(int).tolist() == (users % 1_000).tolist()
    for one in made:
        assert [log.index(id_) for id_ in one] == sorted((log.index(id_) for id_ in one), reverse=True)
    assert store.verify().problems == []


def as_writers(column: np.ndarray) -> list[int]:  # type: ignore[type-arg]
    """Return the writer of each row."""
    return [int(number) for number in column]


@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize("shared", [True, False], ids=["one handle", "a handle each"])
def test_threads(tmp_path: Path, url: str, place: str, shared: bool) -> None:
    """Four threads commit to one branch, through one handle or through their own."""
    where = url if place == "memory" else str(tmp_path / "s")
    store = embstore.create(where, schema=SCHEMA, durability="none")
    handles = [store if shared else embstore.open(where) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda writer: [_add(handles[writer], writer, n) for n in range(8)], range(4)))
    _check(embstore.open(where), made)


def _work(job: tuple[str, int]) -> list[str]:
    store = embstore.open(job[0])
    return [_add(store, job[1], n) for n in range(10)]


def _name(job: tuple[str, int]) -> list[str]:
    """Make and move names while others commit."""
    store, done = embstore.open(job[0]), []
    for n in range(30):
        store.tag(f"tag-{job[1]}-{n}")
        store.branch(f"branch-{job[1]}", move=True)
        done.append(f"tag-{job[1]}-{n}")
    return done


def _job(job: tuple[str, int]) -> list[str]:
    return (_name if job[1] >= 10 else _work)(job)


def test_processes(tmp_path: Path) -> None:
    """Three processes commit and two make names: all of it is there."""
    store = embstore.create(tmp_path / "s", schema=SCHEMA)
    with multiprocessing.get_context("spawn").Pool(5) as pool:
        made = pool.map(_job, [(store.url, number) for number in (0, 1, 2, 10, 11)], chunksize=1)
    _check(store, made[:3])
    assert sorted(store.tags()) == sorted(made[3] + made[4])
    assert sorted(store.branches()) == ["branch-10", "branch-11", "main"]


def _race(act: Callable[[int], object]) -> tuple[int, int]:
    """Let eight threads do the same at once; return how many did it and how many were told that another had."""

    def attempt(number: int) -> bool:
        try:
            act(number)
        except (NameExistsError, ConflictError):
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(attempt, range(8)))
    return done.count(True), done.count(False)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_one_of_many_wins(tmp_path: Path, url: str, place: str) -> None:
    """The same tag, branch, or commit to a new branch, by eight at once: one has it, the others are told why not."""
    store = embstore.create(url if place == "memory" else tmp_path / "s", schema=SCHEMA, durability="none")
    for n in range(5):
        assert _race(lambda _, n=n: store.tag(f"t{n}")) == (1, 7)  # type: ignore[misc]
        assert _race(lambda _, n=n: store.branch(f"b{n}")) == (1, 7)  # type: ignore[misc]
        works = [store.checkout() for _ in range(8)]
        for number, work in enumerate(works):
            work.dense["n"] = number
        assert _race(lambda number, n=n, works=works: works[number].commit("x", branch=f"c{n}")) == (1, 7)  # type: ignore[misc]
    assert len([name for name in store.branches() if name.startswith("c")]) == 5
    assert all(store.at(f"c{n}").parent == store.at().id for n in range(5))


def test_a_name_is_a_branch_or_a_tag(url: str) -> None:
    """Of one name made as both at once, one stays."""
    store = embstore.create(url, schema=SCHEMA)
    for n in range(10):
        assert _race(lambda number, n=n: (store.tag if number % 2 else store.branch)(f"x{n}")) == (1, 7)  # type: ignore[misc]
    assert set(store.branches()) & set(store.tags()) == set()


def test_readers_beside_a_writer(tmp_path: Path) -> None:
    """What a version says stays the same in many threads while others commit and compact."""
    store = embstore.create(tmp_path / "s", schema=SCHEMA, durability="none")
    _add(store, 0, 0)
    version = store.at()
    expected = version.table("user").values().tobytes()

    def read(_: int) -> set[bytes]:
        return {
            one.table("user").values().tobytes()
            for one in (version, store.at(version.id), embstore.open(store.url).at(version.id)) * 5
        }

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, n) for n in range(6)]
        for n in range(1, 15):
            _add(store, 0, n)
            if n % 5 == 0:
                store.compact()
        assert [reader.result() for reader in readers] == [{expected}] * 6


@pytest.mark.parametrize(
    ("n_writers", "n_commits", "busy"),
    [
        (3, 6, True),
        pytest.param(4, 40, False, marks=pytest.mark.soak),
        pytest.param(4, 40, True, marks=pytest.mark.soak),
    ],
)
def test_many_processes(tmp_path: Path, n_writers: int, n_commits: int, busy: bool) -> None:
    """Own and shared new ids and changed rows of all, tags and compactions between: none is lost, rows are as last left."""
    store = embstore.create(tmp_path / "s", schema=writers.SCHEMA)
    done = writers.run(store.url, writers=n_writers, commits=n_commits, busy=busy)
    assert [len(one.versions) for one in done[:n_writers]] == [n_commits] * n_writers
    assert writers.problems(store, done) == []


N_USERS = 400


def _stage(store: Store, number: int, users: range) -> embstore.Checkout:
    """Give users, their slots and an array one number, in a checkout."""
    work = store.checkout()
    rows = work.append("user", users)
    work.table("user").scatter(rows, np.full((len(users), 8), number))
    work.table("user").slot("n").scatter(rows, np.full(len(users), number))
    return work


def _commit_at_once(url: str, number: int, barrier: Barrier, rounds: int, results: multiprocessing.Queue[str]) -> None:
    """Commit what the other changes too, from the same parent and at the same time; then what only this one changes."""
    store = embstore.open(url)
    for turn, users in enumerate([range(N_USERS)] * rounds + [range(number * N_USERS, (number + 1) * N_USERS)]):
        barrier.wait(60)
        work = _stage(store, 2 * turn + number, users)
        barrier.wait(60)
        try:
            results.put(f"{users.start} {work.commit(f'job {number}').id}")
        except ConflictError:
            results.put(f"{users.start} conflict")


def _read(url: str, ended: Event, results: multiprocessing.Queue[str]) -> None:
    """Read again and again: of the first users, all have one number in every column."""
    store, seen = embstore.open(url), 0
    while not ended.is_set() or not seen:
        table = store.at().table("user")
        numbers = {*np.unique(table.get(range(N_USERS))), *np.unique(table.slot("n").get(range(N_USERS)))}
        if len(numbers) != 1:
            results.put(f"half of a commit: {numbers}")
        seen += 1
        time.sleep(0.01)


def _commit_for_ever(url: str, begun: Event) -> None:
    store = embstore.open(url)
    for number in range(100, 10_000):
        _stage(store, number, range(N_USERS)).commit("killed")
        begun.set()


def test_two_jobs_committing_from_one_parent(tmp_path: Path) -> None:
    """One wins and the other is told, or both stand where rows are disjoint; nobody reads half a commit; a killed one is none."""
    spawn, rounds = multiprocessing.get_context("spawn"), 3
    store = embstore.create(tmp_path / "s", schema=SCHEMA)
    _stage(store, 77, range(N_USERS)).commit("the parent")
    ended, begun, barrier, results, seen = spawn.Event(), spawn.Event(), spawn.Barrier(2), spawn.Queue(), spawn.Queue()
    reader = spawn.Process(target=_read, args=(store.url, ended, seen))
    jobs = [spawn.Process(target=_commit_at_once, args=(store.url, n, barrier, rounds, results)) for n in (1, 2)]
    for process in (reader, *jobs):
        process.start()
    said = [results.get(timeout=120) for _ in range(2 * (rounds + 1))]
    same = [line for line in said if line.startswith("0 ")]
    assert (len(same), sum(line.endswith("conflict") for line in same)) == (2 * rounds, rounds)
    assert not any("conflict" in line for line in said if line not in same)
    acknowledged = {line.split()[1] for line in said} - {"conflict"}
    assert (acknowledged < {version.id for version in store.log()}, store.at().entities["user"]) == (True, 3 * N_USERS)
    for _ in range(3):
        begun.clear()
        killed = spawn.Process(target=_commit_for_ever, args=(store.url, begun))
        killed.start()
        assert begun.wait(60)
        time.sleep(random.uniform(0, 0.1))
        killed.kill()
        killed.join(60)
        assert store.verify(deep=True).problems == []
    ended.set()
    for process in (reader, *jobs):
        process.join(60)
    assert ([process.exitcode for process in (reader, *jobs)], seen.empty()) == ([0, 0, 0], True)
