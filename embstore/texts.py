"""Text of a file as ids, numbers and dates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embstore.errors import IdTypeError, InvalidInputError
from embstore.names import IdType, check_id_type

IdTypes = IdType | Mapping[str, IdType | None] | None


def as_ids(texts: list[str], role: str, *, id_type: IdTypes) -> Any:
    """Return text ids as int64 where that is asked for, or nothing is asked for and all of them are whole numbers."""
    asked = id_type.get(role) if isinstance(id_type, Mapping) else id_type
    if asked is not None and check_id_type(asked) == "str":
        return texts
    numbers = {text: _whole_number(text) for text in set(texts)}
    if None not in numbers.values():
        return np.array([numbers[text] for text in texts], np.int64)
    if asked is None:
        return texts
    position, text = next((p, t) for p, t in enumerate(texts) if numbers[t] is None)
    msg = f"{role} id {text!r} at position {position}: no plain whole number within int64 (7, not 07); use id_type='str'"
    raise IdTypeError(msg)


def _whole_number(text: str) -> int | None:
    """Return the integer that is written exactly so, if there is one."""
    try:
        number = int(text)
    except ValueError:
        return None
    return number if str(number) == text and -(2**63) <= number < 2**63 else None


def as_numbers(texts: list[str], role: str) -> Any:
    """Return texts as int64 if all are so written, else as float64; times also as datetimes, if all are dates."""
    numbers = [_number(text) for text in texts]
    if role == "time" and numbers and set(numbers) == {None}:
        return _dates(texts)
    if None in numbers:
        raise _no_number(texts, role, numbers.index(None), "a number")
    return np.array(numbers)


def _number(text: str) -> float | None:
    whole = _whole_number(text)
    if whole is not None or "_" in text:  # Python would read 1_5 as 15.
        return whole
    try:
        return float(text)
    except ValueError:
        return None


def _dates(texts: list[str]) -> Any:
    import pandas as pd

    # pandas knows words too, such as "now".
    written = [text if text[:1].isdigit() else "" for text in texts]
    dates = pd.to_datetime(written, format="ISO8601", errors="coerce", utc=True)
    if dates.hasnans:
        raise _no_number(texts, "time", int(dates.isna().argmax()), "numbers, or dates of 1677 to 2262 such as 2026-11-30 12:00")
    return dates


def _no_number(texts: list[str], role: str, position: int, asked: str) -> InvalidInputError:
    return InvalidInputError(f"{role} {texts[position]!r} at position {position}: give {asked}")
