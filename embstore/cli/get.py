"""``embstore get``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from embstore.cli import options
from embstore.errors import UnknownNameError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from embstore.tables import Table
    from embstore.version import Version

_MOST_NUMBERS = 5


@click.command()
@options.store
@click.argument("entity")
@click.argument("ids", metavar="ID…", nargs=-1, required=True)
@options.ref
@click.option("--table", metavar="T", help="One table of the entity; else all of them.")
@options.as_json
@options.quiet
def get(store: str, entity: str, ids: tuple[str, ...], *, ref: str, table: str | None, as_json: bool) -> None:
    """Show the vectors of ids.

    The first few numbers of each; all of them with --json. Put -- before ids that begin with a minus.
    """
    from embstore.cli.idinput import typed_ids
    from embstore.cli.output import show, write_json

    version = options.open_store(store).at(ref)
    wanted = typed_ids(ids, version, entity)
    version.ids(entity).rows(wanted)  # unknown ids are told even where there is no table
    found = {name: version.table(name) for name in _table_names(version, entity, table)}
    if as_json:
        vectors = {name: stored.get(wanted).tolist() for name, stored in found.items()}
        write_json({"version": version.id, "entity": entity, "ids": wanted, "tables": vectors})
        return
    show(*(_vectors(stored, wanted) for stored in found.values()))


def _table_names(version: Version, entity: str, table: str | None) -> list[str]:
    """Return the tables of an entity, or the one that was asked for."""
    names = [name for name, spec in version.tables.items() if spec.entity == entity]
    if table is None:
        return names
    if version.schema.table(table).entity != entity:
        msg = f"table {table!r}: it is of {version.tables[table].entity!r}; tables of {entity!r} are {', '.join(names) or 'none'}"
        raise UnknownNameError(msg)
    return [table]


def _vectors(stored: Table, ids: list[Any]) -> RenderableType:
    from embstore.cli import output

    vectors = stored.get(ids).reshape(len(ids), -1)[:, :_MOST_NUMBERS].tolist()
    width = len(vectors[0])
    more = ["…"] if (stored.spec.dim or 1) > width else []
    numbers = [str(i) for i in range(width)]
    rows = [[i, *map(output.number, vector), *more] for i, vector in zip(ids, vectors, strict=True)]
    kind = f"{stored.spec.dim} x {stored.spec.dtype}" if stored.spec.dim else stored.spec.dtype
    return output.titled(f"{stored.spec.name}  {kind}", output.table(["id", *numbers, *more], rows, right=numbers))
