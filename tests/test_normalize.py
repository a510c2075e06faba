"""Ids, times and ratings become plain numpy arrays item by item, or are refused by name and position."""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from embstore.errors import IdTypeError, InvalidInputError
from embstore.normalize import id_type_of, normalize_ids, normalize_ratings, normalize_times, rank_ids

LOW, HIGH = -(2**63), 2**63 - 1
INTEGERS = st.lists(st.integers(LOW, HIGH), min_size=1)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1)
EITHER = INTEGERS | TEXTS
FORMS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "deque": deque,
    "numpy": lambda ids: np.array(ids, np.int64 if isinstance(ids[0], int) else object),
    "objects": lambda ids: np.array([*ids, None], object)[:-1],
    "Series": pd.Series,
    "Index": pd.Index,
    "Categorical": pd.Categorical,
    "Series of categories": lambda ids: pd.Series(ids).astype("category"),
    "nullable": lambda ids: pd.Series(ids, dtype="Int64" if isinstance(ids[0], int) else "string"),
    "Arrow": lambda ids: pd.Series(ids, dtype="int64[pyarrow]" if isinstance(ids[0], int) else "string[pyarrow]"),
}


class Colour(enum.StrEnum):
    """Text that is more than text."""

    RED = "red"


@pytest.mark.parametrize("form", FORMS)
@given(ids=EITHER)
def test_ids_stay_what_they_are(form: str, ids: list[Any]) -> None:
    """Whatever they come in, ids keep their values, order and duplicates, as int64 or as exact str."""
    result = normalize_ids(FORMS[form](ids))
    assert result.tolist() == ids
    assert result.dtype == (np.int64 if isinstance(ids[0], int) else object)
    assert {type(value) for value in result.tolist()} == {type(ids[0])}
    assert id_type_of(result) == ("int64" if isinstance(ids[0], int) else "str")


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (range(2, 9, 3), [2, 5, 8]),
        (np.array([3, 200], np.uint8), [3, 200]),
        (np.array([1, -2], ">i2"), [1, -2]),
        (np.array([HIGH], np.uint64), [HIGH]),
        ([np.int32(4), 5, np.uint64(6)], [4, 5, 6]),
        (np.array(["ab", "c"]), ["ab", "c"]),
        ([np.str_("x"), Colour.RED, "y"], ["x", "red", "y"]),
        (["\u00e9", "e\u0301"], ["\u00e9", "e\u0301"]),
        (pd.RangeIndex(3), [0, 1, 2]),
    ],
)
def test_other_forms(ids: object, expected: list[Any]) -> None:
    """Narrow, unsigned and foreign-endian integers become int64, subclasses of str become str, nothing is composed."""
    result = normalize_ids(ids)
    assert result.tolist() == expected
    assert {type(value) for value in result.tolist()} == {type(expected[0])}


@pytest.mark.parametrize("ids", [[], (), range(0), np.array([]), np.empty(0, "U3"), pd.Series([], dtype="float64")])
def test_no_ids_have_no_type(ids: object) -> None:
    """Without ids there is an empty object array, whatever the type of nothing was."""
    result = normalize_ids(ids)
    assert (result.dtype, result.shape, id_type_of(result)) == (object, (0,), None)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("abc", "user 'abc': pass a list of users"),
        (b"abc", "user b'abc': pass a list"),
        (7, "user 7: pass a list"),
        (2.5, "user 2.5: pass a list"),
        (np.int64(7), "pass a list"),
        (np.array("a"), "pass a list"),
        (None, "users as NoneType: pass a list"),
        ({1, 2}, "users as set: pass a list"),
        ({1: 2}, "users as dict: pass a list"),
        (iter([1]), "users as list_iterator: pass a list"),
        (np.zeros((2, 3), int), r"users of shape \(2, 3\): pass one dimension"),
        (pd.DataFrame({"user": [1]}), r"users of shape \(1, 1\): pass one dimension"),
        (["a", "b\0", ""], r"user 'b\\x00' at position 1: it has a NUL"),
        (["a", "", "\0"], "user '' at position 1: the empty string"),
        (["a", "\ud83d", "\ude00"], "at position 1: it has a lone surrogate"),
        ([1, 2**63], "user 9223372036854775808 at position 1: does not fit in int64"),
        ([LOW - 1], "at position 0: does not fit in int64"),
        ([1, 10**6000], "user <int> at position 1: does not fit in int64"),
        (np.array([1, 2**63], np.uint64), "user 9223372036854775808 at position 1: does not fit in int64"),
        ([1, np.uint64(2**63)], "at position 1: does not fit in int64"),
        ([1, True], "user True at position 1: bool is no id"),
        (np.array([False]), "at position 0: bool_? is no id"),
        ([1, 2.0], "user 2.0 at position 1: a float is no id"),
        (np.array([1.0, np.nan]), "at position 0: a float is no id"),
        (["a", math.nan], "user nan at position 1: a float is no id, nor is a missing value"),
        (["a", b"b"], "user b'b' at position 1: bytes are no id"),
        (np.array([b"b"]), "at position 0: bytes are no id"),
        (["a", None], "user None at position 1: NoneType is no id"),
        ([1, [2]], r"user \[2\] at position 1: list is no id"),
        (np.array(["2026-01-01"], "datetime64[ns]"), "at position 0: datetime64 is no id"),
        ([np.timedelta64(1, "s")], "at position 0: timedelta64 is no id"),
        (np.ma.array([1, 2], mask=[False, True]), "at position 1: MaskedConstant is no id"),
        (pd.Series(["a", None]), "at position 1: .* missing"),
        (pd.Series([1, None], dtype="Int64"), "user <NA> at position 1"),
        (pd.Series(pd.Categorical([1, None])), "user nan at position 1"),
        (["x" * 1000 + "\0"], r"user 'x{79}\.\.\. at position 0"),
    ],
)
def test_refused_ids_are_named(ids: object, message: str) -> None:
    """What cannot be an id is refused with the first such value, its position and the reason."""
    with pytest.raises(InvalidInputError, match=message) as caught:
        normalize_ids(ids, what="user")
    assert type(caught.value) is InvalidInputError


