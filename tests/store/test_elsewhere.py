"""Versions outside their store: exported, and in another process."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

import embstore
from embstore import Interactions, Schema, Store, Version
from embstore.errors import InvalidInputError, StoreExistsError
from tests.store.agreement import as_read
from trainers.popularity import Popularity


def test_export(filled: Store, tmp_path: Path) -> None:
    """One version alone, with its rows, names and records, that goes on by itself; without slots it is smaller."""
    work = filled.checkout()
    work.remove("user", [2])
    work.table("user").slot("m").scatter([0], np.ones((1, 4)))
    version = work.commit("removed", metadata={"k": [1]})
    exported = filled.export(tmp_path / "whole", ref=version.id[:10])
    bare = filled.export(tmp_path / "bare", slots=False)
    for store in (exported, bare, embstore.open(tmp_path / "whole")):
        one = store.at()
        assert (one.message, one.metadata, one.parents, [v.message for v in store.log()][0]) == (
            "removed",
            {"k": [1]},
            (),
            "removed",
        )
        assert as_read(one.table("user").values()) == as_read(version.table("user").values())
        assert (one.ids("user").ids().tolist(), one.ids("user").rows([3]).tolist()) == ([1, 3], [2])
        assert [ids.tolist() for ids in one.consumed.of("item", ["a", "b"])] == [[1], [1, 3, 3]]
        assert one.dense["w"].tolist() == [[1.5, 2.5]]
        assert store.verify().problems == []
    assert as_read(exported.at().table("user").slot("m").values()) == as_read(version.table("user").slot("m").values())
    assert bare.at().table("user").slots == {}
    for place in (tmp_path / "whole", filled.url):
        with pytest.raises(StoreExistsError):
            filled.export(place)


def _read_elsewhere(version: Version) -> tuple[str, str, list[int], bytes]:
    return version.id, version.message, version.ids("user").ids().tolist(), version.table("user").values().tobytes()


def test_a_version_travels_to_another_process(tmp_path: Path, schema: Schema) -> None:
    """A version unpickles in a spawned process, one that no branch holds any more too."""
    store = embstore.create(tmp_path / "s", schema=schema, durability="none")
    work = store.checkout()
    work.append("user", [1, 2])
    versions = [work.commit("one")]
    work.append("user", [3])
    versions.append(work.commit("two"))
    store.branch("main", at=versions[0].id, move=True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_read_elsewhere, versions) == [_read_elsewhere(version) for version in versions]
    assert pickle.loads(pickle.dumps(versions[1])) == versions[1]


def test_versions_compare_by_id(filled: Store, tmp_path: Path) -> None:
    """Two handles of one version are equal; versions of two stores are not."""
    again = embstore.open(filled.url).at()
    assert (again, hash(again)) == (filled.at(), hash(filled.at()))
    assert again != filled.at("main~1")
    assert len({again, filled.at(), filled.at("main~1")}) == 2
    assert again != filled.export(tmp_path / "e").at()


@pytest.mark.parametrize("slots", [True, False], ids=["whole", "for serving"])
def test_an_export_knows_its_trainer(url: str, tmp_path: Path, slots: bool) -> None:
    """Who trained a version, and with which settings, goes along, though versions that were not trained came after."""
    store = embstore.create(url)
    first = embstore.fit(store, Popularity(decay=0.5), Interactions([1, 2], ["a", "b"]), message="first")
    embstore.fit(store, Popularity(decay=0.25), Interactions([1, 3], ["b", "b"]), message="second")
    work = store.checkout()
    work.remove("user", [2])
    work.commit("removed")
    exported = store.export(tmp_path / "removed", slots=slots)
    assert exported.at().lineage["settings"] == {"decay": 0.25}
    assert exported.at().lineage["exported_from"] == store.at().id
    shown = embstore.recommend(exported.at(), [1, 3], k=3, exclude_consumed=False)
    assert shown.equals(embstore.recommend(store.at(), [1, 3], k=3, exclude_consumed=False))
    made = embstore.fit(exported, Popularity(decay=0.125), Interactions([1], ["c"]), message="goes on")
    assert made.table("popularity").get(["a", "b", "c"]).tolist() == [0.25 * 0.125, 2.25 * 0.125, 1]
    store.revert(first.id)
    reverted = store.export(tmp_path / "reverted", slots=slots).at()
    assert (reverted.lineage["settings"], "reverted_to" in reverted.lineage) == ({"decay": 0.5}, False)
    assert embstore.recommend(reverted, [2], k=1, exclude_consumed=False)["item"].tolist() == ["a"]


def test_an_export_of_what_nobody_trained(filled: Store, tmp_path: Path) -> None:
    """Without a trainer there is none in the export either, also where the version was reverted to an older one."""
    filled.revert("main~1")
    with pytest.raises(InvalidInputError, match="no version up to here records a trainer"):
        embstore.recommend(filled.export(tmp_path / "e").at(), [], k=1)


def test_an_export_for_serving_has_no_optimizer_state(url: str, tmp_path: Path) -> None:
    """Neither in slots nor in the arrays that bind keeps of parameters without rows."""
    store = embstore.create(url)
    with store.checkout() as work:
        for name in ("optim", "optim.net.weight.exp_avg", "rows.optim.emb.weight.step", "model.net.weight", "optimum"):
            work.dense[name] = [1.0]
        work.commit("trained")
    assert sorted(store.export(tmp_path / "serving", slots=False).at().dense) == ["model.net.weight", "optimum"]
    assert sorted(store.export(tmp_path / "whole").at().dense) == sorted(store.at().dense)
