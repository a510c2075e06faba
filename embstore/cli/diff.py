"""``embstore diff``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from embstore.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from embstore.diff import Diff

_MOST_IDS = 5


@click.command()
@options.store
@click.argument("base")
@click.argument("target", default="main", metavar="[TARGET]")
@options.as_json
@options.quiet
def diff(store: str, base: str, target: str, *, as_json: bool) -> None:
    """Show what turns one version into another: BASE into TARGET.

    Rows are compared by id. Drift is how far a vector has moved (L2), cosine the distance of its direction from before.
    """
    from embstore.cli.output import show, write_json

    found = options.open_store(store).diff(base, target)
    data = found.to_dict()
    if as_json:
        write_json(data)
        return
    show(_head(found), _ids(data), _tables(data), _rest(data))


def _head(found: Diff) -> Table:
    from embstore.cli.output import pairs
    from embstore.cli.versions import short_id, subject

    sides = (("base", found.base), ("target", found.target))
    return pairs((side, f"{short_id(v.id)}  {v.time:%Y-%m-%d %H:%M}  {subject(v)}") for side, v in sides)


def _ids(data: Any) -> Table | None:
    from embstore.cli.output import table

    headers = ["entity", "appended", "removed", "ids"]
    rows = [
        (entity, f"{len(ids['appended']):,}", f"{len(ids['removed']):,}", _examples(ids["appended"], ids["removed"]))
        for entity, ids in data["ids"].items()
    ]
    return table(headers, rows, right=["appended", "removed"]) if rows else None


def _examples(appended: list[Any], removed: list[Any]) -> str:
    """Return the first few ids, ``+`` before the appended and ``-`` before the removed."""
    shown: list[str] = []
    for sign, ids in (("+", appended), ("-", removed)):
        shown += [f"{sign}{i}" for i in ids[:_MOST_IDS]] + ["…"] * (len(ids) > _MOST_IDS)
    return " ".join(shown)


def _tables(data: Any) -> Table | None:
    from embstore.cli.output import table

    headers = ["table", "rows", "changed", "drift mean", "drift max", "cosine mean", "cosine max"]
    rows = [row for name, found in data["tables"].items() for row in _table_rows(name, found)]
    return table(headers, rows, right=headers[1:]) if rows else None


def _table_rows(name: str, found: Any) -> Iterator[tuple[str, ...]]:
    status = "" if found["status"] == "kept" else f" ({found['status']})"
    figures = [f"{found[key]:.3g}" for key in ("drift_mean", "drift_max", "cosine_mean", "cosine_max")]
    yield (name + status, f"{found['rows_after']:,}", f"{found['changed']:,}", *(figures if found["changed"] else [""] * 4))
    yield from ((f"  {slot}", "", f"{n:,}", "", "", "", "") for slot, n in found["slots"].items() if n)


def _rest(data: Any) -> Table:
    from embstore.cli.output import pairs, short, size

    moved = {name: [f"{m['id']} ({m['drift']:.3g})" for m in found["moved_most"]] for name, found in data["tables"].items()}
    consumed = data["consumed"]
    return pairs(
        [
            *((f"moved most in {name}", ", ".join(ids)) for name, ids in moved.items() if ids),
            *((f"dense {what}", name) for name, what in data["dense"].items()),
            ("consumed", f"{consumed['before']:,} -> {consumed['after']:,} pairs"),
            *((f"metadata {key}", f"{short(m['before'])} -> {short(m['after'])}") for key, m in data["metadata"].items()),
            ("bytes", f"{size(data['bytes_new'])} new, {size(data['bytes_shared'])} shared"),
        ]
    )
