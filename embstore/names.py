"""What entities, tables, slots, branches and tags may be called, and the types of ids."""

from __future__ import annotations

import re
from typing import Literal

from embstore.errors import IdTypeError, InvalidInputError

IdType = Literal["int64", "str"]
ID_TYPES: tuple[IdType, ...] = ("int64", "str")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: object, what: str) -> str:
    """Return ``name`` if an entity, table, slot, branch or tag may be called so.

    Raises
    ------
    InvalidInputError
        For anything but 1-64 of ``A-Z a-z 0-9 . _ -``, beginning with a letter or digit.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    msg = f"{what} name {name!r}: use 1-64 letters, digits, '.', '_' or '-', beginning with a letter or digit"
    raise InvalidInputError(msg)


def is_name(name: str) -> bool:
    """Return whether an entity, table, slot, branch or tag may be called so."""
    return _NAME.fullmatch(name) is not None


def check_id_type(id_type: object) -> IdType:
    """Return ``id_type`` if ids may be of it.

    Raises
    ------
    IdTypeError
        For anything but ``"int64"`` and ``"str"``.
    """
    if id_type not in ID_TYPES:
        msg = f"id type {id_type!r}: ids are 'int64' or 'str'"
        raise IdTypeError(msg)
    return id_type
