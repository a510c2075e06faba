"""Files of pairs read into columns: csv, tsv, parquet, and RecBole's atomic ``.inter``.

In text files ids are read as text first, so that ``007`` and ``NA`` stay what they are; a column whose every value is
a plain whole number then becomes int64.
"""

from __future__ import annotations

import csv
import importlib
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from embstore.errors import InvalidInputError
from embstore.texts import IdTypes, as_ids, as_numbers

if TYPE_CHECKING:
    import pandas as pd

FilePath = str | os.PathLike[str]
Names = Mapping[str, str | None]

ROLES = ("user", "item", "rating", "time")
# What the column of a role may be called where the caller names none; the first is asked for.
_USUAL = {"user": ("user",), "item": ("item",), "rating": ("rating",), "time": ("time", "timestamp", "ts")}
_RECBOLE = {"user": ("user_id",), "item": ("item_id",), "rating": ("rating",), "time": ("timestamp", "time", "ts")}


@dataclass(frozen=True)
class TextFormat:
    """A text file with a line of column names, in UTF-8."""

    separator: str
    atomic: bool = False  # RecBole's: "user_id:token" in the header, no quotes

    @property
    def usual(self) -> Mapping[str, tuple[str, ...]]:
        """What the column of each role may be called."""
        return _RECBOLE if self.atomic else _USUAL

    def header(self, path: Path) -> list[str]:
        """Return the names of the columns, without RecBole's types."""
        return [name.partition(":")[0] if self.atomic else name for name in self._raw_header(path)]

    def columns(self, path: Path, names: Names, *, id_type: IdTypes) -> list[Any]:
        """Return ids as int64 or lists of text, ratings and times as numbers."""
        header = self.header(path)
        places = {role: header.index(name) for role, name in names.items() if name is not None}
        raw = self._raw_header(path)
        frame = self._read(path, dtype={raw[place]: str for place in places.values()})
        texts = {role: frame.iloc[:, place].tolist() for role, place in places.items()}
        ids = [as_ids(texts[role], role, id_type=id_type) for role in ("user", "item")]
        return ids + [as_numbers(texts[role], role) if role in texts else None for role in ("rating", "time")]

    def frame(self, path: Path) -> pd.DataFrame:
        """Return all columns as text."""
        return self._read(path, dtype=str)

    def kinds(self, path: Path) -> list[str]:
        """Return RecBole's type of each column, ``""`` where the format has none."""
        return [name.partition(":")[2] if self.atomic else "" for name in self._raw_header(path)]

    def _raw_header(self, path: Path) -> list[str]:
        return [str(name) for name in self._read(path, dtype=str, header=None, nrows=1).iloc[0]]

    def _read(self, path: Path, *, dtype: Any, header: Literal[0] | None = 0, nrows: int | None = None) -> pd.DataFrame:
        import pandas as pd

        with _reading(path):
            return pd.read_csv(
                path,
                sep=self.separator,
                quoting=csv.QUOTE_NONE if self.atomic else csv.QUOTE_MINIMAL,
                dtype=dtype,
                header=header,
                nrows=nrows,
                # Without it, pandas takes the first column of rows longer than the header as their names.
                index_col=False,
                keep_default_na=False,
                low_memory=False,
            )


class ParquetFormat:
    """A parquet file; its columns keep their types."""

    usual: Mapping[str, tuple[str, ...]] = _USUAL

    def header(self, path: Path) -> list[str]:
        """Return the names of the columns."""
        with _reading(path), _parquet().ParquetFile(path) as file:
            return list(file.schema_arrow.names)

    def frame(self, path: Path) -> pd.DataFrame:
        """Return all columns."""
        with _reading(path), _parquet().ParquetFile(path) as file:
            frame: pd.DataFrame = file.read().to_pandas()
            return frame

    def columns(self, path: Path, names: Names, *, id_type: IdTypes) -> list[Any]:
        """Return the columns as pandas Series, or as a list where an id is missing."""
        asked = sorted({name for name in names.values() if name is not None})
        with _reading(path), _parquet().ParquetFile(path) as file:
            table = file.read(columns=asked)
        found = {role: table.column(name) for role, name in names.items() if name is not None}
        return [
            *(_parquet_ids(found[role]) for role in ("user", "item")),
            *(found[role].to_pandas(date_as_object=False) if role in found else None for role in ("rating", "time")),
        ]


