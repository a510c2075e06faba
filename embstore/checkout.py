"""A writable copy of a branch's tip: everything is held back until one commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

import numpy as np

from embstore.consumed import ITEM, USER
from embstore.errors import ConflictError, InvalidInputError, NameExistsError, RefusedError, UncommittedError
from embstore.growth import append_ids, zero_rows
from embstore.lineage import check_message, checked_metadata, version_record
from embstore.names import check_name
from embstore.schema import TableSpec
from embstore.staged import Staged
from embstore.storage.arrays import Rows
from embstore.storage.repo import Described, Repo
from embstore.storage.writer import Writer
from embstore.version import Version
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

    def append(self, entity: str, ids: object, *, init: Mapping[str, object] | None = None) -> Rows:
        """Give every new id a row in all tables of its entity; known ids keep theirs.

        Parameters
        ----------
        entity
            Of the schema.
        ids
            List or array of n ids, in any order, repeats allowed.
        init
            Table name -> ``[n, dim]`` (or a row for each new id): where new rows start, in place of the initializer.

        Returns
        -------
        The rows of all given ids, int64[n].

        Raises
        ------
        UnknownNameError
            If there is no such entity or table.
        IdTypeError
            For ids of another type than the entity's.
        InvalidInputError
            For what can be no id, or ``init`` of another shape or dtype.
        StaleCheckoutError
            If the checkout is closed.
        """
        self.check_open()
        tables = [self.table_rows(spec.name) for spec in self._tables_of(entity)]
        return append_ids(self.ids(entity), tables, ids, init or {})

    def _tables_of(self, entity: str) -> list[TableSpec]:
        return [spec for spec in self.schema.tables if spec.entity == entity]

    def remove(self, entity: str, ids: object) -> None:
        """Forget ids: vectors and slots are zeroed, consumed records dropped, the id blanked; rows stay and are not reused.

        Older versions still have all of it until they are expired.

        Raises
        ------
        UnknownIdError
            For ids that the entity does not have; nothing is removed then.
        StaleCheckoutError
            If the checkout is closed.
        """
        self.check_open()
        idmap = self.ids(entity)
        rows = np.unique(idmap.rows(ids))
        if len(rows) == 0:
            return
        for spec in self._tables_of(entity):
            zero_rows(self.table_rows(spec.name), rows)
        if entity in (USER, ITEM):
            self.consumed.drop(entity, rows)
        idmap.staged.removed.update(rows.tolist())

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
        on_conflict: str = "fail",
        allow_empty: bool = False,
        allow_nonfinite: bool = False,
    ) -> Version:
        """Make everything staged a version, atomically; the checkout goes on from there.

        Parameters
        ----------
        message
            For people.
        metadata
            The caller's, JSON-ready.
        branch
            Another branch, made at this checkout's version where it is missing: after a ConflictError no work is lost.
        on_conflict
            ``"fail"``.
        allow_empty, allow_nonfinite
            Commit although nothing is staged; although numbers are NaN or infinite.

        Raises
        ------
        ConflictError
            If the branch has moved; nothing is written, and everything stays staged.
        NonFiniteError
            For NaN or infinity.
        RefusedError
            If nothing is staged.
        InvalidInputError
            For a message, metadata or branch that cannot be stored.
        StaleCheckoutError
            If the checkout is closed.
        """
        self.check_open()
        if on_conflict != "fail":
            msg = f"on_conflict={on_conflict!r}: only 'fail' is known; commit to a branch of its own with branch="
            raise InvalidInputError(msg)
        check_message(message)
        staged = self.staged
        if not allow_empty and staged.is_empty:
            msg = "nothing is staged; change something first, or pass allow_empty=True"
            raise RefusedError(msg)
        if not allow_nonfinite:
            staged.check_finite()
        return self._write(staged, message, checked_metadata(metadata), branch or self.branch)

    def _write(self, staged: Staged, message: str, metadata: dict[str, Any], branch: str) -> Version:
        check_name(branch, "branch")
        known = self.repo.branches()
        if branch not in known and branch in self.repo.tags():
            msg = f"branch {branch!r}: a tag has this name; take another"
            raise NameExistsError(msg)

        def write(writer: Writer) -> Described:
            counts = staged.write(writer)
            # The engine refuses a version that changes nothing, and ours may repeat what is there.
            writer.set_group("", {**(writer.attributes("") or {}), "written": writer.token})
            lineage = {**self.lineage, "counts": counts, "bytes": writer.written_bytes}
            return version_record(message, [self.version.id], metadata, lineage, documents=self.version.documents)

        try:
            new = self.repo.commit(branch, self.version.id, write, create=branch not in known)
        except ConflictError as error:
            msg = f"{error}; your changes are still here: commit(branch='another-name') keeps them"
            raise ConflictError(msg) from error
        self._go_on(branch, new)
        return self.version

    def _go_on(self, branch: str, version_id: str) -> None:
        self.branch, self.version, self.lineage = branch, self._find_version(version_id), {}
        self.reload(version_id)

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
