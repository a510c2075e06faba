"""What a trainer is: settings that survive JSON, and a few methods that read and stage rows.

Anything learned is in the store, so a trainer can be made again from its name and settings in another process, years later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from embstore.checkout import Checkout
from embstore.consumed import ITEM, USER
from embstore.errors import InvalidInputError, NonFiniteError, UnknownTrainerError
from embstore.interactions import Batch
from embstore.schema import Schema
from embstore.version import View


@runtime_checkable
class Trainer(Protocol):
    """A frozen dataclass of settings that trains what a checkout holds."""

    @property
    def name(self) -> str:
        """Return the name of its entry point; in a class ``name: ClassVar[str] = "…"``, for it is no setting."""

    def schema(self) -> Schema:
        """Return the tables it trains, with their slots."""

    def train(self, work: Checkout, batch: Batch) -> Iterator[Mapping[str, float]]:
        """Train epoch by epoch: stage an epoch's rows in ``work``, then yield its metrics.

        The caller decides after each yield whether to go on, and may commit there. What must outlive the process beside rows
        (the number of the epoch, a generator's state) goes into ``work.dense`` before the yield. New ids have their rows
        already, and the pairs of ``batch`` are consumed already.
        """


@runtime_checkable
class FoldsIn(Protocol):
    """A trainer that finds vectors for new ids without touching anything else."""

    def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch) -> Mapping[str, float]:
        """Stage vectors for ``rows`` of new users, ascending, and return metrics.

        ``batch`` has their pairs, at least one of each row. A row's vector depends on its own pairs alone, so that it is the
        same with or without company. One that can do the same for items takes a keyword ``entity``, ``"user"`` or ``"item"``.
        """


@runtime_checkable
class Recommends(Protocol):
    """A trainer that can say how much a user would like each item."""

    def scores(self, view: View, user_rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return a number for each user and item row: ``[len(user_rows), len(view.ids("item"))]``, more is better.

        Row -1 stands for the mean user: what is known of nobody in particular. NaN and minus infinity are never ranked.
        """


@runtime_checkable
class FollowsValidation(Protocol):
    """A trainer that goes by how good its epochs are on held-out pairs, as one whose learning rate falls on a plateau."""

    def judged(self, work: Checkout, metrics: Mapping[str, float]) -> None:
        """Stage, in an array without rows, what the next epoch has to know of the figures of the one that was staged last."""


def check_trainer(trainer: object) -> None:
    """Raise InvalidInputError unless ``trainer`` is an instance of a dataclass with name, schema and train."""
    if isinstance(trainer, type) or not is_dataclass(trainer) or not isinstance(trainer, Trainer):
        shown = trainer.__name__ if isinstance(trainer, type) else repr(trainer)
        msg = f"trainer {shown}: give an instance of a dataclass with name, schema() and train(), such as Popularity()"
        raise InvalidInputError(msg)


def check_tables(view: View, trainer: Trainer, *, to: str) -> None:
    """Raise InvalidInputError if ``view`` lacks a table of ``trainer`` or has it otherwise; ``to`` says what it is wanted for."""
    missing = [table.name for table in view.schema.missing(trainer.schema())[1]]
    if missing or not {USER, ITEM} <= set(view.schema.entities or {}):
        what = f"table {', '.join(missing)}" if missing else "users and items"
        msg = f"the store has no {what} of trainer {trainer.name!r} to {to}; fit first"
        raise InvalidInputError(msg)


def that_folds_in(trainer: Trainer) -> FoldsIn:
    """Return ``trainer`` if it can fold in, else raise InvalidInputError that names it."""
    if isinstance(trainer, FoldsIn):
        return trainer
    msg = f"trainer {trainer.name!r} cannot fold in: it has no fold_in(work, rows, batch); use fit, or another trainer"
    raise InvalidInputError(msg)


def that_recommends(trainer: Trainer) -> Recommends:
    """Return ``trainer`` if it gives scores, else raise InvalidInputError that names it."""
    if isinstance(trainer, Recommends):
        return trainer
    msg = f"trainer {trainer.name!r} cannot rank items: it has no scores(view, user_rows); use another trainer"
    raise InvalidInputError(msg)


def settings_of(trainer: Trainer) -> dict[str, Any]:
    """Return a trainer's settings as JSON gives them back.

    Raises
    ------
    InvalidInputError
        If it is no trainer, or a setting has no place in JSON.
    """
    check_trainer(trainer)
    try:
        settings: dict[str, Any] = json.loads(json.dumps(asdict(trainer), allow_nan=False))  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        msg = f"settings of trainer {trainer.name!r}: {error}; use numbers, strings, booleans, None and tuples of these"
        raise InvalidInputError(msg) from error
    return settings


def with_settings(kind: type[Any], settings: Mapping[str, Any]) -> Trainer:
    """Return the trainer of that class with those settings; lists become tuples, what is not given keeps its default.

    Raises
    ------
    UnknownTrainerError
        If it has no such setting, or refuses the values.
    """
    known = [field.name for field in fields(kind) if field.init]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        msg = f"setting {', '.join(unknown)} of trainer {kind.name!r}: it has {', '.join(known) or 'none'}"
        raise UnknownTrainerError(msg)
    try:
        made: Trainer = kind(**{name: _as_tuple(value) for name, value in settings.items()})
    except (TypeError, ValueError) as error:
        msg = f"settings {dict(settings)!r} of trainer {kind.name!r}: {error}"
        raise UnknownTrainerError(msg) from error
    return made


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def finite_metrics(metrics: object, what: str) -> dict[str, float]:
    """Return metrics as plain floats.

    Raises
    ------
    NonFiniteError
        If one is NaN or infinite.
    InvalidInputError
        If they are not figures by name.
    """
    if not isinstance(metrics, Mapping):
        msg = f"{what}: {type(metrics).__name__}; give figures by name, such as {{'loss': 0.5}}"
        raise InvalidInputError(msg)
    plain = {name: _as_float(value, f"{what}: {name}") for name, value in metrics.items()}
    for name, value in plain.items():
        if not np.isfinite(value):
            msg = f"{what}: {name} is {value}; nothing of it is committed, try a smaller learning rate and look at the data"
            raise NonFiniteError(msg)
    return plain


def _as_float(value: Any, what: str) -> float:
    try:
        if not isinstance(value, (str, bytes)):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    msg = f"{what} is {value!r}; give a number"
    raise InvalidInputError(msg)
