"""Git for embedding tables: versioned, growing checkpoints for recommender models.

Every public name is here; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "embstore.errors": (
        "AmbiguousRefError",
        "ConflictError",
        "DamagedStoreError",
        "EmbstoreError",
        "ForkedError",
        "IdTypeError",
        "InvalidInputError",
        "NameExistsError",
        "NameSpentError",
        "NonFiniteError",
        "NotAStoreError",
        "NotFoundError",
        "RefusedError",
        "SchemaMismatchError",
        "StaleCheckoutError",
        "StorageError",
        "StoreExistsError",
        "StoreNotFoundError",
        "UncommittedError",
        "UnknownIdError",
        "UnknownNameError",
        "UnknownRefError",
        "UnknownTrainerError",
    ),
    "embstore.initializers": ("Constant", "Normal", "Uniform", "Zeros"),
    "embstore.schema": ("Schema", "SlotSpec", "TableSpec"),
    "embstore.store": ("Store", "create", "open"),
    "embstore.version": ("Version", "View"),
    "embstore.checkout": ("Checkout",),
    "embstore.ids": ("IdMap",),
    "embstore.tables": ("Slot", "Table"),
    "embstore.consumed": ("Consumed",),
    "embstore.changes": ("Changes",),
    "embstore.diff": ("Diff",),
    "embstore.verify": ("Report",),
    "embstore.interactions": ("Batch", "Interactions"),
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_NAMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        msg = f"module 'embstore' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return __all__
