"""Folders as LibRecommender 1.5.2 saves them, written with numpy, json and pickle."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

USERS, ITEMS = [11, 12, 15], [3, 5, 7, 9]
CONSUMED = {0: [1, 2, 1], 1: [0], 2: [3, 0]}
BPR = {
    "task": "ranking", "loss_type": "bpr", "embed_size": 4, "norm_embed": False, "n_epochs": 2, "lr": 0.002, "lr_decay": False,
    "epsilon": 1e-05, "reg": None, "batch_size": 64, "sampler": "random", "num_neg": 1, "use_tf": True, "seed": 42,
    "lower_upper_bound": None, "tf_sess_config": None, "optimizer": "adam", "num_threads": 1,
}  # fmt: skip
FM = {
    "task": "ranking", "loss_type": "cross_entropy", "embed_size": 4, "n_epochs": 2, "lr": 0.001, "lr_decay": False,
    "epsilon": 1e-05, "reg": None, "batch_size": 64, "sampler": "random", "num_neg": 1, "use_bn": False, "dropout_rate": None,
    "multi_sparse_combiner": "sqrtn", "seed": 42, "lower_upper_bound": None, "tf_sess_config": None,
}  # fmt: skip
COLUMNS = {
    "sparse_col": {"sex": 0, "job": 1, "year": 2, "genre1": 3, "genre2": 4},
    "dense_col": {"age": 0},
    "user_sparse_col": {"sex": 0, "job": 1},
    "user_dense_col": {"age": 0},
    "item_sparse_col": {"year": 2, "genre1": 3, "genre2": 4},
    "multi_sparse": {"genre2": "genre1"},
}


def vectors(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return some numbers."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def trained(variables: Mapping[str, NDArray[Any]], *, steps: int = 15, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return the variables of a network and of Adam after some steps, by the names that TensorFlow gives them."""
    out = {f"{name}:0": array for name, array in variables.items()}
    for name, beta in {"beta1_power": 0.9, "beta2_power": 0.999}.items():
        out[f"{name}:0"] = np.multiply.accumulate(np.full(steps + 1, beta, np.float32))[-1]
    for n, (name, array) in enumerate(variables.items()):
        out[f"{name}/Adam:0"] = vectors(*array.shape, seed=seed + n + 50)
        out[f"{name}/Adam_1:0"] = vectors(*array.shape, seed=seed + n + 90) ** 2
    return out


def bpr_variables(n_users: int = 3, n_items: int = 4, *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Return the variables of BPR, which have no row for unknown ids."""
    return {
        "embedding/user_embeds_var": vectors(n_users, 4, seed=seed),
        "embedding/item_embeds_var": vectors(n_items, 4, seed=seed),
        "embedding/item_bias_var": vectors(n_items, seed=seed),
    }


def fm_variables(n_users: int = 3, n_items: int = 4, n_sparse: int = 14) -> dict[str, NDArray[Any]]:
    """Return the variables of FM: a row more than users and items, all columns of categories in one variable."""
    return {
        "embedding/user_linear_var": vectors(n_users + 1, 1),
        "embedding/item_linear_var": vectors(n_items + 1, 1),
        "embedding/user_embeds_var": vectors(n_users + 1, 4),
        "embedding/item_embeds_var": vectors(n_items + 1, 4),
        "embedding/sparse_linear_var": vectors(n_sparse),
        "embedding/sparse_embeds_var": vectors(n_sparse, 4),
        "embedding/dense_linear_var": vectors(1),
        "embedding/dense_embeds_var": vectors(1, 4),
        "dense/kernel": vectors(8, 1),
        "dense/bias": vectors(1),
    }


def fm_info(*, text: bool = False) -> dict[str, Any]:
    """Return the arrays of ids and features: rows 0-2 are of sex, 3-5 of job, 6-9 of year and 10-13 of genre1 and genre2.

    ``text``: values of sex are text, which LibRecommender has as objects.
    """
    return {
        "interaction_data": np.array([[11, 5, 1], [15, 9, 1]]),
        "user_sparse_unique": np.array([[0, 4], [1, 3], [2, 5]]),
        "user_dense_unique": np.array([[20.5], [30.0], [0.0]], np.float32),
        "item_sparse_unique": np.array([[6, 10, 12], [8, 13, 11], [9, 13, 13], [7, 12, 13]]),
        "user_unique_vals": np.array(USERS),
        "item_unique_vals": np.array(ITEMS),
        "unique_sex": objects("F", "M") if text else np.array([0, 1]),
        "unique_job": np.array([100, 200]),
        "unique_year": np.array([1990.0, 1991.0, 1999.0]),
        "sparse_offset": np.array([0, 3, 6, 10, 10]),
        "sparse_oov": np.array([2, 5, 9, 13, 13]),
        "munique_genre1": np.array(["drama", "sf", "war"]),
        "multi_sparse_combine_info": np.array("in truth a MultiSparseInfo", object),
        "seed": np.array(42),
    }


def objects(*values: object) -> NDArray[Any]:
    """Return an array of objects, as pandas has text."""
    out = np.empty(len(values), object)
    out[:] = values
    return out


def write(
    folder: Path,
    variables: Mapping[str, NDArray[Any]],
    *,
    settings: Mapping[str, Any] = BPR,
    info: Mapping[str, Any] | None = None,
    columns: Mapping[str, Any] | None = None,
    consumed: object = CONSUMED,
    ending: str = "_tf_variables.npz",
    model: str = "m",
) -> Path:
    """Write all files of a model and its DataInfo into a folder."""
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / f"{model}{ending}", **variables)  # type: ignore[arg-type]
    np.savez_compressed(folder / f"{model}_default_recs.npz", default_recs=np.array([2, 0, 3, 1]))
    (folder / f"{model}_hyper_parameters.json").write_text(json.dumps(settings, indent=4, separators=(",", ":")))
    if columns is not None:
        (folder / f"{model}_data_info_name_mapping.json").write_text(json.dumps(columns, indent=4, separators=(",", ":")))
    ids = {"user_unique_vals": np.array(USERS), "item_unique_vals": np.array(ITEMS), "seed": np.array(42)}
    _savez(folder / f"{model}_data_info.npz", ids if info is None else info)
    (folder / f"{model}_user_consumed.pkl").write_bytes(pickle.dumps(consumed, protocol=5))
    (folder / f"{model}_item_consumed.pkl").write_bytes(pickle.dumps({}, protocol=5))
    return folder


def _savez(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an npz file whose arrays of objects are pickled as numpy 1.26 pickles them, which LibRecommender needs."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                if array.dtype == object:
                    header = {"descr": "|O", "fortran_order": False, "shape": array.shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    file.write(pickle.dumps(array, protocol=3).replace(b"numpy._core.", b"numpy.core."))
                else:
                    np.lib.format.write_array(file, array, allow_pickle=False)
