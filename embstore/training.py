"""Training as one step: ids, rows, consumed pairs, epochs and a version with its lineage."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from uuid import uuid4

import numpy as np
from rich.console import Console

from embstore.checkout import Checkout
from embstore.consumed import ITEM, USER
from embstore.epochs import BestEpoch, differ
from embstore.errors import ConflictError, InvalidInputError
from embstore.features import sorted_ids, stage_features
from embstore.foldin import data_window
from embstore.interactions import Batch, Interactions
from embstore.lineage import check_message
from embstore.names import check_name
from embstore.recommending import Evaluation
from embstore.store import Store
from embstore.trainer import Trainer, finite_metrics, settings_of
from embstore.version import Version

SELECTION_METRIC = "ndcg@100"
Report = Callable[[int, Mapping[str, float]], None]


def fit(
    store: Store,
    trainer: Trainer,
    interactions: Interactions,
    *,
    message: str,
    validation: Interactions | None = None,
    patience: int | None = None,
    branch: str = "main",
    slots: Literal["keep", "reset"] = "keep",
    consumed: Literal["merge", "replace"] = "merge",
    commit_every: int | None = None,
    on_conflict: str = "fail",
    run: str | None = None,
    progress: bool | Report = False,
) -> Version:
    """Train on pairs and commit what came of it, with its lineage.

    ::

        if the branch has a version of this run: return it, or go on from the last one if the run was cut short
        work = store.checkout(branch)
        add the tables that are missing; append new ids, sorted; stage features; record the pairs as consumed
        for metrics in trainer.train(work, pairs in the order of time, user, item and rating):
            refuse what is not finite; validate; keep the best epoch; stop; commit every so many epochs
        go back to the best epoch; commit

    ``validation``: targets, ranked after each epoch; the epoch with the best NDCG@100 is committed, without it the last one.
    ``patience``: stop after so many epochs without a better one. ``slots="reset"``: optimizer slots of the trainer's tables
    start at their fill again, and arrays ``optim.….<trainer's name>.…`` go (`embstore.bind` keeps there what an optimizer knows
    of parameters without rows); other arrays stay. ``consumed="replace"``: earlier records of these users go.
    ``run``: a name of this piece of work, so that nothing is trained or recorded twice. ``progress``: a line an epoch on a
    terminal's stderr, or a callable(epoch, metrics). Without any pairs nothing is trained, and the version says so.

    Raises
    ------
    ConflictError
        If the branch has moved: the work is on a branch ``<branch>-<run>``, which the message names.
    NonFiniteError
        For NaN or infinity in metrics or rows.
    SchemaMismatchError, IdTypeError
        If the store has a table with another dim or dtype, or ids of another type.
    InvalidInputError
        For options, a trainer or pairs that cannot be used.
    """
    _check_words(message=message, slots=slots, consumed=consumed, on_conflict=on_conflict)
    _check_epochs(patience=patience, commit_every=commit_every, judged=validation is not None)
    _check_run(run, branch)
    begun = None if run is None else _version_of(store, branch, run)
    if begun is not None and not begun.lineage.get("unfinished"):
        return begun
    pairs = interactions.ordered()
    lineage = _lineage(trainer, pairs, run)
    with store.checkout(branch) as work:
        training = _Training(work, trainer, message, branch, lineage, _report(progress), commit_every)
        batch = training.go_on_from(begun, pairs) if begun else stage_pairs(work, trainer, pairs, slots=slots, consumed=consumed)
        if len(batch):
            training.train(batch, validation, patience)
        return training.commit()


@dataclass
class _Training:
    """One call of fit: what it works on, and how far it is."""

    work: Checkout
    trainer: Trainer
    message: str
    branch: str
    lineage: Mapping[str, Any]
    report: Report
    commit_every: int | None
    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def go_on_from(self, begun: Version, pairs: Interactions) -> Batch:
        """Take up a run where its last version left it; its ids and pairs are in the store already."""
        before = begun.lineage
        for what in ("trainer", "data"):
            if before[what] != self.lineage[what]:
                msg = f"run {before['run']!r}: begun with {what} {before[what]!r}, now {self.lineage[what]!r}; take another name"
                raise InvalidInputError(msg)
        self.epoch, self.metrics = before["epochs"], before["metrics"]
        return pairs.to_batch(self.work)

    def train(self, batch: Batch, validation: Interactions | None, patience: int | None) -> None:
        """Train epoch by epoch and leave in ``work`` what is to be committed."""
        judge = None if validation is None else _judge(self.work, self.trainer, validation)
        best = BestEpoch(SELECTION_METRIC, patience=patience)
        if judge is not None and self.epoch:
            best.see(self.work, epoch=self.epoch, metrics={**self.metrics, **judge.run()})
        for metrics in self._epochs(batch):
            self.epoch += 1
            self.metrics = finite_metrics(metrics, f"trainer {self.trainer.name!r}, epoch {self.epoch}")
            self.work.staged.check_finite()
            self.metrics |= {} if judge is None else judge.run()
            self.report(self.epoch, self.metrics)
            if judge is not None and best.see(self.work, epoch=self.epoch, metrics=self.metrics):
                break
            if self.commit_every and self.epoch % self.commit_every == 0 and self.epoch != self._n_epochs:
                self._commit(f"{self.message} (epoch {self.epoch})", {"unfinished": True})
        if judge is not None:
            best.put_back(self.work)
            self.lineage = {**self.lineage, "epochs_trained": self.epoch}
            self.epoch, self.metrics = best.epoch, best.metrics

    @property
    def _n_epochs(self) -> int | None:
        """Return how many epochs the trainer is set to train; None if it has no such setting."""
        return getattr(self.trainer, "epochs", None)

    def _epochs(self, batch: Batch) -> Any:
        """Return the epochs that are left."""
        if self.epoch == 0:
            return self.trainer.train(self.work, batch)
        if self._n_epochs is None:
            msg = (
                f"run cut short after {self.epoch} epochs: trainer {self.trainer.name!r} has no setting epochs; take another run"
            )
            raise InvalidInputError(msg)
        left = self._n_epochs - self.epoch
        return replace(self.trainer, epochs=left).train(self.work, batch) if left > 0 else ()  # type: ignore[type-var]

    def commit(self) -> Version:
        """Commit the end of the training.

        Raises
        ------
        ConflictError
            If the branch has moved meanwhile: it is on another one.
        """
        version = self._commit(self.message, {})
        if self.work.branch != self.branch:
            where = f"version {version.id} on branch {self.work.branch!r}"
            msg = f"branch {self.branch!r} moved while this was trained; the work is {where}, merge it or train again"
            raise ConflictError(msg)
        return version

    def _commit(self, message: str, more: Mapping[str, Any]) -> Version:
        record = {**self.lineage, "epochs": self.epoch, "metrics": self.metrics, **more}
        self.work.lineage = dict(record)
        try:
            return self.work.commit(message, allow_empty=True)
        except ConflictError:
            return self.work.commit(message, branch=self._free_branch(), allow_empty=True)

    def _free_branch(self) -> str:
        """Return the name of a branch that is not there yet."""
        taken = {*self.work.repo.branches(), *self.work.repo.tags()}
        name = f"{self.branch}-{self.lineage.get('run', uuid4().hex[:8])}"
        return name if name not in taken else f"{self.branch}-{uuid4().hex[:8]}"


def stage_pairs(work: Checkout, trainer: Trainer, pairs: Interactions, *, slots: str = "keep", consumed: str = "merge") -> Batch:
    """Stage what a trainer needs before its first epoch, and return the pairs in rows: tables, ids, features, consumed."""
    schema = trainer.schema()
    for entity, id_type in {USER: None, ITEM: None, **(schema.entities or {})}.items():
        work.add_entity(entity, id_type)
    for table in schema.tables:
        work.add_table(table)
    work.append(USER, sorted_ids(pairs.user_ids))
    work.append(ITEM, sorted_ids(pairs.item_ids))
    stage_features(work, pairs, required=schema.tables)
    batch = pairs.to_batch(work)
    if len(batch):
        work.consumed.append(batch.users, batch.items, times=batch.times, replace=consumed == "replace")
        if slots == "reset":
            _reset_optimizer(work, trainer)
    return batch


def _reset_optimizer(work: Checkout, trainer: Trainer) -> None:
    """Stage what the trainer's optimizer state is before any step: slots at their fill, no arrays of its parameters."""
    for table in trainer.schema().tables:
        _reset_slots(work, table.name)
    for name in [name for name in work.dense if name.startswith("optim.") and f".{trainer.name}." in name]:
        del work.dense[name]


