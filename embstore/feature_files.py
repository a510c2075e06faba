"""Files of features read into frames: csv, tsv, parquet, and RecBole's atomic ``.user`` and ``.item``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embstore import readers
from embstore.errors import InvalidInputError
from embstore.names import IdType
from embstore.readers import FilePath, ParquetFormat, TextFormat
from embstore.texts import as_ids, as_numbers

if TYPE_CHECKING:
    import pandas as pd

_ATOMIC = (".user", ".item")
_SEVERAL, _NUMBER = ("token_seq", "float_seq"), "float"


def read_features(
    path: FilePath, entity: str, *, numbers: Collection[str] = (), id_types: Mapping[str, IdType | None] | None = None
) -> pd.DataFrame:
    """Return the features in a file as a frame whose index has the ids; the ending of the name tells the format.

    Parameters
    ----------
    path
        .csv, .csv.gz, .tsv, .parquet, .pq, or RecBole's .user and .item. One column holds ids and is called as the entity
        (in RecBole's files ``user_id`` and ``item_id``).
    entity
        ``"user"`` or ``"item"``.
    numbers
        Columns that hold numbers. In text files all others hold categories as they are written: ``07`` is not ``7``. RecBole's
        ``float`` columns are numbers too, those of ``token_seq`` are lists.
    id_types
        ``"int64"`` or ``"str"`` by column: of the ids, called as the entity, and of categories. Unless given, ids are int64 where
        every one is a plain whole number, and categories are ``str``.

    Raises
    ------
    InvalidInputError
        If the file is missing, empty or damaged, has another ending, no column of ids, a column twice, or text where a number is
        asked for.
    IdTypeError
        If a type is int64 and a value is no plain whole number.
    """
    form = readers.INTER if Path(path).name.lower().endswith(_ATOMIC) else readers.format_of(path)
    id_column = f"{entity}_id" if isinstance(form, TextFormat) and form.atomic else entity
    header = form.header(readers.existing(path))
    readers.check_columns({entity: id_column}, header, place=str(path))
    _check_distinct(header, place=str(path))
    frame = form.frame(Path(path))
    if isinstance(form, ParquetFormat):
        return frame.set_index(id_column).rename_axis(entity)
    kinds = dict(zip(header, form.kinds(Path(path)), strict=True))
    frame.columns = header
    types: dict[str, IdType | None] = {**dict.fromkeys(header, "str"), entity: None, **(id_types or {})}
    columns = {
        name: _values(frame[name].tolist(), name, kinds[name], is_number=name in numbers, id_type=types[name])
        for name in header
        if name != id_column
    }
    ids = as_ids(frame[id_column].tolist(), entity, id_type=types[entity])
    return _frame(columns, ids, entity)


def _check_distinct(header: list[str], *, place: str) -> None:
    name, n_there = Counter(header).most_common(1)[0]
    if n_there > 1:
        msg = f"{place}: column {name!r} is there {n_there} times; give each a name of its own"
        raise InvalidInputError(msg)


def _frame(columns: dict[str, Any], ids: Any, entity: str) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns, index=pd.Index(ids, name=entity))


def _values(texts: list[str], name: str, kind: str, *, is_number: bool, id_type: IdType | None) -> Any:
    """Return a column of texts as what its cells are; an empty text is no value."""
    if kind in _SEVERAL:
        return _objects([text.split() or None for text in texts])
    there = [i for i, text in enumerate(texts) if text]
    if is_number or kind == _NUMBER:
        numbers = np.full(len(texts), np.nan)
        numbers[there] = as_numbers([texts[i] for i in there], name)
        return numbers
    values: list[Any] = [None] * len(texts)
    for i, category in zip(there, list(as_ids([texts[i] for i in there], name, id_type=id_type)), strict=True):
        values[i] = int(category) if id_type == "int64" else category
    return _objects(values)


def _objects(values: list[Any]) -> np.ndarray[Any, np.dtype[np.object_]]:
    out = np.empty(len(values), object)
    out[:] = values
    return out
