"""Arrays without rows: network weights, counters, the state of a random generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from functools import cached_property
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from embstore.columns import as_array
from embstore.errors import InvalidInputError, StaleCheckoutError, UnknownNameError
from embstore.storage.arrays import Reader
from embstore.storage.writer import Writer

PATH = "dense"
_MOST_CHARACTERS = 200


def array_path(name: str) -> str:
    """Return where an array is stored: its name percent-encoded, dots too, so that any text makes a valid path."""
    encoded = quote(name, safe="").replace(".", "%2E").replace("_", "%5F").replace("~", "%7E")
    return f"{PATH}/{'%63' if encoded == 'c' else encoded}"


def stored_names(reader: Reader) -> list[str]:
    """Return the names of the arrays of a state, sorted."""
    return list((reader.attributes(PATH) or {"names": []})["names"])


class Dense(Mapping[str, NDArray[Any]]):
    """The arrays without rows of one version, read when asked for."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @cached_property
    def _names(self) -> list[str]:
        return stored_names(self._reader)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._names:
            msg = f"dense array {name!r}: there is {', '.join(map(repr, self)) or 'none'}"
            raise UnknownNameError(msg)
        return self._read(name)

    def _read(self, name: str) -> NDArray[Any]:
        return self._reader.read([array_path(name)])[0]

    def __repr__(self) -> str:
        return f"Dense({', '.join(self)})"


class StagedDense(Dense, MutableMapping[str, NDArray[Any]]):
    """The arrays without rows of a checkout; assigning stages the whole array."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self.closed: str | None = None
        self.staged: dict[str, NDArray[Any] | None] = {}

    def __iter__(self) -> Iterator[str]:
        names = {*self._names, *self.staged} - {name for name, array in self.staged.items() if array is None}
        return iter(sorted(names))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __getitem__(self, name: str) -> NDArray[Any]:
        staged = self.staged.get(name)
        if staged is not None:
            return staged.copy()
        if name in self.staged or name not in self._names:
            msg = f"dense array {name!r}: there is {', '.join(map(repr, self)) or 'none'}"
            raise UnknownNameError(msg)
        return self._read(name)

    def __setitem__(self, name: str, array: object) -> None:
        self._check_open()
        _check_dense_name(name)
        value = as_array(array, f"dense array {name!r}")
        if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
            msg = f"dense array {name!r}: {value.dtype} cannot be stored; give numbers or booleans of at most 64 bits"
            raise InvalidInputError(msg)
        self.staged[name] = np.array(value, value.dtype.newbyteorder("="), order="C")

    def __delitem__(self, name: str) -> None:
        self._check_open()
        if name not in self:
            msg = f"dense array {name!r}: there is {', '.join(map(repr, self)) or 'none'}"
            raise UnknownNameError(msg)
        self.staged[name] = None

    def _check_open(self) -> None:
        if self.closed is not None:
            raise StaleCheckoutError(self.closed)

    def changed(self) -> dict[str, NDArray[Any] | None]:
        """Return the staged arrays whose bits, shape or dtype are not those stored; None for deleted ones."""
        stored = [name for name, array in self.staged.items() if name in self._names and array is not None]
        before = dict(zip(stored, self._reader.read([array_path(name) for name in stored]), strict=True))
        return {
            name: array
            for name, array in self.staged.items()
            if (name in self._names if array is None else name not in before or not same_bits(before[name], array))
        }

    def reload(self, reader: Reader) -> None:
        """Begin anew on what was committed."""
        self._reader = reader
        self.__dict__.pop("_names", None)
        self.staged.clear()


def _check_dense_name(name: object) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= _MOST_CHARACTERS:
        msg = f"dense name {name!r}: give 1 to {_MOST_CHARACTERS} characters"
        raise InvalidInputError(msg)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        msg = f"dense name {name!r}: it has a lone surrogate; give text"
        raise InvalidInputError(msg) from error


def same_bits(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Return whether two arrays are equal in shape, dtype and every bit."""
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


def write_dense(writer: Writer, changed: Mapping[str, NDArray[Any] | None]) -> None:
    """Write the arrays that changed and delete those that are None."""
    names = set(stored_names(writer))
    for name, array in changed.items():
        if name in names:
            writer.delete(array_path(name))
            names.discard(name)
        if array is not None:
            writer.write(array_path(name), array)
            names.add(name)
    writer.set_group(PATH, {"names": sorted(names)})
