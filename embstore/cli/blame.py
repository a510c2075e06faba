"""``embstore blame``."""

from __future__ import annotations

import click

from embstore.cli import options


@click.command()
@options.store
@click.argument("entity")
@click.argument("id_", metavar="ID")
@click.option("--table", metavar="T", help="One table of the entity; else all of them.")
@options.as_json
@options.quiet
def blame(store: str, entity: str, id_: str, *, table: str | None, as_json: bool) -> None:
    """List the versions that changed an id's vectors.

    Those of main, newest first; the last one appended the id.
    """
    from embstore.cli.idinput import typed_ids
    from embstore.cli.output import show, write_json
    from embstore.cli.versions import Refs, document, log_table

    opened = options.open_store(store)
    (wanted,) = typed_ids([id_], opened.at(), entity)
    versions = opened.blame(entity, wanted, table=table)
    refs = Refs.of(opened)
    if as_json:
        write_json([document(version, refs) for version in versions])
        return
    show(log_table(versions, refs))
