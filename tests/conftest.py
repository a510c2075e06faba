"""What all tests share.

Tests that need torch live in ``tests/with_torch/``; all others must pass where torch is not installed.
``make test`` runs everything on icechunk 1, with EMBSTORE_OTHER_PYTHON naming an interpreter that has icechunk 2
(empty where there is none), then ``tests/store/`` on icechunk 2 with the profile ``brief``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No deadline and no speed check: how fast an example runs is the machine's business.
_UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _UNHURRIED, max_examples=25)
settings.register_profile("brief", _UNHURRIED, max_examples=8)
settings.register_profile("ci", _UNHURRIED, max_examples=100, print_blob=True)
settings.register_profile("nightly", _UNHURRIED, max_examples=500, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real data sets."""
    folder = os.environ.get("EMBSTORE_DATA")
    if not folder:
        pytest.skip("EMBSTORE_DATA not set: it names the folder with the real data sets")
    assert Path(folder).is_dir(), f"EMBSTORE_DATA={folder}: no such folder"
    return Path(folder)
