"""Staging looks for changed rows without a second copy of the table."""

from __future__ import annotations

import tracemalloc
import uuid
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import embstore
from embstore import Checkout, Rows, Schema, TableSpec

N, DIM = 200_000, 64
TABLE_BYTES = N * DIM * 4


@pytest.fixture
def work() -> Iterator[Checkout]:
    """Return a checkout of 200,000 items."""
    schema = Schema((TableSpec("item", "item", DIM),), {"item": "int64"})
    store = embstore.create(f"memory://{uuid.uuid4()}", schema=schema, durability="none")
    checkout = store.checkout()
    checkout.append("item", range(N))
    checkout.commit("items")
    yield checkout
    checkout.discard()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_staging_takes_a_tenth_of_the_table(work: Checkout, axis: int, dtype: torch.dtype) -> None:
    """Digests kept since restore, blocks, and what is staged for 100 changed rows are less than a tenth of the table."""
    tracemalloc.start()
    try:
        shape = (N, DIM) if axis == 0 else (DIM, N)
        model = nn.ParameterDict({"item": nn.Parameter(torch.zeros(shape, dtype=dtype))})
        binding = embstore.bind(work, model, None, {"item": Rows("item", axis=axis)})
        before = tracemalloc.get_traced_memory()[0]
        binding.restore()
        with torch.no_grad():
            model["item"].movedim(axis, 0)[::2000] += 1
        tracemalloc.reset_peak()
        binding.stage()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert list(work.changes.rows["item"]["values"].ids) == list(range(0, N, 2000))
    assert peak < TABLE_BYTES / 10
