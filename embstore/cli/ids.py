"""``embstore ids``."""

from __future__ import annotations

import click

from embstore.cli import options


@click.command()
@options.store
@click.argument("entity")
@options.ref
@options.as_json
@options.quiet
def ids(store: str, entity: str, *, ref: str, as_json: bool) -> None:
    """Print the ids of an entity, one a line, in the order of their rows.

    Removed ids are not among them.
    """
    from embstore.cli.output import write, write_json

    found = options.open_store(store).at(ref).ids(entity).ids().tolist()
    if as_json:
        write_json(found)
    else:
        write("".join(f"{i}\n" for i in found))
