"""What merging does to quality, measured on real pairs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from embstore import Interactions
from embstore.demo import months
from tools import merging


@pytest.mark.parametrize(
    ("month", "seed", "by"),
    [
        ("1997-10", 1, "time"),
        *(pytest.param(month, 1, by, marks=pytest.mark.soak) for month in merging.MONTHS for by in ("time", "user")),
    ],
)
def test_mean_of_two_halves_is_as_good_as_the_better_half(data_dir: Path, tmp_path: Path, month: str, seed: int, by: str) -> None:
    """Two jobs with half of a month each, merged by mean, rank held-out pairs no worse than the better of them."""
    pairs = Interactions.from_file(data_dir / merging.FILE)
    first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).timestamp()
    before = pairs.take(np.asarray(pairs.times) < first)
    found = merging.measure(before, dict(months(pairs))[month], tmp_path, by=by, seed=seed)
    assert {figures["users"] for name, figures in found.items() if "users of" not in name} == {found[merging.BASE]["users"]}
    for metric in merging.METRICS:
        better = max(found[merging.FIRST][metric], found[merging.SECOND][metric])
        assert found[merging.MEAN][metric] >= better
        assert better > found[merging.BASE][metric]
