"""What the tests of the store share."""

from __future__ import annotations

import uuid

import pytest

import embstore
from embstore import Schema, SlotSpec, Store, TableSpec

SCHEMA = Schema(
    (TableSpec("user", "user", 4, slots=(SlotSpec("m", 4), SlotSpec("n", None, fill=0.5))), TableSpec("item", "item", 4))
)


@pytest.fixture
def url() -> str:
    """Return a place in memory that no other test has."""
    return f"memory://{uuid.uuid4()}"


@pytest.fixture
def schema() -> Schema:
    """Return users with two slots, and items."""
    return SCHEMA


@pytest.fixture
def store(url: str, schema: Schema) -> Store:
    """Return an empty store."""
    return embstore.create(url, schema=schema)


@pytest.fixture
def filled(store: Store) -> Store:
    """Return a store with users 1, 2, 3, items "a" and "b", and five pairs."""
    with store.checkout() as work:
        users, items = work.append("user", [1, 2, 3]), work.append("item", ["a", "b"])
        work.consumed.append(users[[0, 0, 1, 2, 2]], items[[0, 1, 0, 1, 1]])
        work.dense["w"] = [[1.5, 2.5]]
        work.commit("first")
    return store
