"""What verbs write: tables, numbers, documents, graphs, and the line that shows progress."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from embstore.cli.graph import draw
from embstore.cli.output import number, printable, short, show, size, table, write, write_json
from embstore.errors import StorageError
from embstore.progress import progress
from tests.cli_running import make_store


class Stream(io.StringIO):
    """A stream that may be a terminal, may know few characters, and may be full."""

    def __init__(self, *, terminal: bool = False, encoding: str = "utf-8", fails: int | None = None) -> None:
        super().__init__()
        self._terminal, self._encoding, self._fails = terminal, encoding, fails

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return what characters it knows."""
        return self._encoding

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._terminal

    def flush(self) -> None:
        """Fail if it is to."""
        if self._fails is not None:
            raise OSError(self._fails, os.strerror(self._fails))


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (12_345, "12.3 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (4_200_000_000, "4.2 GB"),
        (10**19, "10000.0 PB"),
    ],
)
def test_size(n_bytes: int, text: str) -> None:
    """Bytes have two or three digits and a unit."""
    assert size(n_bytes) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12345, "12,345"), (True, "True"), (0.0123456, "0.01235"), (2.0, "2"), (float("nan"), "nan")]
)
def test_number(value: object, text: str) -> None:
    """Whole numbers have their digits in threes, others four of them."""
    assert number(value) == text


def test_short() -> None:
    """Data of a lineage fits on a line."""
    data = {"dim": 64, "lr": 0.1 + 0.2, "layers": [64, 32], "device": None, "data": {"pairs": 3}}
    assert short(data) == "dim=64  lr=0.3  layers=64,32  device=None  data=pairs=3"


def test_printable() -> None:
    """What would move a cursor or break a line is written out; letters of any script are not."""
    assert printable("a\n\x1b[2Jé漢\ud800\u202e") == "a\\n\\x1b[2Jé漢\\ud800\\u202e"


def test_table_without_a_terminal_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe no line is cut or folded, nothing is coloured, and lines have no spaces at their end."""
    out = Stream()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.delenv("COLUMNS", raising=False)
    show(table(["name", "n", "text"], [("x" * 90, 5, "word " * 40 + "end"), ("y", 12, "")], right=["n"]))
    assert out.getvalue() == f"name{' ' * 88} n  text\n{'x' * 90}   5  {'word ' * 40}end\ny{' ' * 89}  12\n"


def test_document_has_no_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON has no NaN and no infinity; keys are texts."""
    out = Stream()
    monkeypatch.setattr("sys.stdout", out)
    write_json({1: [float("nan"), float("-inf"), 0.5], "a": (1, None, True)})
    assert out.getvalue() == '{"1": [null, null, 0.5], "a": [1, null, true]}\n'


