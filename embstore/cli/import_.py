"""``embstore import``."""

from __future__ import annotations

import click

from embstore.cli import options

FORMATS = ("librecommender",)


@click.command("import")
@options.store
@click.argument("form", metavar="FORMAT", type=click.Choice(FORMATS))
@click.argument("path")
@options.message
@options.branch
@click.option(
    "--unpickle-consumed",
    is_flag=True,
    help="Read pickled parts too: what users have had, and ids and categories that are text.",
)
@options.as_json
@options.quiet
def import_(store: str, form: str, path: str, *, message: str, branch: str, unpickle_consumed: bool, as_json: bool) -> None:
    """Make a version of a model that another system has saved.

    FORMAT is librecommender: PATH is the folder of a model that LibRecommender 1.5 has saved with its DataInfo, or
    folder/model_name. Pickled parts are read as plain data by a process of its own, in which nothing of them is run; ids that
    are text need them. Without them nobody has had anything, so that nothing is excluded from recommendations.
    """
    from embstore.cli.versions import report_made
    from embstore.formats.librecommender import import_librecommender
    from embstore.progress import progress

    opened = options.open_store(store)
    with progress(f"importing {path}", shown=not options.is_quiet()):
        made = import_librecommender(opened, path, message=message, branch=branch, unpickle=unpickle_consumed)
    report_made(made, opened, branch=branch, as_json=as_json)
