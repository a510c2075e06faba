"""The program as a user meets it: a process with exit codes, and two streams that are kept apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

import embstore
from embstore.cli.group import MODULES, SECTIONS, VERBS
from tests.cli_running import files_of, make_store, run, text_of

SCRIPT = Path(sysconfig.get_path("scripts"), "embstore")
MODULE = (sys.executable, "-m", "embstore")
LIGHT = """
import sys
from embstore.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
FAULTY = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Faulty:
    name = "faulty"

    def schema(self):
        return 1 / 0
"""
HEAVY = {"numpy", "rich", "zarr", "icechunk", "torch", "pandas", "scipy", "filelock", "asyncio", "pyarrow"}


def start(*command: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start a process with a pipe on each of its streams."""
    pipe = subprocess.PIPE
    return subprocess.Popen([str(part) for part in command], stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=cwd)


def outcome(*command: object, cwd: Path | None = None, input: str = "") -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a process."""
    with start(*command, cwd=cwd) as process:
        out, err = process.communicate(input, timeout=120)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store that no test here changes."""
    path = tmp_path_factory.mktemp("cli") / "store"
    make_store(path)
    return path


@pytest.mark.parametrize("program", [(SCRIPT,), MODULE], ids=["script", "module"])
def test_answers_go_to_standard_output(store: Path, program: Sequence[object]) -> None:
    """The script and the module say the same; what was asked for is on standard output, and nothing else is written."""
    assert outcome(*program, "ids", store, "item") == (0, "a\nb\nc\nd\n", "")


@pytest.mark.parametrize("program", [(SCRIPT,), MODULE], ids=["script", "module"])
def test_errors_go_to_standard_error(store: Path, program: Sequence[object]) -> None:
    """An error is one line on standard error, and the exit code says of what kind it is."""
    code, out, err = outcome(*program, "show", store, "main~7")
    assert (code, out, err) == (3, "", "error: ref 'main~7': there are only 4 versions before it\n")


@pytest.mark.parametrize("program", [(SCRIPT,), MODULE], ids=["script", "module"])
def test_wrong_use_is_told_with_the_name_of_the_program(program: Sequence[object]) -> None:
    """What cannot be parsed exits with 2 and points to the help, whichever way the program was started."""
    code, out, err = outcome(*program, "log")
    assert (code, out) == (2, "")
    assert err.startswith("Usage: embstore log [OPTIONS] STORE [REF]\nTry 'embstore log --help' for help.\n")


