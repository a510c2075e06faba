"""A caller's ids, times and ratings as plain numpy arrays, or a refusal that says which value is wrong.

Ids are taken item by item: a fixed-width numpy string would turn ``"a\\0"`` into ``"a"``, two ids into one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.datetimes import are_datetimes, as_datetimes, nanoseconds
from embstore.errors import IdTypeError, InvalidInputError
from embstore.names import IdType

_INT64 = np.iinfo(np.int64)
_LONGEST_SHOWN = 80


def normalize_ids(ids: object, *, what: str = "id") -> NDArray[Any]:
    """Return ids as int64, or as an object array of ``str``.

    Parameters
    ----------
    ids
        A list, tuple or other sequence, a range, a one-dimensional numpy array (integers, text or objects), or a
        pandas Series, Index or array of integers, text or categories of these. Never modified; an int64 array may
        be returned as it is.
    what
        How messages call such an id, ``"user id"``.

    Returns
    -------
    ids : int64[n] or object[n]
        In the order given, duplicates kept, no Unicode normalisation. Without any id, an empty object array.

    Raises
    ------
    IdTypeError
        If integers and text are mixed.
    InvalidInputError
        For a single id, a set or mapping (they have no order), two dimensions, and for any id that is neither an
        integer within int64 nor text: bool, float, bytes, None and others. Text that is empty, has a NUL in it or
        cannot be written as UTF-8 is refused too.
    """
    values = _integers_or_list(ids, what)
    if not len(values):
        return np.empty(0, object)
    if isinstance(values, np.ndarray):
        return _from_integers(values, what)
    types = set(map(type, values))
    if all(issubclass(t, str) for t in types):
        return _from_texts(values, what)
    if not all(_holds_integers(t) for t in types):
        raise next(_problems(values, what))
    try:
        return np.array(values if types == {int} else list(map(int, values)), np.int64)
    except OverflowError:
        raise next(_problems(values, what)) from None


def id_type_of(ids: NDArray[Any]) -> IdType | None:
    """Return the type of ids as `normalize_ids` gave them, ``None`` where there are none."""
    if not len(ids):
        return None
    return "str" if ids.dtype == object else "int64"


def rank_ids(ids: NDArray[Any]) -> NDArray[np.int64]:
    """Return, for ids as `normalize_ids` gave them, the place of each among the sorted distinct ones; text by code points."""
    if ids.dtype != object:
        return np.unique(ids, return_inverse=True)[1]
    texts = ids.tolist()
    places = {text: place for place, text in enumerate(sorted(set(texts)))}
    return np.array([places[text] for text in texts], np.int64)


def normalize_times(times: object, *, what: str = "time") -> NDArray[Any]:
    """Return times as numbers that keep their order.

    Parameters
    ----------
    times
        One-dimensional: integers or floats of any unit, or datetimes of Python, pandas or numpy. Those with a zone become
        UTC, those without are taken as UTC.
    what
        How messages call such a value.

    Returns
    -------
    times : int64[n] or float64[n]
        Datetimes as nanoseconds since 1970. Floats become int64 if every one is a whole number.

    Raises
    ------
    InvalidInputError
        For anything else, for missing and non-finite values, and for what int64 cannot hold.
    """
    values = _numeric(times, what, kinds="iufM")
    if values.dtype.kind == "M":
        return nanoseconds(values, what)
    if values.dtype.kind in "iu":
        return _from_integers(values, what)
    values = _finite(values, what)
    whole = (values == np.floor(values)) & (np.abs(values) < 2.0**63)
    return values.astype(np.int64) if whole.all() else values


def normalize_ratings(ratings: object, *, what: str = "rating") -> NDArray[np.float64]:
    """Return ratings as float64.

    Parameters
    ----------
    ratings
        One-dimensional integers, floats or bools.
    what
        How messages call such a value.

    Raises
    ------
    InvalidInputError
        For anything else, and for missing and non-finite values.
    """
    return _finite(_numeric(ratings, what, kinds="iufb"), what)


def _integers_or_list(ids: object, what: str) -> NDArray[Any] | list[Any]:
    if isinstance(ids, list):
        return ids
    if isinstance(ids, (tuple, range, np.ma.MaskedArray)):
        # One by one, a masked array shows which values are masked.
        return list(_one_dimensional(ids, what))
    _one_dimensional(ids, what)
    dtype = getattr(ids, "dtype", None)
    if isinstance(dtype, np.dtype):
        return _from_array(np.asarray(ids))
    if dtype is not None and hasattr(ids, "astype"):
        return list(np.asarray(ids.astype(object), object).tolist())
    if hasattr(ids, "tolist"):
        return list(ids.tolist())
    if isinstance(ids, Sequence):
        return list(ids)
    msg = f"{what}s as {type(ids).__name__}: pass a list of ids, or a numpy array or pandas Series"
    raise InvalidInputError(msg)


def _from_array(array: NDArray[Any]) -> NDArray[Any] | list[Any]:
    if array.dtype.kind in "iu":
        return array
    # Not tolist() for the others: it makes integers of datetimes. The first of them is refused, so it is enough.
    return list(array.tolist()) if array.dtype.kind in "OUT" else list(array[:1])


def _one_dimensional(values: Any, what: str) -> Any:
    n_dimensions = getattr(values, "ndim", 1)
    if n_dimensions > 1:
        msg = f"{what}s of shape {tuple(values.shape)}: pass one dimension, such as one column"
        raise InvalidInputError(msg)
    if n_dimensions == 0 or isinstance(values, (str, bytes, bytearray, memoryview, int, float)):
        msg = f"{what} {_shown(values)}: pass a list of {what}s, also for a single one"
        raise InvalidInputError(msg)
    return values


def _from_integers(values: NDArray[Any], what: str) -> NDArray[np.int64]:
    too_large = values > _INT64.max if values.dtype.kind == "u" else np.zeros(0, bool)
    if too_large.any():
        position = int(too_large.argmax())
        msg = f"{what} {values[position]} at position {position}: does not fit in int64"
        raise InvalidInputError(msg)
    return values.astype(np.int64, copy=False)


def _from_texts(values: list[Any], what: str) -> NDArray[Any]:
    # Exact str, so that what is stored behaves alike whether it came as str, numpy.str_ or an enum's member.
    texts = [str.__str__(value) for value in values]
    joined = "".join(texts)
    if not all(texts) or "\0" in joined or not _encodes(joined):
        raise next(_problems(texts, what))
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _holds_integers(kind: type) -> bool:
    return issubclass(kind, (int, np.integer)) and not issubclass(kind, (bool, np.timedelta64))


def _problems(values: list[Any], what: str) -> Iterator[InvalidInputError]:
    """Yield what is wrong with ids, first one first."""
    for position, value in enumerate(values):
        place = f"{what} {_shown(value)} at position {position}"
        reason = _reason(value)
        if reason:
            yield InvalidInputError(f"{place}: {reason}")
        elif isinstance(value, str) != isinstance(values[0], str):
            yield IdTypeError(f"{place}: the first is {_shown(values[0])}; convert all to str, or all to int")


def _reason(value: object) -> str | None:
    """Return why ``value`` can never be an id, ``None`` if it can."""
    if isinstance(value, str):
        return _text_reason(value)
    if isinstance(value, (float, np.floating)):
        return "a float is no id, nor is a missing value; drop missing ones and convert the others to int or str"
    if isinstance(value, (bytes, bytearray)):
        return "bytes are no id; decode them to str"
    if not _holds_integers(type(value)):
        return f"{type(value).__name__} is no id; drop missing ones and convert the others to int or str"
    if not _INT64.min <= int(value) <= _INT64.max:  # type: ignore[call-overload]
        return "does not fit in int64; pass all ids as str"
    return None


def _text_reason(text: str) -> str | None:
    if not text:
        return "the empty string is no id; drop it or give it a name"
    if "\0" in text:
        return "it has a NUL character in it; remove it"
    return None if _encodes(text) else "it has a lone surrogate and no UTF-8; decode its bytes anew"


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # Anything may be passed as id; its own repr must not hide the message.
        return f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _numeric(values: object, what: str, *, kinds: str) -> NDArray[Any]:
    """Return ``values`` as an array whose dtype is of one of ``kinds``; an empty one is float64."""
    _one_dimensional(values, what)
    array = _as_array(values)
    if array.ndim == 1 and not len(array):
        return np.empty(0)
    if array.ndim != 1 or array.dtype.kind not in kinds:
        raise InvalidInputError(_not_numeric(array, what, kinds))
    return array


def _as_array(values: Any) -> NDArray[Any]:
    dtype = getattr(values, "dtype", None)
    if dtype is not None and not isinstance(dtype, np.dtype) and hasattr(values, "astype"):
        if getattr(dtype, "kind", None) == "M":
            return as_datetimes(values)
        values = np.asarray(values.astype(object), object)
    if getattr(getattr(values, "dtype", None), "kind", "") == "O":
        values = values.tolist()
    if are_datetimes(values):
        return as_datetimes(values)
    try:
        return np.asarray(np.ma.filled(values, np.nan) if isinstance(values, np.ma.MaskedArray) else values)
    except ValueError:
        # Lists within the list, of different lengths.
        return np.asarray(values, object)


def _not_numeric(array: NDArray[Any], what: str, kinds: str) -> str:
    asked = "numbers or datetimes" if "M" in kinds else "numbers"
    if array.ndim != 1:
        return f"{what}s as {array.ndim}-dimensional: pass one dimension of {asked}"
    fitting: tuple[type, ...] = (int, float, np.number)
    if "M" in kinds and isinstance(array[0], datetime):
        asked, fitting = f"{asked}, not both", (datetime,)
    odd = (position for position, value in enumerate(array) if not isinstance(value, fitting))
    position = next(odd, 0)
    return f"{what} {_shown(array[position])} at position {position}: pass {asked}, none missing"


def _finite(values: NDArray[Any], what: str) -> NDArray[np.float64]:
    values = values.astype(np.float64, copy=False)
    bad = ~np.isfinite(values)
    if bad.any():
        position = int(bad.argmax())
        msg = f"{what} {values[position]} at position {position}: pass finite numbers; fill in or drop the missing ones"
        raise InvalidInputError(msg)
    return values
