"""Checkpoints of ``torch.distributed.checkpoint`` as versions of a store: saved by any number of ranks, loaded by any other.

Tensors named in ``tables`` are rows of tables, by id; every other tensor is a dense array, named as in the state dict; what is no
tensor is JSON. Nothing is pickled: the dense array ``dcp`` is a JSON text in utf-8 that says what each item is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
)
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from embstore.errors import ConflictError, InvalidInputError, NameExistsError
from embstore.extras import decode
from embstore.names import check_name
from embstore.saved import Column, Item, Saved
from embstore.saving import Piece, Pieces, piece_of, received, stage_items, tag_saved
from embstore.store import Store
from embstore.tensors import from_numpy, named_dtype
from embstore.version import Version
from embstore.wire import Wire, told

__all__ = ["Column", "StoreReader", "StoreWriter"]


class StoreWriter(StorageWriter):
    """Saves a state dict as the next version of a branch: ``dcp.save(state, storage_writer=StoreWriter(store, message=...))``.

    Every rank makes one. Rank 0 is sent what the others save and commits it, or nothing where a rank fails. Of tables only the
    rows that changed are written. ``checkpoint_id``, where ``dcp.save`` is given one, is a tag that the version gets. What
    ``dcp.save`` returns has the version's id as ``storage_data["version"]``.

    Parameters
    ----------
    store
        As this rank has opened it.
    message, metadata, branch
        As for ``Checkout.commit``.
    tables
        Flattened name of a tensor -> its table, or a ``Column`` of one; the tables are there already, slots are added.
    ids
        Entity -> n distinct ids: row i of its tensors is that of the i-th id (new ones are appended). Where it is not named, row
        i of a tensor is row i of the store.
    parent
        The id of the version that was loaded: ConflictError if the branch has moved since. None: whatever is there is replaced.
    process_group
        That of ``dcp.save``; with gloo.
    allow_nonfinite
        As for ``Checkout.commit``.
    """

    def __init__(
        self,
        store: Store,
        *,
        message: str,
        branch: str = "main",
        tables: Mapping[str, str | Column] | None = None,
        ids: Mapping[str, object] | None = None,
        metadata: Mapping[str, Any] | None = None,
        parent: str | None = None,
        process_group: dist.ProcessGroup | None = None,
        allow_nonfinite: bool = False,
    ) -> None:
        self._store = store
        self._message = message
        self._branch = branch
        self._columns = Column.named(tables or {})
        self._ids = dict(ids or {})
        self._metadata = metadata
        self._parent = parent
        self._group = process_group
        self._allow_nonfinite = allow_nonfinite
        self._tag: str | None = None
        self._pieces = Pieces()

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin a save."""
        self._tag = None if checkpoint_id is None else os.fspath(checkpoint_id)
        self._pieces = Pieces()

    def set_up_storage_writer(self, is_coordinator: bool, *_: Any, **_options: Any) -> None:
        """Do nothing: each rank learns its part from the plan."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Return the plan of this rank as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Check on rank 0 that every named tensor is saved; tell the ranks how many they are.

        Raises
        ------
        InvalidInputError
            If a named tensor is not in the state dict, or ``checkpoint_id`` cannot be a tag.
        NameExistsError
            If there is a tag, or a branch, of that name.
        """
        if self._tag is not None and check_name(self._tag, "tag") in {*self._store.tags(), *self._store.branches()}:
            msg = f"checkpoint_id {self._tag!r}: a tag or a branch has this name; take another"
            raise NameExistsError(msg)
        saved = {item.index.fqn for plan in plans for item in plan.items}
        missing = sorted(self._columns.keys() - saved)
        if missing:
            msg = f"tables: the state dict has no tensor {missing[0]!r}; it has {', '.join(sorted(saved))}"
            raise InvalidInputError(msg)
        return [replace(plan, storage_data={"rank": rank, "n_ranks": len(plans)}) for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Send the items of this rank to rank 0, which keeps them until all have come."""
        rank, n_ranks = plan.storage_data["rank"], plan.storage_data["n_ranks"]
        wire = Wire(self._group) if n_ranks > 1 else None
        if wire is not None and (wire.rank, wire.n_ranks) != (rank, n_ranks):
            msg = f"rank {rank} of {n_ranks} is rank {wire.rank} of {wire.n_ranks} here; give the writer dcp.save's process_group"
            raise InvalidInputError(msg)
        problem: Exception | None = None
        pieces: list[Piece] = []
        try:
            pieces = [piece_of(item, planner) for item in plan.items]
        except Exception as error:
            problem = error  # the other side waits for this rank: first that, then the error
        if wire is not None and rank:
            data = {"error": told(problem)} if problem else {"items": [piece.described for piece in pieces]}
            wire.send(0, data, [piece.array for piece in pieces if piece.array is not None])
        if rank == 0:
            self._pieces.add(pieces)
            if wire is not None:
                wire.gather(lambda _, data, arrays: self._pieces.add(received(data, arrays)))
        if problem is not None:
            raise problem
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(item.index, 0, None) for item in plan.items])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Commit on rank 0 what all ranks have sent.

        Raises
        ------
        ConflictError
            If the branch has moved since ``parent``.
        SchemaMismatchError, InvalidInputError, UnknownNameError
            If a tensor does not fit its table.
        NonFiniteError
            For NaN or infinity.
        NameSpentError, NameExistsError
            If ``checkpoint_id`` was the name of a deleted tag, or somebody else has just taken it: that shows when the version is
            there, which the error names.
        """
        with self._store.checkout(self._branch) as work:
            if self._parent is not None and work.version.id != self._parent:
                msg = f"branch {self._branch!r} has moved from {self._parent} to {work.version.id}; load that and save again"
                raise ConflictError(msg)
            paths = {name: list(path) for name, path in (metadata.planner_data or {}).items()}
            stage_items(work, self._pieces, self._columns, ids=self._ids, paths=paths)
            version = work.commit(self._message, metadata=self._metadata, allow_empty=True, allow_nonfinite=self._allow_nonfinite)
        self._pieces = Pieces()
        if self._tag is not None:
            tag_saved(self._store, self._tag, version)
        metadata.storage_data = {"version": version.id}

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Return whether it may be a tag."""
        return isinstance(checkpoint_id, str)


class StoreReader(StorageReader):
    """Loads a version into a state dict: ``dcp.load(state, storage_reader=StoreReader(store))``, by as many ranks as there are.

    Each rank reads the rows of its own shards only. A version that was not saved by ``dcp.save`` is loaded too: name its tables;
    its dense arrays go by their names (``model.<parameter>`` as ``Binding`` stores them).

    Parameters
    ----------
    store
        As this rank has opened it.
    ref
        Which version; ``checkpoint_id``, where ``dcp.load`` is given one, is taken instead.
    tables, ids
        As for ``StoreWriter``; what the version was saved with, where they are not given.
    """

    def __init__(
        self,
        store: Store,
        ref: str = "main",
        *,
        tables: Mapping[str, str | Column] | None = None,
        ids: Mapping[str, object] | None = None,
    ) -> None:
        self._store = store
        self._ref = ref
        self._columns = Column.named(tables or {})
        self._ids = dict(ids or {})
        self._saved: Saved | None = None

    @property
    def version(self) -> Version:
        """Return the version that is read; for the writer's ``parent``."""
        return self._open().version

    def _open(self) -> Saved:
        if self._saved is None:
            self._saved = Saved(self._store.at(self._ref), self._columns, self._ids)
        return self._saved

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin a load."""
        self._saved = None
        if checkpoint_id is not None:
            self._ref = os.fspath(checkpoint_id)

    def read_metadata(self, *_: Any, **_options: Any) -> Metadata:
        """Return what the version has: each tensor in one piece, of which ranks take what they need."""
        saved = self._open()
        items = {name: _item_metadata(item) for name, item in saved.items.items()}
        return Metadata(items, planner_data={name: tuple(path) for name, path in saved.paths.items()})

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *_: Any, **_options: Any) -> None:
        """Do nothing: the version is open."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Return the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Return the plans as they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read what the plan asks for."""
        saved = self._open()
        for item in plan.items:
            name = item.storage_index.fqn
            if item.type == LoadItemType.BYTE_IO:
                _place(planner, item, decode(saved.items[name].value, _no_array))
                continue
            array = saved.read(name, tuple(item.storage_offsets), tuple(item.lengths))
            target = planner.resolve_tensor(item).detach()
            target.copy_(from_numpy(array, saved.items[name].dtype))
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Return whether it may be a ref."""
        return isinstance(checkpoint_id, str)


def _place(planner: LoadPlanner, item: ReadItem, value: Any) -> None:
    """Put what is no tensor into the state dict. A default planner would unpickle it first: what it does then is done here."""
    name = item.dest_index.fqn
    if not isinstance(planner, DefaultLoadPlanner) or type(planner).load_bytes is not DefaultLoadPlanner.load_bytes:
        msg = f"{name!r} is no tensor, and {type(planner).__name__} only takes it pickled; use a DefaultLoadPlanner"
        raise InvalidInputError(msg)
    into: Any = planner.state_dict
    path: Sequence[str | int] = [name]
    if planner.flatten_state_dict:
        into, path = planner.original_state_dict, planner.mappings[name]
    for key in path[:-1]:
        into = into[key]
    into[path[-1]] = value


def _item_metadata(item: Item) -> TensorStorageMetadata | BytesStorageMetadata:
    if item.size is None:
        return BytesStorageMetadata()
    size = torch.Size(item.size)
    whole = ChunkStorageMetadata(torch.Size([0] * len(size)), size)
    return TensorStorageMetadata(TensorProperties(dtype=named_dtype(item.dtype)), size, [whole])


def _no_array(_: int) -> Any:
    raise AssertionError
