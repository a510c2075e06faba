"""Three ways to keep the state of a daily retrain: a store, whole files of torch, a hand-written log of numpy files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

import embstore
from embstore import Checkout, View  # what a lazy import would load later is loaded now, so that it is not timed
from tools.bench.timing import Stopwatch, folder_bytes
from tools.bench.workload import COLUMNS, DIM, ENTITIES, Edit, Floats, Ids, State

SLOTS = COLUMNS[1:]
Rows = NDArray[np.int64]


class Peer(Protocol):
    """One way to keep the state."""

    def found(self, state: State) -> None:
        """Store the state before the first day."""

    def day(self, edits: Sequence[Edit], state: State, watch: Stopwatch) -> int:
        """Store what a day brought, ``state`` with ``edits``; time it as ``day``, and return the bytes on the disk it took."""

    def restore(self) -> State:
        """Return the last day from the disk."""

    def lookup(self, users: Ids) -> Floats:
        """Return vectors of the last day by id, from the disk."""

    def store_rows(self, state: State, rows: Mapping[str, Rows]) -> None:
        """Store a restored state whose ``rows`` of each entity have changed."""


def schema(tables: Mapping[str, str]) -> embstore.Schema:
    """Return a schema with tables (name -> entity) of W's width, each with W's slots."""
    slots = tuple(embstore.SlotSpec(name, DIM) for name in SLOTS)
    specs = tuple(embstore.TableSpec(name, entity, DIM, slots=slots) for name, entity in tables.items())
    return embstore.Schema(specs, dict.fromkeys(tables.values(), "int64"))


class StorePeer:
    """embstore: each entity has one table, of its own name."""

    def __init__(self, folder: Path, *, durability: Literal["full", "none"] = "none") -> None:
        self._folder = folder
        self._durability = durability

    def found(self, state: State) -> None:
        """Store the state before the first day."""
        store = embstore.create(self._folder, schema=schema({name: name for name in ENTITIES}), durability=self._durability)
        with store.checkout() as work:
            for name in ENTITIES:
                rows = work.append(name, state[name, "ids"], init={name: state[name, "values"]})
                for slot in SLOTS:
                    work.table(name).slot(slot).scatter(rows, state[name, slot])
            work.commit("base")

    def day(self, edits: Sequence[Edit], state: State, watch: Stopwatch) -> int:
        """Open a checkout, append, scatter six columns, commit; opening the store is timed apart."""
        before = folder_bytes(self._folder)
        with watch.time("open"):
            store = embstore.open(self._folder)
        with watch.time("day"):
            work = store.checkout()
            with watch.time("stage"):
                for edit in edits:
                    self._stage(work, edit)
            with watch.time("commit"):
                work.commit("a day")
        return folder_bytes(self._folder) - before

    def _stage(self, work: Checkout, edit: Edit) -> None:
        n = len(edit.changed)
        new = work.append(edit.entity, edit.new_ids, init={edit.entity: edit.vectors["values"][n:]})
        table = work.table(edit.entity)
        table.scatter(edit.changed, edit.vectors["values"][:n])
        rows = np.concatenate([edit.changed, new])
        for slot in SLOTS:
            table.slot(slot).scatter(rows, edit.vectors[slot])

    def restore(self) -> State:
        """Return the last day from the disk, through a new handle."""
        return self._arrays(embstore.open(self._folder).at())

    def _arrays(self, view: View) -> State:
        state: dict[tuple[str, str], NDArray[Any]] = {}
        for name in ENTITIES:
            table = view.table(name)
            state[name, "ids"] = view.ids(name).ids()
            state[name, "values"] = table.values()
            state.update({(name, slot): table.slot(slot).values() for slot in SLOTS})
        return state

    def lookup(self, users: Ids) -> Floats:
        """Return vectors of the last day by id, through a new handle."""
        found: Floats = embstore.open(self._folder).at().table("user").get(users)
        return found

    def store_rows(self, state: State, rows: Mapping[str, Rows]) -> None:
        """Scatter the rows of all columns and commit."""
        work = embstore.open(self._folder).checkout()
        for name, changed in rows.items():
            table = work.table(name)
            table.scatter(changed, state[name, "values"][changed])
            for slot in SLOTS:
                table.slot(slot).scatter(changed, state[name, slot][changed])
        work.commit("rows")


class TorchPeer:
    """torch.save of everything each day; of the files, only the newest is kept, the others are counted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    @property
    def _newest(self) -> Path:
        return max(self._folder.glob("*.pt"))

    def found(self, state: State) -> None:
        """Store the state before the first day."""
        self._save(state, 0)

    def day(self, edits: Sequence[Edit], state: State, watch: Stopwatch) -> int:
        """Save the whole state; waiting for the disk is timed apart."""
        old = self._newest
        with watch.time("day, synced"):
            with watch.time("day"):
                new = self._save(state, int(old.stem) + 1)
            _sync(new)
        old.unlink()
        return new.stat().st_size

    def _save(self, state: State, number: int) -> Path:
        path = self._folder / f"{number:04d}.pt"
        tensors = {f"{name}.{column}": torch.from_numpy(array) for (name, column), array in state.items()}
        torch.save(tensors, path)
        return path

    def restore(self) -> State:
        """Return the last day from the disk."""
        tensors = torch.load(self._newest, weights_only=True)
        return {(name, column): tensors[f"{name}.{column}"].numpy() for name in ENTITIES for column in ("ids", *COLUMNS)}

    def lookup(self, users: Ids) -> Floats:
        """Return vectors of the last day by id from the mapped file, reading all ids and the wanted rows."""
        tensors = torch.load(self._newest, weights_only=True, mmap=True)
        rows = _rows_of(tensors["user.ids"].numpy(), users)
        found: Floats = tensors["user.values"][torch.from_numpy(rows)].numpy()
        return found

    def store_rows(self, state: State, rows: Mapping[str, Rows]) -> None:
        """Save the whole state."""
        self._save(state, int(self._newest.stem) + 1)


