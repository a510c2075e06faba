"""Versions and their parents drawn with characters, a line for each version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def draw(versions: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Return a line for each version: ``*`` in its own lane, ``|`` where others go on, ``/`` and ``\\`` where they meet.

    Parameters
    ----------
    versions
        Ids and the ids of parents, children before their parents.
    """
    lanes: list[str | None] = []
    lines = []
    for version_id, parents in versions:
        mine = [i for i, wanted in enumerate(lanes) if wanted == version_id] or [_free(lanes)]
        marks = ["|" if wanted else " " for wanted in lanes]
        for lane in mine:
            marks[lane] = "/"
            lanes[lane] = None
        marks[mine[0]] = "*"
        lanes[mine[0]] = parents[0] if parents else None
        for parent in parents[1:]:
            lane = lanes.index(parent) if parent in lanes else _free(lanes)
            lanes[lane] = parent
            marks[lane:] = ["\\" if lane > mine[0] else "/", *marks[lane + 1 :]]
        while lanes and lanes[-1] is None:
            lanes.pop()
        lines.append(" ".join(marks).rstrip())
    return lines


def _free(lanes: list[str | None]) -> int:
    """Return the first lane that nobody uses, a new one if need be."""
    if None not in lanes:
        lanes.append(None)
    return lanes.index(None)
