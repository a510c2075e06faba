"""How much a part of a loss counts as steps go by (Bowman et al. 2016; Liang et al. 2018)."""

from __future__ import annotations

from embstore import InvalidInputError
from trainers.settings import check_not_negative


def check_annealing(*, cap: object, total: object, epochs: object) -> None:
    """Raise InvalidInputError unless there is a cap, and at most one number of steps or epochs."""
    check_not_negative(cap, "cap")
    for what, number in {"anneal_steps": total, "anneal_epochs": epochs}.items():
        if number is not None:
            check_not_negative(number, what)
    if total is not None and epochs is not None:
        msg = f"anneal_steps {total!r} with anneal_epochs {epochs!r}: give one of them, or none for a weight that stays"
        raise InvalidInputError(msg)


def annealed(step: int, *, cap: float, total: float) -> float:
    """Return the weight of a step: ``min(cap, step / total)``, or ``cap`` where ``total`` is 0.

    Parameters
    ----------
    step
        How many steps there were before this one, so the first has weight 0.
    cap
        The largest weight.
    total
        Steps to a weight of 1, were there no cap.
    """
    return min(cap, step / total) if total else cap


def total_of(epochs: float, *, n_steps: int, cap: float) -> float:
    """Return the ``total`` with which the cap is reached after so many epochs.

    Parameters
    ----------
    epochs
        0: from the first step on.
    n_steps
        Steps in an epoch.
    cap
        With 0 the weight is 0 whatever the total, and so 0 is returned.
    """
    return epochs * n_steps / cap if cap else 0.0