@pytest.mark.parametrize(("ids", "place"), [([1, 2, "a"], "'a' at position 2"), (["a", 1, "b"], "1 at position 1")])
def test_mixed_types_are_refused(ids: list[Any], place: str) -> None:
    """Integers and text together are an IdTypeError that names the first of the other type."""
    with pytest.raises(IdTypeError, match=f"id {place}: the first is {ids[0]!r}"):
        normalize_ids(ids)


BAD = st.sampled_from([None, True, 1.5, b"x", "", "a\0b", "\udc80", 2**63, math.inf, ()])


@given(good=EITHER, bad=BAD, data=st.data())
def test_first_bad_id_is_found_wherever_it_is(good: list[Any], bad: Any, data: st.DataObject) -> None:
    """One bad id among any number of good ones is refused at its position."""
    position = data.draw(st.integers(0, len(good)))
    with pytest.raises(InvalidInputError, match=f"at position {position}: "):
        normalize_ids([*good[:position], bad, *good[position:], bad])


@given(ids=EITHER)
def test_rank_is_the_place_among_sorted_ids(ids: list[Any]) -> None:
    """Ranks count the distinct ids that sort before."""
    distinct = sorted(set(ids))
    assert rank_ids(normalize_ids(ids)).tolist() == [distinct.index(value) for value in ids]


DATES = ["2026-01-02T03:04:05", "1969-12-31T23:59:59"]
NANOSECONDS = [1767323045 * 10**9, -(10**9)]


@pytest.mark.parametrize(
    "times",
    [
        *(np.array(DATES, f"datetime64[{unit}]") for unit in ("s", "ms", "us", "ns")),
        pd.Series(pd.to_datetime(DATES)),
        pd.Series(pd.to_datetime(DATES, utc=True)).dt.tz_convert("Asia/Tokyo"),
        pd.Series(pd.to_datetime(DATES)).astype("timestamp[us][pyarrow]"),
        [datetime.fromisoformat(date) for date in DATES],
        [datetime.fromisoformat(date).replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=-5))) for date in DATES],
        (pd.Timestamp(DATES[0]), pd.Timestamp(DATES[1], tz="UTC").tz_convert("Asia/Tokyo")),
        pd.Series([pd.Timestamp(DATES[0]), np.datetime64(DATES[1])], dtype=object),
        NANOSECONDS,
        pd.Series(NANOSECONDS, dtype="Int64"),
        np.array(NANOSECONDS, object),
    ],
)
def test_datetimes_are_nanoseconds(times: object) -> None:
    """Datetimes of any unit, and of any zone taken as UTC, become int64 nanoseconds; integers stay."""
    result = normalize_times(times)
    assert (result.dtype, result.tolist()) == (np.int64, NANOSECONDS)


def test_datetimes_keep_their_nanoseconds() -> None:
    """What a Timestamp knows beyond a microsecond stays, in a list as in a Series, also beside coarser ones."""
    times = [pd.Timestamp(1_767_323_045_123_456_789, tz="UTC"), datetime(1970, 1, 1)]
    assert [1_767_323_045_123_456_789, 0] == normalize_times(times).tolist()
    assert [1_767_323_045_123_456_789] == normalize_times(pd.Series(times[:1])).tolist()


FAR = ["2026-01-01", "9999-12-31"]
FAR_ABOVE = pd.Series(np.array(FAR, "datetime64[us]"))
FAR_BELOW = pd.Series(np.array(["0001-01-01"], "datetime64[us]"))


