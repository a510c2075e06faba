"""What each user has had: in order, from either side, at every version."""

from __future__ import annotations

import uuid
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

import embstore
from embstore import Schema, Store, View
from embstore.errors import InvalidInputError, UnknownIdError, UnknownNameError

ENTITIES = Schema(entities={"user": "int64", "item": "str"})
ITEMS = list("abcdefgh")
TIMES = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture
def store(url: str) -> Store:
    """Return a store with users 0 to 3 and items "a" to "h", in rows of that order."""
    store = embstore.create(url, schema=ENTITIES)
    with store.checkout() as work:
        work.append("user", range(4))
        work.append("item", ITEMS)
        work.commit("ids")
    return store


def _had(view: View, user: int, *, distinct: bool = False) -> str:
    """Return the items of a user as one word."""
    return "".join(view.consumed.of("user", [user], distinct=distinct)[0].tolist())


def test_in_the_order_of_recording(store: Store) -> None:
    """Without times: call by call, commit by commit, by position; duplicates stay unless distinct."""
    work = store.checkout()
    work.consumed.append([1, 0, 1, 1], [2, 0, 0, 2])
    work.consumed.append([0, 1], [1, 1])
    for view in (work, work.commit("x")):
        assert (_had(view, 1), _had(view, 1, distinct=True), _had(view, 0), _had(view, 3)) == ("cacb", "cab", "ab", "")
        assert [ids.tolist() for ids in view.consumed.of("item", ["a", "h", "c"])] == [[0, 1], [], [1, 1]]
        assert [ids.tolist() for ids in view.consumed.of("item", ["c"], distinct=True)] == [[1]]
    work.consumed.append([1], [0])
    assert _had(work.commit("y"), 1) == "cacba"
    assert (_had(store.at("main~1"), 1), _had(store.at("main~2"), 1)) == ("cacb", "")


def test_by_time_where_every_record_has_one(store: Store) -> None:
    """One record without a time, and that user's are in the order of recording; other users' and items' are not."""
    work = store.checkout()
    work.consumed.append([0, 0, 1, 1], [0, 1, 2, 0], times=[20, 10, 5, 1])
    work.commit("x")
    work.consumed.append([0, 1], [2, 3], times=[15, 0])
    version = work.commit("y")
    assert (_had(version, 0), _had(version, 1)) == ("bca", "dac")
    assert [ids.tolist() for ids in version.consumed.of("item", ["a", "c"])] == [[1, 0], [1, 0]]
    work.consumed.append([0], [3])
    for view in (work, work.commit("z")):
        assert (_had(view, 0), _had(view, 1)) == ("abcd", "dac")
        assert [ids.tolist() for ids in view.consumed.of("item", ["a", "d"])] == [[1, 0], [1, 0]]


def test_equal_times_stay_as_recorded(store: Store) -> None:
    """The order of recording decides among equal times, over commits too."""
    work = store.checkout()
    work.consumed.append([0, 0, 0], [3, 1, 2], times=[7, 7, 1])
    work.commit("x")
    work.consumed.append([0, 0], [0, 4], times=[7, 1])
    assert _had(work.commit("y"), 0) == "cedba"


@given(st.lists(st.tuples(st.lists(TIMES, max_size=6), st.booleans()), max_size=3))
def test_any_times(batches: list[tuple[list[Any], bool]]) -> None:
    """Whole and broken times, near and far, in one record or several: sorted as exact numbers are."""
    store = embstore.create(f"memory://{uuid.uuid4()}", schema=ENTITIES)
    work = store.checkout()
    work.append("user", [0, 1])
    recorded: list[tuple[Fraction, str]] = []
    for times, commit in batches:
        names = [f"{len(recorded) + i}" for i in range(len(times))]
        whole = all(isinstance(t, int) for t in times)
        exact = np.array(times, np.int64 if whole else np.float64)
        work.consumed.append([0] * len(times), work.append("item", names), times=exact)
        recorded += zip([Fraction(t) for t in exact.tolist()], names, strict=True)
        if commit:
            work.commit("x", allow_empty=True)
    work.commit("end", allow_empty=True)
    store.compact()
    expected = [name for _, name in sorted(recorded, key=lambda pair: pair[0])]
    assert store.at().consumed.of("user", [0])[0].tolist() == expected


