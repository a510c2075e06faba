"""A store that others change too, and its model: commits replayed onto theirs, rebased and merged."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import embstore
from embstore import Version
from embstore.errors import ConflictError, StaleCheckoutError
from embstore.initial import initial_vectors
from tests.store.agreement import assert_view_agrees
from tests.store.model import USER, Id, State, StoreModel, is_equal
from tests.store.pair import Pair
from tests.store.uniting import ClashError, adopt_rows, united


class Shared(Pair):
    """A store that is there already, the model that all who work on it share, and a checkout that is one's own.

    Parameters
    ----------
    url, model
        What others have made.
    """

    ordered = False

    def __init__(self, url: str | os.PathLike[str], model: StoreModel) -> None:
        self.url, self.store, self.model = url, embstore.open(url), model
        self.handles: dict[str, Version] = {}
        self.checkout("main")

    def land(self, metadata: dict[str, Any], on_conflict: Mapping[str, str]) -> Version:
        """Commit; where the branch has moved, replayed under a policy, or to a branch of its own where that cannot be."""
        if self.model.branches[self.branch] == self.base:
            return self.commit(metadata)
        return self._replayed(self.branch, metadata, on_conflict) or self.commit(metadata)

    def _replayed(self, branch: str, metadata: dict[str, Any], on_conflict: Mapping[str, str]) -> Version | None:
        """Commit to a branch that has moved, and begin anew there; None where both sides changed the same."""
        tip, before = self.model.branches[branch], self.store.branches()
        after = self._united(self.base, self.staged, self.model.versions[tip].state, on_conflict)
        options: Any = {"branch": branch, "on_conflict": dict(on_conflict), "allow_empty": True, "allow_nonfinite": True}
        message = f"version {len(self.model.versions)}"
        if after is None:
            with pytest.raises(ConflictError):
                self.work.commit(message, metadata=metadata, **options)
            assert self.store.branches() == before
            assert_view_agrees(self.work, self.staged)
            return None
        version = self.work.commit(message, metadata=metadata, **options)
        self._landed(branch, version, after, message, metadata)
        with pytest.raises(StaleCheckoutError):
            self.work.append(USER, [1])
        self.checkout(branch)
        return version

    def _united(self, base: str, ours: State, theirs: State, on_conflict: Mapping[str, str]) -> State | None:
        def start(table: str, id_: Id) -> NDArray[Any]:
            spec = next(side.tables[table].spec for side in (ours, theirs) if table in side.tables)
            return initial_vectors(spec, np.array([id_], np.int64 if isinstance(id_, int) else object))[0]

        try:
            return united(self.model.versions[base].state, ours, theirs, start, **on_conflict)
        except ClashError:
            return None

    def _landed(
        self, branch: str, version: Version, after: State, message: str, metadata: dict[str, Any], second: str | None = None
    ) -> None:
        """Let the model have a version of which it knows all but which rows its ids were given."""
        given = {name: version.ids(name) for name in version.entities}
        adopt_rows(after, {n: (len(ids), ids.ids().tolist(), ids.live_rows().tolist()) for n, ids in given.items()})
        tip = self.model.branches[branch]
        self.model.commit(branch, version.id, after, parent=tip, message=message, metadata=metadata, second=second)
        self.check(version.id)

    def rebase(self, on_conflict: Mapping[str, str]) -> None:
        """Lay what is staged on the branch's newest version; where both sides changed the same, nothing happens."""
        tip = self.model.branches[self.branch]
        after = self._united(self.base, self.staged, self.model.versions[tip].state, on_conflict)
        if after is None:
            with pytest.raises(ConflictError):
                self.work.rebase(dict(on_conflict))
            assert_view_agrees(self.work, self.staged)
            return
        self.work = self.work.rebase(dict(on_conflict))
        given = {name: self.work.ids(name) for name in self.work.entities}
        adopt_rows(after, {n: (len(ids), ids.ids().tolist(), ids.live_rows().tolist()) for n, ids in given.items()})
        self.base, self.staged = tip, after
        assert_view_agrees(self.work, after)

    def merge(self, source: str, into: str, on_conflict: Mapping[str, str]) -> Version | None:
        """Merge a branch into another, unless they were merged into each other before; None where both changed the same."""
        ours, theirs = self.model.branches[into], self.model.branches[source]
        base, *others = self.model.common_ancestors(ours, theirs)
        if others:
            return None
        states = self.model.versions
        after = self._united(base, states[ours].state, states[theirs].state, on_conflict)
        if after is None:
            before = self.store.branches()
            with pytest.raises(ConflictError):
                self.store.merge(source, into=into, on_conflict=dict(on_conflict))
            assert self.store.branches() == before
            return None
        version = self.store.merge(source, into=into, on_conflict=dict(on_conflict))
        if version.id in states:
            assert (version.id, is_equal(states[version.id].state, after)) == (ours if base == theirs else theirs, True)
            self.model.branches[into] = version.id
        else:
            self._landed(into, version, after, version.message, {}, second=theirs)
        return version
