"""Files of LibRecommender that cannot be used, and some that should not be trusted."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import IdTypeError, InvalidInputError, NonFiniteError, SchemaMismatchError, Store
from embstore.formats.librecommender import import_librecommender
from tests.cli_running import error_of
from tests.librecommender_saved import COLUMNS, FM, ITEMS, bpr_variables, fm_info, fm_variables, objects, trained, vectors, write

_names = itertools.count()


def new_store() -> Store:
    """Return an empty store in memory."""
    return embstore.create(f"memory://librecommender-wrong-{next(_names)}")


def refused(folder: Path) -> None:
    """Import with everything that is pickled, which is expected to fail."""
    import_librecommender(new_store(), folder, message="wrong", unpickle=True)


class Attack:
    """Makes a pickle that calls something when it is read."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("wrap", [lambda attack: attack, lambda attack: {0: [attack]}, lambda attack: {0: [1], 1: attack}])
def test_a_pickle_runs_nothing(tmp_path: Path, wrap: Any) -> None:
    """What a pickle would have called is not called, in whichever file it is, and the store stays as it was."""
    mark = tmp_path / "was-here"
    for attack in (Attack(os.mkdir, str(mark)), Attack(eval, f"__import__('os').mkdir({str(mark)!r})")):
        store = embstore.create(tmp_path / f"store-{next(_names)}")
        consumed = write(tmp_path / "consumed", trained(bpr_variables()), consumed=wrap(attack))
        info = {"user_unique_vals": objects(1, 2, wrap(attack)), "item_unique_vals": np.array(ITEMS)}
        ids = write(tmp_path / "ids", trained(bpr_variables()), info=info)
        for folder in (consumed, ids):
            code, error = error_of("import", store.url, "librecommender", folder, "-m", "x", "--unpickle-consumed")
            assert (code, "nothing of it is run" in error) == (2, True)
        assert len(list(store.log())) == 1
    assert not mark.exists()


# Where the directory of a zip says of its first file: that it is encrypted, and by which method it is packed.
_FLAGS, _METHOD = 8, 10


def mark(path: Path, place: int, value: int) -> None:
    """Set a byte of the first entry of a zip's directory."""
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + place] = value
    path.write_bytes(data)


def spoil(folder: Path, how: str) -> Path:
    """Damage a saved model in one way; return the path to import."""
    if how == "encrypted":
        mark(folder / "m_tf_variables.npz", _FLAGS, 1)
    elif how == "packed otherwise":
        mark(folder / "m_data_info.npz", _METHOD, 99)
    elif how.endswith((".npz", ".json", ".pkl")):
        (folder / how).write_bytes((folder / how).read_bytes()[:40])
    elif how == "several":
        write(folder, {}, model="other")
    elif how == "torch":
        (folder / "m_tf_variables.npz").rename(folder / "m_torch.pt")
    elif how == "no places":
        (folder / "m_data_info_name_mapping.json").write_text('{"sparse_col": ["sex"]}')
    elif how == "no ids":
        (folder / "m_data_info.npz").unlink()
    return folder / "nobody" if how == "no model" else folder


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("m_tf_variables.npz", "cannot be read as arrays"),
        ("m_data_info.npz", "cannot be read as arrays"),
        ("encrypted", "m_tf_variables.npz: cannot be read as arrays: .*encrypted"),
        ("packed otherwise", "m_data_info.npz: cannot be read as arrays: .*compression"),
        ("m_hyper_parameters.json", "cannot be read"),
        ("m_user_consumed.pkl", "no pickle of plain data"),
        ("several", "several models \\(m, other\\); name one"),
        ("torch", "m_torch.pt is not read"),
        ("no ids", "save the DataInfo"),
        ("no places", "m_data_info_name_mapping.json: sparse_col: it should map each column to a place"),
        ("no model", "no folder of a saved LibRecommender model"),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path: Path, how: str, reason: str) -> None:
    """Files that cannot be used are refused, and the message says which."""
    path = spoil(write(tmp_path / "saved", trained(bpr_variables())), how)
    with pytest.raises(InvalidInputError, match=reason):
        refused(path)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"unique_job": np.array([100])}, "column 'job': 1 categories for 2 rows"),
        ({"sparse_oov": np.array([2, 5, 9, 12, 12])}, "columns of categories have 13"),
        ({"sparse_offset": np.array([0, 3])}, "column 'year': the name mapping does not fit"),
        ({"user_sparse_unique": np.array([[0, 3], [1, 9], [2, 4]])}, "points outside of its categories"),
        ({"item_sparse_unique": np.zeros((2, 3), int)}, "item_sparse_unique"),
        ({"user_unique_vals": np.array([1, 1, 2])}, "3 ids, of which 2 differ"),
        ({"user_unique_vals": np.array([[1], [2], [3]])}, "no list user_unique_vals"),
    ],
)
def test_arrays_that_contradict_each_other_are_refused(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    """Files of two models, mixed up, are no version."""
    info = fm_info() | changed
    folder = write(tmp_path / "saved", trained(fm_variables()), settings=FM, info=info, columns=COLUMNS)
    with pytest.raises(InvalidInputError, match=reason):
        refused(folder)


@pytest.mark.parametrize(
    "consumed", [[1, 2], {0: 1}, {0: [4]}, {3: [0]}, {-1: [0]}, {0: ["1"]}, {0: [1.5]}, {"0": [1]}, {0: [2**70]}]
)
def test_a_record_of_other_things_is_refused(tmp_path: Path, consumed: object) -> None:
    """Consumed items are lists of inner ids, by inner id."""
    with pytest.raises(InvalidInputError, match=r"user_consumed"):
        refused(write(tmp_path / "saved", trained(bpr_variables()), consumed=consumed))


def test_another_model_does_not_overwrite(tmp_path: Path) -> None:
    """Vectors of another length, ids of another type and NaN are refused, and the branch stays where it was."""
    store = new_store()
    import_librecommender(store, write(tmp_path / "1", trained(bpr_variables())), message="first")
    wide = {name: array if array.ndim == 1 else vectors(len(array), 6) for name, array in bpr_variables().items()}
    text = {"user_unique_vals": objects("a", "b", "c"), "item_unique_vals": np.array(ITEMS)}
    nan = {name: np.full_like(array, np.nan) for name, array in bpr_variables().items()}
    for error, variables, info in (
        (SchemaMismatchError, wide, None),
        (IdTypeError, bpr_variables(), text),
        (NonFiniteError, nan, None),
    ):
        folder = write(tmp_path / "2", trained(variables), info=info)
        with pytest.raises(error):
            import_librecommender(store, folder, message="second", unpickle=True)
    assert [version.message for version in store.log()][0] == "first"
