"""Pairs of a user and an item: in a caller's ids (`Interactions`), and in rows of a store (`Batch`)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from embstore import csr_files, readers, splits
from embstore.errors import InvalidInputError
from embstore.normalize import normalize_ids, normalize_ratings, normalize_times, rank_ids
from embstore.readers import FilePath
from embstore.texts import IdTypes

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse


class _IdRows(Protocol):
    def __len__(self) -> int: ...
    def rows(self, ids: object, *, missing: Literal["raise", -1] = "raise") -> NDArray[np.int64]: ...


class _View(Protocol):
    def ids(self, entity: str) -> _IdRows: ...


@dataclass(frozen=True, eq=False)
class Batch:
    """Pairs in rows of a store: int64[n] each, with ratings and times as `Interactions` has them."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: NDArray[np.float64] | None = None
    times: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, eq=False)
class Interactions:
    """Pairs in a caller's ids, in the order given, duplicates kept.

    Parameters
    ----------
    user_ids, item_ids
        n ids each, see `embstore.normalize.normalize_ids`; kept as int64[n] or as object[n] of ``str``.
    ratings
        n finite numbers, kept as float64, or ``None``.
    times
        n numbers or datetimes, or ``None``, see `embstore.normalize.normalize_times`; int64[n] or float64[n].
    user_features, item_features
        Frames, carried along as they are, see `embstore.stage_features`.

    Raises
    ------
    IdTypeError
        If the ids of one side are of two types.
    InvalidInputError
        For ids, ratings or times that cannot be used, and for different lengths.
    """

    user_ids: NDArray[Any]
    item_ids: NDArray[Any]
    ratings: NDArray[np.float64] | None = None
    times: NDArray[Any] | None = None
    user_features: pd.DataFrame | None = field(default=None, repr=False)
    item_features: pd.DataFrame | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        columns = {
            "user_ids": normalize_ids(self.user_ids, what="user id"),
            "item_ids": normalize_ids(self.item_ids, what="item id"),
            "ratings": None if self.ratings is None else normalize_ratings(self.ratings),
            "times": None if self.times is None else normalize_times(self.times),
        }
        lengths = {name: len(column) for name, column in columns.items() if column is not None}
        if len(set(lengths.values())) > 1:
            msg = f"lengths {lengths}: give one value for each pair"
            raise InvalidInputError(msg)
        for name, column in columns.items():
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.user_ids)

    @classmethod
    def from_frame(
        cls,
        df: pd.DataFrame,
        *,
        user: str = "user",
        item: str = "item",
        rating: str | None = None,
        time: str | None = None,
        user_features: pd.DataFrame | None = None,
        item_features: pd.DataFrame | None = None,
    ) -> Interactions:
        """Return the pairs in these columns of a frame; ratings and times are absent unless named.

        Raises
        ------
        InvalidInputError
            If it is no frame, or a column is not there or has what cannot be used.
        """
        if not hasattr(df, "columns"):
            msg = f"frame {type(df).__name__}: give a DataFrame, such as pandas.DataFrame(pairs)"
            raise InvalidInputError(msg)
        names = {"user": user, "item": item, "rating": rating, "time": time}
        readers.check_columns(names, list(df.columns), place="frame")
        columns: list[Any] = [None if name is None else df[name] for name in names.values()]
        columns += [user_features, item_features]
        return cls(*columns)

    @classmethod
    def from_csv(
        cls, path: FilePath, *, user: str = "user", item: str = "item", rating: str | None = None, time: str | None = None
    ) -> Interactions:
        """Return the pairs of a file of comma-separated values in UTF-8, gzipped or not, with a line of column names.

        Ids are int64 where every value of the column is a plain whole number (``7``, not ``07``), else str; no value
        stands for a missing one. Times may be numbers or ISO 8601 dates. `from_file` can be told the type of ids.

        Raises
        ------
        InvalidInputError
            As in `from_file`.
        """
        return cls(*readers.read(path, readers.CSV, {"user": user, "item": item, "rating": rating, "time": time}))

    @classmethod
    def from_parquet(
        cls, path: FilePath, *, user: str = "user", item: str = "item", rating: str | None = None, time: str | None = None
    ) -> Interactions:
        """Return the pairs of a parquet file, ids of the type they have there.

        Raises
        ------
        InvalidInputError
            As in `from_file`, and where pyarrow is not installed.
        """
        return cls(*readers.read(path, readers.PARQUET, {"user": user, "item": item, "rating": rating, "time": time}))

    @classmethod
    def from_inter(cls, path: FilePath, *, id_type: IdTypes = None) -> Interactions:
        """Return the pairs of one of RecBole's atomic files, tab-separated with ``user_id:token`` and so on as header.

        ``rating`` and ``timestamp`` are taken where they are there; ``id_type`` is as for `from_file`.

        Raises
        ------
        InvalidInputError
            As in `from_file`.
        """
        return cls(*readers.read(path, readers.INTER, readers.usual_names(path, readers.INTER), id_type=id_type))

    @classmethod
    def from_file(cls, path: FilePath, *, columns: Mapping[str, str] | None = None, id_type: IdTypes = None) -> Interactions:
        """Return the pairs of a file, read as its ending says: .csv, .csv.gz, .tsv, .parquet, .pq, .inter or .npz.

        ``columns`` is such as ``{"user": "customer_id", "time": "when"}``. What it does not name is ``user``, ``item``
        (``user_id``, ``item_id`` in .inter files), and where they are there ``rating``, and ``time``, ``timestamp`` or
        ``ts``. ``id_type`` is that of ids in text files: ``"int64"``, ``"str"``, a mapping with one of them for ``user``
        and ``item``, or ``None``, see `from_csv`.

        Raises
        ------
        IdTypeError
            If ``id_type`` is int64 and an id is not.
        InvalidInputError
            For another ending, a role that there is not, a file or column that is missing, empty or damaged, or has
            what cannot be used.
        """
        if csr_files.is_csr_file(path) and not columns:
            return cls.from_csr_file(path)
        form = readers.format_of(path)
        names = readers.usual_names(path, form, columns)
        return cls(*readers.read(path, form, names, id_type=id_type))

    @classmethod
    def from_csr(cls, csr: Any, user_ids: object, item_ids: object) -> Interactions:
        """Return the pairs of a scipy sparse matrix [users, items] that are not zero, its values as ratings.

        Raises
        ------
        InvalidInputError
            If the ids do not fit the shape, or the ids or values cannot be used.
        """
        return cls(*csr_files.pairs_of(csr, user_ids, item_ids))

    @classmethod
    def from_csr_file(cls, path: FilePath, *, user_ids: object = None, item_ids: object = None) -> Interactions:
        """Return the pairs of a file of ``to_csr_file``, or of ``scipy.sparse.save_npz`` with the ids of rows and columns.

        It raises what `from_csr` does, also where the file is missing or damaged, or no ids are given and there are none in it.
        """
        return cls(*csr_files.read(path, user_ids=user_ids, item_ids=item_ids))

    def to_csr_file(self, path: FilePath) -> None:
        """Write ids and ratings, or 1.0, to an ``.npz`` as scipy's; another ending and ratings of 0 are refused."""
        csr_files.write(path, self.user_ids, self.item_ids, self.ratings)

    def to_csr(self, view: _View) -> scipy.sparse.csr_matrix[np.float64]:
        """Return a matrix [users, items] in rows of ``view``, 1.0 where there is a pair, however often.

        Pairs with an id that ``view`` (a version or checkout) does not have are left out.
        """
        users, items = view.ids("user"), view.ids("item")
        rows, columns = users.rows(self.user_ids, missing=-1), items.rows(self.item_ids, missing=-1)
        known = (rows >= 0) & (columns >= 0)
        return csr_files.ones(rows[known], columns[known], (len(users), len(items)))

    def to_batch(self, view: _View) -> Batch:
        """Return the pairs in rows of ``view``, a version or checkout.

        Raises
        ------
        UnknownIdError
            If it lacks an id.
        """
        return Batch(view.ids("user").rows(self.user_ids), view.ids("item").rows(self.item_ids), self.ratings, self.times)

    def take(self, chosen: Any) -> Interactions:
        """Return some of the pairs: chosen by bool[n], by positions in any order, or by a slice.

        Raises
        ------
        InvalidInputError
            If it is none of these, or a position is not there.
        """
        try:
            positions = np.arange(len(self))[chosen]
            (_,) = positions.shape
        except (IndexError, ValueError) as error:
            msg = f"{error}; choose among {len(self)} pairs by that many bools, or by positions"
            raise InvalidInputError(msg) from error
        taken = copy.copy(self)
        for name in ("user_ids", "item_ids", "ratings", "times"):
            column = getattr(self, name)
            object.__setattr__(taken, name, None if column is None else column[positions])
        return taken

    def ordered(self) -> Interactions:
        """Return the pairs by time (where there are times), user id, item id and rating."""
        keys = [*([] if self.ratings is None else [self.ratings]), rank_ids(self.item_ids), rank_ids(self.user_ids)]
        return self.take(np.lexsort(keys if self.times is None else [*keys, self.times]))

    def split(self, by: Literal["time", "user", "within"], share: float, *, seed: int = 0) -> tuple[Interactions, Interactions]:
        """Return two parts: what stays, and ``share`` of the pairs, a decimal number between 0 and 1 (.29 of 100 is 29).

        ``"time"``: the latest of all; both parts are in the order of time, ties in the order they had. ``"within"``: the
        last of every user who has five or more, by time where there are times, else by position; rounded down.
        ``"user"``: all of that share of the users, rounded down, drawn with ``seed`` whatever the order of the pairs.

        Raises
        ------
        InvalidInputError
            For another ``by``, a share that is not between 0 and 1, a negative seed, and ``by="time"`` without times.
        """
        first, second = splits.parts(by, share, self.user_ids, self.times, seed=seed)
        return self.take(first), self.take(second)


def check_interactions(pairs: object, what: str) -> None:
    """Raise InvalidInputError, which calls them ``what``, unless ``pairs`` are `Interactions`."""
    if not isinstance(pairs, Interactions):
        msg = f"{what} {type(pairs).__name__}: give Interactions, such as Interactions.from_frame(df)"
        raise InvalidInputError(msg)
