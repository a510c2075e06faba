"""``embstore merge``."""

from __future__ import annotations

import click

from embstore.cli import options
from embstore.errors import InvalidInputError


@click.command()
@options.store
@click.argument("source", metavar="SOURCE")
@click.option("--into", default="main", show_default=True, metavar="B", help="The branch that it comes into.")
@click.option("-m", "--message", metavar="MSG", help="What this version is; 'merge SOURCE', if not given.")
@options.on_conflict
@options.as_json
@options.quiet
def merge(store: str, source: str, *, into: str, message: str | None, on_conflict: str, as_json: bool) -> None:
    """Bring what another branch has changed into a branch, row by row.

    SOURCE is a branch, a tag or any other ref. What only one side has changed since both were one stands; where both changed a
    row or an array without rows, --on-conflict decides: ours is the branch B, theirs is SOURCE.
    """
    from embstore.cli.versions import report_made, report_unchanged, short_id
    from embstore.progress import progress

    if source == into:
        msg = f"branch {into!r} into itself: name another SOURCE, or another branch with --into"
        raise InvalidInputError(msg)
    policy = options.parse_policy(on_conflict)
    opened = options.open_store(store)
    before = opened.branches().get(into)
    with progress(f"merging {source}", shown=not options.is_quiet()):
        version = opened.merge(source, into=into, on_conflict=policy, message=message)
    if version.id == before:
        report_unchanged(version, opened, branch=into, why=f"as it was: it has all of {source}", as_json=as_json)
    elif version.id == opened.at(source).id:
        why = f"moved forward from {short_id(before or version.id)} to {source}: nothing was new here"
        report_unchanged(version, opened, branch=into, why=why, as_json=as_json)
    else:
        report_made(version, opened, branch=into, as_json=as_json)
