"""``embstore log``."""

from __future__ import annotations

from itertools import islice

import click

from embstore.cli import options


@click.command()
@options.store
@click.argument("ref", default="main", metavar="[REF]")
@click.option("-n", "n_most", type=click.IntRange(min=1), metavar="N", help="No more than N versions.")
@click.option("--graph", is_flag=True, help="All ancestors, with lines from version to parents; else first parents only.")
@options.as_json
@options.quiet
def log(store: str, ref: str, *, n_most: int | None, graph: bool, as_json: bool) -> None:
    """List versions, newest first.

    For each: its id, when it was committed, how many ids are new (+) or removed (-), the bytes written, branches and tags
    that are at it, and its message.
    """
    from embstore.cli.graph import draw
    from embstore.cli.output import show, write_json
    from embstore.cli.versions import Refs, document, log_table

    opened = options.open_store(store)
    versions = list(islice(opened.log(ref, all=graph), n_most))
    refs = Refs.of(opened)
    if as_json:
        write_json([document(version, refs) for version in versions])
        return
    show(log_table(versions, refs, graph=draw((v.id, v.parents) for v in versions) if graph else ()))
