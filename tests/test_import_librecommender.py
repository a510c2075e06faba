"""Models that LibRecommender has saved, as versions."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.testing import assert_array_equal

import embstore
from embstore import Interactions, InvalidInputError, Store, Version
from embstore.formats.librecommender import import_librecommender
from embstore.formats.librecommender_tables import adam_steps
from tests.cli_running import json_of, text_of
from tests.librecommender_saved import (
    BPR,
    COLUMNS,
    CONSUMED,
    FM,
    ITEMS,
    USERS,
    bpr_variables,
    fm_info,
    fm_variables,
    objects,
    trained,
    vectors,
    write,
)

_names = itertools.count()


def new_store() -> Store:
    """Return an empty store in memory."""
    return embstore.create(f"memory://librecommender-{next(_names)}")


def imported(folder: Path, *, unpickle: bool = True) -> Version:
    """Return a saved model as the first version of a new store."""
    return import_librecommender(new_store(), folder, message="from LibRecommender", unpickle=unpickle)


def test_bpr_becomes_tables_with_their_optimizer(tmp_path: Path) -> None:
    """Ids, vectors, moments and steps are those that were saved, row by row."""
    variables = trained(bpr_variables(), steps=15)
    version = imported(write(tmp_path / "saved", variables))
    assert (version.ids("user").ids().tolist(), version.ids("item").ids().tolist()) == (USERS, ITEMS)
    names = {"user": "user_embeds_var", "item": "item_embeds_var", "item_bias": "item_bias_var"}
    for table, name in names.items():
        assert_array_equal(version.table(table).values(), variables[f"embedding/{name}:0"])
        assert_array_equal(version.table(table).slot("exp_avg").values(), variables[f"embedding/{name}/Adam:0"])
        assert_array_equal(version.table(table).slot("exp_avg_sq").values(), variables[f"embedding/{name}/Adam_1:0"])
        assert set(version.table(table).slot("step").values().tolist()) == {15}
    assert version.metadata["librecommender"]["hyper_parameters"] == BPR
    assert version.dense["librecommender/default_recs"].tolist() == [2, 0, 3, 1]


def test_bpr_recommends_at_once(tmp_path: Path) -> None:
    """The lineage names a trainer whose scores are the model's, without what users have had."""
    variables = bpr_variables()
    version = imported(write(tmp_path / "saved", trained(variables)))
    users, items, bias = variables.values()
    scores = users @ items.T + bias
    for row, had in CONSUMED.items():
        frame = embstore.recommend(version, [USERS[row]], k=4)
        best = [item for item in np.argsort(-scores[row]).tolist() if item not in had]
        assert frame["item"].tolist() == [ITEMS[item] for item in best]
        assert frame["score"].tolist() == pytest.approx(scores[row, best].tolist(), abs=1e-6)
    assert (version.lineage["trainer"], version.lineage["settings"]) == (
        "bpr",
        {"dim": 4, "epochs": 2, "negatives": 1, "batch_size": 64, "lr": 0.002, "l2": 0.0, "seed": 42},
    )


@pytest.mark.parametrize("seed", [2**70, -(2**63) - 1])
def test_a_seed_that_no_table_can_have_is_left_out(tmp_path: Path, seed: int) -> None:
    """A model whose seed is beyond 64 bits makes a version that recommends all the same."""
    version = imported(write(tmp_path / "saved", trained(bpr_variables()), settings={**BPR, "seed": seed}))
    assert 2 == len(embstore.recommend(version, USERS[:1], k=2))


def test_training_goes_on(tmp_path: Path) -> None:
    """A fit takes up the optimizer where LibRecommender left it; new ids begin at their first step."""
    store = new_store()
    before = import_librecommender(store, write(tmp_path / "saved", trained(bpr_variables())), message="import")
    pairs = Interactions([11, 99, 99], [3, 5, 8])
    after = embstore.fit(store, embstore.find_trainer("bpr")(dim=4, epochs=3, negatives=1), pairs, message="next day")
    steps = after.table("user").slot("step")
    assert (steps.get([11, 99]).tolist(), steps.get([12, 15]).tolist()) == ([18, 3], [15, 15])
    assert_array_equal(after.table("user").get([12, 15]), before.table("user").get([12, 15]))


def test_consumed_is_read_only_when_asked_for(tmp_path: Path) -> None:
    """The record keeps order and repeats; without the flag it is empty, and the lineage says why."""
    folder = write(tmp_path / "saved", trained(bpr_variables()))
    read = imported(folder)
    assert [items.tolist() for items in read.consumed.of("user", USERS)] == [[5, 7, 5], [3], [9, 3]]
    assert read.lineage["consumed"] == {"pairs": 6}
    plain = imported(folder, unpickle=False)
    assert len(plain.consumed) == 0
    assert plain.lineage["consumed"]["pairs"] == 0
    assert "unpickle" in plain.lineage["left_out"]["m_user_consumed.pkl"]


