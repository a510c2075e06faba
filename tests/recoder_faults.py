"""Faults that Recoder 0.4 had, whose trainers these take the place of, as tests of any of them: none of the faults is here."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import pytest
import scipy.sparse

import embstore
from embstore import Interactions, View
from embstore.testing import example_interactions
from embstore.trainer import with_settings
from tests.examples import new_store, state_of

PAIRS = example_interactions()


def moved(before: View, after: View, what: str) -> float:
    """Return how far the old rows of a table have come, or an array without rows."""
    one, other = (v.table(what).values() if what in v.tables else v.dense[what] for v in (before, after))
    return float(np.abs(other[: len(one)].astype(float) - one).max())


class RecoderFaults:
    """Tests of one trainer with settings ``epochs``, ``lr``, ``l2`` and ``lr_milestones``.

    Parameters
    ----------
    trainer
        Of two epochs, with sparse gradients.
    table, array
        One of its tables of items, and an array that another optimizer moves; None: there is none.
    """

    trainer: ClassVar[Any]
    table: ClassVar[str]
    array: ClassVar[str | None] = None

    def test_state_of_sparse_optimizers_is_kept(self) -> None:
        """Moments and step counts go on after a resume; once those of the sparse optimizer began anew."""
        store = new_store()
        before = embstore.fit(store, self.trainer, PAIRS, message="fit").table(self.table)
        after = embstore.fit(store, self.trainer, PAIRS, message="more").table(self.table)
        assert before.slot("step").values().min() >= 2
        assert (after.slot("step").values() >= before.slot("step").values() + 2).all()
        assert np.abs(before.slot("exp_avg_sq").values()).max() > 0

    def test_continuing_needs_no_settings(self) -> None:
        """The version says how it was trained, so going on takes none from the caller; once ``sparse`` was not saved."""
        store = new_store()
        version = embstore.fit(store, self.trainer, PAIRS, message="fit")
        known: Any = with_settings(type(self.trainer), version.lineage["settings"])
        assert known == self.trainer
        embstore.fit(store, known, PAIRS, message="more")

    def test_three_epochs_after_three_are_six(self) -> None:
        """No epoch is done twice and none left out: the same bits; once the last was repeated, and the number was a total."""
        once, twice, three = new_store(), new_store(), replace(self.trainer, epochs=3)
        whole = embstore.fit(once, replace(three, epochs=6), PAIRS, message="six")
        epochs: list[int] = []
        for _ in range(2):
            parted = embstore.fit(
                twice, three, PAIRS, message="three", consumed="replace", progress=lambda epoch, _: epochs.append(epoch)
            )
        assert epochs == [1, 2, 3, 1, 2, 3]
        assert state_of(parted) == state_of(whole)

    def test_a_new_learning_rate_holds_for_all_parameters(self) -> None:
        """A training that goes on with a hundredth of it moves rows and weights less; once only sparse ones."""
        for what in filter(None, (self.table, self.array)):
            far, near = (self._distance(what, lr=lr) for lr in (self.trainer.lr, self.trainer.lr / 100))
            assert near < far / 10

    def test_milestones_reach_all_parameters(self) -> None:
        """After a milestone rows and weights alike move a tenth as far; once it never reached the sparse optimizer."""
        for what in filter(None, (self.table, self.array)):
            far, near = (self._distance(what, lr_milestones=m) for m in ((100,), (1, 2)))
            assert near < far / 10

    def _distance(self, what: str, **settings: Any) -> float:
        store = new_store()
        before = embstore.fit(store, replace(self.trainer, lr_milestones=()), PAIRS, message="fit")
        after = embstore.fit(store, replace(self.trainer, epochs=1, **settings), PAIRS, message="more")
        return moved(before, after, what)

    def test_weight_decay_acts_on_sparse_rows(self) -> None:
        """Rows are smaller with it; once 0 and 10 gave the same."""
        norms = []
        for l2 in (0.0, 10.0):
            trainer = replace(self.trainer, l2=l2, lr=0.05, epochs=5)
            version = embstore.fit(new_store(), trainer, PAIRS, message="fit")
            norms.append(np.linalg.norm(version.table(self.table).values()))
        assert norms[1] < norms[0] / 2

    def test_new_users_and_items_come_in(self) -> None:
        """They get rows, in the version that has their ids; once there was an assertion, and ids lay in pickles of their own."""
        store = new_store()
        embstore.fit(store, self.trainer, PAIRS, message="fit")
        version = embstore.fit(store, self.trainer, Interactions([1000, 3], ["new", "item 02"]), message="more")
        assert version.ids("item").ids()[-1] == "new"
        assert len(version.table(self.table)) == version.entities["item"]
        assert embstore.recommend(version, [1000], k=3, trainer=self.trainer)["item"].nunique() == 3

    def test_users_without_targets_make_no_nan(self) -> None:
        """They are left out and counted; once they poisoned the mean."""
        version = embstore.fit(new_store(), self.trainer, PAIRS, message="fit")
        targets = Interactions([1, 2, 2], ["never seen", "item 01", "item 02"])
        metrics = ("capped_recall@20", "ndcg@100", "ap@20")
        found = embstore.evaluate(version, targets, trainer=self.trainer, metrics=metrics, exclude_consumed=False)
        assert (found["users"], found["dropped_users"], found["dropped_targets"]) == (1, 1, 1)
        assert all(math.isfinite(value) for value in found.values())

    def test_zeros_that_a_matrix_stores_are_no_pairs(self) -> None:
        """Training on a matrix with explicit zeros is training on one without; once they shifted values against indices."""
        dense = np.random.default_rng(0).integers(0, 3, (9, 8)).astype(float)
        dense[:, 0] = 1
        matrix = scipy.sparse.csr_array(np.where(dense == 0, 7, dense))
        matrix.data[matrix.data == 7] = 0
        assert matrix.nnz > scipy.sparse.csr_array(dense).nnz
        states = []
        for one in (matrix, scipy.sparse.csr_array(dense)):
            pairs = Interactions.from_csr(one, range(9), range(8))
            states.append(state_of(embstore.fit(new_store(), self.trainer, pairs, message="fit")))
        assert states[0] == states[1]

    def test_scores_are_one_array(self) -> None:
        """Once predicting gave a tuple, whatever was asked for."""
        version = embstore.fit(new_store(), self.trainer, PAIRS, message="fit")
        assert self.trainer.scores(version, np.array([2, 0])).shape == (2, version.entities["item"])

    def test_nothing_is_unpickled(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A store is opened, recommended from and trained on without pickle; once a model was one, which torch refuses now."""
        embstore.fit(embstore.create(tmp_path / "store", durability="none"), self.trainer, PAIRS, message="fit")

        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise AssertionError("something is unpickled")

        for what in ("load", "loads", "Unpickler"):
            monkeypatch.setattr(pickle, what, refuse)
        store = embstore.open(tmp_path / "store")
        assert len(embstore.recommend(store.at(), [3], k=2, trainer=self.trainer)) == 2
        embstore.fit(store, self.trainer, PAIRS, message="more")

    def test_who_has_had_nearly_all_is_shown_the_rest(self) -> None:
        """Fewer rows, none of them had before; once the list was filled up with what had been had, at minus infinity."""
        every = Interactions([500] * 17, [f"item {i:02}" for i in range(2, 19)])
        store = new_store()
        embstore.fit(store, self.trainer, PAIRS, message="fit")
        version = embstore.fit(store, self.trainer, every, message="a user of nearly all")
        shown = embstore.recommend(version, [500], k=10, trainer=self.trainer)
        assert set(shown["item"]) == set(version.ids("item").ids().tolist()) - set(every.item_ids.tolist())
        assert np.isfinite(shown["score"]).all()
