"""What every trainer has to keep, as tests that the author of one takes over.

::

    from embstore.testing import TrainerContract

    class TestMyTrainer(TrainerContract):
        trainer = MyTrainer(dim=8)

One that learns by steps keeps `KilledTrainingContract` too.
The trainer's class must be importable, or defined in a file of its own: one of the tests loads it in a new process.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from embstore.elsewhere import RUN, in_new_process, job_of, train_epochs
from embstore.errors import InvalidInputError
from embstore.foldin import fold_in
from embstore.interactions import Interactions
from embstore.recommending import evaluate, recommend
from embstore.store import Store, create
from embstore.trainer import FoldsIn, Recommends, Trainer, settings_of, with_settings
from embstore.training import fit, stage_pairs
from embstore.version import Version, View

_N_HELD_OUT = 3


def example_interactions() -> Interactions:
    """Return 150 pairs of 25 users and 20 items, with times, some of them twice; users of few pairs and many."""
    random = np.random.default_rng(0)
    users = np.sort(random.integers(0, 25, 150))
    items = np.minimum(random.geometric(0.15, 150), 20)
    return Interactions(users, np.array([f"item {i:02}" for i in items], object), times=random.permutation(150))


class _Elsewhere:
    def elsewhere(self, job: str) -> int:
        """Do a job in a process of its own and return its exit code, see `embstore.elsewhere`."""
        return in_new_process(job)


class TrainerContract(_Elsewhere):
    """Tests of one trainer; subclass it and give ``trainer``, and ``interactions`` where the example does not suit.

    The pairs must have times, at least six users, and users who share items.
    """

    trainer: ClassVar[Any]
    interactions: ClassVar[Interactions] = example_interactions()

    def test_settings_survive_json(self) -> None:
        """A trainer made again from its name and settings is equal."""
        assert with_settings(type(self.trainer), settings_of(self.trainer)) == self.trainer

    def test_no_pairs_change_nothing(self) -> None:
        """Without pairs there is a version, and it is equal to its parent."""
        store, before = self._trained()
        after = fit(store, self.trainer, self.interactions.take([]), message="nothing new")
        assert after.parent == before.id
        assert store.diff(before.id, after.id).is_empty

    def test_an_epoch_changes_rows(self) -> None:
        """What is learned is in the store."""
        store = _new_store()
        with store.checkout() as work:
            batch = stage_pairs(work, self.trainer, self.interactions.ordered())
            before = _state(work)
            train_epochs(self.trainer, work, batch)
            after = _state(work)
            work.discard()
        assert [name for name in after if not np.array_equal(after[name], before.get(name, ()))]

    def test_appending_ids_changes_no_old_row(self) -> None:
        """New ids leave rows and slots of old ones as they are, to the bit."""
        store, before = self._trained()
        with store.checkout() as work:
            for entity in ("user", "item"):
                new = ["new 1", "new 2"] if before.ids(entity).id_type == "str" else [10**12, 10**12 + 1]
                work.append(entity, new)
            after = work.commit("new ids")
        diff = store.diff(before.id, after.id)
        assert [name for name, table in diff.tables.items() if len(table.changed_rows) or any(table.slots.values())] == []
        assert diff.dense == {}

    def test_resumed_training_equals_uninterrupted(self, tmp_path: Path) -> None:
        """An epoch, a commit and an epoch in a new process equal two epochs: values, slots and arrays, to the bit."""
        pairs = self.interactions.ordered()
        whole = _new_store()
        with whole.checkout() as work:
            train_epochs(self.trainer, work, stage_pairs(work, self.trainer, pairs), n_epochs=2)
            expected = _state(work.commit("two epochs"))
        parted = create(tmp_path / "store", durability="none")
        with parted.checkout() as work:
            train_epochs(self.trainer, work, stage_pairs(work, self.trainer, pairs))
            work.commit("one epoch")
        assert self.elsewhere(job_of(parted, self.trainer, pairs)) == 0
        _check_equal(_state(parted.at()), expected)

    def test_order_of_pairs_does_not_matter(self) -> None:
        """Pairs that come in another order make the same store, to the bit."""
        shuffled = self.interactions.take(np.random.default_rng(1).permutation(len(self.interactions)))
        one, other = (fit(_new_store(), self.trainer, pairs, message="fit") for pairs in (self.interactions, shuffled))
        _check_equal(_state(other), _state(one))

    def test_fold_in_is_the_same_alone_and_together(self) -> None:
        """New users get the same vectors within 1e-6 alone, together and in any order, and nothing else moves.

        A trainer that cannot fold in says so.
        """
        held_out, base = self._held_out()
        if not _has(self.trainer, FoldsIn):
            assert self.trainer.name in _refusal(lambda: base.fold_in(self.trainer, held_out))
            return
        together = base.fold_in(self.trainer, held_out)
        backwards = base.fold_in(self.trainer, held_out.take(slice(None, None, -1)))
        alone = [base.fold_in(self.trainer, _of_user(held_out, user)) for user in np.unique(held_out.user_ids)]
        for version in (together, backwards, *alone):
            _check_only_new_moved(base, version)
        for name in [name for name, spec in together.tables.items() if spec.entity == "user"]:
            for version in (backwards, *alone):
                new = base.new_users(version)
                np.testing.assert_allclose(
                    version.table(name).get(new), together.table(name).get(new), rtol=0, atol=1e-6, err_msg=name
                )

    def test_scores_are_finite_and_of_the_right_shape(self) -> None:
        """There is a finite score for every user and item, and for the mean user, whichever users are asked for together.

        A trainer that gives no scores says so.
        """
        _, version = self._trained()
        if not _has(self.trainer, Recommends):
            assert self.trainer.name in _refusal(lambda: recommend(version, self.interactions.user_ids, trainer=self.trainer))
            return
        rows = np.array([-1, 3, 0, 1])
        scores = np.asarray(self.trainer.scores(version, rows))
        assert scores.shape == (len(rows), len(version.ids("item")))
        assert np.isfinite(scores).all()
        apart = np.vstack([self.trainer.scores(version, rows[i : i + 1]) for i in range(len(rows))])
        np.testing.assert_allclose(apart, scores, rtol=1e-4, atol=1e-5)

    def test_consumed_and_removed_items_are_not_recommended(self) -> None:
        """Nobody is recommended what they have had or what was removed, and nothing twice.

        A trainer that gives no scores says so.
        """
        store, version = self._trained()
        if not _has(self.trainer, Recommends):
            assert self.trainer.name in _refusal(lambda: evaluate(version, self.interactions, trainer=self.trainer))
            return
        gone = version.ids("item").ids()[:1]
        with store.checkout() as work:
            work.remove("item", gone)
            version = work.commit("remove an item")
        n_items = version.entities["item"]
        users = version.ids("user").ids()
        frame = recommend(version, users, n_items + 1, trainer=self.trainer)
        for user, had in zip(users.tolist(), version.consumed.of("user", users), strict=True):
            items = frame.loc[frame["user"] == user, "item"].tolist()
            assert sorted([*items, *set(had.tolist())]) == sorted(version.ids("item").ids().tolist())

    def _trained(self) -> tuple[Store, Version]:
        store = _new_store()
        return store, fit(store, self.trainer, self.interactions, message="fit")

    def _held_out(self) -> tuple[Interactions, _Base]:
        """Return the pairs of a few users, and a store trained on those of the others."""
        users = np.unique(self.interactions.user_ids)[-_N_HELD_OUT:]
        is_out = np.isin(self.interactions.user_ids, users)
        store = _new_store()
        fit(store, self.trainer, self.interactions.take(~is_out), message="without them")
        return self.interactions.take(is_out), _Base(store)


class KilledTrainingContract(_Elsewhere):
    """Tests of a trainer with settings ``epochs`` and ``lr`` whose training is killed, and of one that is given another rate.

    Parameters
    ----------
    trainer, interactions
        As in `TrainerContract`.
    """

    trainer: ClassVar[Any]
    interactions: ClassVar[Interactions] = example_interactions()

    def test_killed_training_ends_as_an_uninterrupted_one(self, tmp_path: Path) -> None:
        """Killed in any epoch and taken up by a new process: the same rows, slots, arrays and figures, to the bit."""
        trainer, epoch = replace(self.trainer, epochs=3), int(np.random.default_rng().integers(2, 4))
        whole = fit(_new_store(), trainer, self.interactions, message="whole")
        store = create(tmp_path / "store", durability="none")
        assert self.elsewhere(job_of(store, trainer, self.interactions, run=True, kill_at=epoch)) != 0
        begun = store.at()
        assert (begun.lineage["run"], begun.lineage["epochs"], begun.lineage["unfinished"]) == (RUN, epoch - 1, True)
        assert self.elsewhere(job_of(store, trainer, self.interactions, run=True)) == 0
        _check_equal(_state(store.at()), _state(whole), what=f"after being killed in epoch {epoch}")
        assert store.at().lineage["metrics"] == whole.lineage["metrics"]
        assert store.at().lineage["resumed"] == begun.id

    def test_changed_learning_rate_takes_effect(self) -> None:
        """A training that goes on with a thousandth of the rate moves less than a tenth as far."""
        distances = []
        for share in (1.0, 1e-3):
            store, trainer = _new_store(), replace(self.trainer, epochs=1)
            before = _learned(fit(store, trainer, self.interactions, message="begin"), trainer)
            after = _learned(fit(store, replace(trainer, lr=trainer.lr * share), self.interactions, message="go on"), trainer)
            distances.append(sum(float(np.abs(after[name] - array).sum()) for name, array in before.items()))
        assert 0 < distances[1] < distances[0] / 10


class _Base:
    """A trained store, from which users are folded in on branches of their own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.version = store.at()

    def fold_in(self, trainer: Trainer, pairs: Interactions) -> Version:
        branch = f"fold-{uuid.uuid4().hex[:8]}"
        self.store.branch(branch)
        return fold_in(self.store, trainer, pairs, message="fold in", branch=branch)

    def new_users(self, version: Version) -> NDArray[Any]:
        return version.ids("user").at(np.arange(len(self.version.ids("user")), len(version.ids("user"))))


