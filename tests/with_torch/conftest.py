"""What the tests with torch share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.with_torch.ranks import Ranks


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """Yield processes for small jobs."""
    from tests.with_torch.ranks import started  # here, so that tests are collected where there is no torch

    with started() as pool:
        yield pool
