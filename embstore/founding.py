"""Making a store, and recognising one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from embstore.columns import data_columns
from embstore.entity import EntityState
from embstore.errors import InvalidInputError, NotAStoreError
from embstore.lineage import library_versions, version_record
from embstore.schema import Schema
from embstore.storage import repo as repos
from embstore.storage.location import Location
from embstore.storage.repo import TRUNK, Repo
from embstore.storage.segments import TableState
from embstore.storage.writer import Writer

FORMAT = 1


def found(location: Location, schema: Schema, durability: str) -> Repo:
    """Make a store with a first version that has ``schema`` and nothing else.

    Raises
    ------
    StoreExistsError
        If anything is there.
    InvalidInputError
        For an unknown durability.
    """
    root = root_attributes(durability)

    def write(writer: Writer) -> tuple[str, Mapping[str, Any]]:
        writer.set_group("", {**root, "schema": schema.to_json()})
        for entity, id_type in (schema.entities or {}).items():
            writer.set_group(f"entities/{entity}", EntityState(id_type, made=writer.token).to_json())
        for spec in schema.tables:
            made = TableState(made={column.name: writer.token for column in data_columns(spec)})
            writer.set_group(f"tables/{spec.name}", {"table": spec.name, "columns": made.to_json()})
        return "create the store", version_record([], {}, {"counts": {}, "bytes": 0})

    repo = repos.create(location)
    repo.durable = durability == "full" and not location.in_memory
    repo.commit(TRUNK, repo.branches()[TRUNK], write)
    return repo


def root_attributes(durability: str) -> dict[str, Any]:
    """Return the attributes of a new store's root, but for the schema.

    Raises
    ------
    InvalidInputError
        For an unknown durability.
    """
    if durability not in ("full", "none"):
        msg = f"durability={durability!r}: give 'full' or 'none'"
        raise InvalidInputError(msg)
    made_by = f"embstore {library_versions()['embstore']}"
    return {"format": FORMAT, "store": str(uuid.uuid4()), "created_by": made_by, "durability": durability}


def open_repo(location: Location) -> Repo:
    """Open the repository at ``location`` if it is a store that this embstore can read.

    Raises
    ------
    StoreNotFoundError
        If nothing is there.
    NotAStoreError
        If something else is there, or a store of a newer format.
    """
    repo = repos.open_(location)
    tip = repo.branches()[TRUNK]
    next(repo.ancestry(tip), None)  # raises if the state cannot be decoded, of which the engine only says that nothing is there
    root = repo.reader(tip).attributes("") or {}
    if "format" not in root or "schema" not in root:
        msg = f"store {location.url}: an Icechunk repository, but no embstore store; check the path"
        raise NotAStoreError(msg)
    if root["format"] > FORMAT:
        msg = f"store {location.url}: written in format {root['format']}, this embstore reads up to {FORMAT}; update embstore"
        raise NotAStoreError(msg)
    repo.durable = root.get("durability") == "full" and not location.in_memory
    return repo
