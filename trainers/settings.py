"""Checks of settings that several trainers have."""

from __future__ import annotations

import math

from embstore import InvalidInputError


def check_count(value: object, what: str, *, least: int = 1) -> None:
    """Raise InvalidInputError unless ``value`` is a whole number from ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        msg = f"{what} {value!r}: give a whole number from {least}"
        raise InvalidInputError(msg)


def check_number(value: object, what: str, *, least: float = -math.inf) -> None:
    """Raise InvalidInputError unless ``value`` is a finite number, and one from ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        msg = f"{what} {value!r}: give a finite number"
        raise InvalidInputError(msg)
    if value < least:
        msg = f"{what} {value!r}: give a number of at least {least:g}"
        raise InvalidInputError(msg)


def check_not_negative(value: object, what: str) -> None:
    """Raise InvalidInputError unless ``value`` is a finite number that is not negative."""
    check_number(value, what)
    if value < 0:  # type: ignore[operator]
        msg = f"{what} {value!r}: give a number that is not negative"
        raise InvalidInputError(msg)


def check_positive(value: object, what: str) -> None:
    """Raise InvalidInputError unless ``value`` is a finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        msg = f"{what} {value!r}: give a number above zero"
        raise InvalidInputError(msg)


def check_share(value: object, what: str) -> None:
    """Raise InvalidInputError unless ``value`` is a number from 0 and below 1."""
    check_not_negative(value, what)
    if value >= 1:  # type: ignore[operator]
        msg = f"{what} {value!r}: give a share below 1"
        raise InvalidInputError(msg)


def check_sizes(value: object, what: str) -> None:
    """Raise InvalidInputError unless ``value`` is a tuple of whole numbers from 1."""
    if not isinstance(value, tuple):
        msg = f"{what} {value!r}: give a tuple of whole numbers"
        raise InvalidInputError(msg)
    for size in value:
        check_count(size, what)
