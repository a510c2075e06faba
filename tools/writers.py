"""Many processes on one store: ``python -m tools.writers [--writers 4] [--commits 40] [--busy]``.

Each writer appends ids of its own and ids that the others append too, and changes rows of its own; ``--busy`` adds a process
that makes tags and one that compacts. At the end every version must be there, in one line, and every row as its last writer
left it. How long commits took is printed, waiting for the others' included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import embstore
from embstore import Schema, SlotSpec, Store, TableSpec
from embstore.errors import ConflictError

SCHEMA = Schema(
    (TableSpec("user", "user", 16, slots=(SlotSpec("n", None),)), TableSpec("item", "item", 4)),
    {"user": "int64", "item": "str"},
)
FIRST_SHARED = 1_000_000
OF_ONE_WRITER = 10_000


@dataclass(frozen=True)
class Job:
    """What one process does: ``role`` is write, tag or compact."""

    url: str
    role: str
    number: int
    n_commits: int
    until: str  # a file that is there once all writers have ended


@dataclass
class Account:
    """What a process knows it has done: versions in its order, the last value of each row, pairs, seconds of each commit."""

    versions: list[str] = field(default_factory=list)
    rows: dict[int, float] = field(default_factory=dict)
    pairs: list[tuple[int, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    retries: int = 0
    tags: list[str] = field(default_factory=list)


def work(job: Job) -> Account:
    """Run one process of the job's role."""
    return {"write": write, "tag": tag, "compact": compact}[job.role](job)


def write(job: Job) -> Account:
    """Commit again and again, whoever else does; a commit that found the branch moved is replayed by the store."""
    store, done = embstore.open(job.url), Account()
    rng = np.random.default_rng(job.number)
    for turn in range(job.n_commits):
        changes = store.checkout()
        first = job.number * OF_ONE_WRITER + 3 * turn
        mine = changes.append("user", range(first, first + 3))
        changes.append("user", range(FIRST_SHARED + 2 * turn, FIRST_SHARED + 2 * turn + 2))
        items = changes.append("item", [f"shared {turn}", f"{job.number} {turn}"])
        old = [id_ for id_ in done.rows if rng.random() < 0.3]
        ids, value = [*range(first, first + 3), *old], float(turn + job.number / 10)
        rows = changes.ids("user").rows(ids)
        changes.table("user").scatter(rows, np.full((len(ids), 16), value))
        changes.table("user").slot("n").scatter(rows, np.full(len(ids), turn))
        changes.consumed.append(mine[[0, 0]], items)
        changes.dense[f"turn of {job.number}"] = turn
        start, cpu_start = time.perf_counter(), time.process_time()
        version = changes.commit(f"{job.number} {turn}")
        done.seconds.append(time.perf_counter() - start)
        done.cpu_seconds.append(time.process_time() - cpu_start)
        done.versions.append(version.id)
        done.retries += version.lineage.get("replays", 0)
        done.rows |= dict.fromkeys(ids, value)
        done.pairs += [(first, f"shared {turn}"), (first, f"{job.number} {turn}")]
    return done


def tag(job: Job) -> Account:
    """Make tags, and move a branch, until the writers have ended."""
    store, done = embstore.open(job.url), Account()
    while not Path(job.until).exists():
        done.tags.append(f"tag-{len(done.tags)}")
        store.tag(done.tags[-1])
        store.branch("follows", move=True)
    return done


def compact(job: Job) -> Account:
    """Compact until the writers have ended."""
    store, done = embstore.open(job.url), Account()
    while not Path(job.until).exists():
        try:
            version = store.compact()
        except ConflictError:
            continue
        if version.lineage.get("compacted") and version.id not in done.versions:
            done.versions.append(version.id)
    return done


def run(url: str, *, writers: int, commits: int, busy: bool = False) -> list[Account]:
    """Let processes loose on a store that has `SCHEMA`; return what the writers did, then tagger and compactor."""
    with tempfile.TemporaryDirectory() as folder:
        until = Path(folder) / "ended"
        roles = ["write"] * writers + ["tag", "compact"] * busy
        jobs = [Job(url, role, number, commits, str(until)) for number, role in enumerate(roles)]
        with multiprocessing.get_context("spawn").Pool(len(jobs)) as pool:
            running = [pool.apply_async(work, (job,)) for job in jobs]
            try:
                done = [one.get() for one in running[:writers]]
            finally:
                until.touch()
            return done + [one.get() for one in running[writers:]]


