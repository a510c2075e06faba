"""``embstore gc``."""

from __future__ import annotations

import click

from embstore.cli import options
from embstore.errors import DamagedStoreError


@click.command()
@options.store
@options.older_than
@options.yes
@options.as_json
@options.quiet
def gc(store: str, *, older_than: str, yes: bool, as_json: bool) -> None:
    """Delete what no version leads to any more, and has been stored for longer than AGE.

    What branches, tags, open checkouts and pinned versions lead to stays. Without --yes it only says how much it would free.
    Exits with 6 if a version that stays is not whole; nothing is deleted then.
    """
    from embstore.cli.output import lines_of, note, pairs, show, size, write_json
    from embstore.progress import progress

    opened = options.open_store(store)
    with progress(f"looking through {store}", shown=not options.is_quiet()):
        report = opened.gc(older_than, dry_run=not yes)
    if as_json:
        write_json(report.to_dict())
    else:
        counts = [(what, size(n) if what == "bytes" else f"{n:,}") for what, n in report.counts.items()]
        problems = [("problem", problem) for problem in report.problems]
        show(pairs([("delete", report.title), *counts, *problems]), lines_of("\n".join(report.notes)) if report.notes else None)
        if not yes:
            note(lines_of("nothing was deleted; --yes does it"))
    if not report.ok:
        msg = f"{store}: {len(report.problems)} problems; go back to versions that are whole, or to a copy"
        raise DamagedStoreError(msg)
