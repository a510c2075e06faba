"""``embstore doctor``."""

from __future__ import annotations

import click

from embstore.cli import options
from embstore.errors import DamagedStoreError, RefusedError


@click.command()
@options.store
@options.as_json
@options.quiet
def doctor(store: str, *, as_json: bool) -> None:
    """Look at a store and what it stands on.

    In a folder: the file system, its lock and its sync; in an object store: whether the server heeds the conditions of a write,
    without which commits are lost. Then the newest version, who has the store open, what no version leads to, and the libraries.
    Exits with 5 if something is to be mended before anybody commits, with 6 if the store is damaged.
    """
    from embstore.cli.output import show, table, write_json
    from embstore.doctor import examine
    from embstore.progress import progress

    with progress(f"examining {store}", shown=not options.is_quiet()):
        found = examine(store, storage_options=options.storage_options())
    if as_json:
        write_json(found.to_dict())
    else:
        show(table(("", "what", "found"), [(finding.state, finding.what, finding.says) for finding in found.findings]))
    if not found.ok:
        msg = f"{found.url}: {', '.join(found.wrong)}: mend this before anybody commits"
        raise (DamagedStoreError if found.is_damaged else RefusedError)(msg)
