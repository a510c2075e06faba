"""Every error embstore raises on purpose, grouped by what a handler would do about it.

::

    EmbstoreError
    ├── InvalidInputError (ValueError)        exit 2   mend the input
    │   ├── IdTypeError (TypeError)                    ids of another type than the entity's
    │   ├── SchemaMismatchError                        the schema says otherwise
    │   ├── AmbiguousRefError                          a prefix that several versions share
    │   └── UnknownTrainerError (LookupError)          no such trainer, or no such setting of it
    ├── NotFoundError (LookupError)           exit 3   look for something else
    │   ├── StoreNotFoundError (FileNotFoundError)
    │   ├── NotAStoreError
    │   ├── UnknownRefError (KeyError)
    │   ├── UnknownIdError (KeyError)
    │   └── UnknownNameError (KeyError)                entity, table, slot or dense array
    ├── ConflictError                         exit 4   others changed the same
    │   └── StaleCheckoutError                         rows of this checkout are no longer valid
    ├── RefusedError                          exit 5   not done, the store is as it was
    │   ├── StoreExistsError (FileExistsError)
    │   ├── NameExistsError                            a branch or tag of that name exists
    │   ├── NameSpentError                             the name of a deleted tag
    │   ├── UncommittedError                           a checkout was left with staged changes
    │   ├── NonFiniteError (ValueError)                NaN or infinity in what was to be committed
    │   ├── ForkedError (RuntimeError)                 a handle used after fork()
    │   ├── LostRankError (RuntimeError)               another rank of a job has died, or is too late
    │   └── StorageError (OSError)                     disk full, read-only, no permission, lock not free
    └── DamagedStoreError                     exit 6   bytes on disk are not what was written
"""

from __future__ import annotations

from typing import ClassVar


class EmbstoreError(Exception):
    """Base of all errors; ``kind`` is a stable word for programs, ``exit_code`` is the CLI's."""

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 5

    def __str__(self) -> str:
        # KeyError would show the message quoted.
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidInputError(EmbstoreError, ValueError):
    """The caller's value cannot be used."""

    kind = "invalid-input"
    exit_code = 2


class IdTypeError(InvalidInputError, TypeError):
    """Ids of another type than the entity has."""

    kind = "id-type"


class SchemaMismatchError(InvalidInputError):
    """A table, slot or entity is asked for with another shape or type than it has."""

    kind = "schema-mismatch"


class AmbiguousRefError(InvalidInputError):
    """An id prefix that several versions share."""

    kind = "ambiguous-ref"


class UnknownTrainerError(InvalidInputError, LookupError):
    """No trainer of that name is installed, or it has no such setting."""

    kind = "unknown-trainer"


class NotFoundError(EmbstoreError, LookupError):
    """What was named does not exist."""

    kind = "not-found"
    exit_code = 3


class StoreNotFoundError(NotFoundError, FileNotFoundError):
    """Nothing is at that URL."""

    kind = "store-not-found"


class NotAStoreError(NotFoundError):
    """Something is at that URL, but no embstore store."""

    kind = "not-a-store"


class UnknownRefError(NotFoundError, KeyError):
    """No branch, tag or version answers to that ref."""

    kind = "unknown-ref"


class UnknownIdError(NotFoundError, KeyError):
    """An id the entity does not have (never seen, or removed)."""

    kind = "unknown-id"


class UnknownNameError(NotFoundError, KeyError):
    """No entity, table, slot or dense array of that name."""

    kind = "unknown-name"


class ConflictError(EmbstoreError):
    """Others have changed the same since the checkout was made, or two branches have."""

    kind = "conflict"
    exit_code = 4


class StaleCheckoutError(ConflictError):
    """The checkout is closed; rows it gave out may no longer be valid."""

    kind = "stale-checkout"


class RefusedError(EmbstoreError):
    """Not done; the store is as it was."""

    kind = "refused"
    exit_code = 5


class StoreExistsError(RefusedError, FileExistsError):
    """A store, or something else, is already there."""

    kind = "store-exists"


class NameExistsError(RefusedError):
    """A branch or tag of that name exists."""

    kind = "name-exists"


class NameSpentError(RefusedError):
    """The name belonged to a deleted tag and stays spent."""

    kind = "name-spent"


class UncommittedError(RefusedError):
    """A checkout was left with staged changes."""

    kind = "uncommitted"


class NonFiniteError(RefusedError, ValueError):
    """NaN or infinity among the values to be committed."""

    kind = "non-finite"


class ForkedError(RefusedError, RuntimeError):
    """A store handle was used in a forked child of the process that opened it."""

    kind = "forked"


class LostRankError(RefusedError, RuntimeError):
    """Another rank of a distributed job has died, or is too late."""

    kind = "lost-rank"


class StorageError(RefusedError, OSError):
    """The storage below refused: full, read-only, no permission, or its lock is held."""

    kind = "storage"


class DamagedStoreError(EmbstoreError):
    """Stored bytes are missing or not what was written."""

    kind = "damaged"
    exit_code = 6
