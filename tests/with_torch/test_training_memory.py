"""A fit holds its tables with their moments once to train them and once to commit them, and little else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("trainer", "bound"), [("dynamic_autoencoder", 8.6), ("mult_vae", 8.2)])
def test_a_fit_takes_what_it_trains_and_what_it_stages(trainer: str, bound: float, tmp_path: Path) -> None:
    """Two tables of items with two moments are three times their size, held twice; gradients are one more.

    What is left of the bound is for a batch, a row gradient on its way, and what the process takes for everything else. Another
    copy of a gradient, or of the rows that are scored, would be beyond it.
    """
    command = [sys.executable, "-m", "tests.with_torch.one_fit", trainer, str(tmp_path)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    assert 5 < float(done.stdout) < bound
