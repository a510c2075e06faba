"""``embstore compact``."""

from __future__ import annotations

import click

from embstore.cli import options


@click.command()
@options.store
@options.branch
@options.as_json
@options.quiet
def compact(store: str, *, branch: str, as_json: bool) -> None:
    """Fold what commits have added into one piece, and commit.

    Nothing that is stored changes; reading is faster. Where there is nothing to fold, nothing is committed.
    """
    from embstore.cli.versions import report_made, report_unchanged
    from embstore.progress import progress

    opened = options.open_store(store)
    before = opened.branches().get(branch)
    with progress(f"compacting {store}", shown=not options.is_quiet()):
        version = opened.compact(branch)
    if version.id == before:
        report_unchanged(version, opened, branch=branch, why="as it was: nothing to fold", as_json=as_json)
    else:
        report_made(version, opened, branch=branch, as_json=as_json)
