"""``embstore branch`` and ``embstore tag``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from embstore.cli import options

if TYPE_CHECKING:
    from embstore.store import Store

_name = click.argument("name", required=False, metavar="[NAME]")
_at = click.option("--at", metavar="REF", help="The version; main, if not given.")
_delete = click.option("--delete", is_flag=True, help="Delete it.")


@click.command()
@options.store
@_name
@_at
@click.option("--move", is_flag=True, help="Point a branch that is there to another version: promotion, rollback.")
@_delete
@options.as_json
@options.quiet
def branch(store: str, name: str | None, *, at: str | None, move: bool, delete: bool, as_json: bool) -> None:
    """List, make, move or delete branches.

    Without NAME they are listed. Versions stay reachable by id when a branch is deleted.
    """
    _check(name, {"--at": at is not None, "--move": move, "--delete": delete})
    opened = options.open_store(store)
    if name is None:
        _list(opened, opened.branches(), as_json=as_json)
    elif delete:
        opened.delete_branch(name)
        _report(opened, "branch", name, deleted=True, as_json=as_json)
    else:
        if move:
            from embstore.refs import check_known

            check_known(name, "branch", opened.branches())
        opened.branch(name, at=at or "main", move=move)
        _report(opened, "branch", name, deleted=False, as_json=as_json)


@click.command()
@options.store
@_name
@_at
@_delete
@options.as_json
@options.quiet
def tag(store: str, name: str | None, *, at: str | None, delete: bool, as_json: bool) -> None:
    """List, make or delete tags.

    Without NAME they are listed. A tag never moves, and the name of a deleted one stays spent.
    """
    _check(name, {"--at": at is not None, "--delete": delete})
    opened = options.open_store(store)
    if name is None:
        _list(opened, opened.tags(), as_json=as_json)
    elif delete:
        opened.delete_tag(name)
        _report(opened, "tag", name, deleted=True, as_json=as_json)
    else:
        opened.tag(name, at=at or "main")
        _report(opened, "tag", name, deleted=False, as_json=as_json)


def _check(name: str | None, given: Mapping[str, bool]) -> None:
    """Refuse options that mean nothing together."""
    asked = [option for option, is_given in given.items() if is_given]
    if name is None and asked:
        msg = f"{asked[0]} needs a NAME."
        raise click.UsageError(msg)
    if given["--delete"] and len(asked) > 1:
        msg = f"--delete does not go with {asked[0]}."
        raise click.UsageError(msg)


def _list(store: Store, refs: Mapping[str, str], *, as_json: bool) -> None:
    from embstore.cli.output import show, table, write_json
    from embstore.cli.versions import short_id, subject

    versions = {name: store.at(version_id) for name, version_id in refs.items()}
    if as_json:
        write_json([{"name": n, "version": v.id, "time": v.time.isoformat(), "message": v.message} for n, v in versions.items()])
    elif versions:
        rows = [(name, short_id(v.id), f"{v.time:%Y-%m-%d %H:%M}", subject(v)) for name, v in versions.items()]
        show(table(["name", "version", "time (UTC)", "message"], rows))


def _report(store: Store, kind: str, name: str, *, deleted: bool, as_json: bool) -> None:
    from embstore.cli.output import note, pairs, write_json
    from embstore.cli.versions import short_id

    version_id = None if deleted else (store.branches() | store.tags())[name]
    if as_json:
        write_json({"name": name, "version": version_id})
    else:
        note(pairs([(kind, f"{name}  {short_id(version_id) if version_id else 'deleted'}")]))
