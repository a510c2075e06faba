"""What every trainer has to keep, as tests that the author of one takes over.

::

    from embstore.testing import TrainerContract

    class TestMyTrainer(TrainerContract):
        trainer = MyTrainer(dim=8)

The trainer's class must be importable, or defined in a file of its own: one of the tests loads it in a new process.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from embstore.checkout import Checkout
from embstore.errors import InvalidInputError
from embstore.foldin import fold_in
from embstore.interactions import Batch, Interactions
from embstore.recommending import evaluate, recommend
from embstore.store import Store, create, open as open_store
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


class TrainerContract:
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
            _train(self.trainer, work, batch)
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
            _train(self.trainer, work, stage_pairs(work, self.trainer, pairs), n_epochs=2)
            expected = _state(work.commit("two epochs"))
        parted = create(tmp_path / "store", durability="none")
        with parted.checkout() as work:
            _train(self.trainer, work, stage_pairs(work, self.trainer, pairs))
            work.commit("one epoch")
        _in_new_process(parted, self.trainer, pairs)
        actual = _state(parted.at())
        assert sorted(actual) == sorted(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(actual[name], array, err_msg=name, strict=True)

    def test_order_of_pairs_does_not_matter(self) -> None:
        """Pairs that come in another order make the same store, to the bit."""
        shuffled = self.interactions.take(np.random.default_rng(1).permutation(len(self.interactions)))
        one, other = (fit(_new_store(), self.trainer, pairs, message="fit") for pairs in (self.interactions, shuffled))
        for (name, array), (_, same) in zip(_state(one).items(), _state(other).items(), strict=True):
            np.testing.assert_array_equal(same, array, err_msg=name, strict=True)

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


def _train(trainer: Any, work: Checkout, batch: Batch, *, n_epochs: int = 1) -> None:
    """Train so many epochs without an end between them; as many trainings where the trainer cannot be told a number."""
    if not hasattr(trainer, "epochs"):
        for _ in range(n_epochs):
            assert len(list(trainer.train(work, batch))) > 0
    else:
        assert len(list(replace(trainer, epochs=n_epochs).train(work, batch))) == n_epochs


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


def _in_new_process(store: Store, trainer: Trainer, pairs: Interactions) -> None:
    """Train an epoch on the store's tip, and commit, in an interpreter of its own."""
    kind = type(trainer)
    job: dict[str, Any] = {"url": store.url, "module": kind.__module__, "file": inspect.getfile(kind), "class": kind.__qualname__}
    job |= {"settings": settings_of(trainer), "users": pairs.user_ids.tolist(), "items": pairs.item_ids.tolist()}
    job |= {name: _as_list(getattr(pairs, name)) for name in ("ratings", "times")}
    code = "import sys; from embstore.testing import train_in_this_process; train_in_this_process(sys.stdin.read())"
    path = os.pathsep.join(part for part in sys.path if part)
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(job),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode} (negative: a signal): {done.stderr}"


def _as_list(column: NDArray[Any] | None) -> list[Any] | None:
    return None if column is None else column.tolist()


def train_in_this_process(text: str) -> None:
    """Do what ``test_resumed_training_equals_uninterrupted`` asks of its other process: one epoch, told in JSON."""
    job = json.loads(text)
    trainer = with_settings(_load(job["module"], job["file"], job["class"].split(".")), job["settings"])
    pairs = Interactions(job["users"], job["items"], job["ratings"], job["times"])
    with open_store(job["url"]).checkout() as work:
        _train(trainer, work, pairs.to_batch(work))
        work.commit("one more epoch")


def _load(module: str, file: str, names: Iterable[str]) -> Any:
    """Return a class by its module's name, or by its file where the module is none that can be imported."""
    try:
        found: Any = importlib.import_module(module)
    except ImportError:
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec is not None
        assert spec.loader is not None
        found = sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
    for name in names:
        found = getattr(found, name)
    return found
