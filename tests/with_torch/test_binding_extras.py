"""Objects with a state of their own are stored with the module, as JSON and tensors."""

from __future__ import annotations

import math
import uuid
from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import embstore
from embstore import Schema, Store, TableSpec
from embstore.errors import InvalidInputError, SchemaMismatchError


def _new_store() -> Store:
    return embstore.create(f"memory://{uuid.uuid4()}")


class Kept:
    """Anything with a state."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def state_dict(self) -> Any:
        """Return the state."""
        return self.state

    def load_state_dict(self, state: Any) -> None:
        """Take a state."""
        self.state = state


def _round_trip(*states: Any) -> Any:
    store, model = _new_store(), nn.Linear(1, 1)
    for state in states:
        with store.checkout() as work:
            embstore.bind(work, model, None, {}, extra={"kept": Kept(state)}).stage()
            work.commit("saved")
    found = Kept()
    with store.checkout() as work:
        embstore.bind(work, model, None, {}, extra={"kept": found}).restore()
    return found.state


def test_any_state_of_numbers_and_text_comes_back() -> None:
    """Tuples, other keys than text, infinities and whole numbers of any size are what they were."""
    state = {
        "count": 2**80,
        "best": math.inf,
        "worst": -math.inf,
        "third": 1 / 3,
        "flags": [True, None, "ü\0"],
        "betas": (0.9, (0.99,)),
        "$": {"$": 1},
        "by epoch": {3: "a", (1, 2): 0.5},
        "empty": [{}, [], ()],
    }
    assert _round_trip(state) == state
    assert math.isnan(_round_trip({"loss": math.nan})["loss"])
    assert _round_trip(OrderedDict(b=1, a=Counter("aab"))) == {"b": 1, "a": {"a": 2, "b": 1}}


def test_tensors_in_a_state_come_back() -> None:
    """Tensors keep dtype, shape and bits; those of an earlier, larger state are gone."""
    tensors = [torch.arange(6.0).reshape(2, 3).to(dtype) for dtype in (torch.bfloat16, torch.float16, torch.int64, torch.bool)]
    found = _round_trip({"old": tensors * 3}, {"new": [*tensors, torch.tensor(2.5)], "array": np.arange(3, dtype=np.uint8)})
    for one, other in zip(found["new"], [*tensors, torch.tensor(2.5)], strict=True):
        assert (one.dtype, one.shape, one.tolist()) == (other.dtype, other.shape, other.tolist())
    assert (found["array"].dtype, found["array"].tolist()) == (np.uint8, [0, 1, 2])


def test_stale_tensors_are_deleted() -> None:
    """A state with fewer tensors leaves none of the earlier behind."""
    store, model, kept = _new_store(), nn.Linear(1, 1), Kept([torch.zeros(1)] * 12)
    with store.checkout() as work:
        binding = embstore.bind(work, model, None, {}, extra={"kept": kept})
        binding.stage()
        kept.state = [torch.ones(1)] * 3
        binding.stage()
        work.commit("saved")
    names = {name for name in store.at().dense if name.startswith("extra")}
    assert names == {"extra.kept", "extra.kept/0", "extra.kept/1", "extra.kept/2"}


def test_averages_and_scalers() -> None:
    """An averaged model and a gradient scaler go on."""
    store = _new_store()
    pairs = []
    for _ in range(2):
        model = nn.Linear(3, 1)
        pairs.append((model, AveragedModel(model), torch.amp.GradScaler("cpu", init_scale=4.0)))
    model, average, scaler = pairs[0]
    average.update_parameters(model)
    scaler.scale(torch.ones(()))
    scaler.update(8.0)
    with store.checkout() as work:
        embstore.bind(work, model, None, {}, extra={"average": average, "scaler": scaler}).stage()
        work.commit("saved")
    model, other, other_scaler = pairs[1]
    with store.checkout() as work:
        embstore.bind(work, model, None, {}, extra={"average": other, "scaler": other_scaler}).restore()
    assert {k: v.tolist() for k, v in other.state_dict().items()} == {k: v.tolist() for k, v in average.state_dict().items()}
    assert other_scaler.state_dict() == scaler.state_dict()


def test_averages_do_not_grow() -> None:
    """Rows of new ids are missing in an averaged model that is an extra; the message says where they would not be."""
    store = embstore.create(f"memory://{uuid.uuid4()}", schema=Schema((TableSpec("item", "item", 3),)))
    with store.checkout() as work:
        work.append("item", [1, 2])
        model = nn.Embedding(2, 3)
        embstore.bind(work, model, None, {"weight": "item"}, extra={"average": AveragedModel(model)}).stage()
        work.commit("saved")
    with store.checkout() as work:
        work.append("item", [3])
        model = nn.Embedding(3, 3)
        binding = embstore.bind(work, model, None, {"weight": "item"}, extra={"average": AveragedModel(model)})
        with pytest.raises(
            SchemaMismatchError, match=r"extra.average: .*size mismatch .*; tensors of an extra do not grow: leave it"
        ):
            binding.restore()
        work.discard()


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", 1j, torch.zeros(2).to_sparse(), lambda: 0])
def test_states_that_cannot_be_stored(value: object) -> None:
    """What is neither JSON nor a tensor is refused with its place; nothing is pickled."""
    with pytest.raises(InvalidInputError, match=r"extra\.kept\['a'\]\[1\]: .* cannot be stored"):
        _round_trip({"a": [0, value]})


def test_what_is_no_extra() -> None:
    """An extra has state_dict and load_state_dict, and a name."""
    with _new_store().checkout() as work:
        for extra in ({"x": 3}, {"a b": Kept()}):
            with pytest.raises(InvalidInputError, match="'x': int has no state_dict|name 'a b'"):
                embstore.bind(work, nn.Linear(1, 1), None, {}, extra=extra)


def test_extras_that_the_store_lacks_stay() -> None:
    """An extra that was never stored keeps its state."""
    kept = Kept({"a": 1})
    with _new_store().checkout() as work:
        embstore.bind(work, nn.Linear(1, 1), None, {}, extra={"kept": kept}).restore()
    assert kept.state == {"a": 1}
