"""A module's rows are those of tables: loaded, found by id, and staged where their bits changed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

import embstore
from embstore import Checkout, Rows, SlotSpec, Store
from tests.with_torch.test_binding_cases import DIM, ITEMS, TABLES, USERS, Net, Run, bits, new_store, train_and_commit


@pytest.fixture
def store() -> Store:
    """Return a store of this test's own."""
    return new_store(f"memory://{uuid.uuid4()}")


@pytest.fixture
def work(store: Store) -> Iterator[Checkout]:
    """Return a checkout that the test may leave as it likes."""
    checkout = store.checkout()
    yield checkout
    checkout.discard()


def _set(param: torch.Tensor, place: int, value: float) -> None:
    with torch.no_grad():
        param[place] = value


def test_untrained_tables_give_initial_vectors(work: Checkout) -> None:
    """What was never trained is restored as well: the store's initial vectors, with no optimizer state."""
    run = Run("adam", USERS, ITEMS)
    head = bits(run.model.head.weight)
    run.bind(work).restore()
    assert bits(run.model.user.weight) == work.table("user").initial(USERS).tobytes()
    assert bits(run.model.head.weight) == head
    assert dict(run.optimizer.state) == {}
    assert not work.dirty


def test_slots_of_the_schema_that_nobody_wrote_are_no_state(work: Checkout) -> None:
    """Slots that a schema lists before any training leave the optimizer to begin by itself."""
    for name in ("user", "item"):
        for slot in ("exp_avg", "exp_avg_sq"):
            work.table(name).add_slot(SlotSpec(slot, DIM))
    run = Run("adam", USERS, ITEMS)
    run.bind(work).restore()
    assert dict(run.optimizer.state) == {}
    run.epoch(0)


def test_slots_written_without_torch_are_state(work: Checkout) -> None:
    """What another trainer wrote into slots is the optimizer's state from the first restore on."""
    table = work.table("user")
    step = table.add_slot(SlotSpec("step", None, "int32"))
    for name in ("exp_avg", "exp_avg_sq"):
        table.add_slot(SlotSpec(name, DIM))
    step.scatter([3], [7])
    table.slot("exp_avg").scatter([3], np.full((1, DIM), 0.5, np.float32))
    run = Run("row-adam", USERS, ITEMS)
    run.bind(work).restore()
    state = run.optimizer.state[run.model.user.weight]
    assert {key: value.shape for key, value in state.items()} == {
        "step": (len(USERS),),
        "exp_avg": (len(USERS), DIM),
        "exp_avg_sq": (len(USERS), DIM),
    }
    assert (state["step"][3], state["exp_avg"][3].tolist(), state["step"].dtype) == (7, [0.5] * DIM, torch.int32)


def test_only_changed_rows_are_staged(work: Checkout) -> None:
    """A row is staged if one of its bits differs, the sign of a zero too; equal rows are not."""
    run = Run("adam", USERS, ITEMS)
    binding = run.bind(work)
    binding.restore()
    _set(run.model.user.weight, 2, 0.0)
    binding.stage()
    assert list(work.changes.rows["user"]["values"].ids) == ["u2"]
    work.commit("zero")
    _set(run.model.user.weight, 2, -0.0)
    _set(run.model.item.weight, 5, 1.0)
    with torch.no_grad():
        run.model.item.weight[6] = run.model.item.weight[6].clone()
        run.model.item.weight[7, 3] = torch.nextafter(run.model.item.weight[7, 3], torch.tensor(9.0))
    binding.stage()
    assert list(work.changes.rows["user"]["values"].ids) == ["u2"]
    assert set(work.changes.rows["item"]["values"].ids) == {1005, 1007}


def test_staging_again_follows_the_module(work: Checkout) -> None:
    """A row that goes back to what it was is staged back."""
    run = Run("adam", USERS, ITEMS)
    binding = run.bind(work)
    binding.restore()
    before = bits(run.model.user.weight)
    first = run.model.user.weight[0].detach().clone()
    _set(run.model.user.weight, 0, 1.0)
    binding.stage()
    with torch.no_grad():
        run.model.user.weight[0] = first
    binding.stage()
    assert work.table("user").values().tobytes() == before


