"""Checks of settings that several trainers have."""

from __future__ import annotations

import math

from embstore import InvalidInputError


def check_count(value: object, what: str) -> None:
    """Raise InvalidInputError unless ``value`` is a whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{what} {value!r}: give a whole number from 1"
        raise InvalidInputError(msg)


def check_number(value: object, what: str) -> None:
    """Raise InvalidInputError unless ``value`` is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        msg = f"{what} {value!r}: give a finite number"
        raise InvalidInputError(msg)


def check_not_negative(value: object, what: str) -> None:
    """Raise InvalidInputError unless ``value`` is a finite number that is not negative."""
    check_number(value, what)
    if value < 0:  # type: ignore[operator]
        msg = f"{what} {value!r}: give a number that is not negative"
        raise InvalidInputError(msg)


def check_sizes(value: object, what: str) -> None:
    """Raise InvalidInputError unless ``value`` is a tuple of whole numbers from 1."""
    if not isinstance(value, tuple):
        msg = f"{what} {value!r}: give a tuple of whole numbers"
        raise InvalidInputError(msg)
    for size in value:
        check_count(size, what)