@pytest.mark.parametrize(
    ("times", "position"),
    [
        (FAR_ABOVE.dt.tz_localize("UTC"), 1),
        (pd.DatetimeIndex(FAR_ABOVE).tz_localize("Asia/Tokyo"), 1),
        (FAR_BELOW.dt.tz_localize("UTC"), 0),
        *((FAR_ABOVE.astype(f"timestamp[{kind}][pyarrow]"), 1) for kind in ("s", "us", "us, tz=UTC")),
        ([datetime.fromisoformat(date) for date in FAR], 1),
        ([datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))], 0),
        ([pd.Timestamp(1), datetime(9999, 12, 31, tzinfo=UTC)], 1),
        ([np.datetime64(1, "ns"), np.datetime64("3000")], 1),
    ],
)
def test_distant_datetimes_are_refused(times: object, position: int) -> None:
    """A date that int64 nanoseconds cannot hold is refused in whatever form it comes, and never becomes another date."""
    with pytest.raises(InvalidInputError, match=rf"time \d{{4,5}}-.* at position {position}: outside 1677 to 2262"):
        normalize_times(times)


@pytest.mark.parametrize(
    ("times", "expected", "dtype"),
    [
        ([1.0, -3.0], [1, -3], np.int64),
        ([1.0, 2.5], [1.0, 2.5], np.float64),
        ([2.0**62, 2.0**63], [2.0**62, 2.0**63], np.float64),
        (np.array([7], np.uint64), [7], np.int64),
        (np.array([0.5], np.float32), [0.5], np.float64),
        ([], [], np.int64),
    ],
)
def test_numeric_times(times: object, expected: list[float], dtype: type) -> None:
    """Floats become int64 where all are whole and fit, else float64."""
    result = normalize_times(times)
    assert (result.dtype, result.tolist()) == (dtype, expected)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([1.0, math.nan], "time nan at position 1: pass finite"),
        ([math.inf], "time inf at position 0: pass finite"),
        (np.ma.array([1, 2], mask=[False, True], dtype=float), "time nan at position 1"),
        (np.array(["2026", "NaT"], "datetime64[s]"), "time NaT at position 1"),
        (np.array(["2026", "3000"], "datetime64[s]"), "time 3000-01-01T00:00:00 at position 1: outside 1677 to 2262"),
        (np.array([2**63], np.uint64), "time 9223372036854775808 at position 0: does not fit in int64"),
        ([np.int64(1), None], "time None at position 1: pass numbers or datetimes"),
        (pd.Series([1, None], dtype="Int64"), "time <NA> at position 1: pass numbers"),
        (["2026-01-01"], "time .*2026-01-01.* at position 0: pass numbers or datetimes"),
        ([datetime(2026, 1, 1), 5], "time 5 at position 1: pass numbers or datetimes, not both"),
        ([5, datetime(2026, 1, 1)], "time datetime.* at position 1: pass numbers or datetimes"),
        ([datetime(2026, 1, 1), None], "time None at position 1: pass numbers or datetimes"),
        ([datetime(2026, 1, 1), pd.NaT], "time NaT at position 1: fill in or drop"),
        (pd.Series(pd.to_datetime(["2026", None], utc=True)), "time NaT at position 1: fill in or drop"),
        ([True], "at position 0: pass numbers"),
        (np.array([1], "timedelta64[s]"), "at position 0: pass numbers"),
        ([[1], [2]], "times as 2-dimensional: pass one dimension"),
        ([[1], [2, 3]], r"time \[1\] at position 0: pass numbers"),
        (5, "time 5: pass a list"),
    ],
)
def test_refused_times_are_named(times: object, message: str) -> None:
    """Missing, non-finite, too distant and non-numeric times are refused by position."""
    with pytest.raises(InvalidInputError, match=message):
        normalize_times(times)


@pytest.mark.parametrize("ratings", [[1, 0], [1.0, 0.0], [True, False], pd.Series([1, 0], dtype="Float32")])
def test_ratings_are_float64(ratings: object) -> None:
    """Integers, floats and bools become float64."""
    result = normalize_ratings(ratings)
    assert (result.dtype, result.tolist()) == (np.float64, [1.0, 0.0])


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ([3, math.nan], "rating nan at position 1: pass finite"),
        ([3, None], "rating None at position 1: pass numbers"),
        (["3"], "rating .*3.* at position 0: pass numbers"),
        ([Decimal(3)], r"rating Decimal\('3'\) at position 0: pass numbers"),
        (np.array(["2026"], "datetime64[s]"), "at position 0: pass numbers"),
        (np.zeros((1, 1)), "ratings of shape"),
    ],
)
def test_refused_ratings_are_named(ratings: object, message: str) -> None:
    """Missing, non-finite and non-numeric ratings are refused by position."""
    with pytest.raises(InvalidInputError, match=message):
        normalize_ratings(ratings)
