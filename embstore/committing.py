"""Making what is staged the tip of a branch, also where others do the same at the same time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from embstore.errors import ConflictError, NameExistsError
from embstore.lineage import version_record
from embstore.names import check_name
from embstore.staged import Staged
from embstore.storage.repo import Described, Repo
from embstore.storage.writer import Writer
from embstore.version import Version

_MOST_TRIES = 100
# After so many lost races the lock is held from looking at the tip to moving the branch, where there is a lock.
_PATIENCE = 3
_FIRST_WAIT, _LONGEST_WAIT = 0.01, 1.0  # seconds


@dataclass(frozen=True)
class Commit:
    """What is to be a version, and where.

    Parameters
    ----------
    branch
        Is made where it is missing.
    message, metadata, lineage
        Of the version.
    merged
        The ids of its parents after the first.
    """

    branch: str
    message: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    merged: tuple[str, ...] = ()

    def noting(self, **more: Any) -> Commit:
        """Return the same with more in its lineage."""
        return replace(self, lineage={**self.lineage, **more})

    def write(self, repo: Repo, staged: Staged, parent: Version) -> str | None:
        """Write ``staged``, which is over ``parent``, and return the version's id; None if the branch is elsewhere.

        Raises
        ------
        NameExistsError
            If the branch is missing and a tag has its name.
        """
        check_name(self.branch, "branch")
        tip = repo.branch(self.branch)
        if tip is None and self.branch in repo.tags():
            msg = f"branch {self.branch!r}: a tag has this name; take another"
            raise NameExistsError(msg)
        if tip not in (None, parent.id):
            return None

        def write(writer: Writer) -> Described:
            counts = staged.write(writer)
            # The engine refuses a version that changes nothing, and ours may repeat what is there.
            writer.set_group("", {**(writer.attributes("") or {}), "written": writer.token})
            lineage = {**self.lineage, "counts": counts, "bytes": writer.written_bytes}
            parents = [parent.id, *self.merged]
            return version_record(self.message, parents, self.metadata, lineage, documents=parent.documents)

        try:
            return repo.commit(self.branch, parent.id, write, create=tip is None)
        except ConflictError:
            return None


def until_landed(repo: Repo, branch: str, attempt: Callable[[], Version | None], *, most_tries: int = _MOST_TRIES) -> Version:
    """Return what ``attempt`` makes, trying again as long as others move the branch first.

    Between tries it waits for a random time, the longer the more were lost (full jitter); from the fourth on it holds the
    store's lock, so that on a file system it cannot lose; in an object store the others wait, but who has begun before.

    Raises
    ------
    ConflictError
        If the branch has moved before each of ``most_tries``.
    """
    for n_lost in range(min(_PATIENCE, most_tries)):
        landed = attempt()
        if landed is not None:
            return landed
        time.sleep(random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2**n_lost)))
    with repo.turn():
        for _ in range(_PATIENCE, most_tries):
            landed = attempt()
            if landed is not None:
                return landed
            time.sleep(random.uniform(0, _FIRST_WAIT))
    msg = f"branch {branch!r} has moved {most_tries} times before this could be committed; try again when fewer commit"
    raise ConflictError(msg)
