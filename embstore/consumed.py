"""What each user has had: ordered, append-only, read from either side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embstore.entity import Ids
from embstore.errors import InvalidInputError, StaleCheckoutError
from embstore.ids import IdMap, checked_rows
from embstore.normalize import normalize_times
from embstore.storage.arrays import Reader, Rows
from embstore.storage.records import Part, Records, RecordState, apply, encode_times, read_parts, read_records

if TYPE_CHECKING:
    from collections.abc import Callable

    import scipy.sparse as sp

USER, ITEM = "user", "item"


class Consumed:
    """The consumed record at one version.

    The order is oldest first: by time where every record of an id has one, else as recorded (commit by commit, then by
    position). Duplicates are kept; ``distinct=True`` keeps the first of each.
    """

    def __init__(self, reader: Reader, ids: Callable[[str], IdMap]) -> None:
        self._reader = reader
        self._ids = ids
        self._stored: Records | None = None
        self._sorted: dict[str, tuple[Rows, NDArray[np.int64]]] = {}

    def records(self) -> Records:
        """Return all pairs in rows, in the order they were recorded."""
        if self._stored is None:
            self._stored = read_records(self._reader)
        return self._stored

    def __len__(self) -> int:
        return len(self.records())

    def of(self, entity: str, ids: object, *, distinct: bool = False) -> list[Ids]:
        """Return for each of these users the items they had, or for each of these items the users who had it.

        Parameters
        ----------
        entity
            ``"user"`` or ``"item"``.
        ids
            List or array of n ids.
        distinct
            Keep only the first of equal pairs.

        Returns
        -------
        n arrays of ids, oldest first.

        Raises
        ------
        UnknownIdError
            For ids that the entity does not have.
        InvalidInputError
            For another entity.
        """
        if entity not in (USER, ITEM):
            msg = f"consumed of {entity!r}: the record is of 'user' and 'item'"
            raise InvalidInputError(msg)
        rows = self._ids(entity).rows(ids)
        ends, others = self._by(entity)
        pieces = [others[ends[row] : ends[row + 1]] for row in rows.tolist()]
        if distinct:
            pieces = [piece[np.sort(np.unique(piece, return_index=True)[1])] for piece in pieces]
        flat = self._ids(ITEM if entity == USER else USER).ids(np.concatenate([*pieces, np.empty(0, np.int64)]))
        return np.split(flat, np.cumsum([len(piece) for piece in pieces])[:-1]) if pieces else []

    def to_csr(self) -> sp.csr_array:
        """Return distinct pairs as a sparse matrix ``[users, items]`` of ones (float32), in rows."""
        import scipy.sparse as sp

        records = self.records()
        shape = (len(self._ids(USER)), len(self._ids(ITEM)))
        keys = np.unique(records.users * max(shape[1], 1) + records.items)
        users, items = np.divmod(keys, max(shape[1], 1))
        return sp.csr_array((np.ones(len(keys), np.float32), (users, items)), shape=shape)

    def _by(self, entity: str) -> tuple[Rows, NDArray[np.int64]]:
        """Return where each row's records end (with a leading 0), and the other side's rows, oldest first."""
        n_rows = len(self._ids(entity))
        if entity not in self._sorted or len(self._sorted[entity][0]) != n_rows + 1:
            records = self.records()
            mine, others = (records.users, records.items) if entity == USER else (records.items, records.users)
            all_timed = np.ones(n_rows, bool)
            all_timed[mine[~records.timed]] = False
            times = np.where(all_timed[mine][:, None], records.times, 0)
            order = np.lexsort((times[:, 1], times[:, 0], mine))
            ends = np.concatenate([[0], np.cumsum(np.bincount(mine, minlength=n_rows))])
            self._sorted[entity] = ends, others[order]
        return self._sorted[entity]


class StagedConsumed(Consumed):
    """The consumed record of a checkout: what is appended is seen at once and stored by the commit."""

    def __init__(self, reader: Reader, ids: Callable[[str], IdMap]) -> None:
        super().__init__(reader, ids)
        self.closed: str | None = None
        self.part = Part()
        self.reset_to: Records | None = None
        self.kept_segments: int | None = None

    def records(self) -> Records:
        """Return all pairs in rows, staged ones too, in the order they were recorded."""
        below = super().records() if self.reset_to is None else self.reset_to
        return below if self.part.is_empty else apply(below, [self.part])

    def append(self, users: object, items: object, *, times: object = None, replace: bool = False) -> None:
        """Record pairs.

        Parameters
        ----------
        users, items
            Rows, int64[n] each.
        times
            int64[n], float64[n] or datetime64[n]; None where there are none.
        replace
            Drop what was recorded of these users before.

        Raises
        ------
        InvalidInputError
            For rows that there are not, arrays of different lengths, or times that are no finite numbers.
        StaleCheckoutError
            If the checkout is closed.
        """
        if self.closed is not None:
            raise StaleCheckoutError(self.closed)
        user_rows = checked_rows(users, len(self._ids(USER)), USER)
        item_rows = checked_rows(items, len(self._ids(ITEM)), ITEM)
        if len(user_rows) != len(item_rows):
            msg = f"consumed: {len(user_rows)} users and {len(item_rows)} items; give one item for each user"
            raise InvalidInputError(msg)
        records = Records(user_rows, item_rows, self._checked_times(times, len(user_rows)))
        self._check_live(USER, user_rows)
        self._check_live(ITEM, item_rows)
        dropped = np.unique(user_rows) if replace else user_rows[:0]
        self.stage(Part(records, dropped_users=dropped))

    def _check_live(self, entity: str, rows: Rows) -> None:
        gone = np.isin(rows, self._ids(entity).removed_rows())
        if gone.any():
            msg = f"consumed: row {rows[gone][0]} of {entity!r}: its id was removed; append it again and take its new row"
            raise InvalidInputError(msg)

    def _checked_times(self, times: object, n: int) -> NDArray[np.float64]:
        checked = None if times is None else normalize_times(times)
        if checked is not None and len(checked) != n:
            msg = f"consumed: {len(checked)} times for {n} pairs; give one for each"
            raise InvalidInputError(msg)
        return encode_times(checked, n)

    def stored_count(self) -> int:
        """Return how many pairs the version below has."""
        return len(super().records())

    def drop(self, entity: str, rows: Rows) -> None:
        """Drop all records of these users or items: their ids are removed."""
        self.stage(Part(dropped_users=rows) if entity == USER else Part(dropped_items=rows))

    def reset(self, records: Records) -> None:
        """Let the record be ``records`` and nothing else."""
        self.reset_to, self.kept_segments, self.part = records, None, Part()
        self._sorted.clear()

    def truncate(self, n_segments: int) -> None:
        """Go back to what the oldest ``n_segments`` stored segments hold."""
        stored = RecordState.read(self._reader).segments[:n_segments]
        self.reset(apply(Records.empty(), read_parts(self._reader, stored)))
        self.kept_segments = n_segments

    def stage(self, part: Part) -> None:
        """Let ``part`` follow what is staged."""
        self.part = Part(
            apply(self.part.records, [part]),
            np.union1d(self.part.dropped_users, part.dropped_users),
            np.union1d(self.part.dropped_items, part.dropped_items),
        )
        self._sorted.clear()

    def reload(self, reader: Reader) -> None:
        """Begin anew on what was committed."""
        self._reader, self._stored = reader, None
        self.part, self.reset_to, self.kept_segments = Part(), None, None
        self._sorted.clear()
