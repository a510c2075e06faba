"""``embstore expire``."""

from __future__ import annotations

import click

from embstore.cli import options


@click.command()
@options.store
@options.older_than
@click.option("--tag", "tags", multiple=True, metavar="NAME", help="Drop this tag first; may be repeated. Others keep theirs.")
@options.yes
@options.as_json
@options.quiet
def expire(store: str, *, older_than: str, tags: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Forget old versions: those older than AGE, but for what branches and tags point to.

    Without --yes it only says which. The room that they take is freed by the verb gc.
    """
    from embstore.cli.output import lines_of, note, pairs, show, table, titled, write_json

    report = options.open_store(store).expire(older_than, dry_run=not yes, tags=tags)
    if as_json:
        write_json(report.to_dict())
        return
    rows = [(version["id"], version["time"][:19].replace("T", " "), version["message"]) for version in report.expired]
    what = "expired" if yes else "to be expired"
    show(
        pairs([("expire", report.title.partition(" ")[2]), *((name, f"{n:,}") for name, n in report.counts.items())]),
        titled(what, table(("version", "time", "message"), rows)) if rows else None,
        lines_of("\n".join(report.notes)) if report.notes else None,
    )
    if not yes:
        note(lines_of("nothing was changed; --yes does it"))
