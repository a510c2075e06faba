"""What two sides have both changed, and who decides what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from embstore.entity import Ids
from embstore.errors import ConflictError, InvalidInputError

WORDS = ("fail", "ours", "theirs", "mean")
_MOST_SHOWN = 3


@dataclass(frozen=True)
class Conflict:
    """Rows of one column that both sides changed, each in its own way: what a callable ``on_conflict`` is given.

    Parameters
    ----------
    table
        Whose rows they are.
    slot
        Whose state, or None for the vectors. A callable is asked for each column of a row that differs in any.
    ids
        int64[n] or object[n] of str.
    base, ours, theirs
        ``[n, dim]`` in the column's dtype: what both sides began with (a new id's initial vector, a slot's fill), and what
        each made of it. In a table with ``rows_of`` they are rows of the merged version.
    """

    table: str
    slot: str | None
    ids: Ids
    base: NDArray[Any]
    ours: NDArray[Any]
    theirs: NDArray[Any]


Resolve = Callable[[Conflict], Any]
Policy = str | Resolve
OnConflict = Policy | Mapping[str, Policy]
# Whose state stands, in the words of the place where the merge is staged: ``here`` is the version below.
Winner = Literal["here", "incoming", "base", "mean", "fail"]


@dataclass(frozen=True)
class Policies:
    """What becomes of rows (and of records of a user) that both sides changed, and of arrays without rows."""

    rows: Policy = "fail"
    dense: str = "fail"

    @classmethod
    def of(cls, on_conflict: OnConflict) -> Policies:
        """Return what ``on_conflict`` says.

        Raises
        ------
        InvalidInputError
            If it is no word that is known, no callable, and no mapping of these.
        """
        if callable(on_conflict):
            return cls(on_conflict)
        given = dict(on_conflict) if isinstance(on_conflict, Mapping) else {"rows": on_conflict, "dense": on_conflict}
        rows, dense = given.get("rows", "fail"), given.get("dense", "fail")
        if (
            isinstance(dense, str)
            and dense in WORDS
            and (callable(rows) or (isinstance(rows, str) and rows in WORDS))
            and {*given} <= {"rows", "dense"}
        ):
            return cls(rows, dense)
        words = ", ".join(map(repr, WORDS))
        msg = f'on_conflict={on_conflict!r}: give {words}, a callable for rows, or {{"rows": …, "dense": …}} (dense: a word)'
        raise InvalidInputError(msg)

    def __str__(self) -> str:
        rows = "callable" if callable(self.rows) else self.rows
        return rows if rows == self.dense else f"rows {rows}, dense {self.dense}"


@dataclass
class Judge:
    """Decides conflicts by the policies, and keeps those that nobody may decide.

    Parameters
    ----------
    policies
        Of the caller. None: the base stands, as where a base is made of several.
    ours_is_here
        Whether "ours" is the version that the merge is staged on; else it is what comes to it.
    allow_nonfinite
        Whether a callable may return NaN or infinity.
    """

    policies: Policies | None
    ours_is_here: bool
    allow_nonfinite: bool = False
    resolved: dict[str, int] = field(default_factory=dict)
    _open: dict[str, list[Ids]] = field(default_factory=dict)

    def of_rows(self) -> Winner | Resolve:
        """Return whose rows stand."""
        return "base" if self.policies is None else self._winner(self.policies.rows)

    def of_removals(self) -> Winner:
        """Return whose state of an id stands that one side removed and the other changed; under a mean it is gone."""
        winner = self.of_rows()
        return "mean" if callable(winner) else winner

    def of_dense(self) -> Winner:
        """Return whose arrays without rows stand."""
        winner = "base" if self.policies is None else self._winner(self.policies.dense)
        assert not callable(winner)
        return winner

    def _winner(self, policy: Policy) -> Winner | Resolve:
        if callable(policy):
            return policy
        sides: dict[str, Winner] = {"ours": "here", "theirs": "incoming", "mean": "mean", "fail": "fail"}
        if not self.ours_is_here:
            sides |= {"ours": "incoming", "theirs": "here"}
        return sides[policy]

    def settle(self, what: str, ids: Ids) -> None:
        """Count what was decided."""
        if len(ids):
            self.resolved[what] = self.resolved.get(what, 0) + len(ids)

    def leave_open(self, what: str, ids: Ids) -> None:
        """Note what nobody may decide."""
        if len(ids):
            self._open.setdefault(what, []).append(ids)

    def check(self, prefix: str, suffix: str) -> None:
        """Raise ConflictError if anything was left open, naming tables, counts and first ids."""
        if self._open:
            what = "; ".join(_told(what, np.concatenate(ids)) for what, ids in self._open.items())
            msg = f"{prefix}both sides changed {what}; {suffix}"
            raise ConflictError(msg)


def _told(what: str, ids: Ids) -> str:
    if what.startswith("dense"):
        return f"{what} {', '.join(map(repr, ids.tolist()[:_MOST_SHOWN]))}{', …' if len(ids) > _MOST_SHOWN else ''}"
    shown = ", ".join(map(repr, ids.tolist()[:_MOST_SHOWN])) + (", …" if len(ids) > _MOST_SHOWN else "")
    return f"{what}: {len(ids)} {'id' if len(ids) == 1 else 'ids'} ({shown})"


def mean_of(one: NDArray[Any], other: NDArray[Any], name: str) -> NDArray[Any] | None:
    """Return the mean of two arrays of one shape, the same whichever comes first; None where numbers cannot be averaged.

    Of counters of steps (``name`` is ``step``, or ends so) it is the larger. Bits that both have stay as they are.
    """
    counts_steps = name.rpartition(".")[2] == "step"
    if one.shape != other.shape or not (counts_steps or one.dtype.kind == other.dtype.kind == "f"):
        return None
    dtype = np.result_type(one, other)
    with np.errstate(all="ignore"):
        mixed = np.maximum(one, other) if counts_steps else one.astype(np.float64) / 2 + other.astype(np.float64) / 2
    if dtype.kind != "f":
        return mixed.astype(dtype)
    same = (one == other) & (np.signbit(one) == np.signbit(other))
    mixed = np.where(np.isnan(mixed), np.nan, mixed + 0.0)  # of two zeros and of two NaNs the same whichever comes first
    with np.errstate(over="ignore"):
        return np.where(same, one, mixed).astype(dtype)


def is_undefined(mean: NDArray[Any], one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where two numbers have no mean: one is infinite, and the other the other way."""
    undefined: NDArray[np.bool_] = np.isnan(mean) & ~np.isnan(one) & ~np.isnan(other)
    return undefined
