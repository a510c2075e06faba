"""Learning rates that fall at some epochs."""

from __future__ import annotations

from embstore import InvalidInputError
from trainers.settings import check_count

_FALL = 0.1


def check_milestones(value: object) -> None:
    """Raise InvalidInputError unless ``value`` is a tuple of ascending numbers of epochs."""
    if not isinstance(value, tuple):
        msg = f"lr_milestones {value!r}: give a tuple of numbers of epochs, such as (60, 80)"
        raise InvalidInputError(msg)
    for epoch in value:
        check_count(epoch, "lr_milestones")
    if list(value) != sorted(set(value)):
        msg = f"lr_milestones {value!r}: give each epoch once, in ascending order"
        raise InvalidInputError(msg)


def lr_at(lr: float, milestones: tuple[int, ...], epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0: a tenth of it after so many epochs, at every milestone."""
    return lr * _FALL ** sum(epoch >= milestone for milestone in milestones)
