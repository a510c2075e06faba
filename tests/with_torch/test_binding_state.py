"""What is stored of an optimizer's state: which entries are slots, what they start with, and what type they come back as."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import embstore
from embstore import Rows, Schema, TableSpec
from embstore.owned import Entry, owners
from tests.with_torch.test_binding_cases import DIM, FILLS, ITEMS, TABLES, USERS, Run, bits, new_store, train_and_commit

NEW_USERS = [f"n{i}" for i in range(7)]


def test_slots_carry_their_own_names() -> None:
    """State with a row for each id is a slot under the optimizer's name for it; the rest is dense."""
    store = new_store("memory://names")
    train_and_commit(store, Run("adam-amsgrad", USERS, ITEMS), range(1))
    version = store.at()
    assert {name: slot.spec.dim for name, slot in version.table("user").slots.items()} == {
        "exp_avg": DIM,
        "exp_avg_sq": DIM,
        "max_exp_avg_sq": DIM,
    }
    state = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step")
    steps = {"optim.user.weight.step", "optim.item.weight.step"}
    head = {f"optim.head.{name}.{key}" for name in ("weight", "bias") for key in state}
    assert set(version.dense) == {"optim", "model.head.weight", "model.head.bias"} | steps | head
    assert version.dense["optim.user.weight.step"].shape == ()


def test_fills_are_what_the_optimizer_starts_with() -> None:
    """A new slot's fill is where a row starts that has no gradient yet."""
    store = new_store("memory://fills")
    for case, key in [("adagrad", "sum"), ("rprop", "step_size"), ("adam", "exp_avg")]:
        run = Run(case, USERS, ITEMS)
        run.epoch(0)
        with store.checkout() as work:
            run.bind(work).stage()
            assert work.tables["user"].slot(key).fill == FILLS.get((case, key), 0.0)
            work.discard()


def test_row_adam_steps_are_one_number_a_row() -> None:
    """The step of a row-lazy optimizer is a slot of whole numbers, and a new row's is 0."""
    store = new_store("memory://row-step")
    train_and_commit(store, Run("row-adam", USERS, ITEMS), range(2))
    with store.checkout() as work:
        work.append("user", NEW_USERS)
        work.commit("new ids")
    step = store.at().table("user").slot("step")
    assert (step.spec.dim, step.spec.dtype) == (None, "int32")
    assert step.get(NEW_USERS).tolist() == [0] * len(NEW_USERS)
    assert step.get(USERS).sum() > 0
    assert "optim.user.weight.step" not in store.at().dense


def test_python_numbers_come_back_as_they_were() -> None:
    """SparseAdam counts in a Python int, which is a 0-dim array in the store and an int again after."""
    store = new_store("memory://ints")
    run = Run("sparse-adam", USERS, ITEMS)
    train_and_commit(store, run, range(2))
    assert store.at().dense["optim.user.weight.step"].tolist() == 4
    resumed = Run("sparse-adam", USERS, ITEMS)
    with store.checkout() as work:
        resumed.bind(work).restore()
    assert type(resumed.optimizer.state[resumed.model.user.weight]["step"]) is int


def test_state_of_another_optimizer_is_refused() -> None:
    """Slots that Adam wrote are not laid into SGD; the error says how to begin with fresh state."""
    store = new_store("memory://other")
    train_and_commit(store, Run("adam", USERS, ITEMS), range(1))
    trained = store.at().table("user").get(USERS)
    other = Run("sgd-momentum", USERS, ITEMS)
    with store.checkout() as work:
        with pytest.raises(
            embstore.SchemaMismatchError, match=r"stored by torch\.optim\.adam\.Adam, this is torch\.optim\.sgd\.SGD"
        ):
            other.bind(work).restore()
        embstore.bind(work, other.model, None, TABLES).restore()
        assert bits(other.model.user.weight) == trained.tobytes()
        binding = other.bind(work)
        other.epoch(1)
        binding.stage()
        work.commit("with another optimizer")
    assert {name for name in store.at().dense if name.startswith("optim.head.weight.")} == {"optim.head.weight.momentum_buffer"}
    resumed = Run("sgd-momentum", USERS, ITEMS)
    with store.checkout() as work:
        resumed.bind(work).restore()
    assert resumed.bits() == other.bits()


