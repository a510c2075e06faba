"""What the tests of the store share."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator

import pytest

import embstore
from embstore import Schema, SlotSpec, Store, TableSpec
from tests.store.s3_server import BUCKET, REGION, S3Server, running_server

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


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Return a server for all tests that ask for it."""
    with running_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def s3_url(request: pytest.FixtureRequest) -> str:
    """Return a URL that no other test has."""
    return f"s3://{BUCKET}/{request.node.name}/{time.time_ns()}"


@pytest.fixture
def s3_environment(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Let this process and those that it starts find the server and the credentials in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    monkeypatch.setenv("AWS_REGION", REGION)
    return s3
