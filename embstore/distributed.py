"""Ranks of one torch job with one checkout: each stages its own rows, and one version comes out.

Only rank 0 has the checkout and commits. What the others stage is sent to it over gloo when they commit, column by column; so
it holds the rows that all ranks have changed, and no rank ever holds the rest of a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any

import numpy as np

from embstore.checkout import Checkout
from embstore.conflicts import OnConflict
from embstore.entity import Ids
from embstore.errors import InvalidInputError, LostRankError, UncommittedError
from embstore.layer import Array, Claims, Given, Layer
from embstore.parcels import pack_given, pack_layer, unpack_given, unpack_layers
from embstore.schema import Schema
from embstore.store import Store
from embstore.version import Version
from embstore.wire import Wire
from embstore.worker import Worker, stage_layer

_HALF_AN_HOUR = timedelta(minutes=30)


def share(store: Store, work: Checkout | None = None, *, timeout: timedelta = _HALF_AN_HOUR) -> Shard:
    """Share a checkout among all ranks of a torch job; every rank calls this, at the same place.

    Parameters
    ----------
    store
        As this rank has opened it, with its own credentials.
    work
        The checkout, on rank 0; ids, tables and entities have been added to it. None on the other ranks.
    timeout
        How long ranks wait for each other: as long as one may train while another waits. One that has died is noticed at once.

    Returns
    -------
    The part of this rank, to be bound to a module and to stage rows in. It goes on from each version that it commits.

    Raises
    ------
    InvalidInputError
        If rank 0 has given no checkout, or another rank one, or the timeout is no timedelta.
    LostRankError
        If a rank has died, or is too late.
    """
    wire = Wire.of_all(timeout)
    wire.agree(lambda: _check_place(wire, work))
    if work is not None:
        with wire.leading():
            worker = work.fork()
            data, packed = pack_given(worker.given)
        wire.tell({"version": worker.version.id, **data}, packed)
        return wire.agree(lambda: Shard(worker.version, worker.given, wire, store, work))
    data, arrays = wire.answer()
    received = list(arrays)
    return wire.agree(lambda: Shard(store.at(data["version"]), unpack_given(data, iter(received)), wire, store, None))


def _check_place(wire: Wire, work: Checkout | None) -> None:
    if (wire.rank == 0) != (work is not None):
        msg = f"share on rank {wire.rank} of {wire.n_ranks}: rank 0 gives its checkout, and no other rank gives one"
        raise InvalidInputError(msg)
    if work is not None:
        work.check_open()


class Shard(Worker):
    """What one rank of a job has of a checkout that all ranks share; made by ``share``.

    As a context manager it ends with its block: what is not committed by then raises UncommittedError, but for an exception.
    """

    def __init__(self, version: Version, given: Given, wire: Wire, store: Store, work: Checkout | None) -> None:
        super().__init__(version, given)
        self._wire = wire
        self._store = store
        self._work = work

    @property
    def rank(self) -> int:
        """Return the number of this rank."""
        return self._wire.rank

    @property
    def n_ranks(self) -> int:
        """Return how many ranks share the checkout."""
        return self._wire.n_ranks

    def ids_of_rank(self, entity: str) -> Ids:
        """Return this rank's share of the live ids: as many as any other's, or one more or less, following in row order.

        Raises
        ------
        UnknownNameError
            If there is no such entity.
        """
        rows = np.array_split(self.ids(entity).live_rows(), self.n_ranks)[self.rank]
        return self.ids(entity).ids(rows)

    def commit(
        self,
        message: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        branch: str | None = None,
        on_conflict: OnConflict = "fail",
        allow_empty: bool = False,
        allow_nonfinite: bool = False,
    ) -> Version:
        """Make what all ranks have staged one version; every rank calls this, and goes on from there.

        If the branch has moved meanwhile and what is staged was laid on its new tip, all are closed, as a checkout is.
        Either every rank returns the version, or all of them raise an error and there is none. After an error other than
        LostRankError the work of all ranks is still there: mend what is wrong and commit again, all of them.

        Parameters
        ----------
        message, metadata, branch, on_conflict, allow_empty, allow_nonfinite
            As for ``Checkout.commit``; those of rank 0 count.

        Raises
        ------
        ConflictError
            If the branch has moved, or two ranks have staged a row or a dense array with other numbers.
        LostRankError
            If a rank has died, or is too late. No version was made, unless rank 0 was done with it; the message says so.
        NonFiniteError, RefusedError, InvalidInputError
            As from ``Checkout.commit``, on any rank.
        StaleCheckoutError
            If the checkout is closed.
        """
        layer, claims = self._wire.agree(lambda: self._offered(allow_nonfinite=allow_nonfinite))
        work = self._work
        if work is None:
            self._give(layer, claims)
            return self._go_on(self._outcome())
        self._take(work, layer, claims)
        work.lineage["ranks"] = self.n_ranks
        with self._wire.leading():
            version = work.commit(
                message,
                metadata=metadata,
                branch=branch,
                on_conflict=on_conflict,
                allow_empty=allow_empty,
                allow_nonfinite=allow_nonfinite,
            )
        is_open = work.version == version  # else the checkout was closed, since its rows may be others now
        lost = self._wire.tell({"version": version.id, "open": is_open})
        if lost is not None:
            msg = f"version {version.id} is committed, and then: {lost}"
            raise LostRankError(msg) from lost
        return self._go_on({"version": version.id, "open": is_open})

    def _offered(self, *, allow_nonfinite: bool) -> tuple[Layer, Claims]:
        self.check_open()
        if not allow_nonfinite:
            self.staged.check_finite()
        layer = self.layer()
        return layer, self.claims(layer)

    def _give(self, layer: Layer, claims: Claims) -> None:
        """Send what this rank has staged: first which rows, and when rank 0 has seen that they fit, the rest."""
        keys = list(claims.rows)
        data = {"worker": claims.worker, "part": claims.part, "dense": claims.dense, "schema": claims.schema.to_json()}
        self._wire.send(0, {**data, "rows": keys}, [array for key in keys for array in claims.rows[key]])
        self._wire.answer()
        self._wire.send(0, *pack_layer(claims, layer))
        self.hand_over(layer)

    def _outcome(self) -> Any:
        """Return what became of the commit."""
        try:
            return self._wire.answer()[0]
        except LostRankError as error:
            msg = f"{error}; if it was rank 0 that died, it may have committed first: look at store.log()"
            raise LostRankError(msg) from error

    def _take(self, work: Checkout, layer: Layer, claims: Claims) -> None:
        """Stage in the checkout what all ranks have staged: of all or of none."""
        wire, offers = self._wire, {self.rank: claims}
        with wire.leading():
            wire.gather(lambda rank, data, arrays: offers.update({rank: self._claims_of(data, arrays)}))
            work.forks.admit(work, work.version, list(offers.values()))
        wire.tell({})

        def take(rank: int, data: Any, arrays: Iterator[Array]) -> None:
            for part in unpack_layers(offers[rank], data, arrays):
                stage_layer(work, part)

        try:
            with wire.leading():
                stage_layer(work, layer)
                self.hand_over(layer)
                wire.gather(take)
        except BaseException:
            work.close("checkout: a part of another rank's work is missing in it; make a new one with store.checkout()")
            raise

    def _claims_of(self, data: Any, arrays: Iterator[Array]) -> Claims:
        rows = {(table, column): (next(arrays), next(arrays)) for table, column in data["rows"]}
        schema, given = Schema.from_json(data["schema"]), self.given
        return Claims(given.origin, given.seen, data["worker"], data["part"], schema, rows, data["dense"])

    def _go_on(self, outcome: Mapping[str, Any]) -> Version:
        version = self._store.at(outcome["version"])
        if outcome["open"]:
            self.follow(version)
            self.given.seen = 0
            if self._work is not None:
                self.given.origin = self._work.forks.origin(version.id)
        else:
            rows = f"it was committed as {version.id} on a branch that had moved, so that its rows may be others now"
            self.close(f"shared checkout: {rows}; make a new one with store.checkout() and share")
        return version

    def discard(self) -> None:
        """Forget everything staged on this rank; on rank 0 close the checkout too."""
        self.close("shared checkout: it was discarded; make a new one with store.checkout() and share")
        if self._work is not None:
            self._work.discard()

    def __enter__(self) -> Shard:
        self.check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        dirty = error is None and self._closed is None and self.dirty
        self.discard()
        if dirty:
            msg = f"rank {self.rank} left its shared checkout with staged changes; commit on all ranks before leaving"
            raise UncommittedError(msg)
