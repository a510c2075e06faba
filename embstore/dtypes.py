"""Which numbers a table can hold."""

from __future__ import annotations

import math

from embstore.errors import InvalidInputError

DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


def check_fits(value: float, dtype: str, what: str) -> None:
    """Raise InvalidInputError if a number of ``dtype`` cannot be ``value``."""
    kind, _, bits = dtype.partition("int")
    if bits:
        low, high = (0, 2 ** int(bits) - 1) if kind == "u" else (-(2 ** (int(bits) - 1)), 2 ** (int(bits) - 1) - 1)
        fits = low <= value <= high and value == int(value)
    else:
        fits = abs(value) <= {"float16": 65504.0, "float32": 3.4028234663852886e38}.get(dtype, math.inf)
    if not fits:
        msg = f"{what}: {value} does not fit {dtype}"
        raise InvalidInputError(msg)


def check_shape(dim: object, dtype: object, what: str) -> None:
    """Raise InvalidInputError unless rows may have ``dim`` numbers of ``dtype``."""
    if dim is not None and (isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= 1_000_000):
        msg = f"{what}: dim {dim!r}: give a whole number from 1, or None for one number a row"
        raise InvalidInputError(msg)
    if not isinstance(dtype, str) or dtype not in DTYPES:
        msg = f"{what}: dtype {dtype!r}: use one of {', '.join(DTYPES)}"
        raise InvalidInputError(msg)
