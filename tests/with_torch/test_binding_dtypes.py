"""Optimizer state under a parameter of another dtype than the one that it was stored for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import embstore
from tests.with_torch.test_binding_cases import DENSE, DIM, ITEMS, USERS, Run, bits, new_store


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)])
@pytest.mark.parametrize("case", ["sgd-momentum", "adam", "adam-amsgrad", "adagrad", "nadam", "adafactor"])
def test_state_follows_a_parameter_of_another_dtype(case: str, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    """A module that is trained on in another dtype has state as if it had always been so, but for what was rounded."""
    store, made = new_store(f"memory://{case}-{dtypes[0]}"), []
    for dtype in dtypes:
        run = Run(case, USERS, ITEMS)
        run.model.to(dtype)
        run.optimizer = DENSE[case](run.model.parameters())
        with store.checkout() as work:
            binding = run.bind(work)
            binding.restore()
            run.epoch(0)
            binding.stage()
            work.commit("an epoch")
        made.append(run)
    fresh = Run(case, USERS, ITEMS)
    fresh.model.to(dtypes[1])
    fresh.optimizer = DENSE[case](fresh.model.parameters())
    fresh.epoch(0)
    assert made[1].types() == fresh.types()


def test_state_of_a_dtype_of_its_own_keeps_it() -> None:
    """Where an optimizer keeps float32 under a bfloat16 parameter, every bit comes back."""
    store, runs = new_store("memory://wide"), [nn.Embedding(len(ITEMS), DIM, dtype=torch.bfloat16) for _ in range(2)]
    sums = torch.arange(len(ITEMS) * DIM).reshape(len(ITEMS), DIM) / 3
    for model in runs:
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        with store.checkout() as work:
            binding = embstore.bind(work, model, sgd, {"weight": "item"})
            binding.restore()
            if model is runs[0]:
                sgd.state[model.weight]["sum"] = sums
            binding.stage()
            work.commit("staged", allow_empty=True)
    assert (sgd.state[model.weight]["sum"].dtype, bits(sgd.state[model.weight]["sum"])) == (torch.float32, bits(sums))