@pytest.mark.parametrize("program", [(SCRIPT,), MODULE], ids=["script", "module"])
def test_folder_of_the_user_does_not_hide_the_built_ins(tmp_path: Path, program: Sequence[object]) -> None:
    """A package called trainers in the folder where one happens to stand is neither used nor imported."""
    package = tmp_path / "trainers"
    package.mkdir()
    (package / "__init__.py").write_text("open('imported', 'w').close()\n", encoding="utf-8")
    code, out, err = outcome(*program, "trainers", "--json", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert {t["name"]: t["error"] for t in json.loads(out)}["popularity"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["trainers"]


def test_reader_that_leaves_is_no_error(store: Path) -> None:
    """Where nobody reads any more, the program ends without a word, as a shell expects of the left side of a pipe."""
    with start(SCRIPT, "ids", store, "item") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.wait(timeout=120), process.stderr.read()) == (141, "")


def test_closed_output_is_no_error(store: Path) -> None:
    """A program started without standard output does its work."""
    command = 'exec "$0" "$@" >&-'
    assert outcome("sh", "-c", command, SCRIPT, "log", store) == (0, "", "")
    assert outcome("sh", "-c", command, SCRIPT, "log", store, "--json") == (0, "", "")


def test_interrupt_ends_with_130_and_changes_nothing(store: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of a verb ends it without a traceback, and the store is as it was."""
    before = files_of(store)
    waiting = tmp_path / "pipe"
    os.mkfifo(waiting)
    # The other end opens when the program comes to read ids from it.
    with start(SCRIPT, "append", store, "user", waiting, "-m", "never") as process, waiting.open("w"):
        while process.poll() is None:  # Python does not see one that comes just before a call that waits: people press again
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "\n")
    assert files_of(store) == before


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], *([verb, "-h"] for verb in VERBS)], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """The help of the program and of every verb needs none of the libraries that the work needs."""
    code, out, err = outcome(sys.executable, "-c", LIGHT, *arguments)
    assert (code, err) == (0, "")
    assert set(out.splitlines()[-1].split()) & HEAVY == set()


def test_version() -> None:
    """--version says which embstore this is."""
    assert text_of("--version") == "embstore 0.1.0\n"


def test_help_lists_every_verb_under_its_section() -> None:
    """The program's help has all sections, each with its verbs and what they do."""
    listed = [line for line in text_of("--help").partition("Stores:")[2].splitlines() if line]
    expected = [line for verbs in SECTIONS.values() for line in ["", *(f"{verb} {text}" for verb, text in verbs.items())]]
    assert [" ".join(line.split()) if line.startswith(" ") else "" for line in ["", *listed]] == expected


@pytest.mark.parametrize("verb", VERBS)
def test_verb_is_what_the_table_says(verb: str) -> None:
    """Every verb of the table exists, and its own help begins with what the table says of it."""
    help_text = text_of(verb, "--help")
    assert help_text.startswith(f"Usage: embstore {verb} ")
    assert VERBS[verb].rstrip(".") in " ".join(help_text.split())


def test_every_module_of_verbs_is_in_the_table() -> None:
    """No verb lies in the folder without a place in the table."""
    folder = Path(embstore.__file__).parent / "cli"
    commands = {path.stem for path in folder.glob("*.py") if "@click.command(" in path.read_text(encoding="utf-8")}
    assert commands == {MODULES.get(verb, verb) for verb in VERBS}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lgo"], "No such verb: 'lgo'. Did you mean 'log'?"),
        (["xyzzy"], "No such verb: 'xyzzy'."),
        (["log", "s", "--nope"], "No such option"),
        (["log", "s", "-n", "0"], "0 is not in the range"),
        (["append", "s", "user", "f"], "Missing option '-m'"),
        (["branch", "s", "--delete"], "--delete needs a NAME."),
        (["branch", "s", "b", "--delete", "--move"], "--delete does not go with --move."),
        (["tag", "s", "t", "--delete", "--at", "main"], "--delete does not go with --at."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use(arguments: list[str], message: str) -> None:
    """What cannot be parsed says what is wrong and exits with 2; no store is looked at."""
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


def test_standard_input_that_is_closed(store: Path) -> None:
    """Who was started without a standard input has no ids to append."""
    done = outcome("sh", "-c", f"{SCRIPT} append {store} user - -m x <&-")
    assert done == (2, "", "error: standard input: no ids\n")


@pytest.mark.parametrize("to", ["2>/dev/full", "2>&-"])
def test_standard_error_that_takes_nothing(store: Path, to: str) -> None:
    """The exit code says what went wrong, also where the message cannot be written."""
    assert outcome("sh", "-c", f"{SCRIPT} log {store} nope {to}") == (3, "", "")


def test_bug_is_a_traceback(tmp_path: Path) -> None:
    """Only what embstore raises on purpose becomes a line; the fault of a plug-in, as any other, is shown as it is."""
    info = tmp_path / "faulty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[embstore.trainers]\nfaulty = faulty_plugin:Faulty\n", encoding="utf-8")
    (tmp_path / "faulty_plugin.py").write_text(FAULTY, encoding="utf-8")
    code, out, err = outcome("env", f"PYTHONPATH={tmp_path}", SCRIPT, "init", tmp_path / "store", "--trainer", "faulty")
    assert (code, out) == (1, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.endswith("ZeroDivisionError: division by zero\n")
    assert not (tmp_path / "store").exists()
