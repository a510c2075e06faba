"""Training as one step: ids, rows, consumed pairs, epochs and a version with its lineage."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from embstore.checkout import Checkout
from embstore.conflicts import OnConflict, Policies
from embstore.consumed import ITEM, USER
from embstore.epochs import differ
from embstore.errors import InvalidInputError, SchemaMismatchError
from embstore.features import sorted_ids, stage_features
from embstore.foldin import data_window
from embstore.interactions import Batch, Interactions, check_interactions
from embstore.lineage import check_message
from embstore.runs import DIGEST, Found, Landing, arrived, digest_of, find_run
from embstore.store import Store
from embstore.trainer import FollowsValidation, Trainer, finite_metrics, settings_of
from embstore.validation import BestEpoch, Validation
from embstore.version import Version

Report = Callable[[int, Mapping[str, float]], None]


def fit(
    store: Store,
    trainer: Trainer,
    interactions: Interactions,
    *,
    message: str,
    validation: Interactions | Validation | None = None,
    patience: int | None = None,
    branch: str = "main",
    slots: Literal["keep", "reset"] = "keep",
    consumed: Literal["merge", "replace"] = "merge",
    commit_every: int | None = None,
    on_conflict: OnConflict = "fail",
    run: str | None = None,
    progress: bool | Report = False,
) -> Version:
    """Train on pairs and commit what came of it, with its lineage.

    ::

        work = store.checkout(branch)
        add the tables that are missing; append new ids, sorted; stage features; record the pairs as consumed
        for metrics in trainer.train(work, pairs in the order of time, user, item and rating):
            refuse what is not finite; validate; keep the best epoch; stop; commit every so many epochs
        go back to the best epoch; commit, laid on what others have committed meanwhile

    ``validation``: targets, ranked after each epoch; the epoch with the best NDCG@100 is committed, without it the last one.
    `embstore.Validation` says it in another way, or judges by a callable of one's own. ``patience``: stop after so many epochs
    without a better one. ``slots="reset"``: optimizer slots of the trainer's tables start at their fill again, and arrays
    ``optim.….<trainer's name>.…`` go (`embstore.bind` keeps there what an optimizer knows of parameters without rows); other
    arrays stay. ``consumed="replace"``: earlier records of these users go. ``on_conflict``: as `Checkout.commit` takes it, for
    what others have changed too since this began (ours is this training); networks want ``{"rows": "mean", "dense": "ours"}``.
    ``run``: a name of this piece of work, which is trained and recorded once: where the branch has it, that version is returned;
    one that was cut short goes on, with the same trainer, tables and pairs; one on a branch of its own is merged from there.
    ``progress``: a line an epoch on a terminal's stderr, or a callable(epoch, metrics). Without any pairs nothing is trained.

    Raises
    ------
    ConflictError
        If others have changed the same meanwhile: the work is on a branch ``<branch>-<run>``, which the message names.
    NonFiniteError
        For NaN or infinity in metrics or rows.
    InvalidInputError
        For options, a trainer or pairs that cannot be used: SchemaMismatchError, IdTypeError where the store has it otherwise.
    """
    _check_kinds(store, interactions, validation)
    _check_words(message=message, slots=slots, consumed=consumed, on_conflict=on_conflict)
    _check_epochs(patience=patience, commit_every=commit_every, judged=validation is not None)
    begun = find_run(store, branch, run)
    if begun is not None and begun.is_finished:
        return arrived(store, begun, branch, on_conflict=on_conflict)
    pairs = interactions.ordered()
    with store.checkout(begun.branch if begun else branch) as work:
        landing = Landing(store, work, branch, run, on_conflict)
        training = _Training(work, trainer, message, landing, _lineage(trainer, pairs, run), _report(progress), commit_every)
        batch = training.begin(begun, pairs, slots=slots, consumed=consumed)
        del pairs  # rows take their place
        training.train(batch, validation, patience=patience)
        del batch
        return training.commit()


@dataclass
class _Training:
    """One call of fit: what it works on, and how far it is."""

    work: Checkout
    trainer: Trainer
    message: str
    landing: Landing
    lineage: Mapping[str, Any]
    report: Report
    commit_every: int | None
    epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best_before: Mapping[str, Any] | None = None

    def begin(self, begun: Found | None, pairs: Interactions, *, slots: str, consumed: str) -> Batch:
        """Stage what the first epoch needs, or go on with a run that was cut short."""
        if begun is not None:
            return self._go_on_from(begun.version, pairs)
        return stage_pairs(self.work, self.trainer, pairs, slots=slots, consumed=consumed)

    def _go_on_from(self, begun: Version, pairs: Interactions) -> Batch:
        """Take up a run where its last version left it; its ids and pairs are in the store already."""
        before = begun.lineage
        self._check_the_same(before)
        self.epoch, self.metrics = before["epochs"], before["metrics"]
        self.lineage = {**self.lineage, "resumed": begun.id}
        if "best" in before:
            self.best_before = {**before["best"], "version": self.landing.store.at(before["best"]["version"])}
        return pairs.to_batch(self.work)

    def _check_the_same(self, before: Mapping[str, Any]) -> None:
        """Refuse another trainer, other pairs, and settings that ask for other tables; what else is set may change."""
        data = {key: value for key, value in self.lineage["data"].items() if key != DIGEST or key in before["data"]}
        for what, now in {"trainer": self.lineage["trainer"], "data": data}.items():
            if before[what] != now:
                msg = f"run {before['run']!r}: begun with {what} {before[what]!r}, now {now!r}; take another name"
                raise InvalidInputError(msg)
        reason = _lacking(self.work, self.trainer)
        if reason:
            msg = f"run {before['run']!r}: begun with other settings ({reason}); take another name, or those settings"
            raise SchemaMismatchError(msg)

    def train(self, batch: Batch, validation: Interactions | Validation | None, *, patience: int | None) -> None:
        """Train epoch by epoch and leave in ``work`` what is to be committed; without pairs, nothing."""
        if len(batch) == 0:
            return
        judged = Validation(validation) if isinstance(validation, Interactions) else validation
        best = BestEpoch(self.work, self.trainer, judged, patience=patience)
        if self.best_before is not None:
            best.take_up(**self.best_before)
        elif self.epoch:
            best.see(epoch=self.epoch, metrics={**self.metrics, **best.judge()})
        for metrics in self._epochs(batch):
            self.epoch += 1
            self.metrics = finite_metrics(metrics, f"trainer {self.trainer.name!r}, epoch {self.epoch}")
            self.work.staged.check_finite()
            found = best.judge()
            if found and isinstance(self.trainer, FollowsValidation):
                self.trainer.judged(self.work, found)
            self.metrics |= found
            self.report(self.epoch, self.metrics)
            if best.see(epoch=self.epoch, metrics=self.metrics):
                break
            if self.commit_every and self.epoch % self.commit_every == 0 and self.epoch != self._n_epochs:
                self._commit_on_the_way(best)
        if best.epoch:
            best.put_back()
            self.lineage = {**self.lineage, "epochs_trained": self.epoch}
            self.epoch, self.metrics = best.epoch, best.metrics

    def _commit_on_the_way(self, best: BestEpoch) -> None:
        """Commit this epoch, and before it the best one, so that a run which is taken up can still go back to that."""

        def commit(epoch: int, metrics: Mapping[str, float]) -> Version:
            more = {"epochs": epoch, "metrics": dict(metrics), "unfinished": True, **best.record()}
            return self._commit(f"{self.message} (epoch {epoch})", more)

        best.commit(commit, now=self.epoch)
        version = commit(self.epoch, self.metrics)
        if best.epoch == self.epoch:
            best.take_up(version, epoch=self.epoch, metrics=self.metrics)

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
        """Commit the end of the training."""
        return self.landing.land(self.message, self._record({}))

    def _commit(self, message: str, more: Mapping[str, Any]) -> Version:
        return self.landing.keep(message, self._record(more))

    def _record(self, more: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.lineage, "epochs": self.epoch, "metrics": self.metrics, **more}


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


def _lacking(work: Checkout, trainer: Trainer) -> str:
    """Return what a checkout lacks of a trainer's tables, or has otherwise; nothing if it has them all."""
    try:
        _, tables, slots = work.schema.missing(trainer.schema())
    except SchemaMismatchError as error:
        return str(error).partition(";")[0]
    names = [f"table {table.name}" for table in tables] + [f"slot {slot.name} of table {table}" for table, slot in slots]
    return f"no {', '.join(names)}" if names else ""


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


