"""The tools refuse arguments that they cannot run with before they measure anything."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("tools.writers", ["--writers", "0"], "--writers and --commits: give 1 or more"),
        ("tools.writers", ["--commits", "-1"], "--writers and --commits: give 1 or more"),
        ("tools.bench.__main__", ["w", "--days", "0"], "--days 0: give 1 or more"),
        *(
            ("tools.bench.__main__", ["small", "--scale", scale], f"--scale {float(scale)}: give a number above zero")
            for scale in ("0", "-1", "nan", "inf")
        ),
        ("tools.bench.__main__", ["w", "--folder", "missing"], "--folder missing: no such folder"),
        ("tools.bench.__main__", ["w", "--json", "missing/x.json"], "--json missing/x.json: no such folder"),
        ("tools.skew", ["--data", "missing"], "--data missing: no folder with ml-100k in it"),
    ],
)
def test_wrong_arguments_are_refused(
    tool: str,
    arguments: list[str],
    told: str,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A number or a folder that will not do ends with the usage and one line, and nothing is begun."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [tool, *arguments])
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(tool).main()
    out, err = capsys.readouterr()
    assert "" == out
    assert err.endswith(f"error: {told}\n")
    assert not list(tmp_path.iterdir())
