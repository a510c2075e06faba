"""``embstore trainers``."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

import click

from embstore.cli import options
from embstore.errors import UnknownTrainerError


@click.command()
@options.as_json
@options.quiet
def trainers(*, as_json: bool) -> None:
    """List the installed trainers and their settings."""
    from embstore.cli.output import short, show, table, write_json
    from embstore.registry import installed_trainers

    found = [_describe(name, origin) for name, origin in installed_trainers().items()]
    if as_json:
        write_json(found)
        return
    rows = [(t["name"], t["from"], t["error"] or short(t["settings"]) or "none") for t in found]
    show(table(["trainer", "from", "settings"], rows))


def _describe(name: str, origin: str) -> dict[str, Any]:
    """Return a trainer and its defaults; of one that cannot be imported, what is wrong with it."""
    from embstore.registry import find_trainer

    try:
        kind = find_trainer(name)
    except UnknownTrainerError as error:
        return {"name": name, "from": origin, "settings": {}, "error": str(error)}
    settings = {field.name: _default(field) for field in fields(kind) if field.init}
    return {"name": name, "from": origin, "settings": settings, "error": None}


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else "required"
