"""What a verb says: text for people, one JSON document for programs. Nothing else writes to standard output."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from embstore.cli.options import is_quiet
from embstore.errors import StorageError

# Where no terminal sets a width, lines are as long as they need to be.
_WIDE = 1000
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def write(text: str) -> None:
    """Write to standard output, at once.

    Raises
    ------
    BrokenPipeError
        If nobody reads any more.
    StorageError
        If it cannot be written, as where a disk is full.
    """
    if sys.stdout is None:  # closed by who started us
        return
    encoding = _encoding()
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:
        if error.errno == errno.EPIPE:
            _close_quietly()
            raise
        raise incomplete(error) from error


def incomplete(error: OSError) -> StorageError:
    """Return what to raise where standard output cannot be written; nothing more is written to it."""
    _close_quietly()
    return StorageError(f"standard output: {error.strerror or error}; the text is not complete")


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def _close_quietly() -> None:
    """Let what is left in the buffer go nowhere, else Python complains about it at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_json(data: Any) -> None:
    """Write one JSON document; numbers that JSON has not (NaN, infinity) become null."""
    plain = _plain(data)
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(_encoding())
    except UnicodeEncodeError:
        text = json.dumps(plain, allow_nan=False)
    write(f"{text}\n")


def _plain(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def show(*parts: RenderableType | None) -> None:
    """Write parts with an empty line between; None is left out."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    width = None if is_terminal or "COLUMNS" in os.environ else _WIDE
    # Not captured from standard output, since rich writes to it even then.
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal or None, width=width, highlight=False, markup=False, emoji=False)
    for i, part in enumerate(part for part in parts if part is not None):
        if i:
            console.print()
        console.print(part)
    text = out.getvalue()
    write(text if is_terminal else "".join(f"{line.rstrip()}\n" for line in text.splitlines()))


def note(*parts: RenderableType | None) -> None:
    """Write what was done, unless the verb was asked to be quiet."""
    if not is_quiet():
        show(*parts)


def printable(value: object) -> str:
    """Return a text from a store or a caller without anything that would move a cursor or break a line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def lines_of(text: str) -> Text:
    """Return a text of several lines as it is, each line printable."""
    return Text("\n".join(map(printable, text.splitlines())))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Collection[str] = ()) -> Table:
    """Return a table without lines; columns named in ``right`` are aligned to the right, the last one may fold."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for header in headers:
        is_last = header == headers[-1]
        made.add_column(
            printable(header),
            justify="right" if header in right else "left",
            no_wrap=not is_last,
            overflow="fold" if is_last else "ellipsis",
        )
    for row in rows:
        made.add_row(*(_cell(value) for value in row))
    return made


def titled(title: str, body: RenderableType) -> RenderableType:
    """Return a part with a line above it."""
    return Group(Text(printable(title), style="bold"), body)


def pairs(lines: Iterable[tuple[str, object]]) -> Table:
    """Return names and what they stand for, a line each."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in lines:
        made.add_row(_cell(name), _cell(value))
    return made


def _cell(value: object) -> Text:
    return value if isinstance(value, Text) else Text(printable(value))


def number(value: object) -> str:
    """Return a number as people read it: 12,345 and 0.01234."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def size(n_bytes: float) -> str:
    """Return a number of bytes as people read it: 12 B, 3.4 MB."""
    for unit in _UNITS[:-1]:
        if n_bytes < 999.5:
            return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 99.95 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} {_UNITS[-1]}"


def short(value: Any) -> str:
    """Return data of a lineage or metadata on one line: ``dim=64 lr=0.01``."""
    if isinstance(value, Mapping):
        return "  ".join(f"{name}={short(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(map(short, value))
    return str(float(f"{value:.6g}")) if isinstance(value, float) else str(value)