class LogPeer:
    """What a careful person writes by hand: files of the base, and one file a day, entity and column for what is new.

    No ids are checked, nothing is atomic, and it never folds: a bound for what a log can reach.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def found(self, state: State) -> None:
        """Store the state before the first day."""
        for (name, column), array in state.items():
            np.save(self._folder / f"base.{name}.{column}.npy", array)

    def day(self, edits: Sequence[Edit], state: State, watch: Stopwatch) -> int:
        """Write each entity's rows, new ids and vectors as files."""
        before = folder_bytes(self._folder)
        number = len(self._days())
        with watch.time("day, synced"):
            with watch.time("day"):
                written = [path for edit in edits for path in self._write(edit, number, len(state[edit.entity, "ids"]))]
            for path in written:
                _sync(path)
        return folder_bytes(self._folder) - before

    def _write(self, edit: Edit, number: int, n_rows: int) -> list[Path]:
        new = np.arange(n_rows - len(edit.new_ids), n_rows)
        arrays: dict[str, NDArray[Any]] = {"rows": np.concatenate([edit.changed, new]), "ids": edit.new_ids, **edit.vectors}
        return [self._write_one(self._path(number, edit.entity, column), array) for column, array in arrays.items()]

    def _write_one(self, path: Path, array: NDArray[Any]) -> Path:
        np.save(path, array)
        return path

    def _path(self, number: int, entity: str, column: str) -> Path:
        return self._folder / f"day{number:04d}.{entity}.{column}.npy"

    def _days(self) -> range:
        return range(len(list(self._folder.glob("day*.user.rows.npy"))))

    def restore(self) -> State:
        """Return the base with every day laid over it."""
        state: dict[tuple[str, str], NDArray[Any]] = {}
        for name in ENTITIES:
            state[name, "ids"] = self._ids(name)
            rows = [np.load(self._path(day, name, "rows")) for day in self._days()]
            for column in COLUMNS:
                state[name, column] = self._overlaid(name, column, rows, len(state[name, "ids"]))
        return state

    def _ids(self, entity: str) -> Ids:
        paths = [self._folder / f"base.{entity}.ids.npy", *(self._path(day, entity, "ids") for day in self._days())]
        return np.concatenate([np.load(path) for path in paths])

    def _overlaid(self, entity: str, column: str, rows: Sequence[Rows], n_rows: int) -> Floats:
        base = np.load(self._folder / f"base.{entity}.{column}.npy", mmap_mode="r")
        out = np.empty((n_rows, DIM), np.float32)
        out[: len(base)] = base
        for day, changed in zip(self._days(), rows, strict=True):
            out[changed] = np.load(self._path(day, entity, column))
        return out

    def lookup(self, users: Ids) -> Floats:
        """Return vectors by id, the newest that a file has; files are mapped."""
        wanted = _rows_of(self._ids("user"), users)
        base = np.load(self._folder / "base.user.values.npy", mmap_mode="r")
        out: Floats = base[np.minimum(wanted, len(base) - 1)]
        for day in self._days():
            changed = np.load(self._path(day, "user", "rows"))
            order = np.argsort(changed)
            at = order[np.minimum(np.searchsorted(changed, wanted, sorter=order), len(order) - 1)]
            here = changed[at] == wanted
            out[here] = np.load(self._path(day, "user", "values"), mmap_mode="r")[at[here]]
        return out

    def store_rows(self, state: State, rows: Mapping[str, Rows]) -> None:
        """Write the changed rows as one more day."""
        number = len(self._days())
        for name, changed in rows.items():
            vectors = {column: state[name, column][changed] for column in COLUMNS}
            self._write(Edit(name, changed, np.empty(0, np.int64), vectors), number, len(state[name, "ids"]))


PEERS: dict[str, type[StorePeer | TorchPeer | LogPeer]] = {"embstore": StorePeer, "torch": TorchPeer, "log": LogPeer}


def _rows_of(ids: Ids, wanted: Ids) -> Rows:
    order = np.argsort(ids)
    rows: Rows = order[np.searchsorted(ids, wanted, sorter=order)]
    return rows


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
