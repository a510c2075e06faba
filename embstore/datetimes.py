"""Datetimes in whatever form they come as nanoseconds since 1970, or a refusal that says which one is wrong.

Dates that int64 nanoseconds cannot hold are looked for in seconds: a cast to nanoseconds makes other dates of them, silently.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.errors import InvalidInputError


def are_datetimes(values: object) -> bool:
    """Return whether ``values`` is a list or tuple of datetimes, of Python, pandas or numpy."""
    return isinstance(values, (list, tuple)) and len(values) > 0 and all(isinstance(v, (datetime, np.datetime64)) for v in values)


def as_datetimes(values: Any) -> NDArray[np.datetime64]:
    """Return datetimes without their zone, in UTC: in nanoseconds, or in seconds where one is too far away for these.

    Parameters
    ----------
    values
        A list or tuple of datetimes, or a pandas Series, Index or array of them.
    """
    given = list(map(_without_zone, values)) if isinstance(values, (list, tuple)) else values
    seconds = np.asarray(given, "datetime64[s]")
    return seconds if _outside(seconds).any() else np.asarray(given, "datetime64[ns]")


def nanoseconds(values: NDArray[np.datetime64], what: str) -> NDArray[np.int64]:
    """Return datetimes of any unit as nanoseconds since 1970.

    Raises
    ------
    InvalidInputError
        If one is missing, or too far away for int64.
    """
    missing = np.isnat(values)
    if missing.any():
        msg = f"{what} NaT at position {int(missing.argmax())}: fill in or drop the missing ones"
        raise InvalidInputError(msg)
    outside = _outside(values)
    if outside.any():
        position = int(outside.argmax())
        msg = f"{what} {values[position]} at position {position}: outside 1677 to 2262, which int64 nanoseconds can hold"
        raise InvalidInputError(msg)
    return values.astype("datetime64[ns]").astype(np.int64)


def _outside(values: NDArray[np.datetime64]) -> NDArray[np.bool_]:
    return (values < np.datetime64("1677-09-22")) | (values > np.datetime64("2262-04-11"))


def _without_zone(value: datetime | np.datetime64) -> np.datetime64:
    if isinstance(value, np.datetime64):
        return value
    # As text, since a Timestamp has nanoseconds there too; shifted by numpy, since Python ends with the year 9999.
    local = np.datetime64(value.replace(tzinfo=None).isoformat())
    offset = value.utcoffset() if value.tzinfo else None
    return local if offset is None else local - np.timedelta64(offset)
