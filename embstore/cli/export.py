"""``embstore export``."""

from __future__ import annotations

import click

from embstore.cli import options


@click.command()
@options.store
@click.argument("dest")
@options.ref
@click.option("--format", "_format", type=click.Choice(["store"]), default="store", show_default=True, help="What DEST becomes.")
@click.option("--slots/--no-slots", default=True, show_default=True, help="With optimizer state, or without for serving.")
@options.as_json
@options.quiet
def export(store: str, dest: str, *, ref: str, _format: str, slots: bool, as_json: bool) -> None:
    """Write one version, without its log, to a new store at DEST."""
    from embstore.cli.output import note, pairs, size, write_json
    from embstore.cli.versions import Refs, document, short_id
    from embstore.progress import progress

    opened = options.open_store(store)
    with progress(f"exporting {ref}", shown=not options.is_quiet()):
        made = opened.export(dest, ref=ref, slots=slots)
    version = made.at()
    if as_json:
        write_json(document(version, Refs.of(made)))
    else:
        written = size(version.lineage.get("bytes", 0))
        note(pairs([("store", made.url), ("version", short_id(version.id)), ("written", written)]))