def test_document_survives_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that the output has no characters for, or nothing has, is still a document of that text."""
    for encoding, value in (("ascii", "é"), ("utf-8", "\ud800"), ("utf-8", "é")):
        stream = Stream(encoding=encoding)
        monkeypatch.setattr("sys.stdout", stream)
        write_json([value])
        assert json.loads(stream.getvalue()) == [value]


def test_text_survives_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters that the output does not know are written out."""
    stream = Stream(encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    write("é…\n")
    assert stream.getvalue() == "\\xe9\\u2026\n"


def test_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that cannot be written is an error with a reason."""
    monkeypatch.setattr("sys.stdout", Stream(fails=errno.ENOSPC))
    with pytest.raises(StorageError, match="^standard output: No space left on device; the text is not complete$"):
        write("text")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["log", "--help"], ["trainers"]])
def test_full_disk_ends_a_program(arguments: list[str], unbuffered: str) -> None:
    """Whatever is written, however Python buffers it, a disk that is full is one line and an exit code."""
    command = [sys.executable, "-m", "embstore", *arguments]
    with open("/dev/full", "w", encoding="utf-8") as full:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    told = "error: standard output: No space left on device; the text is not complete\n"
    assert (done.returncode, done.stderr) == (5, told)


def test_closed_pipe_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody reads is for the program to end on."""
    monkeypatch.setattr("sys.stdout", Stream(fails=errno.EPIPE))
    with pytest.raises(BrokenPipeError):
        write("text")


@pytest.mark.parametrize(
    ("versions", "lines"),
    [
        ([], []),
        ([("b", ["a"]), ("a", [])], ["*", "*"]),
        ([("m", ["a", "b"]), ("a", ["c"]), ("b", ["c"]), ("c", [])], ["*-.", "* |", "| *", "*-'"]),
        ([("m", ["a", "b"]), ("b", ["c"]), ("a", ["c"]), ("c", [])], ["*-.", "| *", "* |", "*-'"]),
        ([("n", ["m", "b"]), ("m", ["a", "b"]), ("b", ["a"]), ("a", [])], ["*-.", "*-+", "| *", "*-'"]),
        ([("m", ["a", "b", "c"]), ("a", []), ("b", []), ("c", [])], ["*-.-.", "* | |", "  * |", "    *"]),
        (
            [("n", ["m", "y"]), ("m", ["b", "z"]), ("z", ["b"]), ("y", ["a"]), ("b", ["a"]), ("a", [])],
            ["*-.", "*-|-.", "| | *", "| * |", "*-|-'", "*-'"],
        ),
        ([("m", ["a", "b"]), ("b", ["c", "a"]), ("a", ["c"]), ("c", [])], ["*-.", "+-*", "* |", "*-'"]),
    ],
)
def test_graph(versions: list[tuple[str, list[str]]], lines: list[str]) -> None:
    """Lanes begin at a merge, end where their versions meet, and are crossed by strokes that are not theirs."""
    assert draw(versions) == lines


def parents_drawn(names: Sequence[str], lines: Sequence[str]) -> dict[str, set[str]]:
    """Return the parents of each version as somebody reads them who has nothing but the drawing."""
    parents: dict[str, set[str]] = {name: set() for name in names}
    lanes: dict[int, set[str]] = {}  # whose parent is down this lane
    for name, line in zip(names, lines, strict=True):
        star = line.index("*")
        touching = re.compile("[-.'+*|]*").match(line, len(line[:star].rstrip("-.'+|")))
        assert touching is not None
        marks = {i // 2: line[i] for i in range(*touching.span()) if i % 2 == 0}
        for lane, mark in marks.items():
            for child in lanes.pop(lane, set()) if mark in "*'" else ():
                parents[child].add(name)
            if mark in "*.":
                lanes[lane] = {name}
            elif mark == "+":
                lanes[lane].add(name)
    return parents


@given(st.lists(st.lists(st.integers(1, 4), max_size=3, unique=True), min_size=1, max_size=14))
def test_graph_of_any_history(steps: list[list[int]]) -> None:
    """Whatever the merges, each version has a line with one star, and its parents can be read off the lines below."""
    everyone = [(str(i), [str(i + step) for step in back if i + step < len(steps)]) for i, back in enumerate(steps)]
    reached = {"0"}
    for name, parents in everyone:
        reached |= set(parents) if name in reached else set()
    versions = [(name, parents) for name, parents in everyone if name in reached]
    lines = draw(versions)
    assert [line.count("*") for line in lines] == [1] * len(versions)
    assert parents_drawn([name for name, _ in versions], lines) == {name: set(parents) for name, parents in versions}


def test_progress_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is over soon shows nothing."""
    stream = Stream(terminal=True)
    monkeypatch.setattr("sys.stderr", stream)
    with progress("training", total=3, after_seconds=1000.0) as step:
        step(1, "loss 0.5")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("terminal", "shown"), [(False, True), (True, False)])
def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch, terminal: bool, shown: bool) -> None:
    """Without a terminal, or where it is not wanted, nothing is written."""
    stream = Stream(terminal=terminal)
    monkeypatch.setattr("sys.stderr", stream)
    with progress("training", shown=shown, after_seconds=0.0) as step:
        step(1, "loss 0.5")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("total", [3, None])
def test_progress_shows_the_last_step_and_goes(monkeypatch: pytest.MonkeyPatch, total: int | None) -> None:
    """On a terminal of 80 columns the line has title and last step; at the end it is wiped out and the cursor is back."""
    stream = Stream(terminal=True)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress("training bpr", total=total, after_seconds=0.0) as step:
        step(2, "loss 0.5")
        while "loss 0.5" not in stream.getvalue():
            time.sleep(0.01)
    text = stream.getvalue()
    assert "training bpr" in text
    assert ("━" in text) == (total is not None)
    assert text.endswith("\x1b[2K")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")


def on_a_terminal(*arguments: object, columns: int) -> str:
    """Return what a verb writes to a terminal of that width, without colours."""
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    command = [sys.executable, "-m", "embstore", *map(str, arguments)]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment):
        os.close(terminal)
        text = b"".join(iter(lambda: _read(main), b"")).decode()
    os.close(main)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # nobody has the other end any more
        return b""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a store is with a long name and a long message."""
    store = make_store(tmp_path_factory.mktemp("cli") / "store")
    store.branch("a-branch-that-has-quite-a-long-name-for-one")
    with store.checkout() as work:
        work.append("item", ["an item with a name that says more than anybody wants to read in one go, I am sure"])
        work.commit("a message of some words that together are by far longer than what is left of the line beside all the rest")
    return Path(store.url)


@pytest.mark.parametrize("arguments", [["log"], ["show"], ["diff", "v1"], ["get", "user", 1], ["branch"], ["blame", "user", 1]])
def test_lines_fit_the_terminal(path: Path, arguments: list[Any]) -> None:
    """No line is longer than the terminal is wide, and the message is there to its last word."""
    verb, *others = arguments
    text = on_a_terminal(verb, path, *others, columns=80)
    assert max(map(len, text.splitlines())) <= 80
    assert verb != "log" or text.split().count("rest") == 1
