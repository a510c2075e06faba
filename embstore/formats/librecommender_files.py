"""The files of a model that LibRecommender 1.5 has saved: arrays, JSON, and pickles that are read only where it is asked for.

``DataInfo.save`` writes ``<name>_data_info.npz``, ``<name>_data_info_name_mapping.json`` and two pickles of consumed items,
``save(manual=True)`` of a model ``<name>_tf_variables.npz``, ``<name>_hyper_parameters.json`` and ``<name>_default_recs.npz``;
models that are vectors only, and ``inference_only=True``, write ``<name>.npz``. Text is pickled inside the npz files.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.errors import InvalidInputError
from embstore.formats.restricted import read_plain

Arrays = dict[str, NDArray[Any]]
_HYPER = "_hyper_parameters.json"
_DATA_INFO = "_data_info.npz"
_NAME_MAPPING = "_data_info_name_mapping.json"
_VARIABLES = "_tf_variables.npz"
_DEFAULT_RECS = "_default_recs.npz"
_USER_CONSUMED = "_user_consumed.pkl"
_ITEM_CONSUMED = "_item_consumed.pkl"
# Arrays of data_info.npz without which nothing has a name: pickled where they are text.
_NAMES = ("user_unique_vals", "item_unique_vals")
_CATEGORIES = ("unique_", "munique_")
_PICKLED = {
    "interaction_data": "pickled; the pairs that were trained on last, with their labels",
    "multi_sparse_combine_info": "pickled; where its columns are follows from the others, the padding value is not kept",
}
_NEEDS_UNPICKLE = "it is pickled; pass unpickle=True (--unpickle-consumed) to read pickled parts, of which nothing is run"


@dataclass(frozen=True)
class Consumed:
    """What users have had, in LibRecommender's inner ids, int64[n] each: a user's items one after the other, oldest first."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]


@dataclass(frozen=True)
class Saved:
    """What is in the files of one model.

    Parameters
    ----------
    model
        Its name, with which its files begin.
    settings, columns
        The hyper-parameters, and which columns are whose features.
    variables
        Arrays of the network and the optimizer, by the names that TensorFlow gave them without ``:0``.
    vectors
        Final vectors of users and items, where only these were saved.
    info
        Arrays of ids, categories and features.
    default_recs
        Inner ids of items for unknown users.
    consumed
        None where it was not asked for, or is not there.
    left_out
        File or array -> why it is not here.
    """

    model: str
    settings: Mapping[str, Any]
    columns: Mapping[str, Any]
    variables: Arrays
    vectors: Arrays
    info: Arrays
    default_recs: NDArray[Any] | None
    consumed: Consumed | None
    left_out: dict[str, str] = field(default_factory=dict)


def read_saved(path: Path, *, unpickle: bool) -> Saved:
    """Return what is in the files of a model: those of a folder, or of ``folder/name`` where it has several.

    Raises
    ------
    InvalidInputError
        If files are missing, damaged or of another kind, or ids or categories are pickled and ``unpickle`` is not set.
    """
    folder, model = _model_at(path)
    prefix = f"{folder / model}"
    left_out: dict[str, str] = {}
    variables, vectors = _arrays(Path(prefix + _VARIABLES), left_out), _arrays(Path(prefix + ".npz"), left_out)
    if not variables and not vectors:
        raise _no_arrays(folder, model)
    info = _info(_info_file(folder, model), left_out, unpickle=unpickle)
    defaults = _arrays(Path(prefix + _DEFAULT_RECS), left_out)
    consumed = _consumed(Path(prefix + _USER_CONSUMED), left_out, unpickle=unpickle)
    _name_others(folder, model, left_out)
    return Saved(
        model,
        _json(Path(prefix + _HYPER)),
        _name_mapping(Path(prefix + _NAME_MAPPING)),
        {name.removesuffix(":0"): array for name, array in variables.items()},
        vectors,
        info,
        defaults.get("default_recs"),
        consumed,
        left_out,
    )


def _model_at(path: Path) -> tuple[Path, str]:
    if not path.is_dir():
        if Path(f"{path}{_HYPER}").is_file():
            return path.parent, path.name
        msg = f"{path}: no folder of a saved LibRecommender model, and no file {path.name}{_HYPER}"
        raise InvalidInputError(msg)
    models = sorted(file.name.removesuffix(_HYPER) for file in path.glob(f"*{_HYPER}"))
    if len(models) != 1:
        what = f"several models ({', '.join(models)}); name one, as in {path / models[0]}" if models else f"no file *{_HYPER}"
        msg = f"{path}: {what}"
        raise InvalidInputError(msg)
    return path, models[0]


def _info_file(folder: Path, model: str) -> Path:
    """Return the file of ids: the model's own, else the only one there is."""
    found = [folder / f"{model}{_DATA_INFO}", *sorted(folder.glob(f"*{_DATA_INFO}"))]
    if found[0].is_file() or len(found) == 2:
        return found[0] if found[0].is_file() else found[1]
    msg = f"{found[0]}: no such file; save the DataInfo of the model beside it: data_info.save(path, model_name={model!r})"
    raise InvalidInputError(msg)


