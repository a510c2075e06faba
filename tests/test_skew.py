"""Skew: what is measured, on which ids, and that nothing is changed by it; the verb says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Interactions, InvalidInputError, Store
from embstore.testing import example_interactions
from tests.cli_running import error_of, files_of, json_of, text_of
from tests.examples import DAY_1, Scripted, new_store, state_of
from trainers.bpr import BPR
from trainers.factors import Biases, MatrixFactorization
from trainers.popularity import Popularity
from trainers.retrained import Retrained

PAIRS = example_interactions()
RATED = Interactions(PAIRS.user_ids, PAIRS.item_ids, np.random.default_rng(5).integers(1, 6, len(PAIRS)), PAIRS.times)
N_USERS = len(set(PAIRS.user_ids.tolist()))
SMALL = MatrixFactorization(dim=6, epochs=5)
SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "softmax": (MatrixFactorization, {"dim": 6, "epochs": 5}),
    "squared": (MatrixFactorization, {"dim": 6, "epochs": 5, "loss": "squared"}),
    "biases": (Biases, {"epochs": 5}),
    "bpr": (BPR, {"dim": 6, "epochs": 5}),
}


def make(store: Store, base: str = "softmax") -> Retrained:
    """Train a base in a store, then its users again; return the trainer of the latter."""
    kind, settings = SETTINGS[base]
    embstore.fit(store, kind(**settings), RATED, message="base")
    trainer = Retrained(kind.name, json.dumps(settings), evaluations=3, max_epochs=20)
    embstore.fit(store, trainer, RATED, message="again", consumed="replace")
    return trainer


@pytest.mark.parametrize("base", SETTINGS)
def test_retrained_users_have_none(base: str) -> None:
    """For every factor model: of one user, half and all, with the pairs given in any order or taken from the record."""
    store = new_store()
    trainer = make(store, base)
    version = store.at()
    given = [RATED, RATED.take(np.random.default_rng(1).permutation(len(RATED)))]
    pairs = given if trainer.model.__class__ is not BPR and trainer.model.learns_ratings else [None, *given]
    for interactions in pairs:
        for sample in (1, N_USERS // 2, None):
            found = embstore.skew(version, interactions=interactions, sample=sample)
            assert (found.n_ids, found.farthest) == (sample or N_USERS, [])
            assert max(found.largest, found.mean, found.relative, *found.tables.values()) <= 1e-6
    before = embstore.skew(store.at("main~1"), interactions=RATED)
    assert before.largest > 0.01


def test_figures_of_what_differs() -> None:
    """A user moved by known amounts is named first, with the largest and the relative difference; others follow."""
    store = new_store()
    make(store, "softmax")
    vectors = store.at().table("user").get([3, 9])
    with store.checkout() as work:
        rows = work.ids("user").rows([3, 9])
        moved = vectors + np.array([[0.5, 0, 0, 0, 0, -0.25], [0, 0.125, 0, 0, 0, 0]], np.float32)
        work.table("user").scatter(rows, moved)
        version = work.commit("tamper")
    found = embstore.skew(version)
    assert (found.version, found.trainer, found.entity, found.n_ids) == (version.id, "retrained", "user", N_USERS)
    assert [each.id for each in found.farthest] == [3, 9]
    assert [each.largest for each in found.farthest] == pytest.approx([0.5, 0.125], abs=1e-6)
    assert found.farthest[0].relative == pytest.approx(np.hypot(0.5, 0.25) / np.linalg.norm(moved[0]), rel=1e-5)
    assert found.largest == pytest.approx(0.5, abs=1e-6)
    assert found.mean == pytest.approx(0.875 / (N_USERS * 6), rel=1e-5)
    assert found.relative == pytest.approx(sum(each.relative for each in found.farthest) / N_USERS)
    assert found.tables == {"user": found.largest}
    assert str(found).splitlines()[0].startswith(f"skew of {N_USERS} ids of 'user', trainer 'retrained': at most 0.5 (mean 0.00")
    assert str(found).splitlines()[1].startswith("  3: 0.5, relative ")
    document = json.loads(json.dumps(found.to_dict()))
    assert document["farthest"][1]["id"] == 9
    assert document["largest"] == found.largest


def test_nothing_is_changed() -> None:
    """The store has the same versions, with the same content, and the version has the same vectors."""
    store = new_store()
    embstore.fit(store, SMALL, PAIRS, message="base")
    before = store.at()
    state = state_of(before)
    assert embstore.skew(before).largest > 0
    assert store.at() == before
    assert state_of(store.at()) == state


def test_which_ids_are_looked_at() -> None:
    """Those with pairs, spread over the rows; removed ids and pairs of unknown ids are left out, and nobody is no error."""
    store = new_store()
    embstore.fit(store, SMALL, PAIRS, message="base")
    with store.checkout() as work:
        work.remove("user", [3])
        work.remove("item", ["item 01"])
        work.append("user", [500])
        version = work.commit("forget, and append without pairs")
    assert embstore.skew(version).n_ids == N_USERS - 1
    some = Interactions([3, 4, 5, 777, 6], ["item 02", "item 02", "item 03", "item 02", "unknown"])
    assert embstore.skew(version, interactions=some).n_ids == 2
    nobody = embstore.skew(version, interactions=Interactions([], []))
    assert (nobody.n_ids, nobody.largest, nobody.mean, nobody.farthest) == (0, 0.0, 0.0, [])
    assert embstore.skew(version, sample=2).n_ids == 2


def test_checkout_and_items() -> None:
    """A clean checkout is as good as its version; items are compared where the trainer folds them in."""
    store = new_store()
    settings = {"epochs": 5}
    embstore.fit(store, Biases(**settings), RATED, message="base")
    trainer = Retrained("biases", json.dumps(settings), entity="item", evaluations=2)
    version = embstore.fit(store, trainer, RATED, message="again", consumed="replace")
    found = embstore.skew(version, interactions=RATED, entity="item")
    assert (found.n_ids, found.largest, list(found.tables)) == (19, 0.0, ["item_bias"])
    with store.checkout() as work:
        assert embstore.skew(work, interactions=RATED).to_dict() == embstore.skew(version, interactions=RATED).to_dict()
        work.append("user", [99])
        with pytest.raises(InvalidInputError, match="skew of a checkout that has staged changes"):
            embstore.skew(work)
        work.discard()


def test_what_cannot_be_is_refused() -> None:
    """Trainers that cannot fold in or need ratings, entities and samples that there are not."""
    store = new_store()
    version = embstore.fit(store, Scripted(), DAY_1, message="base")
    with pytest.raises(InvalidInputError, match="trainer 'scripted' cannot fold in"):
        embstore.skew(version, Scripted())
    with pytest.raises(InvalidInputError, match="entity 'genre'"):
        embstore.skew(version, SMALL, entity="genre")  # type: ignore[arg-type]
    for sample in (0, 1.5, True):
        with pytest.raises(InvalidInputError, match=f"sample {sample!r}: give a number of ids from 1, or None for all"):
            embstore.skew(version, SMALL, sample=sample)  # type: ignore[arg-type]
    rated = new_store()
    version = embstore.fit(rated, Biases(), RATED, message="base")
    with pytest.raises(InvalidInputError, match="pairs without ratings: loss 'squared' of trainer 'biases' learns from them"):
        embstore.skew(version)
    with pytest.raises(InvalidInputError, match="trainer 'popularity' folds in users only"):
        embstore.skew(embstore.fit(new_store(), Popularity(), PAIRS, message="base"), entity="item")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a store is whose tip has retrained users, and the version before not."""
    path = tmp_path_factory.mktemp("skew") / "store"
    make(embstore.create(path, durability="none"))
    return path


