"""How the epochs of a training are judged, and the best one of them, to which one can go back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from embstore.checkout import Checkout
from embstore.epochs import KeptState
from embstore.errors import InvalidInputError
from embstore.interactions import Interactions
from embstore.metrics import Metrics
from embstore.recommending import METRICS, Evaluation
from embstore.trainer import Trainer, finite_metrics
from embstore.version import Version

SELECTION_METRIC = "ndcg@100"


@dataclass(frozen=True)
class Validation:
    """How the epochs of a fit are judged, and which of them counts as the best.

    Parameters
    ----------
    targets
        Pairs, ranked after each epoch as `embstore.evaluate` does; or a validation of one's own, a callable that is given the
        checkout, with the epoch's rows staged, and returns figures by name.
    metrics
        As `embstore.evaluate` takes them, for pairs.
    best
        The figure that decides.
    least
        Whether less of it is better, as of a loss.
    ties
        ``"first"``: of equal epochs the first is the best. ``"last"``: an equal epoch is a better one, so that patience begins
        anew (RecBole; it stops at one bad epoch more than its ``stopping_step``, which is ``patience=stopping_step + 1``).

    Raises
    ------
    InvalidInputError
        For ``ties`` or ``targets`` that are neither.
    """

    targets: Interactions | Callable[[Checkout], Mapping[str, float]]
    metrics: Metrics = field(default=METRICS, kw_only=True)
    best: str = field(default=SELECTION_METRIC, kw_only=True)
    least: bool = field(default=False, kw_only=True)
    ties: Literal["first", "last"] = field(default="first", kw_only=True)

    def __post_init__(self) -> None:
        if self.ties not in ("first", "last"):
            msg = f"ties={self.ties!r}: give 'first' or 'last'"
            raise InvalidInputError(msg)
        if not isinstance(self.targets, Interactions) and not callable(self.targets):
            msg = f"targets {type(self.targets).__name__}: give Interactions, or a callable that is given the checkout"
            raise InvalidInputError(msg)

    def figures(self, work: Checkout, trainer: Trainer) -> Callable[[], Mapping[str, float]]:
        """Return what gives the figures of ``work`` as it is at each call.

        Raises
        ------
        InvalidInputError
            If no pair has a known user and a known item.
        """
        targets = self.targets
        if not isinstance(targets, Interactions):
            return lambda: targets(work)
        judged = Evaluation(work, trainer, targets, metrics=self.metrics)
        if judged.n_users == 0:
            msg = f"validation: of {len(targets)} pairs none has a known user and a known item; give targets of users trained on"
            raise InvalidInputError(msg)
        return judged.run

    def is_better(self, figures: Mapping[str, float], than: Mapping[str, float]) -> bool:
        """Return whether an epoch with these figures is better than an earlier one."""
        now, before = figures[self.best], than[self.best]
        return (now < before if self.least else now > before) or (self.ties == "last" and now == before)


class BestEpoch:
    """The best epoch so far, and the state it left: in memory, or in a version of its own.

    Parameters
    ----------
    work, trainer
        What is trained, by whom.
    validation
        How epochs are judged; None: not at all, and none is the best.
    patience
        After how many epochs without a better one to stop; None: never.
    """

    def __init__(self, work: Checkout, trainer: Trainer, validation: Validation | None, *, patience: int | None) -> None:
        self._work = work
        self._validation = validation
        self._figures = None if validation is None else validation.figures(work, trainer)
        self._patience = patience
        self._state: KeptState | None = None
        self._version: Version | None = None
        self.epoch = 0
        self.metrics: dict[str, float] = {}

    def judge(self) -> dict[str, float]:
        """Return the figures of the checkout as it is now.

        Raises
        ------
        NonFiniteError
            For figures with NaN or infinity.
        InvalidInputError
            If the figure that decides is not among them.
        """
        if self._figures is None or self._validation is None:
            return {}
        found, best = finite_metrics(self._figures(), "validation"), self._validation.best
        if best not in found:
            msg = f"validation: no figure {best!r} among {', '.join(found) or 'none'}; say with best= which one decides"
            raise InvalidInputError(msg)
        return found

    def see(self, *, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Keep the state of the checkout if this epoch is the best; return whether to stop."""
        if self._validation is None:
            return False
        if self._state is None or self._validation.is_better(metrics, self.metrics):
            self.epoch, self.metrics = epoch, dict(metrics)
            self._state = None  # gone before the next one is made: both are as large as what is staged
            self._state, self._version = KeptState.of(self._work), None
        return self._patience is not None and epoch - self.epoch >= self._patience

    def take_up(self, version: Version, *, epoch: int, metrics: Mapping[str, float]) -> None:
        """Let the best epoch be the one that a version holds.

        Raises
        ------
        InvalidInputError
            If it was judged by another figure.
        """
        if self._validation is None:
            return
        if self._validation.best not in metrics:
            msg = f"best epoch so far: judged by {', '.join(metrics)}, not by {self._validation.best!r}; take another run"
            raise InvalidInputError(msg)
        self.epoch, self.metrics = epoch, dict(metrics)
        self._state, self._version = KeptState(version, {}, {}), version

    def record(self) -> dict[str, Any]:
        """Return what a lineage says of the best epoch once it is a version, for a run that is taken up again."""
        if self._version is None:
            return {}
        return {"best": {"version": self._version.id, "epoch": self.epoch, "metrics": self.metrics}}

    def commit(self, commit: Callable[[int, Mapping[str, float]], Version], *, now: int) -> None:
        """Let the best epoch be a version, if it lies before the epoch ``now``, whose state the checkout has then again."""
        if self._state is None or self._version is not None or self.epoch == now:
            return
        meanwhile = KeptState.of(self._work)
        self.put_back()
        self.take_up(commit(self.epoch, self.metrics), epoch=self.epoch, metrics=self.metrics)
        meanwhile.put_back(self._work)

    def put_back(self) -> None:
        """Let the checkout be as the best epoch left it."""
        if self._state is not None:
            self._state.put_back(self._work)
