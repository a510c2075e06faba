"""Pairs as a sparse matrix of users by items, and as a file of one that scipy writes (``.npz``), with the ids in it.

scipy's files have no ids. Those written here have them as arrays of their own, which ``scipy.sparse.load_npz`` skips:
``user_ids`` and ``item_ids``, int64, or utf-8 bytes where ``user_ids_ends`` says where each ends. Nothing is pickled.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from embstore.errors import InvalidInputError
from embstore.normalize import normalize_ids
from embstore.readers import FilePath

if TYPE_CHECKING:
    import scipy.sparse

Rows = NDArray[np.int64]
ENDING = ".npz"
_IDS = ("user_ids", "item_ids")


def pairs_of(csr: Any, user_ids: object, item_ids: object) -> list[Any]:
    """Return user ids, item ids and values of what is not zero in a scipy sparse matrix [users, items].

    Raises
    ------
    InvalidInputError
        If the ids do not fit the shape, or cannot be used.
    """
    users, items = normalize_ids(user_ids, what="user id"), normalize_ids(item_ids, what="item id")
    if not hasattr(csr, "tocsr") or csr.shape != (len(users), len(items)):
        msg = f"{type(csr).__name__} {getattr(csr, 'shape', '')}: give a sparse matrix of shape {len(users), len(items)}"
        raise InvalidInputError(msg)
    matrix = csr.tocsr(copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    rows = np.repeat(np.arange(len(users)), np.diff(matrix.indptr))
    return [users[rows], items[matrix.indices], matrix.data]


def ones(rows: Rows, columns: Rows, shape: tuple[int, int]) -> scipy.sparse.csr_matrix[np.float64]:
    """Return a matrix with 1.0 where there is a pair, however often."""
    import scipy.sparse

    csr = scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
    csr.sum_duplicates()
    csr.data[:] = 1.0
    return csr


def is_csr_file(path: FilePath) -> bool:
    """Return whether the ending of a path is that of these files."""
    return str(path).lower().endswith(ENDING)


def write(path: FilePath, user_ids: NDArray[Any], item_ids: NDArray[Any], ratings: NDArray[np.float64] | None) -> None:
    """Write pairs to a file, ids in ascending order; of a pair that is there twice the last rating counts.

    Raises
    ------
    InvalidInputError
        If the path does not end in ``.npz`` or no file can be made there, or a rating is 0, which a sparse matrix cannot tell
        from no pair.
    """
    if not is_csr_file(path):
        msg = f"{path}: the ending tells the format; let it be {ENDING}"
        raise InvalidInputError(msg)
    if ratings is not None and not ratings.all():
        at = int(np.flatnonzero(ratings == 0)[0])
        msg = f"rating 0 at position {at}: a sparse matrix cannot tell it from no pair; leave it out, or shift the ratings"
        raise InvalidInputError(msg)
    (users, rows), (items, columns) = (np.unique(ids, return_inverse=True) for ids in (user_ids, item_ids))
    keys, from_the_end = np.unique((rows * len(items) + columns)[::-1], return_index=True)
    values = np.ones(len(rows)) if ratings is None else ratings
    ends = np.searchsorted(keys, np.arange(len(users) + 1) * len(items))
    arrays = {
        "format": np.array(b"csr"),
        "shape": np.array([len(users), len(items)]),
        "indices": keys % max(1, len(items)),
        "indptr": ends,
        "data": values[::-1][from_the_end],
    }
    arrays |= _id_arrays("user_ids", users) | _id_arrays("item_ids", items)
    with _made(path) as file:  # not by its name: numpy would add an ending to ``.NPZ``
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _made(path: FilePath) -> BinaryIO:
    try:
        return Path(path).open("wb")
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror}; give a file in a folder that there is"
        raise InvalidInputError(msg) from error


def _id_arrays(name: str, ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
    if ids.dtype != object:
        return {name: ids}
    texts = [text.encode() for text in ids.tolist()]
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return {name: np.frombuffer(b"".join(texts), np.uint8), f"{name}_ends": ends}


def _ids_in(arrays: Mapping[str, NDArray[Any]], name: str) -> Any:
    if f"{name}_ends" not in arrays:
        return arrays.get(name)
    whole, ends = arrays[name].tobytes(), arrays[f"{name}_ends"].tolist()
    return [whole[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]


def read(path: FilePath, *, user_ids: object = None, item_ids: object = None) -> list[Any]:
    """Return user ids, item ids and values of the pairs of a file; ids given count in place of those in it.

    Raises
    ------
    InvalidInputError
        If there is no such file, it is damaged or no sparse matrix, it has no ids and none are given, or they do not fit.
    """
    import scipy.sparse

    def load() -> tuple[Any, list[Any]]:
        with Path(path).open("rb") as file:
            with np.load(file, allow_pickle=False) as arrays:
                inside = [_ids_in({key: arrays[key] for key in arrays.files if key.startswith(name)}, name) for name in _IDS]
            file.seek(0)
            return scipy.sparse.load_npz(file), inside

    matrix, inside = _unless_damaged(path, load)
    users, items = (mine if mine is not None else theirs for mine, theirs in zip((user_ids, item_ids), inside, strict=True))
    if users is None or items is None:
        msg = (
            f"{path}: a matrix of {matrix.shape} without the ids of its rows and columns; "
            "read it with Interactions.from_csr_file(path, user_ids=..., item_ids=...), and write it with to_csr_file"
        )
        raise InvalidInputError(msg)
    return pairs_of(matrix, users, items)


def _unless_damaged(path: FilePath, load: Callable[[], tuple[Any, list[Any]]]) -> tuple[Any, list[Any]]:
    try:
        return load()
    except FileNotFoundError:
        msg = f"{path}: no such file"
        raise InvalidInputError(msg) from None
    except (OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        msg = f"{path}: no sparse matrix as scipy.sparse.save_npz writes it: {str(error).strip()}"
        raise InvalidInputError(msg) from error