def test_verb_shows_figure_and_users(path: Path) -> None:
    """The text has the largest difference and, where there is one, the users that differ most; nothing is written."""
    before = files_of(path)
    lines = [line.split() for line in text_of("skew", path).splitlines()]
    assert lines[1:] == [
        ["trainer", "retrained"],
        ["users", str(N_USERS)],
        ["largest", "difference", "0"],
        ["mean", "difference", "0"],
        ["mean", "relative", "0"],
    ]
    found = embstore.skew(embstore.open(path).at("main~1"))
    lines = [line.split() for line in text_of("skew", path, "--ref", "main~1").splitlines()]
    assert lines[3] == ["largest", "difference", f"{found.largest:.4g}"]
    assert lines[7] == ["user", "largest", "relative"]
    assert [line[0] for line in lines[8:]] == [str(each.id) for each in found.farthest]
    assert {name: data for name, data in files_of(path).items() if "lease" not in name} == before


def test_verb_gives_a_document(path: Path, tmp_path: Path) -> None:
    """The document is the report; a file of pairs, a number of users and an entity are passed on."""
    version = embstore.open(path).at()
    assert json_of("skew", path) == embstore.skew(version).to_dict()
    assert json_of("skew", path, "--users", 4)["n_ids"] == 4
    file = tmp_path / "pairs.csv"
    file.write_text("user,item\n3,item 02\n4,item 03\n3,item 05\n")
    some = Interactions([3, 4, 3], ["item 02", "item 03", "item 05"])
    assert json_of("skew", path, file) == embstore.skew(version, interactions=some).to_dict()
    assert error_of("skew", path, "--entity", "item")[0] == 2