def test_whole_times_stay_exact_beside_broken_ones(store: Store) -> None:
    """Nanoseconds do not lose their order because another user's times are floats."""
    work = store.checkout()
    work.consumed.append([0, 0], [0, 1], times=np.array([2**53 + 1, 2**53]))
    work.consumed.append([1], [2], times=[0.5])
    work.commit("x")
    work.consumed.append([2], [2], times=[1.5])
    for view in (work, work.commit("y"), store.compact()):
        assert _had(view, 0) == "ba"


@pytest.mark.parametrize(
    "times",
    [
        np.array(["2026-03-01", "2026-02-01", "2026-01-01"], "datetime64[D]"),
        np.array(["2026-03-01T00", "2026-02-01T00", "1700-01-01T00"], "datetime64[us]"),
        [3, 2, 1],
        [0.3, 0.2, -1e300],
        np.array([3, 2, 1], np.uint8),
        np.array([2**63 - 1, 0, -(2**63) + 1]),
    ],
    ids=str,
)
def test_times_of_many_kinds(store: Store, times: Any) -> None:
    """Datetimes, integers and floats are all taken as times."""
    work = store.checkout()
    work.consumed.append([0, 0, 0], [0, 1, 2], times=times)
    assert _had(work, 0) == _had(work.commit("x"), 0) == "cba"


@pytest.mark.parametrize(
    "times",
    [
        [1, 2],
        [1, 2, float("nan")],
        [1, 2, float("inf")],
        np.array(["2026-01-01", "NaT", "2026-01-01"], "datetime64[s]"),
        np.array(["3000-01-01"] * 3, "datetime64[D]"),
        np.array([1, 2, 2**63], np.uint64),
        ["1", "2", "3"],
        [[1, 2, 3]],
        [True, False, True],
        5,
        [1, None, 3],
    ],
    ids=str,
)
def test_times_that_are_none(store: Store, times: Any) -> None:
    """Missing, infinite, wrapped or too few times are refused, and nothing is staged."""
    work = store.checkout()
    with pytest.raises(InvalidInputError):
        work.consumed.append([0, 0, 0], [0, 1, 2], times=times)
    assert (work.dirty, len(work.consumed)) == (False, 0)


def test_replace_drops_what_these_users_had(store: Store) -> None:
    """Stored and staged records of the users named go, those of others stay."""
    work = store.checkout()
    work.consumed.append([0, 1, 2], [0, 1, 2])
    work.commit("x")
    work.consumed.append([0, 2], [5, 5])
    work.consumed.append([0, 0], [6, 7], replace=True)
    work.consumed.append([0], [3])
    for view in (work, work.commit("y")):
        assert [_had(view, user) for user in range(3)] == ["ghd", "b", "cf"]
        assert [ids.tolist() for ids in view.consumed.of("item", ["a", "f"])] == [[], [2]]
    work.consumed.append([], [], replace=True)
    assert not work.dirty
    assert _had(store.at("main~1"), 0) == "a"


def test_removed_ids_take_their_records_along(store: Store) -> None:
    """A user's and an item's records go with it, staged or stored, and do not come back with it."""
    work = store.checkout()
    work.consumed.append([0, 0, 1, 2], [0, 1, 0, 2])
    work.commit("x")
    work.consumed.append([0, 1], [2, 2])
    work.remove("item", ["a"])
    work.remove("user", [2])
    for view in (work, work.commit("y")):
        assert (_had(view, 0), _had(view, 1), len(view.consumed)) == ("bc", "c", 3)
        assert [ids.tolist() for ids in view.consumed.of("item", ["c"])] == [[0, 1]]
        with pytest.raises(UnknownIdError, match="2"):
            view.consumed.of("user", [2])
    rows = work.append("user", [2])
    assert _had(work, 2) == ""
    work.consumed.append(rows, work.append("item", ["a"]))
    version = work.commit("z")
    assert (_had(version, 2), _had(version, 0)) == ("a", "bc")
    assert (_had(store.at("main~2"), 2), _had(store.at("main~2"), 0)) == ("c", "ab")


def test_rows_of_removed_ids_are_refused(store: Store) -> None:
    """A record that nobody could read is not taken."""
    work = store.checkout()
    work.remove("user", [1])
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="1"):
            work.consumed.append([0, 1], [0, 0])
        assert len(work.consumed) == 0
        if work.dirty:
            work.commit("removed")


