"""Vectors of one entity found again the way serving will find them, over a factor model that stays as it is.

A user who comes in later gets a vector from ``fold_in``, while those who were trained on have one that moved with the items. To
have no skew between the two, all users are reinitialised and folded in, by the same routine with the same settings. It takes the
place of the retraining of user embeddings of a recommender written in Julia (Fro116/RecommenderSystem).
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from embstore import Batch, Checkout, InvalidInputError, NonFiniteError, Schema, View, find_trainer
from trainers.held_out import held_out_loss, hold_out, take, whole_record, without_repeats
from trainers.sampling import shuffled
from trainers.settings import check_count, check_not_negative
from trainers.tuning import Probe, Search, check_method

I64 = NDArray[np.int64]
_FEWEST = 24
_SMALLEST = 1e-4
# A base that cannot go on from one step to the next starts anew for each look at the held-out pairs, so these are ever rarer.
_GROWTH = 1.25


@dataclass(frozen=True)
class Retrained:
    """Reinitialise one entity of a factor model, tune, train with all else standing still, and fold in with what was found.

    Parameters
    ----------
    base
        Name of a trainer with settings ``fold_steps``, ``fold_lr`` and ``fold_l2`` and a ``fold_in`` that goes by them.
    base_settings
        Its settings as JSON, such as ``{"dim": 32}``; for those that are not there, its defaults.
    entity
        ``"user"``, or ``"item"`` where the base can fold these in.
    method
        How learning rate and L2 are found from the base's ``fold_lr`` and ``fold_l2`` on: ``"nelder-mead"``, ``"cobyla"``, or
        ``"none"``, which takes these.
    evaluations, seconds
        At most so many tries, and none that begins later than this many seconds. How many there were is among the metrics: as
        ``evaluations`` without a limit of time, that number gives the same again.
    share
        Of the entity's ids that are tuned on; at least 24.
    patience
        Training ends after so many looks at the held-out pairs without a better one. There is one after every epoch, but where
        a base cannot go on from one to the next: after 1, 2, 3, 4, 5, 7, 9, 12, 15 … epochs. None: always after the base's
        ``fold_steps``; with ``method="none"`` nothing is held out then.
    max_epochs
        Training ends after so many epochs.
    seed
        Of the choice of ids to tune on.

    Raises
    ------
    InvalidInputError
        For settings out of range, or a base that cannot do this.
    UnknownTrainerError
        If there is no such base.
    """

    base: str = "matrix_factorization"
    base_settings: str = "{}"
    entity: str = "user"
    method: str = "nelder-mead"
    evaluations: int = 40
    seconds: float = 3600.0
    share: float = 0.1
    patience: int | None = 5
    max_epochs: int = 200
    seed: int = 0
    name: ClassVar[str] = "retrained"

    def __post_init__(self) -> None:
        check_method(self.method)
        for what in ("evaluations", "patience", "max_epochs"):
            if what != "patience" or self.patience is not None:
                check_count(getattr(self, what), what)
        for what in ("seconds", "share"):
            check_not_negative(getattr(self, what), what)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            msg = f"seed {self.seed!r}: give a whole number from 0"
            raise InvalidInputError(msg)
        _check_folds(self.model, self.entity)
        if not self._tables:
            msg = f"entity {self.entity!r}: trainer {self.base!r} has no tables of it; give another, 'user' or 'item'"
            raise InvalidInputError(msg)

    @cached_property
    def model(self) -> Any:
        """Return the base."""
        return _made(self.base, self.base_settings)

    @property
    def _tables(self) -> list[str]:
        return [table.name for table in self.schema().tables if table.entity == self.entity]

    def schema(self) -> Schema:
        """Return the tables of the base."""
        found: Schema = self.model.schema()
        return found

    def scores(self, view: View, user_rows: I64) -> NDArray[Any]:
        """Return the scores that the base gives."""
        found: NDArray[Any] = self.model.scores(view, user_rows)
        return found

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Find the vectors of all ids that have pairs again, and yield once: what was found, and how.

        ::

            hold out the last fifth of each id's pairs
            for some ids, search for the learning rate and L2 with the least held-out loss at the best epoch
            for all ids, train with these on what is left; the best epoch by held-out loss counts
            for all ids, train on all pairs for as many epochs

        Each of these begins at the ids' initial vectors. Held-out pairs are judged by the squared error of ratings, or, where the
        base does not learn from ratings, by how high they are ranked (1 - NDCG@100). The pairs are all that the store has
        recorded; a base that learns from ratings, which are not recorded, gets those of this fit, and ids without any keep
        their vectors.

        Raises
        ------
        InvalidInputError
            If nobody has trained the base: then there is nothing that could stand still.
        """
        self._check_base(work)
        history = without_repeats(batch) if _is_rated(self.model) else whole_record(work, self.entity)
        found, metrics = self._search(work, history)
        self._keep(work, found)
        rows = np.unique(_owners(history, self.entity))
        self._reset(work, rows)
        self.fold_in(work, rows, history, entity=self.entity)
        kept = {what: float(work.dense[self._array(what)]) for what in ("lr", "l2", "epochs", "seed")}
        yield {**kept, **metrics, "retrained": float(len(rows))}

    def _check_base(self, work: Checkout) -> None:
        others = [table for table in self.schema().tables if table.entity != self.entity and table.slots]
        if others and all(_is_initial(work, table.name) for table in others):
            names = ", ".join(table.name for table in others)
            msg = f"trainer {self.name!r}: all rows of {names} are as they begin, {self.base!r} was never trained; fit it first"
            raise InvalidInputError(msg)

    def _search(self, work: Checkout, history: Batch) -> tuple[Probe, dict[str, float]]:
        """Return what is to be trained with, and how it was found."""
        base = self.model
        if self.method == "none" and self.patience is None:
            return Probe(base.fold_lr, base.fold_l2, base.fold_steps, math.inf), {"evaluations": 0.0, "timed_out": 0.0}
        is_held = hold_out(_owners(history, self.entity))
        kept, held = take(history, ~is_held), take(history, is_held)
        sample = self._sample(_owners(held, self.entity))
        search = self._tune(work, _of_rows(kept, sample, self.entity), _of_rows(held, sample, self.entity))
        lr, l2 = (search.best.lr, search.best.l2) if search.probes else (base.fold_lr, base.fold_l2)
        found = self._best_epoch(work, kept, held, lr, l2)
        if not math.isfinite(found.loss):
            n_tried = max(1, len(search.probes))
            msg = f"trainer {self.name!r}: of {n_tried} learning rates none gave a finite loss; look at {self.base!r}"
            raise NonFiniteError(msg)
        counts = {"evaluations": float(len(search.probes)), "timed_out": float(search.timed_out)}
        return found, {"held_out_loss": found.loss, **counts}

    def _sample(self, owners: I64) -> I64:
        rows = np.unique(owners)
        n_sampled = min(len(rows), max(_FEWEST, math.ceil(self.share * len(rows))))
        return np.sort(rows[shuffled(len(rows), seed=self.seed, epoch=0)[:n_sampled]])

    def _tune(self, work: Checkout, kept: Batch, held: Batch) -> Search:
        lr, l2 = (max(value, _SMALLEST) for value in (self.model.fold_lr, self.model.fold_l2))
        judge = partial(self._best_epoch, work, kept, held)
        search = Search(judge, lr, l2, evaluations=self.evaluations, seconds=self.seconds)
        if self.method != "none":
            search.run(self.method)
        return search

    def _best_epoch(self, work: Checkout, kept: Batch, held: Batch, lr: float, l2: float) -> Probe:
        """Train until ``patience`` looks have brought nothing better; return the best one."""
        base, best, waited = replace(self.model, fold_lr=lr, fold_l2=l2), Probe(lr, l2, 0, math.inf), 0
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is no better, and is never kept
            for epochs in self._epochs(work, kept, base):
                if self.patience is None and epochs < base.fold_steps:
                    continue
                loss = held_out_loss(base, work, kept, held)
                best, waited = (Probe(lr, l2, epochs, loss), 0) if loss < best.loss else (best, waited + 1)
                if waited >= (self.patience or 0) or epochs >= self.max_epochs:
                    break
        return best

    def _epochs(self, work: Checkout, batch: Batch, base: Any) -> Iterator[int]:
        """Stage vectors after more and more epochs, and yield how many there were."""
        rows = np.unique(_owners(batch, self.entity))
        self._reset(work, rows)
        if hasattr(base, "folding"):
            yield from base.folding(work, rows, batch, entity=self.entity)
        else:
            epochs = 0
            while True:
                further = max(epochs + 1, min(math.ceil(epochs * _GROWTH), self.max_epochs))
                epochs = further if self.patience else base.fold_steps
                self._reset(work, rows)
                _fold(replace(base, fold_steps=epochs), work, rows, batch, self.entity)
                yield epochs

    def _reset(self, work: Checkout, rows: I64) -> None:
        """Stage the initial vectors of some rows, and the fill of their slots."""
        ids = work.ids(self.entity).ids(rows)
        for name in self._tables:
            table = work.table(name)
            table.scatter(rows, table.initial(ids))
            for spec in table.spec.slots:
                slot = table.slot(spec.name)
                slot.scatter(rows, np.full_like(slot.gather(rows), spec.fill))

    def _array(self, what: str) -> str:
        return f"{self.name}.{self.entity}.{what}"

    def _keep(self, work: Checkout, found: Probe) -> None:
        seed = work.table(self._tables[0]).spec.seed
        for what, value in {"lr": found.lr, "l2": found.l2, "epochs": found.epochs, "seed": seed}.items():
            work.dense[self._array(what)] = np.array(value)

    def fold_in(self, work: Checkout, rows: I64, batch: Batch, *, entity: str = "user") -> dict[str, float]:
        """Stage vectors for new rows with the learning rate, L2 and epochs that this version was trained with.

        Rows of the other entity are the base's business, with its own settings. A pair that is there twice counts once.
        """
        base = self.model if entity != self.entity else self._tuned(work)
        return _fold(base, work, rows, without_repeats(batch), entity)

    def _tuned(self, work: Checkout) -> Any:
        if self._array("epochs") not in work.dense:
            msg = f"no {self.entity} vectors of trainer {self.name!r} are there yet: fit first, or fold in with {self.base!r}"
            raise InvalidInputError(msg)
        lr, l2, epochs = (work.dense[self._array(what)].item() for what in ("lr", "l2", "epochs"))
        return replace(self.model, fold_lr=lr, fold_l2=l2, fold_steps=epochs)


