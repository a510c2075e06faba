"""``embstore append`` and ``embstore remove``."""

from __future__ import annotations

import click

from embstore.cli import options


@click.command()
@options.store
@click.argument("entity")
@click.argument("file", metavar="FILE|-")
@options.message
@options.branch
@options.as_json
@options.quiet
def append(store: str, entity: str, file: str, *, message: str, branch: str, as_json: bool) -> None:
    """Give new ids a row in every table of their entity, and commit.

    FILE has one id a line; a .csv, .tsv or .parquet has a column called as the entity, an .inter one called user_id for user.
    - is standard input. Ids that are there already keep their rows; if all are, nothing is committed.
    """
    from embstore.cli.idinput import read_ids
    from embstore.cli.versions import report_made, report_unchanged

    opened = options.open_store(store)
    with opened.checkout(branch) as work:
        work.append(entity, read_ids(file, work, entity))
        if not work.dirty:
            report_unchanged(work.version, opened, branch=branch, why="as it was: all ids are there already", as_json=as_json)
            return
        report_made(work.commit(message), opened, branch=branch, as_json=as_json)


@click.command()
@options.store
@click.argument("entity")
@click.argument("ids", metavar="ID…", nargs=-1, required=True)
@options.message
@options.branch
@options.as_json
@options.quiet
def remove(store: str, entity: str, ids: tuple[str, ...], *, message: str, branch: str, as_json: bool) -> None:
    """Forget ids and their vectors, slots and consumed pairs, and commit.

    Older versions still have them. Put -- before ids that begin with a minus.
    """
    from embstore.cli.idinput import typed_ids
    from embstore.cli.versions import report_made

    opened = options.open_store(store)
    with opened.checkout(branch) as work:
        work.remove(entity, typed_ids(ids, work, entity))
        report_made(work.commit(message), opened, branch=branch, as_json=as_json)
