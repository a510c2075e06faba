"""Making a store, and recognising one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from embstore.columns import data_columns
from embstore.entity import EntityState
from embstore.errors import DamagedStoreError, InvalidInputError, NotAStoreError
from embstore.lineage import is_ours, library_versions, version_record
from embstore.schema import Schema
from embstore.storage import making
from embstore.storage.location import Location
from embstore.storage.repo import TRUNK, Described, Repo
from embstore.storage.segments import TableState
from embstore.storage.writer import Writer

FORMAT = 1


def found(location: Location, schema: Schema, durability: str, *, lineage: Mapping[str, Any] | None = None) -> Repo:
    """Make a store with a first version that has ``schema``, perhaps a lineage, and nothing else.

    Raises
    ------
    StoreExistsError
        If anything is there.
    InvalidInputError
        For an unknown durability, or a schema that is none.
    """
    root = root_attributes(durability)
    if not isinstance(schema, Schema):
        msg = f"schema {schema!r}: give a Schema of tables and entities"
        raise InvalidInputError(msg)

    def write(writer: Writer) -> Described:
        writer.set_group("", {**root, "schema": schema.to_json()})
        for entity, id_type in (schema.entities or {}).items():
            writer.set_group(f"entities/{entity}", EntityState(id_type, made=writer.token).to_json())
        for spec in schema.tables:
            made = TableState(made={column.name: writer.token for column in data_columns(spec)})
            writer.set_group(f"tables/{spec.name}", {"table": spec.name, "columns": made.to_json()})
        return version_record("create the store", [], {}, {**(lineage or {}), "counts": {}, "bytes": 0})

    repo = making.create(location)
    repo.durable = durability == "full" and not location.in_memory
    making.commit_first(repo, write)
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
    repo = making.open_(location)
    try:
        root = _root(repo, repo.branch(TRUNK) or repo.branches()[TRUNK])
    except DamagedStoreError:  # told when that version is read; the store must open, or nobody could point the branch elsewhere
        return repo
    if root["format"] > FORMAT:
        msg = f"store {location.url}: written in format {root['format']}, this embstore reads up to {FORMAT}; update embstore"
        raise NotAStoreError(msg)
    repo.durable = root.get("durability") == "full" and not location.in_memory
    return repo


def _root(repo: Repo, tip: str) -> Mapping[str, Any]:
    """Return the attributes of a version's root.

    Raises
    ------
    DamagedStoreError
        If it cannot be decoded, of which the engine only says that nothing is there, or has none though embstore wrote it.
    NotAStoreError
        If it was not written by embstore.
    """
    snapshot = next(repo.ancestry(tip), None)
    root = repo.reader(tip).attributes("") or {}
    if {"format", "schema"} <= root.keys():
        return root
    if snapshot is not None and is_ours(snapshot):
        msg = f"version {tip}: its root is lost; go back to an older version or a copy"
        raise DamagedStoreError(msg)
    msg = f"store {repo.url}: an Icechunk repository, but no embstore store; check the path"
    raise NotAStoreError(msg)
