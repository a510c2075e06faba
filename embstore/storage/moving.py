"""Moving the branches and tags of a store in an object store, where no lock is held: the server compares and sets in one step.

A request whose answer is lost may have got through, and the engine, which sends it again, then takes its own work for somebody
else's. So after every failure the ref itself says what happened.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import icechunk

from embstore.errors import ConflictError, NameExistsError, StorageError
from embstore.storage.faults import reading
from embstore.storage.hidden import WAITING, is_hidden
from embstore.storage.object_store import ObjectPlace
from embstore.storage.walking import FIRST_SNAPSHOT

_MOST_MOVES = 20
_MOST_SECONDS_IN_LINE = 10.0
_SECONDS_BETWEEN_LOOKS = 0.05
_line = threading.local()  # whether this thread is it that others wait for


class ServedRefs:
    """The branches and tags of a repository behind a server, with the engine's own names for what moves them."""

    def __init__(self, engine: icechunk.Repository, place: ObjectPlace) -> None:
        self._engine = engine
        self._place = place

    def create_branch(self, name: str, snapshot_id: str) -> None:
        """Make a branch.

        Raises
        ------
        NameExistsError
            If somebody else made it first.
        """
        self._make(name, snapshot_id, self._engine.create_branch_async, self.branch)

    def create_tag(self, name: str, snapshot_id: str) -> None:
        """Make a tag.

        Raises
        ------
        NameExistsError
            If somebody else made it first.
        """
        self._make(name, snapshot_id, self._engine.create_tag_async, self.tag)

    def _make(
        self,
        name: str,
        snapshot_id: str,
        make: Callable[[str, str], Awaitable[None]],
        find: Callable[[str], str | None],
    ) -> None:
        try:
            self._place.answered(lambda: make(name, snapshot_id))
        except Exception as error:
            found = find(name)
            if found not in (None, snapshot_id):
                msg = f"{name!r}: somebody else has just made it, and it is at {found}; take another name"
                raise NameExistsError(msg) from error
            if found is None:
                raise

    def delete_branch(self, name: str) -> None:
        """Delete a branch."""
        self._delete(name, self._engine.delete_branch_async, self.branch)

    def delete_tag(self, name: str) -> None:
        """Delete a tag."""
        self._delete(name, self._engine.delete_tag_async, self.tag)

    def _delete(self, name: str, delete: Callable[[str], Awaitable[None]], find: Callable[[str], str | None]) -> None:
        try:
            self._place.answered(lambda: delete(name))
        except StorageError:  # nobody answers
            raise
        except Exception:
            if find(name) is not None:
                raise

    def reset_branch(self, name: str, snapshot_id: str, *, from_snapshot_id: str | None = None) -> None:
        """Point a branch elsewhere; with ``from_snapshot_id`` only from there.

        Raises
        ------
        ConflictError
            If the branch is elsewhere by now.
        StorageError
            If the server refuses, or nobody can say whether it did.
        """
        if from_snapshot_id is not None:
            self._move(name, snapshot_id, from_snapshot_id)
            return
        for _ in range(_MOST_MOVES):
            try:
                self._move(name, snapshot_id, self.branch(name))
            except ConflictError:
                continue
            return
        msg = f"branch {name!r}: others have moved it {_MOST_MOVES} times meanwhile; try again"
        raise ConflictError(msg)

    def _move(self, name: str, to: str, start: str | None) -> None:
        try:
            self._place.answered(lambda: self._engine.reset_branch_async(name, to, from_snapshot_id=start))
        except Exception as error:
            tip = self._tip_after(name, to)
            if tip == start != to:
                raise
            if not self._got_through(tip, to, start):
                msg = f"branch {name!r} has moved from {start} to {tip} since this checkout was made"
                raise ConflictError(msg) from error

    def _tip_after(self, name: str, to: str) -> str | None:
        try:
            return self.branch(name)
        except Exception as error:
            msg = (
                f"branch {name!r}: the server fell silent while it was to be moved to {to}, so that may be done or not; "
                "look at the log before you try again"
            )
            raise StorageError(msg) from error

    def _got_through(self, tip: str | None, to: str, start: str | None) -> bool:
        """Return whether the tip is the state it was to be moved to, or somebody has committed on top of that since."""
        if tip is None:
            return False
        with reading():
            for info in self._engine.ancestry(snapshot_id=tip):
                if info.id in (to, start):
                    found: str = info.id
                    return found == to
        return False

    @contextmanager
    def first_in_line(self) -> Iterator[None]:
        """Have those who are about to commit wait, one at a time; it is kept to for fairness, nothing else hangs on it."""
        _line.is_first = self._get_in_line()
        try:
            yield
        finally:
            if _line.is_first:
                _line.is_first = False
                with suppress(Exception):
                    self.delete_branch(WAITING)

    def _get_in_line(self) -> bool:
        """Return whether the others wait from now on; False where some do not in ten seconds."""
        until = time.monotonic() + _MOST_SECONDS_IN_LINE
        while time.monotonic() < until:
            self.let_pass()
            with suppress(Exception):
                self._place.answered(lambda: self._engine.create_branch_async(WAITING, FIRST_SNAPSHOT))
                return True
        return False

    def let_pass(self) -> None:
        """Wait while another asks for it, but for ten seconds at most: it may have been killed."""
        if getattr(_line, "is_first", False):
            return
        until = time.monotonic() + _MOST_SECONDS_IN_LINE
        while self.branch(WAITING) is not None:
            if time.monotonic() > until:
                with suppress(Exception):
                    self.delete_branch(WAITING)
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def branches(self) -> dict[str, str]:
        """Return all branches and the states they point to."""
        return self._place.answered(lambda: _all(self._engine.list_branches_async, self._engine.lookup_branch_async))

    def tags(self) -> dict[str, str]:
        """Return all tags and the states they name."""
        return self._place.answered(lambda: _all(self._engine.list_tags_async, self._engine.lookup_tag_async))

    def branch(self, name: str) -> str | None:
        """Return the state that a branch points to, without a look at the others; None if there is no such branch."""
        return self._place.answered(lambda: _found(self._engine.lookup_branch_async(name)))

    def tag(self, name: str) -> str | None:
        """Return the state that a tag names; None if there is no such tag."""
        return self._place.answered(lambda: _found(self._engine.lookup_tag_async(name)))


async def _all(names: Callable[[], Awaitable[set[str]]], look_up: Callable[[str], Awaitable[str]]) -> dict[str, str]:
    """Return every name and what it points to, asked for at once; what is deleted meanwhile is left out."""
    known = sorted(name for name in await names() if not is_hidden(name))
    found = await asyncio.gather(*(_found(look_up(name)) for name in known))
    return {name: state for name, state in zip(known, found, strict=True) if state is not None}


async def _found(look_up: Awaitable[str]) -> str | None:
    try:
        return await look_up
    except Exception as error:
        if "ref not found" not in str(error).lower():
            raise
        return None