def test_adamw_goes_on_from_adam() -> None:
    """A class and one derived from it share their state."""
    store = new_store("memory://derived")
    run = Run("adam", USERS, ITEMS)
    train_and_commit(store, run, range(1))
    resumed = Run("adamw", USERS, ITEMS)
    with store.checkout() as work:
        resumed.bind(work).restore()
    assert resumed.bits() == run.bits()


@pytest.mark.parametrize("shape", [(len(ITEMS),), (len(ITEMS), 1), (1, len(ITEMS))])
def test_table_of_one_number_a_row(shape: tuple[int, ...]) -> None:
    """A bias for each id is a table without dim, however the module shapes it, and so are its slots."""

    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.ParameterDict({"bias": nn.Parameter(torch.zeros(shape))})
        return model, torch.optim.Adam(model.parameters(), lr=0.1)

    store = new_store(f"memory://bias-{shape.index(len(ITEMS))}-{len(shape)}")
    tables = {"bias": Rows("item_bias", axis=shape.index(len(ITEMS)))}
    model, adam = make()
    with store.checkout() as work:
        work.add_table(TableSpec("item_bias", "item", None))
        binding = embstore.bind(work, model, adam, tables)
        binding.restore()
        (model.bias * torch.arange(len(ITEMS)).reshape(shape)).sum().backward()
        adam.step()
        binding.stage()
        work.commit("biases")
    table = store.at().table("item_bias")
    assert table.values().tobytes() == bits(model.bias)
    assert table.slot("exp_avg").spec.dim is None
    other, other_adam = make()
    with store.checkout() as work:
        embstore.bind(work, other, other_adam, tables).restore()
    assert bits(other.bias) == bits(model.bias)
    assert {k: (v.shape, bits(v)) for k, v in other_adam.state[other.bias].items()} == {
        k: (v.shape, bits(v)) for k, v in adam.state[model.bias].items()
    }


class Odd(torch.optim.SGD):
    """An optimizer whose state has shapes of many kinds."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make the state where it is missing, then count up all of it."""
        for param in self.param_groups[0]["params"]:
            n, dim = param.shape
            if not self.state[param]:
                shapes = {
                    "low_rank": (n, 3),
                    "per_row": (n,),
                    "column": (n, 1),
                    "per_dim": (1, dim),
                    "vector": (dim,),
                    "square": (dim, dim),
                }
                self.state[param] = {key: torch.zeros(shape) for key, shape in shapes.items()} | {
                    "flag": True,
                    "rate": 0.5,
                    "none": None,
                }
                self.state[param] |= {"count": torch.zeros((), dtype=torch.int64)}
            for value in self.state[param].values():
                if isinstance(value, torch.Tensor):
                    value += torch.arange(value.numel()).reshape(value.shape) + 1


def test_shapes_decide_what_is_a_slot() -> None:
    """What has the parameter's rows is a slot, of one number or as many as it is wide; all else is dense."""
    store = new_store("memory://odd")
    runs = []
    for _ in range(2):
        model = nn.Embedding(len(ITEMS), DIM)
        runs.append((model, Odd(model.parameters(), lr=0.1)))
    (model, odd), (other, other_odd) = runs
    with store.checkout() as work:
        binding = embstore.bind(work, model, odd, {"weight": "item"})
        odd.step()
        binding.stage()
        work.commit("odd")
        embstore.bind(work, other, other_odd, {"weight": "item"}).restore()
    slots = store.at().table("item").slots
    assert {name: slot.spec.dim for name, slot in slots.items()} == {"low_rank": 3, "per_row": None, "column": None}
    dense = {"per_dim", "vector", "square", "flag", "rate", "count"}
    assert {name for name in store.at().dense if name.startswith("optim.")} == {f"optim.weight.{key}" for key in dense}
    stored = {key: value for key, value in odd.state[model.weight].items() if value is not None}
    found = other_odd.state[other.weight]
    assert {k: (type(v), bits(v), getattr(v, "shape", None)) for k, v in found.items()} == {
        k: (type(v), bits(v), getattr(v, "shape", None)) for k, v in stored.items()
    }


