"""``embstore init``."""

from __future__ import annotations

from typing import Any

import click

from embstore.cli import options
from embstore.errors import InvalidInputError


@click.command()
@options.store
@options.trainer
@options.settings
@click.option(
    "--entity",
    "entities",
    multiple=True,
    metavar="NAME=TYPE",
    help="An entity and the type of its ids, str or int64; may be repeated. What is not said here, the first ids say.",
)
@options.as_json
@options.quiet
def init(store: str, trainer: str | None, *, settings: tuple[str, ...], entities: tuple[str, ...], as_json: bool) -> None:
    """Make a store.

    With a trainer it begins with the tables that this trainer needs, and remembers it for the first train; without one it is
    empty.
    """
    from embstore.cli.output import note, pairs, write_json
    from embstore.cli.settings import make_trainer
    from embstore.cli.versions import Refs, document, short_id
    from embstore.founding import found
    from embstore.schema import Schema
    from embstore.storage.location import Location
    from embstore.store import Store
    from embstore.trainer import settings_of

    if trainer is None and settings:
        msg = f"--set {settings[0]}: settings of which trainer? Name it with --trainer"
        raise InvalidInputError(msg)
    typed: Any = options.parse_pairs(list(entities), "--entity")
    learner = make_trainer(trainer, settings) if trainer else None
    needed = learner.schema() if learner else Schema()
    lineage = {"trainer": learner.name, "settings": settings_of(learner)} if learner else None
    schema = Schema(needed.tables, {**(needed.entities or {}), **typed})
    made = Store(found(Location(store, options.storage_options()), schema, "full", lineage=lineage))
    version = made.at()
    if as_json:
        write_json(document(version, Refs.of(made)))
        return
    tables = ", ".join(f"{name} of {spec.entity}" for name, spec in version.tables.items())
    note(pairs([("store", made.url), ("version", short_id(version.id)), *([("tables", tables)] if tables else [])]))