def _made(name: str, settings: str) -> Any:
    """Return the trainer of a name with settings in JSON."""
    kind = find_trainer(name)
    try:
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(settings).items()}
        return kind(**given)
    except InvalidInputError:
        raise
    except (AttributeError, TypeError, ValueError) as error:
        known = ", ".join(field.name for field in fields(kind))
        msg = f"base_settings {settings!r} of trainer {name!r}: {error}; give JSON such as {{}} with some of {known}"
        raise InvalidInputError(msg) from error


def _check_folds(base: Any, entity: str) -> None:
    known = {field.name for field in fields(base)}
    missing = [what for what in ("fold_steps", "fold_lr", "fold_l2") if what not in known]
    missing += [what for what in ("fold_in", "scores") if not hasattr(base, what)]
    if missing:
        msg = f"base {base.name!r} has no {', '.join(missing)}: give a factor model, such as matrix_factorization or bpr"
        raise InvalidInputError(msg)
    if entity != "user" and "entity" not in inspect.signature(base.fold_in).parameters:
        msg = f"entity {entity!r}: base {base.name!r} folds in users only"
        raise InvalidInputError(msg)


def _is_rated(base: Any) -> bool:
    return bool(getattr(base, "learns_ratings", False))


def _fold(base: Any, work: Checkout, rows: I64, batch: Batch, entity: str) -> dict[str, float]:
    found: dict[str, float]
    if "entity" in inspect.signature(base.fold_in).parameters:
        found = base.fold_in(work, rows, batch, entity=entity)
    else:
        _check_folds(base, entity)
        found = base.fold_in(work, rows, batch)
    return found


def _is_initial(work: Checkout, name: str) -> bool:
    """Return whether all live rows of a table have their initial vectors."""
    table = work.table(name)
    ids = work.ids(table.spec.entity).ids()
    return np.array_equal(table.get(ids), table.initial(ids))


def _owners(batch: Batch, entity: str) -> I64:
    return batch.users if entity == "user" else batch.items


def _of_rows(batch: Batch, rows: I64, entity: str) -> Batch:
    return take(batch, np.isin(_owners(batch, entity), rows))
