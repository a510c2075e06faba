"""Three generations in three processes equal one process that never stores anything, to the bit and by id."""

from __future__ import annotations

from pathlib import Path

from tests.featured import FeaturedBPR
from tests.three_generations import COLUMNS, LATER_COLUMNS, MADE, check_three_generations

SETTINGS = [{"dim": 8, "epochs": 2, "batch_size": 512, **columns} for columns in (COLUMNS, COLUMNS, LATER_COLUMNS)]


def test_three_generations_equal_one_process(tmp_path: Path) -> None:
    """New users, items and categories each time, and new columns in the last: tables, slots, arrays and records are equal."""
    store = check_three_generations(tmp_path / "store", FeaturedBPR, SETTINGS, MADE)
    assert len(store.diff("main~1").ids["genres"].appended) > 0


def test_three_generations_of_movielens_equal_one_process(tmp_path: Path, data_dir: Path) -> None:
    """So they are for a half, a quarter and a quarter of 100,000 real pairs."""
    store = check_three_generations(tmp_path / "store", FeaturedBPR, SETTINGS, str(data_dir / "ml-100k"))
    assert len(store.at().consumed) == 100_000
