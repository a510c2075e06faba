"""Pairs are split by time, by user and within users, to the pair where the share says so."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from embstore.interactions import Interactions

ROWS = st.lists(st.tuples(st.integers(8, 11), st.integers(0, 5), st.integers(0, 4)), max_size=40)
SHARES = st.sampled_from([0.1, 0.2, 0.29, 0.5, 0.7, 0.9])


def _pairs(rows: list[tuple[int, int, int]], *, text: bool = False, times: bool = True) -> Interactions:
    """Return interactions of (user, item, time), with the position in ``rows`` as rating."""
    users, items, when = ([row[i] for row in rows] for i in range(3))
    return Interactions(list(map(str, users)) if text else users, items, np.arange(len(rows)), when if times else None)


def _positions(part: Interactions) -> list[Any]:
    return [] if part.ratings is None else part.ratings.tolist()


@given(rows=ROWS, share=SHARES, text=st.booleans())
def test_split_by_time(rows: list[Any], share: float, text: bool) -> None:
    """The latest of all pairs are the second part, ties in the order of the file."""
    order = sorted(range(len(rows)), key=lambda position: rows[position][2])
    n_first = int((1 - Fraction(str(share))) * len(rows))
    assert [_positions(p) for p in _pairs(rows, text=text).split("time", share)] == [order[:n_first], order[n_first:]]


@given(rows=ROWS, share=SHARES, text=st.booleans(), times=st.booleans())
def test_split_within_users(rows: list[Any], share: float, text: bool, times: bool) -> None:
    """The last floor(share * n) of each user with five or more, by time or position; the parts keep the order."""
    second = []
    for user in {row[0] for row in rows}:
        own = [position for position, row in enumerate(rows) if row[0] == user]
        own.sort(key=lambda position: rows[position][2] if times else 0)
        second += own[len(own) - int(Fraction(str(share)) * len(own)) :] if len(own) >= 5 else []
    first = [position for position in range(len(rows)) if position not in second]
    assert [_positions(p) for p in _pairs(rows, text=text, times=times).split("within", share)] == [first, sorted(second)]


@given(rows=ROWS, share=SHARES, text=st.booleans(), seed=st.integers(0, 9), data=st.data())
def test_split_by_user(rows: list[Any], share: float, text: bool, seed: int, data: st.DataObject) -> None:
    """A share of the users goes whole to the second part, the same ones whatever the order of the pairs."""
    first, second = _pairs(rows, text=text).split("user", share, seed=seed)
    users, drawn = {row[0] for row in rows}, {rows[int(position)][0] for position in _positions(second)}
    assert len(drawn) == int(Fraction(str(share)) * len(users))
    assert _positions(first) == [position for position, row in enumerate(rows) if row[0] not in drawn]
    assert sorted(_positions(first) + _positions(second)) == list(range(len(rows)))
    again = _pairs(data.draw(st.permutations(rows)), text=text).split("user", share, seed=seed)
    assert [set(part.user_ids) for part in again] == [set(part.user_ids) for part in (first, second)]


@pytest.mark.parametrize(
    ("by", "share", "n_pairs", "sizes"),
    [
        ("time", 0.9, 10, (1, 9)),
        ("within", 0.29, 100, (71, 29)),
        ("user", 0.29, 100, (71, 29)),
        ("within", np.float32(0.29), 100, (71, 29)),
        ("time", Fraction(1, 3), 9, (6, 3)),
    ],
)
def test_shares_are_what_they_are_written_as(by: Any, share: Any, n_pairs: int, sizes: tuple[int, int]) -> None:
    """No pair is lost because the binary fraction next to .29 is a little less."""
    users = range(n_pairs) if by == "user" else [1] * n_pairs
    parts = Interactions(users, range(n_pairs), times=range(n_pairs)).split(by, share)
    assert tuple(map(len, parts)) == sizes


def test_seed_draws_users() -> None:
    """Seeds draw different users, each of them at some time."""
    pairs = _pairs([(user, 1, 1) for user in range(10)])
    assert {tuple(_positions(pairs.split("user", 0.1, seed=seed)[1])) for seed in range(99)} == {(float(u),) for u in range(10)}