def _check_kinds(store: Store, interactions: Interactions, validation: Interactions | Validation | None) -> None:
    if not isinstance(store, Store):
        msg = f"store {type(store).__name__}: give a Store, as embstore.create and embstore.open return"
        raise InvalidInputError(msg)
    check_interactions(interactions, "interactions")
    if not isinstance(validation, Validation | None):
        check_interactions(validation, "validation")


def _check_words(*, message: str, slots: str, consumed: str, on_conflict: OnConflict) -> None:
    """Refuse before the training what would be refused after it."""
    check_message(message)
    Policies.of(on_conflict)
    choices = {"slots": (slots, "keep", "reset"), "consumed": (consumed, "merge", "replace")}
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


def _lineage(trainer: Trainer, pairs: Interactions, run: str | None) -> dict[str, Any]:
    settings = settings_of(trainer)
    data = data_window(pairs) if run is None else data_window(pairs) | {DIGEST: digest_of(pairs)}
    lineage = {"trainer": trainer.name, "settings": settings, "seed": settings.get("seed"), "data": data}
    return lineage if run is None else lineage | {"run": run}


def _report(progress: bool | Report) -> Report:
    if callable(progress):
        return progress
    return _show if progress and sys.stderr.isatty() else lambda epoch, metrics: None


def _show(epoch: int, metrics: Mapping[str, float]) -> None:
    figures = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    sys.stderr.write(f"epoch {epoch}  {figures}\n")