def problems(store: Store, accounts: Iterable[Account]) -> list[str]:
    """Return what is not as it must be: nothing, if no version is lost and every row is as its last writer left it."""
    done, tip, log = list(accounts), store.at(), list(store.log())
    ids, made = [version.id for version in log], [one.versions for one in done]
    checks: dict[str, Any] = {
        "a version is lost": {id_ for mine in made for id_ in mine} <= set(ids),
        "there are versions that nobody made": len(log) == sum(map(len, made)) + 1,
        "the log is not one line": [list(version.parents) for version in log] == [[id_] for id_ in ids[1:]] + [[]],
        "versions changed places": all(mine == [id_ for id_ in reversed(ids) if id_ in set(mine)] for mine in made),
        "a row is not as it was left": _rows_are_left(store, done),
        "ids are not those appended": sorted(tip.ids("user").ids().tolist()) == _users(done),
        "a shared row has moved": _shared_are_initial(store, done),
        "pairs are not those recorded": _pairs_are_kept(store, done),
        "an array is not as it was left": {name: int(array) for name, array in tip.dense.items()}
        == {f"turn of {number}": len(one.versions) - 1 for number, one in enumerate(done) if one.rows},
        "a tag is lost": set(store.tags()) == {name for one in done for name in one.tags},
        "verify finds damage": store.verify().ok,
    }
    return [says for says, holds in checks.items() if not holds]


def _rows_are_left(store: Store, done: list[Account]) -> bool:
    table = store.at().table("user")
    left = {id_: value for one in done for id_, value in one.rows.items()}
    values, turns = table.get(list(left)), table.slot("n").get(list(left))
    expected = np.array(list(left.values()), np.float32)
    return bool((values == expected[:, None]).all() and (turns == np.floor(expected)).all())


def _shared(done: list[Account]) -> list[int]:
    n_turns = max(len(one.versions) for one in done if one.rows)
    return list(range(FIRST_SHARED, FIRST_SHARED + 2 * n_turns))


def _users(done: list[Account]) -> list[int]:
    return sorted([*(id_ for one in done for id_ in one.rows), *_shared(done)])


def _shared_are_initial(store: Store, done: list[Account]) -> bool:
    table, shared = store.at().table("user"), _shared(done)
    return bool((table.get(shared) == table.initial(shared)).all())


def _pairs_are_kept(store: Store, done: list[Account]) -> bool:
    wanted: dict[int, list[str]] = {}
    for user, item in (pair for one in done for pair in one.pairs):
        wanted.setdefault(user, []).append(item)
    found = store.at().consumed.of("user", list(wanted))
    return [items.tolist() for items in found] == list(wanted.values()) and len(store.at().consumed) == sum(
        map(len, wanted.values())
    )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tools.writers", description=__doc__)
    parser.add_argument("--writers", type=int, default=4, help="processes that commit (default 4)")
    parser.add_argument("--commits", type=int, default=40, help="commits of each (default 40)")
    parser.add_argument("--busy", action="store_true", help="a process that makes tags and one that compacts beside them")
    chosen = parser.parse_args()
    if min(chosen.writers, chosen.commits) < 1:
        parser.error("--writers and --commits: give 1 or more")
    with tempfile.TemporaryDirectory(prefix="embstore-writers-") as folder:
        store = embstore.create(Path(folder) / "store", schema=SCHEMA)
        start = time.perf_counter()
        done = run(store.url, writers=chosen.writers, commits=chosen.commits, busy=chosen.busy)
        elapsed = time.perf_counter() - start
        found = problems(store, done)
    seconds = np.array([second for one in done for second in one.seconds])
    half, most = np.quantile(seconds, [0.5, 0.99])
    cpu_half, cpu_most = np.quantile([second for one in done for second in one.cpu_seconds], [0.5, 0.99])
    print(f"{len(seconds)} versions of {chosen.writers} processes in {elapsed:.1f} s: {', '.join(found) or 'all is there'}")
    print(f"a commit: p50 {half * 1000:.0f} ms, p99 {most * 1000:.0f} ms")
    print(f"its CPU: p50 {cpu_half * 1000:.0f} ms, p99 {cpu_most * 1000:.0f} ms")
    n_tags, n_others = sum(len(one.tags) for one in done), sum(len(one.versions) for one in done if not one.rows)
    print(f"replays {sum(one.retries for one in done)}, tags {n_tags}, compactions {n_others}")


if __name__ == "__main__":
    main()
