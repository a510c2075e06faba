"""Versions and their parents drawn with characters, a line for each version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# What a lane is in the line of a version that it touches: it begins there, ends there, or goes on.
_BEGINS, _ENDS, _GOES_ON = ".", "'", "+"


def draw(versions: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Return a line for each version: ``*`` in its own lane, ``|`` where others pass, ``-`` to the lanes of its parents.

    ``*-.`` begins a lane for a second parent, ``*-'`` is where one ends, ``*-+`` where the parent's lane is there already.

    Parameters
    ----------
    versions
        Ids and the ids of parents, children before their parents.
    """
    lanes: list[str | None] = []
    lines = []
    for version_id, parents in versions:
        if version_id not in lanes:
            lanes[_free(lanes)] = version_id
        mine = [i for i, wanted in enumerate(lanes) if wanted == version_id]
        marks = ["|" if wanted else " " for wanted in lanes]
        touched = set(mine)
        for parent in parents[1:]:
            lane = lanes.index(parent) if parent in lanes else _free(lanes)
            marks += [" "] * (lane + 1 - len(marks))
            marks[lane] = _GOES_ON if lanes[lane] else _BEGINS
            lanes[lane] = parent
            touched.add(lane)
        for lane in mine:
            marks[lane] = _ENDS
            lanes[lane] = None
        marks[mine[0]] = "*"
        lanes[mine[0]] = parents[0] if parents else None
        lines.append(_line(marks, min(touched), max(touched)))
        while lanes and lanes[-1] is None:
            lanes.pop()
    return lines


def _line(marks: Sequence[str], first: int, last: int) -> str:
    """Return the marks with a stroke from lane ``first`` to lane ``last``."""
    crossed = ["-" if mark == " " and first < lane < last else mark for lane, mark in enumerate(marks)]
    return "".join(mark + ("-" if first <= lane < last else " ") for lane, mark in enumerate(crossed)).rstrip()


def _free(lanes: list[str | None]) -> int:
    """Return the first lane that nobody uses, a new one if need be."""
    if None not in lanes:
        lanes.append(None)
    return lanes.index(None)
