"""A writable copy of a branch's tip: everything is held back until one commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any

from embstore.committing import Commit, until_landed
from embstore.conflicts import Judge, OnConflict, Policies
from embstore.errors import ConflictError, RefusedError, UncommittedError, UnknownRefError
from embstore.lineage import check_message, checked_metadata
from embstore.names import check_name
from embstore.staged import Staged
from embstore.storage.leases import take
from embstore.storage.repo import Repo
from embstore.threeway import merge_states
from embstore.version import Version
from embstore.worker import Forks, Worker
from embstore.workspace import Workspace


class Checkout(Workspace):
    """The state of a branch's tip, to be changed and committed.

    Nothing is written before ``commit``. Use it as a context manager: leaving it with staged changes raises
    UncommittedError, unless an exception is on its way, which discards them.
    """

    def __init__(self, repo: Repo, branch: str, version: Version, *, find_version: Callable[[str], Version]) -> None:
        super().__init__(repo, version.id)
        self.branch = branch
        self.version = version
        self.lineage: dict[str, Any] = {}
        self._find_version = find_version
        self.before_replay: Callable[[], object] = lambda: None  # what it raises ends a commit that found its branch moved
        self.forks = Forks()
        # Of the version that it begins with: what it commits is younger than the lease, which is enough to keep it too.
        self._release = take(repo.leases, version.id, f"checkout of {branch!r}", owner=self, writes=True)

    def fork(self) -> Worker:
        """Return a worker: it sees what this checkout sees now, and stages rows in another process, for ``collect``.

        Raises
        ------
        StaleCheckoutError
            If the checkout is closed.
        """
        self.check_open()
        return self.forks.fork(self, self.version)

    def collect(self, workers: Iterable[Worker]) -> None:
        """Stage what workers have staged: of all of them, or of none.

        Raises
        ------
        ConflictError
            If two of them have staged a row, or a dense array, with other numbers.
        SchemaMismatchError
            If they have added a slot with other shapes.
        InvalidInputError
            If one is of another checkout, from before its last commit, or was collected before.
        StaleCheckoutError
            If the checkout is closed.
        """
        self.check_open()
        self.forks.collect(self, self.version, workers)

    @property
    def dirty(self) -> bool:
        """Return whether there is anything to commit."""
        return self._closed is None and not self.staged.is_empty

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
        """Make everything staged a version, atomically; the checkout goes on from there.

        If the branch has moved meanwhile, what is staged is laid on its new tip, by id; rows may then be others than before, so
        that the checkout is closed: take rows from the version's ``ids``. The lineage counts such ``replays``.

        Parameters
        ----------
        message
            For people.
        metadata
            The caller's, JSON-ready.
        branch
            Another branch, made at this checkout's version where it is missing: after a ConflictError no work is lost.
        on_conflict
            What becomes of rows (with their slots) and arrays without rows that were changed on the branch too, and otherwise:
            ``"fail"``, ``"ours"`` (this checkout's), ``"theirs"``, ``"mean"``, for rows also a callable(`Conflict`) -> rows; or
            ``{"rows": …, "dense": …}``.
        allow_empty, allow_nonfinite
            Commit although nothing is staged; although numbers are NaN or infinite.

        Raises
        ------
        ConflictError
            If the branch has moved, and there are conflicts that ``on_conflict`` does not decide; nothing is written, and
            everything stays staged.
        SchemaMismatchError
            If a table, slot or entity was added to the branch that differs from one added here.
        NonFiniteError
            For NaN or infinity.
        RefusedError
            If nothing is staged.
        InvalidInputError
            For a message, metadata, branch or ``on_conflict`` that cannot be used; where values of ``rows_of`` are no rows.
        StaleCheckoutError
            If the checkout is closed.
        """
        self.check_open()
        policies = Policies.of(on_conflict)
        check_message(message)
        staged = self.staged
        if not allow_empty and staged.is_empty:
            msg = "nothing is staged; change something first, or pass allow_empty=True"
            raise RefusedError(msg)
        if not allow_nonfinite:
            staged.check_finite()
        staged.check_pointers()
        commit = Commit(self.branch if branch is None else branch, message, checked_metadata(metadata), self.lineage)
        check_name(commit.branch, "branch")
        judging = partial(Judge, policies, ours_is_here=False, allow_nonfinite=allow_nonfinite)
        return until_landed(self.repo, commit.branch, partial(self._attempt, commit, staged, judging, count(1)))

    def _attempt(self, commit: Commit, staged: Staged, judging: Callable[[], Judge], replays: Iterator[int]) -> Version | None:
        tip = self.repo.branch(commit.branch) or self.version.id
        if tip == self.version.id:
            made = commit.write(self.repo, staged, self.version)
            if made is not None:
                self._go_on(commit.branch, made)
            return None if made is None else self.version
        self.before_replay()
        work = Workspace(self.repo, tip)
        judge = self._replay(work, commit.branch, judging())
        noted = commit.noting(replays=next(replays), replayed_from=self.version.id)
        made = (noted.noting(conflicts=judge.resolved) if judge.resolved else noted).write(
            self.repo, work.staged, self._find_version(tip)
        )
        if made is None:
            return None
        rows = f"it was committed as {made} on a branch that had moved, so that its rows may be others now"
        self.close(f"checkout of {self.branch!r}: {rows}; make a new one, and take rows from its ids")
        return self._find_version(made)

    def _replay(self, work: Workspace, branch: str, judge: Judge) -> Judge:
        """Stage in ``work`` what is staged here, and return who decided the conflicts."""
        merge_states(work, self.version, self, judge, self._find_version)
        judge.check(
            f"branch {branch!r} has moved from {self.version.id} to {work.version_id} since this checkout was made, and ",
            "your changes are still here: say with on_conflict= whose stand, or commit(branch='another-name') keeps them",
        )
        return judge

    def commit_here(self, message: str, metadata: Mapping[str, Any]) -> Version:
        """Commit what is staged if the branch has not moved, whatever it is.

        Raises
        ------
        ConflictError
            If it has.
        """
        commit = Commit(self.branch, message, metadata, self.lineage)
        made = commit.write(self.repo, self.staged, self.version)
        if made is None:
            msg = f"branch {self.branch!r} has moved from {self.version.id} meanwhile; nothing is written, try again"
            raise ConflictError(msg)
        self._go_on(self.branch, made)
        return self.version

    def _go_on(self, branch: str, version_id: str) -> None:
        self.branch, self.version, self.lineage = branch, self._find_version(version_id), {}
        self.reload(version_id)

    def rebase(self, on_conflict: OnConflict = "fail") -> Checkout:
        """Return a checkout of the branch's tip with everything staged here, by id; this one is closed, for rows may be others.

        Parameters
        ----------
        on_conflict
            As for ``commit``.

        Raises
        ------
        ConflictError, SchemaMismatchError, InvalidInputError
            As from ``commit``; this checkout stays as it is then.
        UnknownRefError
            If the branch was deleted.
        StaleCheckoutError
            If the checkout is closed.
        """
        self.check_open()
        judge = Judge(Policies.of(on_conflict), ours_is_here=False, allow_nonfinite=True)
        self.staged.check_pointers()
        tip = self.repo.branch(self.branch)
        if tip is None:
            msg = f"branch {self.branch!r}: it was deleted; commit makes it again, or commit(branch='another-name') takes another"
            raise UnknownRefError(msg)
        work = Checkout(self.repo, self.branch, self._find_version(tip), find_version=self._find_version)
        try:
            self._replay(work, self.branch, judge)
        except BaseException:
            work.discard()
            raise
        work.lineage = self.lineage
        self.close(f"checkout of {self.branch!r}: it was rebased; go on with what rebase returned, and take rows from its ids")
        return work

    def close(self, reason: str) -> None:
        """Drop what is staged and let the version go; every later change raises StaleCheckoutError with ``reason``."""
        super().close(reason)
        self._release()

    def discard(self) -> None:
        """Forget everything staged and close the checkout."""
        self.close(f"checkout of {self.branch!r}: it was discarded; make a new one with store.checkout()")

    def __enter__(self) -> Checkout:
        self.check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            with suppress(Exception):  # what is on its way matters more
                self.discard()
            return
        if self.dirty:
            changes = str(self.changes).replace("\n", "; ")
            msg = f"checkout of {self.branch!r} left with staged changes ({changes}); commit or discard them before leaving"
            raise UncommittedError(msg)
        self.close(f"checkout of {self.branch!r}: its with-block has ended; make a new one with store.checkout()")
