"""Versions as verbs show them: a document for programs, a row or a few lines for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from embstore.cli.output import note, pairs, printable, short, size, table, write_json

if TYPE_CHECKING:
    from embstore.store import Store
    from embstore.version import Version

_ID_CHARACTERS = 8
# Of a lineage, what has a place of its own or says nothing about the state.
_APART = {"counts", "bytes", "libraries"}


def short_id(version_id: str) -> str:
    """Return the beginning of an id, which is a ref as well."""
    return version_id[:_ID_CHARACTERS]


@dataclass(frozen=True)
class Refs:
    """The branches and tags of a store, and the ids that they are at."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]

    @classmethod
    def of(cls, store: Store) -> Refs:
        """Return those of a store."""
        return cls(store.branches(), store.tags())

    def names(self, version_id: str) -> list[str]:
        """Return what a version is called, branches first."""
        return [*_at(self.branches, version_id), *_at(self.tags, version_id)]


def _at(refs: Mapping[str, str], version_id: str) -> list[str]:
    return [name for name, tip in refs.items() if tip == version_id]


def document(version: Version, refs: Refs) -> dict[str, Any]:
    """Return a version, JSON-ready."""
    return {
        "id": version.id,
        "parents": list(version.parents),
        "time": version.time.isoformat(),
        "message": version.message,
        "branches": _at(refs.branches, version.id),
        "tags": _at(refs.tags, version.id),
        "metadata": version.metadata,
        "lineage": version.lineage,
    }


def subject(version: Version) -> str:
    """Return the first line of the message; nothing where it says nothing."""
    return printable(next(iter(version.message.strip().splitlines()), ""))


def log_table(versions: Sequence[Version], refs: Refs, *, graph: Sequence[str] = ()) -> Table:
    """Return a row for each version: id, time, ids that are new or gone, bytes written, refs and message."""
    entities = list(dict.fromkeys(entity for version in versions for entity in entity_counts(version)))
    headers = [*(["graph"] if graph else []), "version", "time (UTC)", *entities, "written", "message"]
    rows = [[*graph[i : i + 1], *_log_row(version, refs, entities)] for i, version in enumerate(versions)]
    return table(headers, rows, right=[*entities, "written"])


def _log_row(version: Version, refs: Refs, entities: Sequence[str]) -> list[object]:
    counts = entity_counts(version)
    grown = [growth(counts.get(entity, {})) for entity in entities]
    names = ", ".join(refs.names(version.id))
    text = Text.assemble((f"({names}) " if names else "", "bold"), subject(version))
    return [short_id(version.id), f"{version.time:%Y-%m-%d %H:%M}", *grown, size(version.lineage.get("bytes", 0)), text]


def entity_counts(version: Version) -> dict[str, Any]:
    """Return what the version's lineage counts of each entity: rows, new and removed."""
    counts: dict[str, Any] = version.lineage.get("counts", {}).get("entities", {})
    return counts


def growth(counts: Mapping[str, int]) -> str:
    """Return new and removed ids as ``+12 -1``; nothing where there are none."""
    signs = {"new": "+", "removed": "-"}
    return " ".join(f"{sign}{counts[what]:,}" for what, sign in signs.items() if counts.get(what))


def facts(version: Version) -> list[tuple[str, object]]:
    """Return what is recorded of a version's making, a name and a value each."""
    return [(name.replace("_", " "), short(value)) for name, value in version.lineage.items() if name not in _APART and value]


def report_made(version: Version, store: Store, *, branch: str, as_json: bool) -> None:
    """Say which version a verb has made, and what is in it."""
    if as_json:
        write_json(document(version, Refs.of(store)))
        return
    grown = [f"{text} {entity}" for entity, counts in entity_counts(version).items() if (text := growth(counts))]
    lines: list[tuple[str, object]] = [
        (branch, f"{short_id(version.id)}  {subject(version)}"),
        *([("ids", ", ".join(grown))] if grown else []),
        *facts(version),
        ("written", size(version.lineage.get("bytes", 0))),
    ]
    note(pairs(lines))


def report_unchanged(version: Version, store: Store, *, branch: str, why: str, as_json: bool) -> None:
    """Say why a verb had nothing to commit."""
    if as_json:
        write_json(document(version, Refs.of(store)))
    else:
        note(pairs([(branch, f"{short_id(version.id)}  {why}")]))