def _no_arrays(folder: Path, model: str) -> InvalidInputError:
    others = [f"{model}_torch.pt", f"{model}_gensim.pkl", f"{model}_tf.index"]
    there = [name for name in others if (folder / name).is_file()]
    how = "save a model of TensorFlow with manual=True, any other that has vectors with inference_only=True"
    return InvalidInputError(
        f"{folder}: neither {model}{_VARIABLES} nor {model}.npz"
        + (f", and {there[0]} is not read: it is a pickle, or TensorFlow's own" if there else "")
        + f"; {how}"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path}: cannot be read: {error}"
        raise InvalidInputError(msg) from error
    if not isinstance(data, dict):
        msg = f"{path}: a {type(data).__name__}; it should be a mapping of names"
        raise InvalidInputError(msg)
    return data


def _name_mapping(path: Path) -> dict[str, Any]:
    """Return the places of the columns, by what they are; of ``multi_sparse`` the column that another one goes with."""
    families = _json(path) if path.is_file() else {}
    for family, columns in families.items():
        kind = str if family == "multi_sparse" else int
        if not isinstance(columns, dict) or not set(map(type, columns.values())) <= {kind}:
            msg = f"{path}: {family}: it should map each column to {'text' if kind is str else 'a place'}"
            raise InvalidInputError(msg)
    return families


def _arrays(path: Path, left_out: dict[str, str]) -> Arrays:
    """Return the arrays of an npz file, and name those that are pickled; nothing where there is no such file."""
    arrays: Arrays = {}
    for name, array in _members(path) if path.is_file() else ():
        if isinstance(array, bytes):
            left_out[f"{path.name}: {name}"] = "pickled"
        else:
            arrays[name] = array
    return arrays


def _info(path: Path, left_out: dict[str, str], *, unpickle: bool) -> Arrays:
    """Return the arrays of ids, categories and features; those of text are pickled, as lists of one dimension."""
    arrays: Arrays = {}
    for name, array in _members(path):
        what = f"{path.name}: {name}"
        if not isinstance(array, bytes):
            arrays[name] = array
        elif not name.startswith(_CATEGORIES) and name not in _NAMES:
            left_out[what] = _PICKLED.get(name, "pickled")
        elif not unpickle:
            msg = f"{what}: {_NEEDS_UNPICKLE}"
            raise InvalidInputError(msg)
        else:
            with tempfile.TemporaryFile() as file:
                file.write(array)
                file.seek(0)
                arrays[name] = _objects(read_plain(file, what=what), what)
    for name in (*_NAMES, *(name for name in arrays if name.startswith(_CATEGORIES))):
        if name not in arrays or arrays[name].ndim != 1:
            msg = f"{path}: no list {name}; it is no DataInfo of LibRecommender, or another version's"
            raise InvalidInputError(msg)
    return arrays


def _objects(values: Any, what: str) -> NDArray[Any]:
    if not isinstance(values, list):
        msg = f"{what}: a {type(values).__name__}; it should be a list"
        raise InvalidInputError(msg)
    out = np.empty(len(values), object)
    out[:] = values
    return out


def _members(path: Path) -> Iterator[tuple[str, NDArray[Any] | bytes]]:
    """Yield name and array of an npz file; of an array of objects the pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    header = _dtype_of(file)
                    pickled = file.read() if header.hasobject else None
                if pickled is None:
                    with archive.open(name) as file:
                        yield name.removesuffix(".npy"), np.lib.format.read_array(file, allow_pickle=False)
                else:
                    yield name.removesuffix(".npy"), pickled
    # A RuntimeError where a file is encrypted, or packed by a method that Python has not.
    except (OSError, EOFError, ValueError, MemoryError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        msg = f"{path}: cannot be read as arrays: {error}"
        raise InvalidInputError(msg) from error


def _dtype_of(file: Any) -> np.dtype[Any]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    dtype: np.dtype[Any] = read(file)[2]
    return dtype


def _consumed(path: Path, left_out: dict[str, str], *, unpickle: bool) -> Consumed | None:
    if not path.is_file():
        return None
    if not unpickle:
        left_out[path.name] = _NEEDS_UNPICKLE
        return None
    with path.open("rb") as file:
        return _flat(read_plain(file, what=path.name), path.name)


def _flat(data: Any, what: str) -> Consumed:
    """Return a mapping of user -> items as pairs."""
    try:
        lists = [_whole_numbers(items) for items in data.values()]
        users = np.repeat(_whole_numbers(list(data)), [len(items) for items in lists])
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        msg = f"{what}: no mapping of users to lists of items, both whole numbers: {error}"
        raise InvalidInputError(msg) from error
    return Consumed(users, np.concatenate([*lists, np.empty(0, np.int64)]))


def _whole_numbers(items: Any) -> NDArray[np.int64]:
    if not isinstance(items, list) or not set(map(type, items)) <= {int}:
        msg = f"there is {items!r:.40}"
        raise TypeError(msg)
    return np.array(items, np.int64)


def _name_others(folder: Path, model: str, left_out: dict[str, str]) -> None:
    """Name the files of the model that nothing is taken from."""
    if (folder / f"{model}{_ITEM_CONSUMED}").is_file():
        left_out[f"{model}{_ITEM_CONSUMED}"] = "the pairs of the users' record again, by item"
    known = {_HYPER, _DATA_INFO, _NAME_MAPPING, _VARIABLES, _DEFAULT_RECS, _USER_CONSUMED, _ITEM_CONSUMED}
    models = {file.name.removesuffix(_HYPER) for file in folder.glob(f"*{_HYPER}")} - {model}
    for file in sorted(folder.glob(f"{model}_*")):
        if file.name.removeprefix(model) not in known and not any(file.name.startswith(f"{other}_") for other in models):
            left_out[file.name] = "a pickle or a file of another kind, which is not read"
