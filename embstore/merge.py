"""Bringing what another branch has changed into a branch."""

from __future__ import annotations

from dataclasses import dataclass

from embstore.committing import Commit, until_landed
from embstore.conflicts import Judge, OnConflict, Policies
from embstore.errors import ConflictError, UnknownRefError
from embstore.history import Find, common_ancestors, line
from embstore.lineage import check_message, trained_by
from embstore.storage.repo import Repo
from embstore.threeway import merge_base, merge_states
from embstore.version import Version
from embstore.workspace import Workspace


@dataclass(frozen=True)
class Merge:
    """One call of ``Store.merge``.

    Parameters
    ----------
    repo, find
        Of the store.
    source, name
        What comes in, and how the caller called it.
    into
        The branch.
    on_conflict, message
        As given.
    """

    repo: Repo
    find: Find
    source: Version
    name: str
    into: str
    on_conflict: OnConflict
    message: str | None

    def land(self) -> Version:
        """Make the version, or move the branch; see ``Store.merge``."""
        policies = Policies.of(self.on_conflict)
        if self.message is not None:
            check_message(self.message)
        return until_landed(self.repo, self.into, lambda: self._attempt(policies))

    def _attempt(self, policies: Policies) -> Version | None:
        tip = self._tip()
        found = [version.id for version in common_ancestors(tip, self.source, self.find)]
        if found == [self.source.id]:
            return tip
        if found == [tip.id] and self.message is None and any(v.id == tip.id for v in line(self.source, self.find)):
            return self._forward(tip)
        return self._commit(tip, policies)

    def _tip(self) -> Version:
        tips = self.repo.branches()
        if not isinstance(self.into, str) or self.into not in tips:
            msg = f"branch {self.into!r}: there are {', '.join(tips)}; make it with store.branch({self.into!r})"
            raise UnknownRefError(msg)
        return self.find(tips[self.into])

    def _forward(self, tip: Version) -> Version | None:
        """Point the branch to the source: nothing has happened on it since the source left it."""
        with self.repo.location.lock():
            if self.repo.branches().get(self.into) != tip.id:
                return None
            try:
                self.repo.forward_branch(self.into, self.source.id, expected=tip.id)
            except ConflictError:  # where there is no lock
                return None
        return self.source

    def _commit(self, tip: Version, policies: Policies) -> Version | None:
        base, work = merge_base(tip, self.source, self.find), Workspace(self.repo, tip.id)
        judge = Judge(policies, ours_is_here=True)
        merge_states(work, base, self.source, judge, self.find)
        judge.check(
            f"branch {self.into!r} and {self.name!r}: ",
            "nothing is written; say with on_conflict= whose stand (ours is the branch, theirs the source)",
        )
        merged = {"source": self.name, "base": base.id if isinstance(base, Version) else None, "on_conflict": str(policies)}
        lineage = {"merged": merged, "conflicts": judge.resolved} if judge.resolved else {"merged": merged}
        trained = trained_by(tip.id, self.repo.ancestry) or trained_by(self.source.id, self.repo.ancestry)
        commit = Commit(self.into, self.message or f"merge {self.name}", {}, {**trained, **lineage}, (self.source.id,))
        made = commit.write(self.repo, work.staged, tip)
        return None if made is None else self.find(made)
