"""``embstore verify``."""

from __future__ import annotations

import click

from embstore.cli import options
from embstore.errors import DamagedStoreError


@click.command()
@options.store
@click.argument("ref", default="main", metavar="[REF]")
@click.option("--deep", is_flag=True, help="Read every byte and check it; else descriptions, lengths and indexes only.")
@options.as_json
@options.quiet
def verify(store: str, ref: str, *, deep: bool, as_json: bool) -> None:
    """Check that a version is whole: the one of REF, or the newest of main.

    What only other versions hold is not looked at. Exits with 6 if it is not whole, after naming what is wrong.
    """
    from embstore.cli.output import pairs, show, size, write_json
    from embstore.progress import progress

    opened = options.open_store(store)
    with progress(f"verifying {store}", shown=not options.is_quiet()):
        report = opened.verify(ref, deep=deep)
    if as_json:
        write_json(report.to_dict())
    else:
        counts = [(what, size(n) if what == "bytes" else f"{n:,}") for what, n in report.counts.items()]
        problems = [("problem", problem) for problem in report.problems]
        show(pairs([("check", report.title), ("result", "ok" if report.ok else "damaged"), *counts, *problems]))
    if not report.ok:
        msg = f"{store}: {len(report.problems)} problems; go back to a version that is whole, or to a copy"
        raise DamagedStoreError(msg)
