"""A line on the terminal that says what is going on, once that takes longer than two seconds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

Step = Callable[[int, str], None]
_AFTER_SECONDS = 2.0


@contextmanager
def progress(
    title: str, *, total: int | None = None, shown: bool = True, after_seconds: float = _AFTER_SECONDS
) -> Iterator[Step]:
    """Show ``title`` with a spinner and the time while the block runs, on stderr and only where that is a terminal.

    Parameters
    ----------
    title
        What is going on.
    total
        Of how many steps; None: nobody knows, and there is no bar.
    shown
        False shows nothing.
    after_seconds
        How long to wait before anything is shown.

    Yields
    ------
    A callable(steps done, what to say about them).
    """
    if not shown or not sys.stderr.isatty():
        yield lambda done, text: None
        return
    bar = Progress(*_columns(title, total), console=Console(stderr=True), transient=True, expand=True)
    task = bar.add_task(title, total=total, text="")
    timer = threading.Timer(after_seconds, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda done, text: bar.update(task, completed=done, text=text)
    finally:
        timer.cancel()
        timer.join()
        bar.stop()


def _columns(title: str, total: int | None) -> list[ProgressColumn]:
    """Return spinner, title, a bar where the end is known, time, and what is said of the last step as far as there is room."""
    return [
        SpinnerColumn(),
        TextColumn("{task.description}", table_column=Column(min_width=len(title), no_wrap=True)),
        *([BarColumn(20, table_column=Column(min_width=20))] if total else []),
        TimeElapsedColumn(table_column=Column(min_width=7, no_wrap=True)),
        TextColumn("{task.fields[text]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
    ]
