"""The consumed record as stored: user-sorted segments, one a commit, merged when they are many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.storage.arrays import Reader, Rows
from embstore.storage.writer import Writer

PATH = "consumed"
MOST_SEGMENTS = 16
MERGED_SEGMENTS = 8
# Times are kept as two numbers, a multiple of this and the rest, so that int64 nanoseconds and floats keep their order
# beside each other; both are NaN where there is no time.
_UNIT = 2048


def encode_times(times: NDArray[Any] | None, n: int) -> NDArray[np.float64]:
    """Return int64[n] or float64[n] times (None: there are none) as float64[n, 2], exactly."""
    if times is None:
        return np.full((n, 2), np.nan)
    if times.dtype.kind == "f":
        units = np.trunc(times / _UNIT)
    else:
        units = np.floor_divide(times, _UNIT)
        units += (units < 0) & (times % _UNIT != 0)  # towards zero, as with floats
    return np.stack([units.astype(np.float64), (times - units * _UNIT).astype(np.float64)], axis=1)


@dataclass(frozen=True)
class Records:
    """Pairs in rows, in the order they were recorded; ``times`` float64[n, 2] as ``encode_times`` gives them."""

    users: Rows
    items: Rows
    times: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.users)

    def take(self, which: NDArray[Any]) -> Records:
        """Return the records at these positions, or where a mask is true."""
        return Records(self.users[which], self.items[which], self.times[which])

    @property
    def timed(self) -> NDArray[np.bool_]:
        """Return which records have a time."""
        return ~np.isnan(self.times[:, 0])

    @classmethod
    def empty(cls) -> Records:
        """Return no records."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2)))

    @classmethod
    def concat(cls, parts: Sequence[Records]) -> Records:
        """Return the records of all parts, one behind the other."""
        parts = [cls.empty(), *parts]
        return cls(*(np.concatenate([getattr(part, what) for part in parts]) for what in ("users", "items", "times")))


@dataclass
class Part:
    """What one commit adds: first the earlier records of some users and items are dropped, then these are appended."""

    records: Records = field(default_factory=Records.empty)
    dropped_users: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    dropped_items: Rows = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is added or dropped."""
        return not (len(self.records) or len(self.dropped_users) or len(self.dropped_items))


def survivors(records: Records, part: Part) -> Records:
    """Return those of earlier ``records`` that ``part`` does not drop."""
    if not (len(part.dropped_users) or len(part.dropped_items)):
        return records
    gone = np.isin(records.users, part.dropped_users) | np.isin(records.items, part.dropped_items)
    return records.take(~gone)


def apply(records: Records, parts: Sequence[Part]) -> Records:
    """Return the records that are left when ``parts`` follow ``records``, oldest first."""
    kept = [records]
    for part in parts:
        kept = [survivors(one, part) for one in kept]
        kept.append(part.records)
    return Records.concat(kept)


@dataclass(frozen=True)
class RecordSegment:
    """One stored part."""

    name: str
    n_records: int
    arrays: tuple[str, ...]


@dataclass
class RecordState:
    """What the attributes of the record's group say."""

    segments: list[RecordSegment] = field(default_factory=list)
    next_segment: int = 1

    @classmethod
    def read(cls, reader: Reader) -> RecordState:
        """Return the state that the attributes describe."""
        data: Mapping[str, Any] | None = reader.attributes(PATH)
        if not data:
            return cls()
        segments = [RecordSegment(s["name"], s["records"], tuple(s["arrays"])) for s in data["segments"]]
        return cls(segments, data["next_segment"])

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON data."""
        segments = [{"name": s.name, "records": s.n_records, "arrays": list(s.arrays)} for s in self.segments]
        return {"segments": segments, "next_segment": self.next_segment}


def read_parts(reader: Reader, segments: Sequence[RecordSegment]) -> list[Part]:
    """Return the stored parts, all fetched in one round."""
    names = [(segment, array) for segment in segments for array in segment.arrays]
    fetched = reader.read([f"{PATH}/segments/{segment.name}/{array}" for segment, array in names])
    found = {(segment.name, array): data for (segment, array), data in zip(names, fetched, strict=True)}
    return [_part({a: found[segment.name, a] for a in segment.arrays}, segment.n_records) for segment in segments]


def read_records(reader: Reader) -> Records:
    """Return all records of a state, in the order they were recorded."""
    return apply(Records.empty(), read_parts(reader, RecordState.read(reader).segments))


def _part(arrays: Mapping[str, NDArray[Any]], n_records: int) -> Part:
    nothing = np.empty(0, np.int64)
    dropped = [arrays.get(f"dropped_{what}", nothing).astype(np.int64) for what in ("users", "items")]
    if n_records == 0:
        return Part(Records.empty(), *dropped)
    users = np.repeat(arrays["users"].astype(np.int64), np.diff(arrays["ends"], prepend=0))
    times = arrays.get("times", encode_times(None, n_records))
    stored = Records(users, arrays["items"].astype(np.int64), times)
    # Stored user by user; ``order`` says where each record stood in its commit.
    as_recorded = np.empty(n_records, np.int64)
    as_recorded[arrays["order"]] = np.arange(n_records)
    return Part(stored.take(as_recorded), *dropped)


def add_part(writer: Writer, part: Part) -> None:
    """Write ``part`` as one more segment; of more than sixteen the oldest eight are merged."""
    state = RecordState.read(writer)
    if not part.is_empty:
        state.segments.append(_write(writer, state, part))
    if len(state.segments) > MOST_SEGMENTS:
        merge(writer, state, MERGED_SEGMENTS)
    writer.set_group(PATH, state.to_json())


def truncate(writer: Writer, n_segments: int) -> None:
    """Delete all but the oldest ``n_segments``."""
    state = RecordState.read(writer)
    for segment in state.segments[n_segments:]:
        writer.delete(f"{PATH}/segments/{segment.name}")
    state.segments = state.segments[:n_segments]
    writer.set_group(PATH, state.to_json())


def merge(writer: Writer, state: RecordState, count: int) -> None:
    """Merge the oldest ``count`` segments into one, without what later ones of them dropped."""
    oldest = state.segments[:count]
    records = apply(Records.empty(), read_parts(writer, oldest))
    merged = [_write(writer, state, Part(records))] if len(records) else []
    for segment in oldest:
        writer.delete(f"{PATH}/segments/{segment.name}")
    state.segments = [*merged, *state.segments[count:]]


def _write(writer: Writer, state: RecordState, part: Part) -> RecordSegment:
    name = writer.unique(f"{PATH}/segments", state.next_segment)
    state.next_segment += 1
    arrays = {
        f"dropped_{what}": rows.astype(np.int32)
        for what, rows in (("users", part.dropped_users), ("items", part.dropped_items))
        if len(rows)
    }
    if len(part.records):
        arrays |= _csr(part.records)
    writer.write_all({f"{PATH}/segments/{name}/{array}": data for array, data in arrays.items()}, zstd=True)
    return RecordSegment(name, len(part.records), tuple(arrays))


def _csr(records: Records) -> dict[str, NDArray[Any]]:
    order = np.argsort(records.users, kind="stable")
    users, counts = np.unique(records.users, return_counts=True)
    arrays: dict[str, NDArray[Any]] = {
        "users": users.astype(np.int32),
        "ends": np.cumsum(counts).astype(np.int64),
        "items": records.items[order].astype(np.int32),
        "order": order.astype(np.int32),
    }
    if records.timed.any():
        arrays["times"] = records.times[order]
    return arrays
