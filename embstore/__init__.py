"""Git for embedding tables: versioned, growing checkpoints for recommender models.

Every public name is here; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embstore.binding import (
        Binding as Binding,
        Rows as Rows,
        bind as bind,
    )
    from embstore.changes import Changes as Changes
    from embstore.checkout import Checkout as Checkout
    from embstore.conflicts import Conflict as Conflict
    from embstore.consumed import Consumed as Consumed
    from embstore.diff import Diff as Diff
    from embstore.distributed import Shard as Shard, share as share
    from embstore.errors import (
        AmbiguousRefError as AmbiguousRefError,
        ConflictError as ConflictError,
        DamagedStoreError as DamagedStoreError,
        EmbstoreError as EmbstoreError,
        ForkedError as ForkedError,
        IdTypeError as IdTypeError,
        InvalidInputError as InvalidInputError,
        LostRankError as LostRankError,
        NameExistsError as NameExistsError,
        NameSpentError as NameSpentError,
        NonFiniteError as NonFiniteError,
        NotAStoreError as NotAStoreError,
        NotFoundError as NotFoundError,
        RefusedError as RefusedError,
        SchemaMismatchError as SchemaMismatchError,
        StaleCheckoutError as StaleCheckoutError,
        StorageError as StorageError,
        StoreExistsError as StoreExistsError,
        StoreNotFoundError as StoreNotFoundError,
        UncommittedError as UncommittedError,
        UnknownIdError as UnknownIdError,
        UnknownNameError as UnknownNameError,
        UnknownRefError as UnknownRefError,
        UnknownTrainerError as UnknownTrainerError,
    )
    from embstore.feature_files import read_features as read_features
    from embstore.features import (
        dense_feature as dense_feature,
        sparse_feature as sparse_feature,
        stage_features as stage_features,
    )
    from embstore.foldin import fold_in as fold_in
    from embstore.ids import IdMap as IdMap
    from embstore.initializers import (
        Constant as Constant,
        Normal as Normal,
        Uniform as Uniform,
        Zeros as Zeros,
    )
    from embstore.interactions import Batch as Batch, Interactions as Interactions
    from embstore.metrics import evaluate_ranked as evaluate_ranked, top_k as top_k
    from embstore.recommending import evaluate as evaluate, recommend as recommend
    from embstore.registry import find_trainer as find_trainer
    from embstore.schema import (
        Schema as Schema,
        SlotSpec as SlotSpec,
        TableSpec as TableSpec,
    )
    from embstore.skewing import Skew as Skew, skew as skew
    from embstore.store import (
        Store as Store,
        create as create,
        open as open,
    )
    from embstore.tables import Slot as Slot, Table as Table
    from embstore.trainer import (
        FoldsIn as FoldsIn,
        FollowsValidation as FollowsValidation,
        Recommends as Recommends,
        Trainer as Trainer,
    )
    from embstore.training import fit as fit
    from embstore.validation import Validation as Validation
    from embstore.verify import Report as Report
    from embstore.version import Version as Version, View as View
    from embstore.worker import Worker as Worker

_HOMES = {
    "embstore.errors": (
        "AmbiguousRefError",
        "ConflictError",
        "DamagedStoreError",
        "EmbstoreError",
        "ForkedError",
        "IdTypeError",
        "InvalidInputError",
        "LostRankError",
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
    "embstore.worker": ("Worker",),
    "embstore.ids": ("IdMap",),
    "embstore.tables": ("Slot", "Table"),
    "embstore.consumed": ("Consumed",),
    "embstore.changes": ("Changes",),
    "embstore.conflicts": ("Conflict",),
    "embstore.diff": ("Diff",),
    "embstore.validation": ("Validation",),
    "embstore.verify": ("Report",),
    "embstore.interactions": ("Batch", "Interactions"),
    "embstore.binding": ("Binding", "Rows", "bind"),
    "embstore.distributed": ("Shard", "share"),
    "embstore.trainer": ("FoldsIn", "FollowsValidation", "Recommends", "Trainer"),
    "embstore.training": ("fit",),
    "embstore.feature_files": ("read_features",),
    "embstore.features": ("dense_feature", "sparse_feature", "stage_features"),
    "embstore.foldin": ("fold_in",),
    "embstore.metrics": ("evaluate_ranked", "top_k"),
    "embstore.recommending": ("evaluate", "recommend"),
    "embstore.registry": ("find_trainer",),
    "embstore.skewing": ("Skew", "skew"),
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names}
# Star imports work without torch.
__all__ = sorted(name for name, home in _NAMES.items() if home not in ("embstore.binding", "embstore.distributed"))  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        msg = f"module 'embstore' has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        home = import_module(_NAMES[name])
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return import_module("embstore.torchless").stand_in(name)
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted(_NAMES)
