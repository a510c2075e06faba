"""How the engine's repositories are begun and opened."""

from __future__ import annotations

import inspect
from typing import Any

import icechunk


async def begin(storage: icechunk.Storage) -> None:
    """Make an empty repository of format 1, which icechunk 1.x and 2.x read and write alike; only 2.x can be told which."""
    takes_version = "spec_version" in inspect.signature(icechunk.Repository.create).parameters
    format_1: dict[str, Any] = {"spec_version": 1} if takes_version else {}
    await icechunk.Repository.create_async(storage, **format_1)


def open_engine(storage: icechunk.Storage) -> icechunk.Repository:
    """Open without the engine's guess at what will be read first: it compiles a pattern for every array of every session."""
    preload = icechunk.ManifestPreloadConfig(max_total_refs=0, preload_if=icechunk.ManifestPreloadCondition.false())
    config = icechunk.RepositoryConfig(manifest=icechunk.ManifestConfig(preload=preload))
    return icechunk.Repository.open(storage, config=config)
