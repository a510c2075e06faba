"""What a section of the benchmark returns, and how it looks on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Cell = str | float | None


@dataclass(frozen=True)
class Settings:
    """What the caller of the benchmark chose.

    Parameters
    ----------
    folder
        Where stores are made; it is the caller's to remove.
    days
        Of workload W.
    scale
        Rows of every table over their full number.
    """

    folder: Path
    days: int = 10
    scale: float = 1.0

    def rows(self, n: int) -> int:
        """Return ``n`` rows at this scale."""
        return max(100, int(n * self.scale))


@dataclass(frozen=True)
class Figure:
    """One measured number; where it has a goal, it should not be above it."""

    name: str
    value: float
    unit: str = ""
    goal: float | None = None

    @property
    def verdict(self) -> str:
        """Return how it stands beside its goal; nothing where there is none."""
        if self.goal is None:
            return ""
        return "met" if self.value <= self.goal else "missed"

    @property
    def line(self) -> Sequence[Cell]:
        """Return what a table shows of it."""
        return self.name, self.value, self.unit, "" if self.goal is None else f"<= {number(self.goal)}", self.verdict


@dataclass(frozen=True)
class Grid:
    """A table of what several candidates did: one line a measure."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Result:
    """The outcome of one section."""

    title: str
    figures: Sequence[Figure] = ()
    grids: Sequence[Grid] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        figures = [{**asdict(figure), "verdict": figure.verdict} for figure in self.figures]
        return {"title": self.title, "figures": figures, "grids": [asdict(grid) for grid in self.grids]}

    def __str__(self) -> str:
        parts = [self.title, *(f"{grid.title}\n{_aligned([grid.columns, *grid.rows])}" for grid in self.grids)]
        if self.figures:
            parts.append(_aligned([("figure", "value", "unit", "goal", ""), *(figure.line for figure in self.figures)]))
        return "\n\n".join(parts)


def number(value: Cell) -> str:
    """Return three digits of a number, and text as it is."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}"


def _aligned(rows: Sequence[Sequence[Cell]]) -> str:
    texts = [[number(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(_line(row, widths) for row in texts)


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    """Return the first text flush left, the others flush right."""
    rest = [text.rjust(width) for text, width in zip(texts[1:], widths[1:], strict=True)]
    return "  ".join(["", texts[0].ljust(widths[0]), *rest]).rstrip()
