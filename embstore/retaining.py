"""How long a store keeps what."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection

from embstore.collection import Collected, collect
from embstore.expiry import Age, Expiry, expire
from embstore.storage.repo import Repo
from embstore.version import Version


class Retaining:
    """What a store does to forget."""

    _repo: Repo

    @abstractmethod
    def _version(self, version_id: str) -> Version:
        """Return a version by its id."""

    def expire(self, older_than: Age, *, dry_run: bool = True, tags: Collection[str] = ()) -> Expiry:
        """Forget versions that are older, but for what branches and tags point to; ``gc`` deletes what only they held.

        Parameters
        ----------
        older_than
            A moment (without a zone it is UTC), an age, or an age as text: ``"30d"``, ``"12h"``.
        dry_run
            Only report.
        tags
            Tags to be dropped first; all others keep their versions.

        Raises
        ------
        UnknownRefError
            If there is no such tag.
        InvalidInputError
            For an age that cannot be read, and for tags that are no list.
        DamagedStoreError
            If a version cannot be read; nothing is forgotten then.
        StorageError
            If the store is read-only here.
        """
        return expire(self._repo, older_than, dry_run=dry_run, tags=tags)

    def gc(self, older_than: Age, *, dry_run: bool = True) -> Collected:
        """Delete what is older and no branch, tag, open checkout or pinned version leads to; see ``docs/retention.md``.

        Parameters
        ----------
        older_than
            As in ``expire``: of what is stored, when it was written.
        dry_run
            Only report.

        Raises
        ------
        DamagedStoreError
            If a version that stays is not whole (a dry run reports it); nothing is deleted then.
        InvalidInputError
            For an age that cannot be read.
        StorageError
            If the store is read-only here.
        """
        return collect(self._repo, older_than, dry_run=dry_run, find=self._version)