def test_columns_become_entities(tmp_path: Path) -> None:
    """A column of categories has its ids, vectors and owners' values; what was unknown is -1, and behind others."""
    version = imported(write(tmp_path / "saved", trained(fm_variables()), settings=FM, info=fm_info(text=True), columns=COLUMNS))
    assert version.ids("sex").ids().tolist() == ["F", "M"]
    assert version.ids("year").ids().tolist() == [1990, 1991, 1999]
    assert version.ids("genre1").ids().tolist() == ["drama", "sf", "war"]
    assert version.tables["user.sex"].rows_of == "sex"
    assert version.table("user.sex").values().tolist() == [0, 1, -1]
    assert version.table("user.job").values().tolist() == [1, 0, -1]
    assert version.table("item.year").values().tolist() == [0, 2, -1, 1]
    assert version.table("item.genre1").values().tolist() == [[0, 2], [1, -1], [-1, -1], [2, -1]]
    assert version.table("user.age").values().tolist() == [20.5, 30.0, 0.0]
    assert "no_trainer" in version.lineage
    assert version.metadata["librecommender"]["name_mapping"] == COLUMNS


def test_nothing_of_a_network_is_lost(tmp_path: Path) -> None:
    """From tables and dense arrays every saved array of numbers can be put together again, to the bit."""
    saved = trained(fm_variables())
    version = imported(write(tmp_path / "saved", saved, settings=FM, info=fm_info(), columns=COLUMNS))
    rebuilt = {
        f"{name}:0": version.dense[f"librecommender/{name}"]
        for name in (name.removesuffix(":0") for name in saved)
        if f"librecommender/{name}" in version.dense
    }
    for ending, slot in {"": "", "/Adam": "exp_avg", "/Adam_1": "exp_avg_sq"}.items():
        for table in ("user", "item", "user_linear", "item_linear"):
            name = f"embedding/{table}_var" if "linear" in table else f"embedding/{table}_embeds_var"
            rebuilt[f"{name}{ending}:0"] = _with_unknown(version, table, slot).reshape(saved[f"{name}:0"].shape)
        for kind, suffix in {"embeds": "", "linear": "_linear"}.items():
            columns = [_with_unknown(version, column + suffix, slot) for column in ("sex", "job", "year", "genre1")]
            rebuilt[f"embedding/sparse_{kind}_var{ending}:0"] = np.concatenate(columns)
    assert rebuilt.keys() == saved.keys()
    for name, array in saved.items():
        assert_array_equal(rebuilt[name], array, strict=True)
    assert version.dense["librecommender/data_info/interaction_data"].tolist() == [[11, 5, 1], [15, 9, 1]]
    assert set(version.lineage["left_out"]) == {"m_data_info.npz: multi_sparse_combine_info", "m_item_consumed.pkl"}


def _with_unknown(version: Version, table: str, slot: str) -> Any:
    """Return a table's rows, or a slot's, and behind them the one for unknown ids."""
    rows = version.table(table).slot(slot) if slot else version.table(table)
    default = version.dense[f"default.{table}.{slot}" if slot else f"default.{table}"]
    return np.concatenate([rows.values(), default[None]])


def test_generations_become_versions(tmp_path: Path) -> None:
    """A retrained model lands on the rows of its ids, although LibRecommender's own rows have moved."""
    store = new_store()
    info = fm_info()
    first = write(tmp_path / "1", trained(fm_variables()), settings=FM, info=info, columns=COLUMNS)
    import_librecommender(store, first, message="first", unpickle=True)
    info["user_unique_vals"], info["unique_sex"] = np.array([*USERS, 2]), np.array([0, 1, 7])
    info["user_sparse_unique"] = np.array([[0, 5], [1, 4], [3, 6], [2, 4]])
    info["user_dense_unique"] = np.array([[20.5], [30.0], [0.0], [41.0]], np.float32)
    info["item_sparse_unique"] = info["item_sparse_unique"] + 1
    info["sparse_offset"], info["sparse_oov"] = np.array([0, 4, 7, 11, 11]), np.array([3, 6, 10, 14, 14])
    variables = fm_variables(n_users=4, n_sparse=15)
    second = write(tmp_path / "2", trained(variables), settings=FM, info=info, columns=COLUMNS, consumed={**CONSUMED, 3: [2]})
    import_librecommender(store, second, message="second", unpickle=True)
    version = store.at()
    assert version.ids("user").ids().tolist() == [*USERS, 2]
    assert store.diff("main~1").ids["sex"].appended.tolist() == [7]
    assert_array_equal(version.table("sex").get([0, 1, 7]), variables["embedding/sparse_embeds_var"][:3])
    assert_array_equal(version.table("job").get([100, 200]), variables["embedding/sparse_embeds_var"][4:6])
    assert version.table("item.year").get([3]).tolist() == [0]
    assert [items.tolist() for items in version.consumed.of("user", [11, 2])] == [[5, 7, 5], [7]]


