"""Forgetting versions: what goes, what stays, and that all that looks back goes on with what is left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import DamagedStoreError, InvalidInputError, Schema, Store, UnknownRefError, Version
from embstore.expiry import moment_of
from embstore.lineage import trained_by

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
EAST = timezone(timedelta(hours=14))


def grow(store: Store, day: int, *, branch: str = "main", **lineage: object) -> Version:
    """Commit a day: five new users, three items, and pairs."""
    with store.checkout(branch) as work:
        rows = work.append("user", range(5 * day, 5 * day + 10))
        items = work.append("item", [f"thing {n}" for n in range(day, day + 3)])
        work.table("user").scatter(rows, np.random.default_rng(day).standard_normal((len(rows), 4)))
        work.consumed.append(rows[:3], items)
        work.dense["day"] = [float(day)]
        work.lineage.update(lineage)
        return work.commit(f"day {day}", metadata={"day": day})


@pytest.fixture
def days(store: Store) -> list[Version]:
    """Return the versions of six days on main."""
    return [grow(store, day) for day in range(6)]


def written(version: Version) -> datetime:
    """Return when the engine wrote a version: what is not older stays."""
    return version.repo.snapshot(version.id).written


def messages(store: Store, ref: str = "main") -> list[str]:
    """Return what a log shows."""
    return [version.message for version in store.log(ref)]


def content(version: Version) -> dict[str, Any]:
    """Return what a version holds, by id."""
    ids = {entity: sorted(version.ids(entity).ids().tolist()) for entity in version.entities}
    return {
        "ids": ids,
        "tables": {name: version.table(name).get(ids[name]).tobytes() for name in version.tables},
        "had": [had.tolist() for had in version.consumed.of("user", ids["user"])],
        "dense": {name: array.tolist() for name, array in version.dense.items()},
        "metadata": version.metadata,
    }


@pytest.mark.parametrize(
    ("older_than", "moment"),
    [
        ("30d", NOW - timedelta(30)),
        (" 12h ", NOW - timedelta(hours=12)),
        ("1.5m", NOW - timedelta(seconds=90)),
        ("0s", NOW),
        ("2w", NOW - timedelta(14)),
        (timedelta(days=1), NOW - timedelta(1)),
        (datetime(2026, 11, 1), datetime(2026, 11, 1, tzinfo=UTC)),  # noqa: DTZ001
        (NOW + timedelta(hours=3), NOW + timedelta(hours=3)),
        (NOW.astimezone(EAST), NOW),
        (datetime.min.replace(tzinfo=EAST), datetime.min.replace(tzinfo=UTC)),
        (datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), datetime.max.replace(tzinfo=UTC)),
        ("999999999w", datetime(1970, 1, 1, tzinfo=UTC)),
        (timedelta.max, datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_an_age_is_a_moment(older_than: Any, moment: datetime) -> None:
    """A moment, an age, or an age as text, always told in UTC; as old as can be is no error."""
    found = moment_of(older_than, NOW)
    assert (moment, UTC) == (found, found.tzinfo)


@pytest.mark.parametrize(
    "moment",
    [datetime.now(EAST) + timedelta(1), datetime.min.replace(tzinfo=EAST), datetime.max.replace(tzinfo=UTC)],
    ids=["tomorrow", "first", "last"],
)
def test_a_moment_of_another_zone(store: Store, days: list[Version], moment: datetime) -> None:
    """Wherever on earth it is told, and however far off it is, versions expire and are collected by it."""
    expired = store.expire(moment, dry_run=False)
    assert (len(expired.expired), store.gc(moment, dry_run=False).ok) == (0 if moment.year == 1 else len(days), True)
    assert (store.at(), store.verify().problems) == (days[-1], [])


@pytest.mark.parametrize("older_than", ["", "30", "d", "-1d", "30 days", "1d2h", timedelta(-1), 30, None, "2026-11-01"])
def test_what_is_no_age_is_refused(store: Store, older_than: Any) -> None:
    """Anything else is refused by both verbs, and nothing happens."""
    for verb in (store.expire, store.gc):
        with pytest.raises(InvalidInputError, match="older_than"):
            verb(older_than, dry_run=False)


def test_a_dry_run_tells_what_would_go(store: Store, days: list[Version]) -> None:
    """The same versions in the same words, and the log is as it was; then they go."""
    told = store.expire(written(days[3]))
    assert 7 == len(messages(store))
    done = store.expire(written(days[3]), dry_run=False)
    assert ["day 2", "day 1", "day 0", "create the store"] == [version["message"] for version in done.expired]
    assert (told.expired, told.counts) == (done.expired, done.counts)
    assert {"expired": 4, "kept": 3, "tags dropped": 0} == done.counts
    assert ["day 5", "day 4", "day 3"] == messages(store) == [version.message for version in store.log(all=True)]
    assert "day 1" in str(done)
    assert done.to_dict()["expired"][0]["id"] == days[2].id
    assert [] == store.expire(written(days[3]), dry_run=False).expired


def test_tags_and_branches_keep_their_versions(store: Store, days: list[Version]) -> None:
    """A tagged version stays, unless its tag is named; so does the tip of every branch."""
    store.tag("first", at=days[0].id)
    store.tag("second", at=days[1].id)
    store.branch("side", at=days[2].id)
    before = content(days[0]), content(days[2])
    report = store.expire(written(days[4]), tags=["second"], dry_run=False)
    store.gc("0s", dry_run=False)
    assert ({"first"}, {"main", "side"}) == (set(store.tags()), set(store.branches()))
    assert ["day 3", "day 1", "create the store"] == [version["message"] for version in report.expired]
    assert (["day 5", "day 4"], ["day 0"], ["day 2"]) == (messages(store), messages(store, "first"), messages(store, "side"))
    assert before == (content(store.at("first")), content(store.at("side")))
    assert [[], [], []] == [store.verify(ref).problems for ref in ("main", "first", "side")]
    with pytest.raises(InvalidInputError, match="give a list"):
        store.expire("30d", tags="first")
    with pytest.raises(UnknownRefError, match="tag 'second': there is first"):
        store.expire("30d", tags=["second"])
    with pytest.raises(UnknownRefError):
        store.at(days[1].id)


def test_all_old_leaves_the_tip(store: Store, days: list[Version]) -> None:
    """However old it is, the newest version of main stays, and work goes on from it."""
    before = content(days[-1])
    store.expire("0s", dry_run=False)
    store.gc("0s", dry_run=False)
    assert ["day 5"] == messages(store)
    assert before == content(store.at())
    grow(store, 6)
    assert ["day 6", "day 5"] == messages(store)
    assert ["day 6"] == [version.message for version in store.blame("user", 39)]


@pytest.mark.parametrize("collected", [False, True])
def test_what_looks_back_goes_on(store: Store, days: list[Version], collected: bool) -> None:
    """Diffs are what they were, also where a version between is expired; blame and the log end at the oldest that is kept."""
    store.tag("first", at=days[0].id)
    with store.checkout() as work:
        work.remove("user", [3])
        work.table("user").scatter(work.ids("user").rows([20]), np.ones((1, 4)))
        work.commit("day 6")
    pairs = [("first", "main"), ("main", "first"), ("main~2", "main"), ("main", "main~1"), ("main~1", "main~1")]
    diffs = [store.diff(*pair).to_dict() for pair in pairs]
    kept = content(days[3])
    store.expire(written(days[3]), dry_run=False)
    if collected:
        store.gc("0s", dry_run=False)
    for one, pair in zip(diffs, pairs, strict=True):
        other = store.diff(*pair).to_dict()
        assert {**one, "bytes_new": 0, "bytes_shared": 0} == {**other, "bytes_new": 0, "bytes_shared": 0}
    assert ["day 6", "day 4", "day 3"] == [version.message for version in store.blame("user", 20)]
    assert ["day 3"] == [version.message for version in store.blame("item", "thing 1")][-1:]
    assert [days[2].id] == list(store.at("main~3").parents)  # what is recorded stays recorded
    with pytest.raises(UnknownRefError, match="only 3 versions before it"):
        store.at("main~4")
    assert kept == content(store.revert("main~3"))
    assert [] == store.verify().problems


def test_other_handles_go_on(tmp_path: Path) -> None:
    """Whoever has the store open goes on; what they have read before they may still see in a log."""
    store = embstore.create(tmp_path / "s", schema=Schema((), {"user": "int64"}), durability="none")
    days = []
    for day in range(6):
        with store.checkout() as work:
            work.append("user", [day])
            days.append(work.commit(f"day {day}"))
    handles = [embstore.open(tmp_path / "s") for _ in range(3)]
    handles[0].at()
    handles[1].at("main~2")
    assert 7 == len(messages(handles[2]))
    store.expire(written(days[4]), dry_run=False)
    store.gc("0s", dry_run=False)
    assert (["day 5", "day 4"], ["day 5", "day 4", "day 3"]) == (messages(handles[0]), messages(handles[1]))
    with handles[0].checkout() as work:
        work.append("user", [100])
        work.commit("goes on")
    assert ["goes on", "day 5", "day 4"] == messages(embstore.open(tmp_path / "s"))


def test_what_was_merged_in_stays_as_long_as_it_is_young(store: Store, days: list[Version]) -> None:
    """A second parent whose branch is deleted is kept for the merge, and expired when it is old."""
    store.branch("side", at=days[2].id)
    side = [grow(store, 20, branch="side"), grow(store, 21, branch="side")]
    merged = store.merge("side", message="merge side", on_conflict="ours")
    last = grow(store, 30)
    store.delete_branch("side")
    before = content(side[1])

    assert 0 == store.gc("0s", dry_run=False).counts["snapshots"]
    report = store.expire(written(side[1]), dry_run=False)
    store.gc("0s", dry_run=False)
    assert ["day 30", "merge side"] == messages(store)
    assert ["day 30", "merge side", "day 21"] == [version.message for version in store.log(all=True)]
    assert "day 20" in [version["message"] for version in report.expired]
    assert before == content(store.at(side[1].id))
    assert ["day 21"] == [version.message for version in store.blame("user", 114)]

    assert ["day 21"] == [version["message"] for version in store.expire(written(merged), dry_run=False).expired]
    store.gc("0s", dry_run=False)
    assert ["day 30", "merge side"] == [version.message for version in store.log(all=True)]
    assert ["merge side"] == [version.message for version in store.blame("user", 114)]
    with pytest.raises(UnknownRefError):
        store.at(side[1].id)
    assert (last.id, []) == (store.at().id, store.verify().problems)
    assert {"main"} == set(store.branches())


def test_the_trainer_is_not_forgotten_with_its_version(store: Store) -> None:
    """A report says so where only expired versions name the trainer; a compaction takes the name along."""
    grow(store, 0, trainer="popularity", settings={"decay": 0.5})
    grow(store, 1)
    assert ["branch 'main'"] == [note[:13] for note in store.expire("0s").notes]
    assert {"trainer": "popularity", "settings": {"decay": 0.5}}.items() <= store.compact().lineage.items()
    assert [] == store.expire("0s", dry_run=False).notes
    store.gc("0s", dry_run=False)
    assert {"trainer": "popularity", "settings": {"decay": 0.5}} == trained_by(store.at().id, store.at().repo.ancestry)


def test_a_revert_to_what_is_expired(store: Store, days: list[Version]) -> None:
    """A version that was reverted to and is gone is no obstacle."""
    store.revert(days[0].id)
    store.expire("0s", dry_run=False)
    store.gc("0s", dry_run=False)
    assert ["day 0"] == [version.metadata and "day 0" for version in store.log()]
    assert [] == store.verify().problems
    grow(store, 9)
    assert 10 + 10 == store.at().entities["user"]


def test_nothing_is_older_than_the_store(store: Store, days: list[Version]) -> None:
    """A moment before the store was made expires nothing, whatever the clocks of its writers said."""
    report = store.expire(written(days[0]) - timedelta(days=1), dry_run=False)
    assert ([], 7) == (report.expired, len(messages(store)))


def test_a_version_that_cannot_be_read(tmp_path: Path) -> None:
    """Where a version of a line is lost, nothing is expired."""
    store = embstore.create(tmp_path / "s", schema=Schema((), {"user": "int64"}), durability="none")
    for day in range(4):
        with store.checkout() as work:
            work.append("user", [day])
            work.commit(f"day {day}")
    lost = tmp_path / "s" / "snapshots" / store.at("main~2").id
    lost.rename(tmp_path / "lost")
    for dry_run in (True, False):
        with pytest.raises(DamagedStoreError):
            embstore.open(tmp_path / "s").expire("0s", dry_run=dry_run)
    (tmp_path / "lost").rename(lost)
    assert 5 == len(messages(embstore.open(tmp_path / "s")))


@pytest.mark.parametrize("seed", range(2))
def test_what_is_told_is_what_happens(store: Store, seed: int) -> None:
    """On any tree of branches, tags and merges a report is right: what no log shows any more is what it says is expired."""
    rng = np.random.default_rng(seed)
    made = [store.at()]
    for day in range(14):
        branch = str(rng.choice(sorted(store.branches())))
        if rng.random() < 0.25:
            store.branch(f"b{day}", at=str(rng.choice([version.id for version in made])))
        elif rng.random() < 0.2:
            store.tag(f"t{day}", at=str(rng.choice([version.id for version in made])))
        elif rng.random() < 0.2 and len(store.branches()) > 1:
            made.append(store.merge(str(rng.choice(sorted(store.branches()))), into=branch, on_conflict="ours", message="merge"))
        else:
            made.append(grow(store, day, branch=branch))
    tags = [tag for tag in store.tags() if rng.random() < 0.3]
    moment = written(made[int(rng.integers(len(made)))])
    refs = [*store.branches(), *store.tags()]
    before = {version.id: content(version) for ref in refs for version in store.log(ref, all=True)}
    lines = {ref: [version for version in store.log(ref) if written(version) >= moment] for ref in refs if ref not in tags}
    report = store.expire(moment, tags=tags, dry_run=False)
    store.gc("0s", dry_run=False)
    after = {version.id: content(version) for ref in lines for version in store.log(ref, all=True)}
    assert {version["id"] for version in report.expired} == before.keys() - after.keys()
    assert {id_: before[id_] for id_ in after} == after
    for ref, line in lines.items():
        assert {version.id for version in line} <= {version.id for version in store.log(ref)}
    assert [] == [problem for id_ in after for problem in store.verify(id_).problems]
