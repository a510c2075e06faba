"""What the documentation shows is true: every block of code in it runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
# tests/with_torch/test_recipes.py runs these, in a process that has imported torch.
RUN_ELSEWHERE = {ROOT / "docs" / "extending.md", *(ROOT / "docs" / "recipes").glob("*.md")}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Languages of blocks that are not run: what a terminal shows, diagrams, and the two commands that run these tests.
SHOWN = {"text", "sh", "toml"}


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of every fenced block."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", sorted({*PAGES} - RUN_ELSEWHERE), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """The Python blocks of a page run one after the other, in one process and an empty folder."""
    code = "\n".join(text for language, text in blocks(page) if language == "python")
    if "import torch" in code or "bpr" in code.lower():
        pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_says_what_it_is(page: Path) -> None:
    """A block is Python, which runs, or of a language that is only shown."""
    assert {language for language, _ in blocks(page)} <= {"python"} | SHOWN
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Links to other files of the project name files that exist."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
