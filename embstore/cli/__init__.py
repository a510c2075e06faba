"""The command line: a verb parses, makes one call to the library and says what came of it."""

from __future__ import annotations

import click

from embstore.cli import options
from embstore.cli.group import Verbs


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from embstore.lineage import library_versions

        click.echo(f"embstore {library_versions()['embstore']}")
        context.exit()


@click.group("embstore", cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]}, subcommand_metavar="VERB …")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version and exit."
)
@options.quiet
def main() -> None:
    """Git for embedding tables: versioned, growing checkpoints for recommender models.

    STORE is a folder or a URL. REF is a branch, a tag or a version id (4 characters or more), then perhaps ~2 or @2026-11-01.
    """
