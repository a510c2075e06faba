"""What one commit adds to its parent, keyed by id: what ``commit`` writes, ``diff`` shows and a replay applies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.entity import Ids
from embstore.ids import IdMap
from embstore.schema import Schema


def _no_ids() -> Ids:
    return np.empty(0, object)


@dataclass(frozen=True)
class RowChanges:
    """Rows of one column by id; ``values()`` reads them when asked for: ``[len(ids), dim]``.

    ``refers_to`` is set where the values are rows themselves (``rows_of``): the map that tells whose.
    """

    ids: Ids
    values: Callable[[], NDArray[Any]]
    refers_to: IdMap | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ConsumedChanges:
    """Pairs that are appended, after the earlier ones of ``dropped_users`` and ``dropped_items`` (``reset``: all) are dropped."""

    users: Ids = field(default_factory=_no_ids)
    items: Ids = field(default_factory=_no_ids)
    times: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    dropped_users: Ids = field(default_factory=_no_ids)
    dropped_items: Ids = field(default_factory=_no_ids)
    reset: bool = False
    n_before: int = 0
    n_after: int = 0

    @property
    def is_empty(self) -> bool:
        """Return whether the record stays as it is."""
        return not (self.reset or len(self.users) or len(self.dropped_users) or len(self.dropped_items))


@dataclass(frozen=True)
class Changes:
    """What turns one state into another.

    Parameters
    ----------
    schema_before, schema
        Of the two states.
    appended, removed
        Ids by entity: in the second state only, in the first only.
    rows
        Table name -> ``"values"`` or ``"slots/<name>"`` -> ids with the values they have in the second state; for appended
        ids too, but for slots still at their fill.
    consumed
        Of the consumed record.
    dense
        Arrays without rows; None where deleted.
    """

    schema_before: Schema
    schema: Schema
    appended: Mapping[str, Ids]
    removed: Mapping[str, Ids]
    rows: Mapping[str, Mapping[str, RowChanges]]
    consumed: ConsumedChanges
    dense: Mapping[str, NDArray[Any] | None]

    @property
    def is_empty(self) -> bool:
        """Return whether the two states are equal."""
        return not (
            any(map(len, self.appended.values()))
            or any(map(len, self.removed.values()))
            or any(len(change) for columns in self.rows.values() for change in columns.values())
            or not self.consumed.is_empty
            or self.dense
            or self.schema != self.schema_before
        )

    def to_dict(self) -> dict[str, Any]:
        """Return counts, JSON-ready."""
        return {
            "appended": {entity: len(ids) for entity, ids in self.appended.items()},
            "removed": {entity: len(ids) for entity, ids in self.removed.items()},
            "rows": {t: {c: len(change) for c, change in columns.items()} for t, columns in self.rows.items()},
            "consumed": {"before": self.consumed.n_before, "after": self.consumed.n_after},
            "dense": sorted(self.dense),
        }

    def __str__(self) -> str:
        lines = [f"{entity}: {len(ids)} appended" for entity, ids in self.appended.items() if len(ids)]
        lines += [f"{entity}: {len(ids)} removed" for entity, ids in self.removed.items() if len(ids)]
        lines += [
            f"{table}: {len(change)} rows of {column.removeprefix('slots/')}"
            for table, columns in self.rows.items()
            for column, change in columns.items()
            if len(change)
        ]
        if not self.consumed.is_empty:
            lines.append(f"consumed: {self.consumed.n_before} pairs, then {self.consumed.n_after}")
        lines += [f"dense: {name}{' deleted' if array is None else ''}" for name, array in self.dense.items()]
        return "\n".join(lines) or "no changes"
