"""How much the KL divergence counts, step by step, is the formula."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from embstore import InvalidInputError
from trainers.annealing import annealed, check_annealing, total_of


@pytest.mark.parametrize(
    ("cap", "total", "expected"),
    [
        (0.2, 10, [0.0, 0.1, 0.2, 0.2, 0.2]),
        (1.0, 4, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (0.2, 0, [0.2] * 5),
        (0.0, 10, [0.0] * 5),
        (0.0, 0, [0.0] * 5),
        (5.0, 1, [0.0, 1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_table_of_steps_and_weights(cap: float, total: int, expected: list[float]) -> None:
    """The first step has weight 0, each further one 1/total more, up to the cap; without a total the cap counts at once."""
    assert [annealed(step, cap=cap, total=total) for step in range(5)] == expected


@given(step=st.integers(0, 10**7), cap=st.floats(0, 2), total=st.integers(1, 10**6))
def test_weight_is_the_formula(step: int, cap: float, total: int) -> None:
    """``min(cap, step / total)``."""
    assert annealed(step, cap=cap, total=total) == min(cap, step / total)


def test_original_schedule() -> None:
    """With 200,000 and .2, as for MovieLens-20M with 234 steps an epoch, the cap is reached in epoch 171 of 200."""
    first = next(step for step in range(200 * 234) if annealed(step, cap=0.2, total=200_000) == 0.2)
    assert first == 40_000
    assert first // 234 + 1 == 171


@pytest.mark.parametrize(("share", "total", "epoch"), [(0.2, 187_200, 160), (0.15, 198_900, 170)])
def test_total_from_epochs(share: float, total: float, epoch: int) -> None:
    """The two shares of epochs that are around, .2 and .15 of 200, are two schedules: how many epochs are said, not meant."""
    epochs = 200 - int(200 * share)
    found = total_of(epochs, n_steps=234, cap=0.2)
    assert found == pytest.approx(total, rel=1e-12)
    assert (epochs, annealed(epoch * 234, cap=0.2, total=found)) == (epoch, 0.2)
    assert annealed(epoch * 234 - 1, cap=0.2, total=found) < 0.2


@pytest.mark.parametrize(("epochs", "cap"), [(0, 0.2), (10, 0.0), (0, 0.0)])
def test_no_epochs_or_no_cap_divide_by_nothing(epochs: int, cap: float) -> None:
    """Without epochs the cap counts at once; a cap of 0 needs no word about annealing."""
    assert annealed(0, cap=cap, total=total_of(epochs, n_steps=7, cap=cap)) == cap
    assert annealed(100, cap=cap, total=total_of(epochs, n_steps=7, cap=cap)) == cap


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cap": -0.1}, "cap -0.1: give a number that is not negative"),
        ({"cap": "0.2"}, "cap '0.2': give a finite number"),
        ({"total": -1}, "anneal_steps -1: give a number that is not negative"),
        ({"epochs": float("nan")}, "anneal_epochs nan: give a finite number"),
        ({"total": 5, "epochs": 5}, "anneal_steps 5 with anneal_epochs 5: give one of them"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    """Text is never evaluated, and two totals are one too many."""
    with pytest.raises(InvalidInputError, match=message):
        check_annealing(**{"cap": 0.2, "total": None, "epochs": None, **settings})