CSV = TextFormat(",")
INTER = TextFormat("\t", atomic=True)
PARQUET = ParquetFormat()
Format = TextFormat | ParquetFormat
FORMATS: dict[str, Format] = {
    ".csv": CSV,
    ".csv.gz": CSV,
    ".tsv": TextFormat("\t"),
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".inter": INTER,
}


def format_of(path: FilePath) -> Format:
    """Return the format that the ending of ``path`` stands for.

    Raises
    ------
    InvalidInputError
        If it is none of `FORMATS`.
    """
    name = Path(path).name.lower()
    for ending, form in FORMATS.items():
        if name.endswith(ending):
            return form
    msg = f"{path}: the ending tells the format, and is none of {', '.join(FORMATS)} (and .npz for pairs)"
    raise InvalidInputError(msg)


def usual_names(path: FilePath, form: Format, columns: Names | None = None) -> dict[str, str | None]:
    """Return the column of each role: the one in ``columns``, or the usual one, ratings and times only if there are any.

    Raises
    ------
    InvalidInputError
        For a role that there is not, and for a file that cannot be read.
    """
    given = dict(columns or {})
    for role in given.keys() - set(ROLES):
        msg = f"columns {role!r}={given[role]!r}: the left side is one of {', '.join(ROLES)}"
        raise InvalidInputError(msg)
    header = form.header(existing(path))
    for role, usual in form.usual.items():
        there = [name for name in usual if name in header]
        required = usual[0] if role in ("user", "item") else None
        given.setdefault(role, there[0] if there else required)
    return given


def read(path: FilePath, form: Format, names: Names, *, id_type: IdTypes = None) -> list[Any]:
    """Return the columns of user, item, rating and time, not yet checked; ``None`` for what was not asked for.

    ``names`` has the column of each role. ``id_type`` is that of ids in text: ``"int64"``, ``"str"``, or one for each of
    ``user`` and ``item``; ``None`` is int64 where every value is a plain whole number (``7``, not ``07``).

    Raises
    ------
    IdTypeError
        If ``id_type`` is int64 and an id is not.
    InvalidInputError
        If the file is missing, empty or damaged, lacks one of the columns, or has text where a number is asked for.
    """
    file = existing(path)
    check_columns(names, form.header(file), place=str(path))
    return form.columns(file, names, id_type=id_type)


def check_columns(names: Names, header: Sequence[object], *, place: str) -> None:
    """Raise unless each of ``names`` is in ``header`` exactly once.

    Raises
    ------
    InvalidInputError
        Naming the column, and the columns that there are.
    """
    for role, name in names.items():
        if name is None and role in ("user", "item"):
            msg = f"{place}: name the column of {role} ids"
            raise InvalidInputError(msg)
        n_there = sum(name == other for other in header)
        if name is not None and n_there != 1:
            there = ", ".join(map(str, header)) or "none"
            msg = f"{place}: column {name!r} for {role} is there {n_there} times, not once; the columns are {there}"
            raise InvalidInputError(msg)


def existing(path: FilePath) -> Path:
    """Return the path of a file that is there and not empty, else raise InvalidInputError."""
    file = Path(path)
    if not file.is_file():
        msg = f"{path}: no such file"
        raise InvalidInputError(msg)
    if not file.stat().st_size:
        msg = f"{path}: the file is empty"
        raise InvalidInputError(msg)
    return file


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside into an InvalidInputError that names the file."""
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except InvalidInputError:
        raise
    except pd.errors.ParserWarning as error:
        msg = f"{path}: rows have more fields than the header has columns; quote fields that hold the separator"
        raise InvalidInputError(msg) from error
    except pd.errors.EmptyDataError as error:
        msg = f"{path}: the file is empty"
        raise InvalidInputError(msg) from error
    except UnicodeError as error:
        msg = f"{path}: not text in UTF-8; save it as UTF-8"
        raise InvalidInputError(msg) from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        msg = f"{path}: cannot be read: {str(error).strip()}"
        raise InvalidInputError(msg) from error


def _parquet() -> Any:
    try:
        # An extra, and slow to load, so it cannot stand at the top.
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        msg = "reading parquet needs pyarrow: pip install embstore[parquet]"
        raise InvalidInputError(msg) from error


def _parquet_ids(column: Any) -> Any:
    # pandas makes floats of integers with a missing one, which would hide the place of the missing one.
    return column.to_pylist() if column.null_count else column.to_pandas()
