"""docs/cli.md says what --help says."""

from __future__ import annotations

from tools.cli_reference import PAGE, reference


def test_reference_is_up_to_date() -> None:
    """The page is what python -m tools.cli_reference writes today."""
    assert PAGE.read_text(encoding="utf-8") == reference()
