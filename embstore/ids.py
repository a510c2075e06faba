"""Ids of one entity and the rows they have: translated once on the way in, once on the way out."""

from __future__ import annotations

from typing import Literal

import numpy as np

from embstore.entity import REMOVED, EntityState, Ids, StagedIds, byte_positions
from embstore.errors import IdTypeError, InvalidInputError, UnknownIdError
from embstore.initial import id_keys
from embstore.names import IdType
from embstore.normalize import id_type_of, normalize_ids
from embstore.storage.arrays import Reader, Rows
from embstore.storage.index import find


class IdMap:
    """The ids of one entity and their rows, at one version or in a checkout.

    ``len()`` counts rows, tombstones too.
    """

    def __init__(self, reader: Reader, entity: str, staged: StagedIds | None = None, *, id_type: IdType | None = None) -> None:
        self.entity = entity
        self._reader = reader
        self._path = f"entities/{entity}"
        self._staged = staged
        self._stored = EntityState.from_json(reader.attributes(self._path))
        self._id_type = id_type
        self._removed_rows: Rows | None = None
        self._remembered: list[tuple[Rows, Ids]] = []

    @property
    def id_type(self) -> IdType | None:
        """Return ``"int64"``, ``"str"``, or None while no id was ever appended."""
        if self._id_type or self._stored.id_type:
            return self._id_type or self._stored.id_type
        return id_type_of(self._staged.ids) if self._staged else None

    def declare(self, id_type: IdType | None) -> None:
        """Fix the type of ids that there are none of yet."""
        self._id_type = id_type

    @property
    def made(self) -> str:
        """Return a token of the commit that added the entity."""
        return self._stored.made

    @property
    def unsaved_type(self) -> IdType | None:
        """Return the type that was declared and is not stored yet."""
        return None if self._stored.id_type else self._id_type

    def __len__(self) -> int:
        return self._stored.n_rows + (len(self._staged.ids) if self._staged else 0)

    @property
    def n_live(self) -> int:
        """Return how many ids are not removed."""
        return len(self) - self._stored.n_removed - (len(self._staged.removed) if self._staged else 0)

    @property
    def n_stored(self) -> int:
        """Return how many rows the version below has."""
        return self._stored.n_rows

    def __contains__(self, id_: object) -> bool:
        try:
            return bool(self.rows([id_], missing=-1)[0] >= 0)
        except InvalidInputError:
            return False

    def __repr__(self) -> str:
        return f"IdMap({self.entity!r}, {self.id_type or 'untyped'}, rows={len(self)}, live={self.n_live})"

    def rows(self, ids: object, *, missing: Literal["raise", -1] = "raise") -> Rows:
        """Return the row of each id.

        Parameters
        ----------
        ids
            List or array of n ids.
        missing
            ``"raise"``, or -1 to have -1 in place of an unknown (or removed) id's row.

        Returns
        -------
        int64[n]

        Raises
        ------
        UnknownIdError
            For ids that the entity does not have.
        IdTypeError
            For strings where the ids are integers, or the other way round.
        InvalidInputError
            For what can be no id.
        """
        if missing not in ("raise", -1):
            msg = f"missing={missing!r}: give 'raise' or -1"
            raise InvalidInputError(msg)
        wanted = self.checked(ids)
        rows = self._find(wanted)
        if missing == "raise" and (rows < 0).any():
            self._raise_unknown(wanted[rows < 0])
        return rows

    def checked(self, ids: object) -> Ids:
        """Return ids as an array of this entity's type.

        Raises
        ------
        IdTypeError
            If they are of the other type.
        InvalidInputError
            If one of them can be no id.
        """
        wanted = normalize_ids(ids, what=self.entity)
        given = id_type_of(wanted)
        if given and self.id_type and given != self.id_type:
            mine = f"ids of {self.entity!r} are {self.id_type}"
            msg = f"{self.entity} id {wanted.item(0)!r}: {mine}, these are {given}; convert them"
            raise IdTypeError(msg)
        return wanted

    def _raise_unknown(self, ids: Ids) -> None:
        shown = ", ".join(repr(i) for i in ids[:3].tolist()) + (", …" if len(ids) > 3 else "")
        msg = f"{self.entity} id {shown}: {len(ids)} unknown (never appended, or removed); append first, or pass missing="
        raise UnknownIdError(msg)

    def reload(self, reader: Reader) -> None:
        """Begin anew on what was committed."""
        self._reader = reader
        self._stored = EntityState.from_json(reader.attributes(self._path))
        self._id_type, self._removed_rows = None, None
        if self._staged:
            self._staged.clear()

    @property
    def staged(self) -> StagedIds:
        """Return what a checkout has appended and removed; empty for a version."""
        return self._staged or StagedIds()

    def _find(self, ids: Ids) -> Rows:
        rows = np.full(len(ids), -1, np.int64)
        if len(ids) == 0:
            return rows
        keys = id_keys(ids)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        positions, found = find(self._reader, f"{self._path}/index", self._stored.runs, keys)
        self._confirm(ids, order[positions], found, rows)
        if self._staged is not None:
            positions, slots = self._staged.find(keys)
            self._confirm(ids, order[positions], slots + self.n_stored, rows)
            if self._staged.removed:
                rows[np.isin(rows, list(self._staged.removed))] = -1
        return rows

    def _confirm(self, ids: Ids, positions: Rows, found: Rows, rows: Rows) -> None:
        """Enter the rows whose id is really the one asked for: the key of a string is only its hash."""
        if len(found) and ids.dtype == object:
            same = np.asarray(self.at(found) == ids[positions], bool)
            positions, found = positions[same], found[same]
        rows[positions] = found

    def ids(self, rows: object = None) -> Ids:
        """Return the ids of ``rows``, or all live ids in row order.

        Returns
        -------
        int64[n] or object[n] of str

        Raises
        ------
        InvalidInputError
            For rows that the entity does not have.
        UnknownIdError
            For rows whose id was removed.
        """
        if rows is None:
            return self.at(self.live_rows())
        wanted = checked_rows(rows, len(self), self.entity)
        gone = np.isin(wanted, self.removed_rows())
        if gone.any():
            msg = f"row {wanted[gone][0]} of {self.entity!r}: its id was removed; ask an older version"
            raise UnknownIdError(msg)
        return self.at(wanted)

    def live_rows(self) -> Rows:
        """Return the rows whose ids are not removed, ascending."""
        rows = np.arange(len(self))
        gone = self.removed_rows()
        return np.delete(rows, gone) if len(gone) else rows

    def removed_rows(self) -> Rows:
        """Return the rows whose ids were removed, ascending."""
        if self._removed_rows is None:
            stored = np.empty(0, np.int64)
            if self._stored.n_removed:
                (state,) = self._reader.read([f"{self._path}/state"], sparse=True)
                stored = np.flatnonzero(state == REMOVED)
            self._removed_rows = stored
        if self._staged and self._staged.removed:
            return np.union1d(self._removed_rows, np.fromiter(self._staged.removed, np.int64))
        return self._removed_rows

    def remember(self, rows: Rows, ids: Ids) -> None:
        """Keep the ids of some rows (ascending), to be found without reading; those of rows removed since are not asked for."""
        if len(rows):
            self._remembered.append((rows, ids))

    def at(self, rows: Rows) -> Ids:
        """Return the ids of ``rows`` without looking whether they were removed (blank where that is committed)."""
        out: Ids = np.empty(len(rows), object if self.id_type == "str" else np.int64)
        stored = rows < self.n_stored
        if self._staged and not stored.all():
            out[~stored] = self._staged.ids[rows[~stored] - self.n_stored]
        for known, ids in self._remembered:
            at = np.minimum(np.searchsorted(known, rows), len(known) - 1)
            found = stored & (known[at] == rows)
            out[found] = ids[at[found]]
            stored &= ~found
        if stored.any():
            out[stored] = self._read(rows[stored])
        return out

    def _read(self, rows: Rows) -> Ids:
        if self.id_type == "int64":
            return self._reader.gather(f"{self._path}/ids/values", rows)
        where, lengths = byte_positions(self._reader, self._path, rows)
        blob = self._reader.gather(f"{self._path}/ids/bytes", where).tobytes()
        stops = np.cumsum(lengths).tolist()
        texts = [blob[a:b].decode() for a, b in zip([0, *stops[:-1]], stops, strict=True)]
        out = np.empty(len(texts), object)
        out[:] = texts
        return out


def checked_rows(rows: object, n_rows: int, what: str) -> Rows:
    """Return ``rows`` as int64[n].

    Raises
    ------
    InvalidInputError
        If they are no whole numbers from 0 to ``n_rows - 1``.
    """
    try:
        array = np.asarray(rows)
    except ValueError as error:
        msg = f"rows of {what!r}: cannot be made an array ({error})"
        raise InvalidInputError(msg) from error
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        msg = f"rows of {what!r}: {array.dtype} of shape {array.shape}; give a list of whole numbers"
        raise InvalidInputError(msg)
    if array.min() < 0 or array.max() >= n_rows:
        bad = array[(array < 0) | (array >= n_rows)][0]
        msg = f"row {bad} of {what!r}: it has rows 0 to {n_rows - 1}; take rows from IdMap.rows"
        raise InvalidInputError(msg)
    return array.astype(np.int64, copy=False)