def test_users_appended_after_a_look(store: Store) -> None:
    """The record is asked, users and items are appended, and it is asked again."""
    work = store.checkout()
    work.consumed.append([0], [0])
    assert (_had(work, 0), len(work.consumed.of("item", ["a"])[0])) == ("a", 1)
    work.append("user", [99])
    work.append("item", ["z"])
    assert (_had(work, 99), work.consumed.of("item", ["z"])[0].tolist()) == ("", [])
    assert work.consumed.to_csr().shape == (5, 9)
    work.consumed.append([4], [8])
    assert (_had(work, 99), _had(work, 0)) == ("z", "a")
    version = work.commit("x")
    work.append("user", [100])
    assert (_had(version, 99), _had(work, 100)) == ("z", "")


def test_to_csr(store: Store) -> None:
    """Distinct pairs as ones, rows by rows; empty where there is nothing."""
    assert store.at().consumed.to_csr().shape == (4, 8)
    work = store.checkout()
    work.consumed.append([0, 0, 3], [1, 1, 7])
    work.remove("user", [1])
    matrix = work.commit("x").consumed.to_csr()
    assert (matrix.shape, matrix.nnz, matrix.sum(), matrix.dtype) == ((4, 8), 2, 2.0, np.float32)
    assert [matrix[0, 1], matrix[3, 7]] == [1, 1]


def test_nothing_is_consumed_of_nobody(url: str, store: Store) -> None:
    """Empty lists, empty stores and other entities."""
    assert store.at().consumed.of("user", []) == []
    assert [ids.tolist() for ids in store.at().consumed.of("item", ["a"])] == [[]]
    with pytest.raises(InvalidInputError, match="thing"):
        store.at().consumed.of("thing", [1])
    with pytest.raises(UnknownIdError, match="44"):
        store.at().consumed.of("user", [44])
    bare = embstore.create(f"{url}-bare")
    assert len(bare.at().consumed) == 0
    with pytest.raises(UnknownNameError, match="user"):
        bare.at().consumed.of("user", [1])
    with pytest.raises(UnknownNameError, match="user"):
        bare.checkout().consumed.append([], [])


@pytest.mark.parametrize(("users", "items"), [([0], [0, 1]), ([4], [0]), ([0], [8]), ([-1], [0]), ([0.0], [0]), ([[0]], [[0]])])
def test_wrong_rows(store: Store, users: Any, items: Any) -> None:
    """Rows out of range, of unequal number or of another kind are refused; nothing is staged."""
    work = store.checkout()
    with pytest.raises(InvalidInputError):
        work.consumed.append(users, items)
    assert (work.dirty, len(work.consumed)) == (False, 0)


def test_forty_commits_are_merged(store: Store) -> None:
    """Records, drops and removals in more segments than are kept: the order stays, at every version."""
    rng = np.random.default_rng(2)
    work = store.checkout()
    expected: dict[int, list[str]] = {user: [] for user in range(4)}
    seen = []
    for n in range(40):
        users, items = rng.integers(0, 4, 3), rng.integers(0, 8, 3)
        replace = n % 9 == 8
        work.consumed.append(users, items, replace=replace)
        for user in users if replace else ():
            expected[user] = []
        for user, item in zip(users, items, strict=True):
            expected[user].append(ITEMS[item])
        seen.append((work.commit(str(n)).id, {user: "".join(had) for user, had in expected.items()}))
    for id_, had in seen:
        version = store.at(id_)
        assert {user: _had(version, user) for user in range(4)} == had
    compacted = store.compact()
    assert {user: _had(compacted, user) for user in range(4)} == seen[-1][1]
    assert store.diff("main~1").is_empty
    assert store.verify().problems == []


def test_compaction_keeps_missing_times(store: Store) -> None:
    """Records with float times and records without any are merged into the same record."""
    work = store.checkout()
    work.consumed.append([0, 0], [0, 1], times=[0.5, 0.25])
    work.commit("x")
    work.consumed.append([1, 0], [0, 2])
    work.commit("y")
    store.compact()
    assert store.diff("main~1").is_empty
    assert (_had(store.at(), 0), _had(store.at(), 1)) == ("abc", "a")
