"""The branches and tags of a store: names that move, and names that stay."""

from __future__ import annotations

from embstore.errors import RefusedError
from embstore.names import check_name
from embstore.refs import check_free, check_known, make_tag, resolve
from embstore.storage.repo import TRUNK, Repo


class Branching:
    """What a store does with its branches and tags."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo

    def branches(self) -> dict[str, str]:
        """Return the branches and the ids of their tips."""
        return self._repo.branches()

    def tags(self) -> dict[str, str]:
        """Return the tags and the ids of their versions."""
        return self._repo.tags()

    def branch(self, name: str, *, at: str = TRUNK, move: bool = False) -> None:
        """Make a branch at a version; with ``move``, one that is there already is pointed to it.

        Raises
        ------
        NameExistsError
            If a branch (unless ``move``) or a tag has that name.
        UnknownRefError
            If there is no version ``at``.
        InvalidInputError
            For a name that cannot be stored.
        """
        check_name(name, "branch")
        version = resolve(self._repo, at)
        with self._repo.location.lock():
            check_free(name, "tag", self.tags())
            if not move:
                check_free(name, "branch", self.branches())
            if move and name in self.branches():
                self._repo.move_branch(name, version.id)
            else:
                self._repo.create_branch(name, version.id)

    def tag(self, name: str, *, at: str = TRUNK) -> None:
        """Name a version for ever.

        Raises
        ------
        NameExistsError
            If a branch or tag has that name.
        NameSpentError
            If it belonged to a tag that was deleted.
        UnknownRefError
            If there is no version ``at``.
        InvalidInputError
            For a name that cannot be stored.
        """
        check_name(name, "tag")
        version = resolve(self._repo, at)
        with self._repo.location.lock():
            check_free(name, "branch", self.branches())
            check_free(name, "tag", self.tags())
            make_tag(self._repo, name, version.id)

    def delete_branch(self, name: str) -> None:
        """Delete a branch; its versions stay reachable by id until they are expired.

        Raises
        ------
        UnknownRefError
            If there is none.
        RefusedError
            For ``main``.
        """
        if name == TRUNK:
            msg = f"branch {TRUNK!r}: it stays; move it with branch({TRUNK!r}, at=…, move=True)"
            raise RefusedError(msg)
        check_known(name, "branch", self.branches())
        self._repo.delete_branch(name)

    def delete_tag(self, name: str) -> None:
        """Delete a tag; its name stays spent.

        Raises
        ------
        UnknownRefError
            If there is none.
        """
        check_known(name, "tag", self.tags())
        self._repo.delete_tag(name)