def _reset_slots(work: Checkout, name: str) -> None:
    """Stage the fill for the live rows of a table's slots that have something else."""
    table = work.table(name)
    live = work.ids(table.spec.entity).live_rows()
    for spec in table.spec.slots:
        slot = table.slot(spec.name)
        values = slot.gather(live)
        fresh = np.full_like(values, spec.fill)
        changed = differ(values, fresh)
        slot.scatter(live[changed], fresh[changed])


def _check_words(*, message: str, slots: str, consumed: str, on_conflict: str) -> None:
    """Refuse before the training what would be refused after it."""
    check_message(message)
    choices = {
        "slots": (slots, "keep", "reset"),
        "consumed": (consumed, "merge", "replace"),
        "on_conflict": (on_conflict, "fail"),
    }
    for name, (value, *known) in choices.items():
        if value not in known:
            msg = f"{name}={value!r}: give {' or '.join(map(repr, known))}"
            raise InvalidInputError(msg)


def _check_epochs(*, patience: int | None, commit_every: int | None, judged: bool) -> None:
    for name, number in {"patience": patience, "commit_every": commit_every}.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            msg = f"{name}={number!r}: give a number of epochs from 1, or None"
            raise InvalidInputError(msg)
    if patience is not None and not judged:
        msg = f"patience={patience!r} without validation: give held-out pairs to judge the epochs by"
        raise InvalidInputError(msg)


def _check_run(run: str | None, branch: str) -> None:
    """Refuse a run whose name cannot be part of a branch's, where a conflict would put its work."""
    if run is not None:
        check_name(run, "run")
        check_name(f"{branch}-{run}", "branch")


def _version_of(store: Store, branch: str, run: str) -> Version | None:
    """Return the newest version of a run in the log of a branch."""
    return next((version for version in store.log(branch) if version.lineage.get("run") == run), None)


def _lineage(trainer: Trainer, pairs: Interactions, run: str | None) -> dict[str, Any]:
    settings = settings_of(trainer)
    lineage = {"trainer": trainer.name, "settings": settings, "seed": settings.get("seed"), "data": data_window(pairs)}
    return lineage if run is None else lineage | {"run": run}


def _judge(work: Checkout, trainer: Trainer, validation: Interactions) -> Evaluation:
    judge = Evaluation(work, trainer, validation)
    if judge.n_users == 0:
        msg = f"validation: of {len(validation)} pairs none has a known user and a known item; give targets of users trained on"
        raise InvalidInputError(msg)
    return judge


def _report(progress: bool | Report) -> Report:
    if callable(progress):
        return progress
    return _show if progress and sys.stderr.isatty() else lambda epoch, metrics: None


def _show(epoch: int, metrics: Mapping[str, float]) -> None:
    figures = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    Console(stderr=True).print(f"epoch {epoch}  {figures}", highlight=False)
