"""Ids from the command line, from standard input or from a file, as the entity's type."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embstore.errors import IdTypeError, InvalidInputError

if TYPE_CHECKING:
    from embstore.names import IdType
    from embstore.version import View

STDIN = "-"


def typed_ids(texts: Sequence[str], view: View, entity: str) -> list[Any]:
    """Return ids as the entity's type; where it has none yet, whole numbers only if all are.

    Raises
    ------
    IdTypeError
        If the ids are int64, and a text is no plain whole number (``7``, not ``07``).
    UnknownNameError
        If there is no such entity.
    """
    id_type = view.ids(entity).id_type
    numbers = [_whole_number(text) for text in texts]
    if id_type == "str" or (id_type is None and None in numbers):
        return list(texts)
    if None in numbers:
        text = texts[numbers.index(None)]
        msg = f"{entity} id {text!r}: ids of {entity!r} are int64; give a plain whole number (7, not 07)"
        raise IdTypeError(msg)
    return numbers


def _whole_number(text: str) -> int | None:
    digits = text.removeprefix("-")
    is_plain = digits.isascii() and digits.isdigit() and text == (str(int(text)) if len(text) < 25 else "")
    return int(text) if is_plain and -(2**63) <= int(text) < 2**63 else None


def read_ids(path: str, view: View, entity: str) -> Any:
    """Return the ids in a file: a column called as the entity (in .inter files ``user_id``), or one id a line.

    Raises
    ------
    InvalidInputError
        If the file is missing, has no such column or no ids, or cannot be read.
    IdTypeError
        If ids are of another type than the entity's.
    """
    from embstore import readers

    view.check_entity(entity)
    ids = _column(path, entity) if _is_table(path) else _lines(path)
    if not len(ids):
        msg = f"{_called(path)}: no ids"
        raise InvalidInputError(msg)
    # Parquet has types of its own.
    is_text = not (_is_table(path) and readers.format_of(path) is readers.PARQUET)
    return typed_ids(ids, view, entity) if is_text else ids


def _is_table(path: str) -> bool:
    from embstore import readers

    return path != STDIN and path.lower().endswith(tuple(readers.FORMATS))


def _called(path: str) -> str:
    return "standard input" if path == STDIN else path


def _column(path: str, entity: str) -> Any:
    from embstore import readers

    form, file = readers.format_of(path), Path(path)
    if not file.is_file():
        raise _no_file(path)
    name = f"{entity}_id" if form is readers.INTER else entity
    readers.check_columns({entity: name}, form.header(file), place=path)
    return form.columns(file, {"user": name, "item": name}, id_type="str")[0]


def _lines(path: str) -> list[str]:
    """Return the lines that are not empty."""
    try:
        text = _bytes(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise _no_file(path) from error
    except UnicodeDecodeError as error:
        msg = f"{_called(path)}: not text in UTF-8; save it as UTF-8"
        raise InvalidInputError(msg) from error
    except OSError as error:
        msg = f"{_called(path)}: cannot be read: {error.strerror or error}"
        raise InvalidInputError(msg) from error
    return [line for line in text.replace("\r\n", "\n").split("\n") if line]


def _bytes(path: str) -> bytes:
    if path != STDIN:
        return Path(path).read_bytes()
    return sys.stdin.buffer.read() if sys.stdin is not None else b""  # closed by who started us


def _no_file(path: str) -> InvalidInputError:
    return InvalidInputError(f"{path}: no such file")


def id_types(view: View) -> dict[str, IdType | None]:
    """Return the types that ids of users and items have in a store, for reading a file; None where there are none yet."""
    return {entity: view.ids(entity).id_type for entity in ("user", "item") if entity in (view.schema.entities or {})}
