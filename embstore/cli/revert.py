"""``embstore revert``."""

from __future__ import annotations

import click

from embstore.cli import options


@click.command()
@options.store
@click.argument("ref")
@click.option("-m", "--message", metavar="MSG", help="What this version is; 'revert to REF', if not given.")
@options.branch
@options.as_json
@options.quiet
def revert(store: str, ref: str, *, message: str | None, branch: str, as_json: bool) -> None:
    """Commit a version that is equal to an earlier one.

    Ids appended since are removed, and what lies between stays in the log.
    """
    from embstore.cli.versions import report_made
    from embstore.progress import progress

    opened = options.open_store(store)
    with progress(f"reverting to {ref}", shown=not options.is_quiet()):
        version = opened.revert(ref, branch=branch, message=message)
    report_made(version, opened, branch=branch, as_json=as_json)