@given(st.one_of(st.integers(0, 2_000), st.integers(0, 80_000)))
def test_steps_are_counted_exactly(steps: int) -> None:
    """Adam's powers of beta say how many steps it has taken, long after one of them has become nothing."""
    powers = {}
    for name, beta in {"beta1_power": np.float32(0.9), "beta2_power": np.float32(0.999)}.items():
        powers[name] = np.multiply.accumulate(np.full(steps + 1, beta))[-1]
    assert adam_steps(powers) == steps
    assert adam_steps({}) is None


def test_final_vectors_are_enough(tmp_path: Path) -> None:
    """Models that are saved without their network have vectors and a bias, and the mean rows for unknown ids."""
    users = np.hstack([vectors(4, 3), np.ones((4, 1), np.float32)])
    items = vectors(5, 4)
    als = {"task": "ranking", "embed_size": 3, "n_epochs": 10, "reg": 5.0, "alpha": 10, "seed": 7}
    version = imported(write(tmp_path / "saved", {"user_embed": users, "item_embed": items}, settings=als, ending=".npz"))
    assert (version.lineage["trainer"], version.lineage["settings"]) == ("bpr", {"dim": 3, "seed": 7})
    assert_array_equal(version.table("item_bias").values(), items[:4, 3])
    assert_array_equal(version.dense["default.user"], users[3, :3])
    frame = embstore.recommend(version, USERS, k=4, exclude_consumed=False)
    expected = np.sort(users[:3] @ items[:4].T, axis=1)[:, ::-1].ravel()
    assert frame["score"].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_other_networks_keep_their_tables(tmp_path: Path) -> None:
    """Ftrl's state becomes slots too, item sequences have a table, and vectors of length 1 have no trainer."""
    variables = {"embedding/item_wide_var": vectors(5, 1), "embedding/seq_embeds_var": vectors(5, 6)}
    states = {"embedding/item_wide_var/Ftrl:0": vectors(5, 1) ** 2, "embedding/item_wide_var/Ftrl_1:0": vectors(5, 1)}
    plain = {f"{name}:0": array for name, array in variables.items()}
    version = imported(write(tmp_path / "wide", {**plain, **states}, settings={"task": "ranking"}))
    assert_array_equal(version.table("item_wide").slot("accum").values(), states["embedding/item_wide_var/Ftrl:0"][:4, 0])
    assert version.tables["item_sequence"].dim == 6
    normed = imported(write(tmp_path / "normed", trained(bpr_variables()), settings={**BPR, "norm_embed": True}))
    assert "norm_embed" in normed.lineage["no_trainer"]


def test_ids_that_are_text_are_pickled(tmp_path: Path) -> None:
    """Ids that LibRecommender has pickled are refused, or read as plain data."""
    info = {"user_unique_vals": objects("ann", "ben", "ümit"), "item_unique_vals": np.array(ITEMS)}
    folder = write(tmp_path / "saved", trained(bpr_variables()), info=info)
    with pytest.raises(InvalidInputError, match="user_unique_vals: it is pickled; pass unpickle=True"):
        imported(folder, unpickle=False)
    assert imported(folder).ids("user").ids().tolist() == ["ann", "ben", "ümit"]


def test_the_verb_says_what_it_has_not_read(tmp_path: Path) -> None:
    """The document of the version has the counts and the reason; with the flag there is nothing to explain."""
    folder, store = write(tmp_path / "saved", trained(bpr_variables())), tmp_path / "store"
    text_of("init", store)
    plain = json_of("import", store, "librecommender", folder / "m", "-m", "as it is")
    assert plain["message"] == "as it is"
    assert plain["lineage"]["consumed"] == {"pairs": 0, "not_read": "it is pickled; unpickle=True (--unpickle-consumed) reads it"}
    assert "consumed" in text_of("show", store)
    whole = json_of("import", store, "librecommender", folder, "-m", "all of it", "--unpickle-consumed")
    assert whole["lineage"]["consumed"] == {"pairs": 6}
    assert json_of("recommend", store, 11, "-k", 4)[0]["item"] in {3, 9}
