"""Runs: pieces of work with a name, found again by it, and brought home from branches of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from uuid import uuid4

from embstore.checkout import Checkout
from embstore.conflicts import Conflict, OnConflict, Policies, Policy, Resolve
from embstore.errors import ConflictError, InvalidInputError
from embstore.initial import id_keys
from embstore.interactions import Interactions
from embstore.names import check_name
from embstore.store import Store
from embstore.version import Version

# In a lineage: the branch that a version was meant for, where it is on one of its own.
MEANT_FOR = "meant_for"
# In the data of a lineage: which pairs a run was begun with.
DIGEST = "digest"
_ADVICE = {"rows": "mean", "dense": "ours"}


@dataclass(frozen=True)
class Found:
    """What there is of a run: its newest version, and the branch that has it."""

    version: Version
    branch: str

    @property
    def is_finished(self) -> bool:
        """Return whether nothing is left to be trained."""
        return not self.version.lineage.get("unfinished")


def digest_of(pairs: Interactions) -> str:
    """Return 64 bits, in hexadecimal, by which other pairs, or the same in another order, can be told from these."""
    found = blake2b(digest_size=8)
    columns = {"user": id_keys(pairs.user_ids), "item": id_keys(pairs.item_ids), "rating": pairs.ratings, "time": pairs.times}
    for name, column in columns.items():
        if column is not None:
            found.update(f"{name} {column.dtype.str} {len(column)} ".encode())
            found.update(column.data)
    return found.hexdigest()


def find_run(store: Store, branch: str, run: str | None, *, folded_in: bool = False) -> Found | None:
    """Return the newest version of a run that a branch has, else the one on a branch of its own; None where there is none.

    What came to the branch by a merge is its too.

    Raises
    ------
    InvalidInputError
        If its name cannot be part of a branch's, where a conflict would put its work; if it was a training where a folding in is
        asked for, or the other way round.
    """
    if run is None:
        return None
    check_name(run, "run")
    check_name(f"{branch}-{run}", "branch")
    found = _found(store, branch, run)
    if found is not None and ("entity" in found.version.lineage) != folded_in:
        what = "training" if folded_in else "folding in"
        msg = f"run {run!r}: version {found.version.id} is a {what} of this name; take another name"
        raise InvalidInputError(msg)
    return found


def _found(store: Store, branch: str, run: str) -> Found | None:
    line = list(store.log(branch))
    version = _of_run(line, run)
    if version is None and any(version.parents[1:] for version in line):
        version = _of_run(store.log(branch, all=True), run)
    mine = None if version is None else Found(version, branch)
    if mine is not None and mine.is_finished:
        return mine
    known = {version.id for version in line}
    for name in store.branches():
        if name.startswith(f"{branch}-"):
            version = _of_run(_since(known, store.log(name)), run)
            if version is not None and version.lineage.get(MEANT_FOR) == branch:
                return Found(version, name)
    return mine


def _of_run(versions: Iterable[Version], run: str) -> Version | None:
    return next((version for version in versions if version.lineage.get("run") == run), None)


def _since(known: set[str], versions: Iterable[Version]) -> Iterator[Version]:
    """Yield versions up to the first that is known."""
    for version in versions:
        if version.id in known:
            return
        yield version


def arrived(store: Store, found: Found, branch: str, *, on_conflict: OnConflict) -> Version:
    """Return the version by which a finished run came to a branch, if need be by merging it from a branch of its own.

    Raises
    ------
    ConflictError
        If it cannot be merged.
    """
    if found.branch == branch:
        mine = found.version
        return next((version for version in store.log(branch) if mine.id in version.parents[1:]), mine)
    return _merged(store, found, branch, on_conflict=on_conflict)


def _merged(store: Store, found: Found, branch: str, *, on_conflict: OnConflict) -> Version:
    message = f"{found.version.message} (from {found.branch})"
    try:
        return store.merge(found.version.id, into=branch, on_conflict=_other_way(on_conflict), message=message)
    except Exception as error:
        raise _left(found, branch, error) from error


def what_clashed(error: Exception, branch: str) -> str:
    """Return an error of a commit or merge without what it advises."""
    if not isinstance(error, ConflictError):
        return f"branch {branch!r} has moved, and what is there could not be brought together with this: {error}"
    return str(error).partition("; your changes are still here")[0].partition("; nothing is written")[0]


def _left(found: Found, branch: str, error: Exception) -> ConflictError:
    """Return what says where the work is and how it comes home."""
    into = "" if branch == "main" else f"into={branch!r}, "
    where = f"the work is version {found.version.id} on branch {found.branch!r}"
    how = f"store.merge({found.branch!r}, {into}on_conflict={_ADVICE}) brings it home, or train again"
    return ConflictError(f"{what_clashed(error, branch)}; {where}: {how}")


def _other_way(on_conflict: OnConflict) -> OnConflict:
    """Return what is the same where ours and theirs have changed places."""
    policies = Policies.of(on_conflict)
    return {"rows": _swapped(policies.rows), "dense": _swapped(policies.dense)}


def _swapped(policy: Policy) -> Policy:
    return _asked(policy) if callable(policy) else {"ours": "theirs", "theirs": "ours"}.get(policy, policy)


def _asked(resolve: Resolve) -> Resolve:
    def ask(conflict: Conflict) -> object:
        return resolve(replace(conflict, ours=conflict.theirs, theirs=conflict.ours))

    return ask


class DoneError(Exception):
    """Another process has finished the run meanwhile."""

    def __init__(self, found: Found) -> None:
        super().__init__(found)
        self.found = found


def commit_once(
    store: Store,
    work: Checkout,
    branch: str,
    message: str,
    *,
    run: str | None,
    on_conflict: OnConflict,
    folded_in: bool = False,
) -> Version:
    """Commit what is staged; where the run has landed meanwhile nothing is written, and DoneError names the version.

    It is looked for before the commit, and again whenever the branch has moved.
    """

    def look() -> None:
        done = find_run(store, branch, run, folded_in=folded_in)
        if done is not None and done.is_finished:
            raise DoneError(done)

    work.before_replay = look
    look()
    return work.commit(message, on_conflict=on_conflict, allow_empty=True)


@dataclass
class Landing:
    """Where the versions of one training go.

    Parameters
    ----------
    store, work, branch
        The checkout is of the branch, or of the branch of its own that an earlier version of the run is on.
    run
        The name of the work, if it has one.
    on_conflict
        Whose changes stand where the branch has changed the same; ours is the training.
    """

    store: Store
    work: Checkout
    branch: str
    run: str | None
    on_conflict: OnConflict

    @property
    def is_apart(self) -> bool:
        """Return whether the work is on a branch of its own."""
        return self.work.branch != self.branch

    def keep(self, message: str, lineage: dict[str, object]) -> Version:
        """Commit a version on the way: where the branch has moved, the training goes on on a branch of its own."""
        self.work.lineage = {**lineage, MEANT_FOR: self.branch} if self.is_apart else dict(lineage)
        try:
            return self.work.commit_here(message, {})
        except ConflictError:
            return self._keep_apart(message, lineage)

    def land(self, message: str, lineage: dict[str, object]) -> Version:
        """Commit the end of the training, laid on what others have committed meanwhile.

        Where the same run has landed meanwhile, that version is returned and nothing is recorded twice.

        Raises
        ------
        ConflictError
            If they changed the same: the work is on another branch, which the message names.
        """
        if self.is_apart:
            version = self.keep(message, lineage)
            found = find_run(self.store, self.branch, self.run) or Found(version, self.work.branch)
            return arrived(self.store, found, self.branch, on_conflict=self.on_conflict)
        self.work.lineage = dict(lineage)
        try:
            return commit_once(self.store, self.work, self.branch, message, run=self.run, on_conflict=self.on_conflict)
        except DoneError as error:
            self.work.discard()
            return arrived(self.store, error.found, self.branch, on_conflict=self.on_conflict)
        except Exception as error:
            if self.store.branches().get(self.branch) == self.work.version.id:
                raise
            version = self._keep_apart(message, lineage)
            raise _left(Found(version, self.work.branch), self.branch, error) from error

    def _keep_apart(self, message: str, lineage: dict[str, object]) -> Version:
        """Commit to a new branch, ``<branch>-<run>`` if that is free."""
        name = f"{self.branch}-{self.run or uuid4().hex[:8]}"
        while True:
            if name not in {*self.store.branches(), *self.store.tags()}:
                self.work.branch, self.work.lineage = name, {**lineage, MEANT_FOR: self.branch}
                with suppress(ConflictError):  # another had the same name in mind
                    return self.work.commit_here(message, {})
            name = f"{self.branch}-{uuid4().hex[:8]}"