@given(st.lists(st.tuples(st.sampled_from(["set", "stage", "commit", "restore"]), st.integers(0, 19), st.integers(-2, 2))))
def test_any_order_of_edits(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is edited, staged, committed and restored, the checkout has what a dictionary of rows has."""
    store = new_store(f"memory://any-order-{uuid.uuid4()}")
    model, checkout = Net(len(USERS), len(ITEMS)), store.checkout()
    binding = embstore.bind(checkout, model, None, {"item.weight": "item"})
    binding.restore()
    staged = {place: row.tolist() for place, row in enumerate(checkout.table("item").values())}
    held = dict(staged)
    for verb, place, value in steps:
        if verb == "set":
            _set(model.item.weight, place, value)
            held[place] = [float(value)] * DIM
        elif verb == "restore":
            binding.restore()
            held = dict(staged)
        else:
            binding.stage()
            staged = dict(held)
            if verb == "commit" and checkout.dirty:
                checkout.commit("step")
        assert {i: row.tolist() for i, row in enumerate(checkout.table("item").values())} == staged
        assert {i: row.tolist() for i, row in enumerate(model.item.weight.detach())} == held
    checkout.discard()


def test_staging_without_restoring(work: Checkout) -> None:
    """A binding that never restored compares with the store, and makes it what the module is."""
    model = Net(len(USERS), len(ITEMS))
    with torch.no_grad():
        model.item.weight.copy_(torch.from_numpy(work.table("item").values()))
    _set(model.item.weight, 4, 2.0)
    embstore.bind(work, model, None, TABLES).stage()
    assert list(work.changes.rows["item"]["values"].ids) == [ITEMS[4]]
    assert work.table("user").values().tobytes() == bits(model.user.weight)


def test_positions(work: Checkout) -> None:
    """Ids lie in the parameter where their rows are, in whatever order they are asked for."""
    work.append("user", ["late"])
    run = Run("adam", [*USERS, "late"], ITEMS)
    binding = run.bind(work)
    assert binding.positions("user", ["late", "u3", "u3"]).tolist() == [30, 3, 3]
    assert binding.positions("item", []).tolist() == []
    assert binding.positions("item", ITEMS[::-1]).dtype == np.int64


def test_padding_rows_are_no_rows_of_the_table(store: Store) -> None:
    """Leading rows are dense, with their optimizer state; ids begin behind them and keep their rows as the table grows."""

    def make(n_ids: int) -> tuple[nn.Embedding, torch.optim.Optimizer]:
        emb = nn.Embedding(n_ids + 2, DIM)
        return emb, torch.optim.Adam(emb.parameters(), lr=0.1)

    emb, adam = make(len(ITEMS))
    with store.checkout() as work:
        binding = embstore.bind(work, emb, adam, {"weight": Rows("item", first=2)})
        binding.restore()
        assert bits(emb.weight[2:]) == work.table("item").initial(ITEMS).tobytes()
        assert binding.positions("item", [1000, 1019]).tolist() == [2, 21]
        emb(torch.tensor([0, 1, 2, 9])).pow(2).sum().backward()
        adam.step()
        binding.stage()
        work.append("item", [5])
        work.commit("padded")
    assert bits(emb.weight[:2]) == store.at().dense["rows.weight"].tobytes()
    grown, grown_adam = make(len(ITEMS) + 1)
    with store.checkout() as work:
        embstore.bind(work, grown, grown_adam, {"weight": Rows("item", first=2)}).restore()
    assert bits(grown.weight[:-1]) == bits(emb.weight)
    for key in ("exp_avg", "exp_avg_sq"):
        new, old = grown_adam.state[grown.weight][key], adam.state[emb.weight][key]
        assert bits(new[:-1]) == bits(old)
        assert new[-1].tolist() == [0.0] * DIM


def test_rows_on_the_second_axis(store: Store) -> None:
    """The first weight of an autoencoder has its rows on axis 1: vectors of ids are its columns, of slots too."""

    def make(n_ids: int) -> tuple[nn.Linear, torch.optim.Optimizer]:
        linear = nn.Linear(n_ids, DIM)
        return linear, torch.optim.Adam(linear.parameters(), lr=0.1)

    linear, adam = make(len(ITEMS))
    with store.checkout() as work:
        binding = embstore.bind(work, linear, adam, {"weight": Rows("item", axis=1)})
        binding.restore()
        linear(torch.eye(len(ITEMS))[:3]).pow(2).sum().backward()
        adam.step()
        binding.stage()
        work.append("item", [5])
        work.commit("columns")
    assert store.at().table("item").get(ITEMS).tobytes() == bits(linear.weight.T.contiguous())
    assert store.at().table("item").slot("exp_avg").get(ITEMS).tobytes() == bits(
        adam.state[linear.weight]["exp_avg"].T.contiguous()
    )
    grown, grown_adam = make(len(ITEMS) + 1)
    with store.checkout() as work:
        embstore.bind(work, grown, grown_adam, {"weight": Rows("item", axis=-1)}).restore()
    assert bits(grown.weight[:, :-1].contiguous()) == bits(linear.weight)
    assert bits(grown_adam.state[grown.weight]["exp_avg"][:, :-1].contiguous()) == bits(adam.state[linear.weight]["exp_avg"])
    assert bits(grown.bias) == bits(linear.bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    """Half and double precision come back with every bit, the optimizer's state in the type it had."""
    stored = {torch.float16: "float16", torch.bfloat16: "float32", torch.float64: "float64"}[dtype]
    store = new_store(f"memory://precision-{stored}", dtype=stored)
    runs = [Run("adam", USERS, ITEMS) for _ in range(2)]
    for run in runs:
        run.model.to(dtype)
        run.optimizer = torch.optim.Adam(run.model.parameters(), lr=0.05, eps=1e-3)
    train_and_commit(store, runs[0], range(2))
    with store.checkout() as work:
        binding = runs[1].bind(work)
        binding.restore()
        assert runs[1].bits() == runs[0].bits()
        assert runs[1].types() == runs[0].types()
        binding.stage()
        assert not work.dirty


def test_half_precision_leaves_what_it_does_not_train(store: Store) -> None:
    """Initial vectors are float32; that a bfloat16 module rounds them does not make them changed rows."""
    model = Net(len(USERS), len(ITEMS), dtype=torch.bfloat16)
    with store.checkout() as work:
        binding = embstore.bind(work, model, None, TABLES)
        binding.restore()
        _set(model.user.weight, 1, 0.25)
        binding.stage()
        assert {name: list(rows["values"].ids) for name, rows in work.changes.rows.items() if rows} == {"user": ["u1"]}
        work.discard()


def test_removed_ids_stay_zero(store: Store) -> None:
    """A removed id's row is still in the module, but nothing that happens to it reaches the store."""
    run = Run("adam", USERS, ITEMS)
    with store.checkout() as work:
        work.remove("user", ["u3"])
        binding = run.bind(work)
        binding.restore()
        assert run.model.user.weight[3].tolist() == [0.0] * DIM
        _set(run.model.user.weight, 3, 1.0)
        _set(run.model.user.weight, 4, 1.0)
        binding.stage()
        assert work.table("user").gather([3]).tolist() == [[0.0] * DIM]
        assert work.table("user").gather([4]).tolist() == [[1.0] * DIM]
        work.discard()
