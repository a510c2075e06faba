"""Settings of a trainer from the command line: ``--set lr=0.1``, of the type that the trainer's field has."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from embstore.cli.options import parse_pairs
from embstore.errors import InvalidInputError, UnknownTrainerError

if TYPE_CHECKING:
    from embstore.trainer import Trainer
    from embstore.version import Version

_NOTHING = type(None)
# Of a union, the first type that takes the text.
_STRICTEST_FIRST = (_NOTHING, bool, int, float, tuple, str)
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", _NOTHING: "none"}


def make_trainer(name: str, given: Sequence[str]) -> Trainer:
    """Return the trainer called ``name`` with the given settings, the others as they are by default.

    Raises
    ------
    UnknownTrainerError
        If there is no such trainer or setting, or the trainer refuses it.
    InvalidInputError
        For a value of another type than the setting's.
    """
    from embstore.registry import find_trainer
    from embstore.trainer import with_settings

    kind = find_trainer(name)
    return with_settings(kind, parse_settings(kind, given))


def choose_trainer(version: Version, name: str | None, given: Sequence[str]) -> Trainer:
    """Return the trainer of the newest lineage with the given settings in place of its own; another one, if it is named.

    Raises
    ------
    UnknownTrainerError
        If there is no such trainer or setting, or the trainer refuses it.
    InvalidInputError
        If no lineage names a trainer and none is given, or for a value of another type than the setting's.
    """
    from embstore.trainer import settings_of, with_settings

    newest = _newest(version, name)
    if newest is None:
        assert name is not None
        return make_trainer(name, given)
    kind = type(newest)
    return with_settings(kind, {**settings_of(newest), **parse_settings(kind, given)})


def _newest(version: Version, name: str | None) -> Trainer | None:
    """Return the trainer of the newest lineage; None where it is not the one that is wanted."""
    from embstore.registry import trainer_of

    try:
        newest = trainer_of(version)
    except UnknownTrainerError:
        if name is None:
            raise
        return None
    except InvalidInputError as error:
        if name is None:
            msg = "no version up to here records a trainer; name one with --trainer, the verb trainers lists them"
            raise InvalidInputError(msg) from error
        return None
    return newest if name in (None, newest.name) else None


def parse_settings(kind: type[Any], given: Sequence[str]) -> dict[str, Any]:
    """Return the settings in texts such as ``lr=0.1``, typed as the fields of a trainer's class.

    Raises
    ------
    UnknownTrainerError
        For a setting that there is not.
    InvalidInputError
        For a value of another type, and for a text of another form.
    """
    known = setting_types(kind)
    values = {}
    for key, text in parse_pairs(list(given), "--set").items():
        if key not in known:
            msg = f"setting {key} of trainer {kind.name!r}: it has {', '.join(known) or 'none'}"
            raise UnknownTrainerError(msg)
        try:
            values[key] = parse_value(text, known[key])
        except ValueError as error:
            msg = f"setting {key}={text!r} of trainer {kind.name!r}: give {describe(known[key])}"
            raise InvalidInputError(msg) from error
    return values


def setting_types(kind: type[Any]) -> Mapping[str, Any]:
    """Return the type of each setting of a trainer's class."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind) if field.init}


def parse_value(text: str, hint: Any) -> Any:
    """Return ``text`` as a value of a type.

    Raises
    ------
    ValueError
        If it is none.
    """
    parts = _alternatives(hint)
    if len(parts) > 1:
        return _first_that_fits(text, parts)
    if get_origin(hint) is Literal:
        return {str(choice): choice for choice in get_args(hint)}[text] if text in map(str, get_args(hint)) else _refuse(text)
    if (get_origin(hint) or hint) is tuple:
        return _parse_tuple(text, get_args(hint))
    if hint is _NOTHING or hint is bool:
        words = {"none": None} if hint is _NOTHING else {"true": True, "false": False}
        return words[text.lower()] if text.lower() in words else _refuse(text)
    if hint is float:
        number = float(text)
        return number if math.isfinite(number) else _refuse(text)
    return int(text) if hint is int else text if hint is str else _refuse(text)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _alternatives(hint: Any) -> Sequence[Any]:
    """Return the types of a union, the strictest first; of anything else, itself."""
    if get_origin(hint) not in (Union, types.UnionType):
        return [hint]
    places: dict[Any, int] = {kind: place for place, kind in enumerate(_STRICTEST_FIRST)}
    return sorted(get_args(hint), key=lambda part: places.get(get_origin(part) or part, 0))


def _first_that_fits(text: str, parts: Sequence[Any]) -> Any:
    for part in parts:
        try:
            return parse_value(text, part)
        except ValueError:
            continue
    return _refuse(text)


def _parse_tuple(text: str, kinds: tuple[Any, ...], *, separator: str = ",") -> tuple[Any, ...]:
    inner = text.strip().removeprefix("(").removesuffix(")").rstrip(separator)
    texts = [part.strip() for part in inner.split(separator)] if inner.strip() else []
    if not kinds:
        kinds = (bool | int | float | str, ...)
    if kinds[1:] == (...,):
        kinds = (kinds[0],) * len(texts)
    if len(kinds) != len(texts):
        _refuse(text)
    return tuple(_parse_part(part, kind) for part, kind in zip(texts, kinds, strict=True))


def _parse_part(text: str, hint: Any) -> Any:
    """Return a part of a tuple; one that is a tuple itself has colons for commas."""
    return _parse_tuple(text, get_args(hint), separator=":") if get_origin(hint) is tuple else parse_value(text, hint)


def describe(hint: Any) -> str:
    """Return in words what a value of a type looks like."""
    parts = _alternatives(hint)
    if len(parts) > 1:
        return " or ".join(describe(part) for part in [*parts[1:], *parts[:1]])
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if (get_origin(hint) or hint) is tuple:
        kinds = [kind for kind in get_args(hint) if kind is not ...]
        if kinds and get_origin(kinds[0]) is tuple:
            return "groups with commas between, the parts of each with colons, such as tags:4,genres:6"
        return "values with commas between" + (f", each {describe(kinds[0])}" if len(set(kinds)) == 1 else "")
    return _NAMES.get(hint, "nothing here: it can only be set in Python")