def _one_row_more(n_rows: int, kind: str) -> list[torch.Tensor]:
    """Return the state of Adafactor after a step, a commit, an id more, and another step."""
    ids, store = (
        ITEMS[: n_rows + 1],
        embstore.create(f"memory://adafactor-{n_rows}-{kind}", schema=Schema((TableSpec("t", "item", 4),))),
    )
    for known in (ids[:-1], ids):
        with store.checkout() as work:
            work.append("item", known)
            model: Any = nn.Embedding(len(known), 4) if kind == "rows" else nn.Linear(len(known), 4, bias=False)
            adafactor = torch.optim.Adafactor(model.parameters(), lr=0.1)
            binding = embstore.bind(work, model, adafactor, {"weight": "t" if kind == "rows" else Rows("t", axis=1)})
            binding.restore()
            (model.weight**2).sum().backward()
            adafactor.step()
            binding.stage()
            work.commit("a step")
    return [store.at().dense["optim"], *adafactor.state[model.weight].values()]


@pytest.mark.parametrize("kind", ["rows", "columns"])
def test_means_over_rows_are_no_rows_of_one(kind: str) -> None:
    """Adafactor's means over rows have the shape of a table with one row, and are no slots of it either."""
    one, more = _one_row_more(1, kind), _one_row_more(2, kind)
    assert one[0].tobytes() == more[0].tobytes()
    assert [value.ndim for value in one[1:]] == [value.ndim for value in more[1:]]


def test_half_the_state_is_no_state() -> None:
    """Where a part of what was recorded is gone the optimizer begins anew, and does not stumble over the rest."""
    store = new_store("memory://half")
    train_and_commit(store, Run("adam", USERS, ITEMS), range(1))
    run = Run("adam", USERS, ITEMS)
    with store.checkout() as work:
        del work.dense["optim.user.weight.step"]
        run.bind(work).restore()
        assert run.model.user.weight not in run.optimizer.state
        assert run.model.item.weight in run.optimizer.state
        run.epoch(1)
        work.discard()


@pytest.mark.parametrize(("option", "device"), [("none", "cpu"), ("capturable", "meta"), ("fused", "meta")])
def test_steps_live_where_torch_keeps_them(option: str, device: str) -> None:
    """A step count stays in the host's memory unless the optimizer counts on the device; all else goes to the device."""
    param = nn.Parameter(torch.zeros(3, device="meta"))
    adam = torch.optim.Adam([param])
    adam.param_groups[0][option] = True
    (owned,) = owners(adam, {param: "weight"}, {})
    owned.set_dense(Entry("step", "float32"), np.float32(7))
    owned.set_dense(Entry("exp_avg", "float32"), np.zeros(3, np.float32))
    assert {key: value.device.type for key, value in adam.state[param].items()} == {"step": device, "exp_avg": "meta"}


def test_parameters_given_to_the_optimizer_later() -> None:
    """A layer that joins the optimizer after binding is staged with its state."""
    store = new_store("memory://later")
    run = Run("adam", USERS, ITEMS)
    run.optimizer = torch.optim.Adam([run.model.user.weight, run.model.item.weight], lr=0.05)
    with store.checkout() as work:
        binding = run.bind(work)
        binding.restore()
        run.optimizer.add_param_group({"params": run.model.head.parameters()})
        run.epoch(0)
        binding.stage()
        work.commit("later")
    resumed = Run("adam", USERS, ITEMS)
    with store.checkout() as work:
        resumed.bind(work).restore()
    assert resumed.bits() == run.bits()
