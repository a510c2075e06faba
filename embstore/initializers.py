"""Where the rows of new ids start."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from embstore.errors import InvalidInputError


def check_number(value: object, what: str) -> float:
    """Return ``value`` if it is a finite number.

    Raises
    ------
    InvalidInputError
        For anything else.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        msg = f"{what} {value!r}: give a finite number"
        raise InvalidInputError(msg)
    return float(value)


@dataclass(frozen=True)
class Zeros:
    """New rows start at zero."""

    kind: ClassVar[str] = "zeros"


@dataclass(frozen=True)
class Constant:
    """New rows start at ``value``."""

    value: float
    kind: ClassVar[str] = "constant"

    def __post_init__(self) -> None:
        check_number(self.value, "constant")


@dataclass(frozen=True)
class Uniform:
    """New rows are drawn uniformly from ``[low, high)``."""

    low: float
    high: float
    kind: ClassVar[str] = "uniform"

    def __post_init__(self) -> None:
        if check_number(self.low, "low") > check_number(self.high, "high"):
            msg = f"uniform from {self.low} to {self.high}: low is above high"
            raise InvalidInputError(msg)


@dataclass(frozen=True)
class Normal:
    """New rows are drawn around zero with standard deviation ``std``, never further than 3.5 ``std``."""

    std: float = 0.01
    kind: ClassVar[str] = "normal"

    def __post_init__(self) -> None:
        if check_number(self.std, "std") < 0:
            msg = f"std {self.std}: give zero or more"
            raise InvalidInputError(msg)


Initializer = Zeros | Constant | Uniform | Normal
_INITIALIZERS: dict[str, type[Zeros | Constant | Uniform | Normal]] = {c.kind: c for c in (Zeros, Constant, Uniform, Normal)}


def initializer_to_json(init: Initializer) -> dict[str, Any]:
    """Return the initializer as JSON data."""
    return {"kind": init.kind, **init.__dict__}


def initializer_from_json(data: Mapping[str, Any]) -> Initializer:
    """Return the initializer that ``initializer_to_json`` gave.

    Raises
    ------
    InvalidInputError
        For a kind or setting that there is not.
    """
    arguments = {k: v for k, v in data.items() if k != "kind"}
    try:
        return _INITIALIZERS[data["kind"]](**arguments)
    except (KeyError, TypeError) as error:
        msg = f"initializer {dict(data)!r}: use one of {', '.join(_INITIALIZERS)} with its own settings"
        raise InvalidInputError(msg) from error
