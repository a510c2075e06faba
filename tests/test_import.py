"""What is heavy is loaded when it is needed, not when embstore is imported or asked for help."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import embstore

HEAVY = {"torch", "zarr", "pandas", "scipy", "icechunk"}
HEAVY_FOR_HELP = HEAVY | {"numpy", "rich", "filelock"}

_HELP = """
import runpy, sys
sys.argv = ["embstore", *sys.argv[1:]]
try:
    runpy.run_module("embstore", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert end.code in (0, None), end.code
"""
_SHOW_LOADED = "\nimport sys\nprint('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"


def _loaded(code: str, *arguments: str) -> set[str]:
    """Return the packages loaded after ``code`` ran in an interpreter of its own."""
    command = [sys.executable, "-c", code + _SHOW_LOADED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_import_is_light() -> None:
    """``import embstore`` loads none of the heavy packages."""
    assert _loaded("import embstore") & (HEAVY | {"embstore"}) == {"embstore"}


@pytest.mark.parametrize("arguments", [["--help"], ["log", "--help"], ["--version"]], ids=" ".join)
def test_help_is_light(arguments: list[str]) -> None:
    """The help of the program and of a verb, and its version, load nothing heavy, not even numpy."""
    assert _loaded(_HELP, *arguments) & (HEAVY_FOR_HELP | {"click"}) == {"click"}


def test_every_public_name_is_told_to_type_checkers() -> None:
    """The lazy names and those that a type checker sees are the same, each from the same module."""
    source = (Path(embstore.__file__)).read_text(encoding="utf-8")
    seen = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("embstore.")
        for alias in node.names
    }
    assert {(home, name) for name, home in embstore._NAMES.items()} == seen