def _new_store() -> Store:
    return create(f"memory://contract-{uuid.uuid4().hex}")


def _has(trainer: Any, protocol: type) -> bool:
    return isinstance(trainer, protocol)


def _state(view: View) -> dict[str, NDArray[Any]]:
    """Return every column of every table in the order of sorted ids, and the arrays without rows."""
    state = {f"dense {name}": view.dense[name] for name in view.dense}
    for name, spec in view.tables.items():
        ids = sorted(view.ids(spec.entity).ids().tolist())
        table = view.table(name)
        state[f"ids of {name}"] = np.array(ids)
        state[name] = table.get(ids)
        state |= {f"{name} {slot}": table.slot(slot).get(ids) for slot in table.slots}
    return state


def _learned(view: View, trainer: Trainer) -> dict[str, NDArray[Any]]:
    """Return the tables of a trainer that have slots, and the parameters that `embstore.bind` keeps as arrays."""
    tables = {spec.name: view.table(spec.name).values() for spec in trainer.schema().tables if view.tables[spec.name].slots}
    return tables | {name: view.dense[name] for name in view.dense if name.startswith("model.")}


def _check_equal(actual: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]], *, what: str = "") -> None:
    assert sorted(actual) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=f"{name} {what}", strict=True)


def _of_user(pairs: Interactions, user: object) -> Interactions:
    return pairs.take(np.flatnonzero(pairs.user_ids == user))


def _check_only_new_moved(base: _Base, version: Version) -> None:
    diff = base.store.diff(base.version.id, version.id)
    assert [name for name, table in diff.tables.items() if len(table.changed_rows) or any(table.slots.values())] == []
    assert (diff.dense, len(diff.ids["item"].appended)) == ({}, 0)


def _refusal(action: Any) -> str:
    """Return the message of the InvalidInputError that ``action`` raises."""
    try:
        action()
    except InvalidInputError as error:
        return str(error)
    raise AssertionError("nothing was refused")  # noqa: EM101
