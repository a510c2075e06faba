"""``embstore show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from embstore.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from embstore.version import Version


@click.command()
@options.store
@click.argument("ref", default="main", metavar="[REF]")
@options.as_json
@options.quiet
def show(store: str, ref: str, *, as_json: bool) -> None:
    """Show one version: parents, lineage, entities, tables."""
    from embstore.cli import output
    from embstore.cli.versions import Refs, document

    opened = options.open_store(store)
    version, refs = opened.at(ref), Refs.of(opened)
    if as_json:
        output.write_json(document(version, refs) | _state(version))
        return
    output.show(_head(version, refs.names(version.id)), _entities(version), _tables(version), _rest(version))


def _state(version: Version) -> dict[str, Any]:
    """Return what the version holds, JSON-ready."""
    entities = {name: version.ids(name) for name in version.entities}
    return {
        "entities": {name: {"type": ids.id_type, "ids": ids.n_live, "rows": len(ids)} for name, ids in entities.items()},
        "tables": {name: spec.to_json() | {"rows": len(version.table(name))} for name, spec in version.tables.items()},
        "consumed": {"new": _n_consumed(version)},
        "dense": _dense(version),
    }


def _n_consumed(version: Version) -> int:
    """Return how many pairs this version recorded; how many there are in all would mean reading them."""
    n: int = version.lineage.get("counts", {}).get("consumed", {}).get("new", 0)
    return n


def _dense(version: Version) -> dict[str, dict[str, Any]]:
    """Return what each array without rows is; the arrays themselves, which may be large, are not read."""
    from embstore.dense import array_path

    metas = version.reader.metas([array_path(name) for name in version.dense])
    return {name: {"dtype": str(m.dtype), "shape": list(m.shape)} for name, m in zip(version.dense, metas, strict=True)}


def _head(version: Version, names: list[str]) -> Table:
    from embstore.cli.output import lines_of, pairs, short, size
    from embstore.cli.versions import facts

    libraries = version.lineage.get("libraries", {})
    return pairs(
        [
            ("version", version.id + (f"  ({', '.join(names)})" if names else "")),
            *(("parent", parent) for parent in version.parents),
            ("time", f"{version.time:%Y-%m-%d %H:%M:%S} UTC"),
            ("message", lines_of(version.message.strip())),
            *([("metadata", short(version.metadata))] if version.metadata else []),
            *facts(version),
            ("written", size(version.lineage.get("bytes", 0))),
            *([("by", "  ".join(f"{name} {number}" for name, number in libraries.items()))] if libraries else []),
        ]
    )


def _entities(version: Version) -> Table | None:
    from embstore.cli.output import table
    from embstore.cli.versions import entity_counts, growth

    counts = entity_counts(version)
    rows = [
        (name, ids.id_type or "-", f"{ids.n_live:,}", f"{len(ids):,}", growth(counts.get(name, {})))
        for name, ids in ((name, version.ids(name)) for name in version.entities)
    ]
    return table(["entity", "type", "ids", "rows", "in this version"], rows, right=["ids", "rows"]) if rows else None


def _tables(version: Version) -> Table | None:
    from embstore.cli.output import table

    counts = version.lineage.get("counts", {}).get("tables", {})
    headers = ["table", "entity", "dim", "dtype", "rows", "new", "changed", "slots"]
    rows = [
        (
            name,
            spec.entity,
            spec.dim or "-",
            spec.dtype,
            f"{len(version.table(name)):,}",
            *(f"{counts.get(name, {}).get(what, 0):,}" for what in ("new", "changed")),
            " ".join(slot.name for slot in spec.slots),
        )
        for name, spec in version.tables.items()
    ]
    return table(headers, rows, right=["dim", "rows", "new", "changed"]) if rows else None


def _rest(version: Version) -> Table | None:
    from embstore.cli.output import pairs

    n_consumed = _n_consumed(version)
    lines = [("consumed", f"+{n_consumed:,} pairs")] if n_consumed else []
    lines += [(f"dense {name}", f"{meta['dtype']} {meta['shape'] or ''}") for name, meta in _dense(version).items()]
    return pairs(lines) if lines else None
