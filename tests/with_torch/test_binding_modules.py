"""Modules and checkouts of many kinds: tied and frozen parameters, several optimizers, working sets, checkouts that end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import embstore
from embstore import Checkout, Rows, Store
from embstore.errors import InvalidInputError, SchemaMismatchError, StaleCheckoutError, UnknownIdError, UnknownNameError
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


class Tied(nn.Module):
    """An encoder and a decoder with one weight, a frozen layer, and a buffer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(len(ITEMS), DIM)
        self.decoder = nn.Linear(DIM, len(ITEMS))
        self.decoder.weight = self.encoder.weight
        self.frozen = nn.Linear(DIM, DIM).requires_grad_(False)
        self.norm = nn.BatchNorm1d(DIM)
        self.register_buffer("popularity", torch.zeros(len(ITEMS), dtype=torch.int64))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Return scores of all items."""
        self.popularity = self.popularity + torch.bincount(items, minlength=len(self.popularity))
        scores: torch.Tensor = self.decoder(self.norm(self.frozen(self.encoder(items))))
        return scores


def _train(model: nn.Module, *optimizers: torch.optim.Optimizer) -> None:
    items = torch.arange(12)
    model.zero_grad()
    nn.functional.cross_entropy(model(items), items).backward()
    for optimizer in optimizers:
        optimizer.step()


@pytest.mark.parametrize("name", ["encoder.weight", "decoder.weight"])
def test_tied_parameters_frozen_ones_and_buffers(store: Store, name: str) -> None:
    """A weight that two layers share is bound by either name; the state is stored once, and buffers come back."""

    def make() -> tuple[Tied, torch.optim.Optimizer]:
        model = Tied()
        return model, torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)

    tables: dict[str, str | Rows] = {name: "item", "decoder.bias": "item_bias", "popularity": "item_popularity"}
    whole, whole_adam = make()
    with store.checkout() as work:
        work.add_table(embstore.TableSpec("item_bias", "item", None))
        work.add_table(embstore.TableSpec("item_popularity", "item", None, "int64", init=embstore.Zeros()))
        binding = embstore.bind(work, whole, whole_adam, tables)
        binding.restore()
        _train(whole, whole_adam)
        binding.stage()
        work.commit("tied")
    version = store.at()
    assert version.table("item").get(ITEMS).tobytes() == bits(whole.decoder.weight)
    assert version.table("item_popularity").get(ITEMS).tolist() == [1] * 12 + [0] * 8
    model = {"frozen.weight", "frozen.bias", "norm.weight", "norm.bias"}
    buffers = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert {n.removeprefix("model.") for n in version.dense if n.startswith("model.")} == model | buffers
    assert not [n for n in version.dense if n.startswith("optim.frozen")]
    resumed, resumed_adam = make()
    with store.checkout() as work:
        embstore.bind(work, resumed, resumed_adam, tables).restore()
    _train(whole, whole_adam)
    _train(resumed, resumed_adam)
    assert {n: bits(v) for n, v in resumed.state_dict().items()} == {n: bits(v) for n, v in whole.state_dict().items()}
    assert resumed.decoder.weight is resumed.encoder.weight


def test_several_optimizers(store: Store) -> None:
    """Each optimizer's state has its name; towers under one and the head under another go on together."""

    def make() -> tuple[Net, dict[str, torch.optim.Optimizer]]:
        model = Net(len(USERS), len(ITEMS))
        towers = [{"params": model.user.weight, "lr": 0.1}, {"params": model.item.weight, "lr": 0.2}]
        assert model.head is not None
        return model, {"towers": torch.optim.Adagrad(towers), "head": torch.optim.AdamW(model.head.parameters(), lr=0.01)}

    def step(model: Net, optimizers: dict[str, torch.optim.Optimizer]) -> None:
        model.zero_grad()
        model(torch.arange(8), torch.arange(8)).pow(2).sum().backward()
        for optimizer in optimizers.values():
            optimizer.step()

    whole, whole_optimizers = make()
    with store.checkout() as work:
        binding = embstore.bind(work, whole, whole_optimizers, TABLES)
        binding.restore()
        step(whole, whole_optimizers)
        binding.stage()
        work.commit("two optimizers")
    assert set(store.at().table("user").slots) == {"sum"}
    assert {"optim.towers.user.weight.step", "optim.head.head.bias.exp_avg"} <= set(store.at().dense)
    resumed, resumed_optimizers = make()
    with store.checkout() as work:
        embstore.bind(work, resumed, resumed_optimizers, TABLES).restore()
    assert [g["lr"] for g in resumed_optimizers["towers"].param_groups] == [0.1, 0.2]
    for _ in range(2):
        step(whole, whole_optimizers)
        step(resumed, resumed_optimizers)
    assert {n: bits(p) for n, p in resumed.named_parameters()} == {n: bits(p) for n, p in whole.named_parameters()}


def test_two_optimizers_on_one_parameter(store: Store) -> None:
    """Slots of two optimizers that share a parameter have the optimizers' names, and one may begin later."""

    def make() -> tuple[nn.Embedding, dict[str, torch.optim.Optimizer]]:
        emb = nn.Embedding(len(ITEMS), DIM)
        return emb, {"fast": torch.optim.Adam(emb.parameters(), lr=0.1), "slow": torch.optim.Adam(emb.parameters(), lr=0.01)}

    emb, optimizers = make()
    for turn in ("fast", "slow"):
        with store.checkout() as work:
            binding = embstore.bind(work, emb, optimizers, {"weight": "item"})
            binding.restore()
            emb.weight.grad = torch.ones_like(emb.weight)
            optimizers[turn].step()
            binding.stage()
            work.commit(turn)
        resumed, resumed_optimizers = make()
        with store.checkout() as work:
            embstore.bind(work, resumed, resumed_optimizers, {"weight": "item"}).restore()
        for name, optimizer in optimizers.items():
            state = resumed_optimizers[name].state[resumed.weight]
            assert {k: bits(v) for k, v in state.items()} == {k: bits(v) for k, v in optimizer.state[emb.weight].items()}
    assert set(store.at().table("item").slots) == {"fast.exp_avg", "fast.exp_avg_sq", "slow.exp_avg", "slow.exp_avg_sq"}


def test_working_set_equals_all_rows(store: Store) -> None:
    """Training in a module with a few users' rows changes the store as training in one with all of them."""
    wanted = ["u9", "u2", "u17"]
    run = Run("row-adam", USERS, ITEMS)
    train_and_commit(store, run, range(2))
    store.branch("small")
    for branch, users in (("main", USERS), ("small", wanted)):
        other = Run("row-adam", users, ITEMS)
        with store.checkout(branch) as work:
            binding = other.bind(work)
            binding.restore(ids=None if users is USERS else {"user": users})
            places = binding.positions("user", ["u2", "u9", "u2"])
            other.model(torch.from_numpy(places), torch.tensor([1, 2, 3])).pow(2).sum().backward()
            other.optimizer.step()
            binding.stage()
            work.commit("three pairs")
    assert list(store.diff("main", "small").tables["user"].changed_ids) == []
    assert list(store.diff("main~1", "small").tables["user"].changed_ids) == ["u2", "u9"]
    for slot in ("exp_avg", "exp_avg_sq", "step"):
        one, other_slot = (store.at(b).table("user").slot(slot).values() for b in ("main", "small"))
        assert one.tobytes() == other_slot.tobytes()


def test_working_sets_follow_one_another(store: Store) -> None:
    """One small module serves set after set; state that the store lacks begins empty for each."""
    run = Run("sparse-adam", USERS[:4], ITEMS)
    with store.checkout() as work:
        binding = run.bind(work)
        for start in range(0, len(USERS) - 4, 4):
            ids = USERS[start : start + 4]
            binding.restore(ids={"user": ids})
            assert bits(run.model.user.weight) == work.table("user").initial(ids).tobytes()
            assert not any(v.any() for k, v in run.optimizer.state[run.model.user.weight].items() if k != "step")
            assert binding.positions("user", ids[::-1]).tolist() == [3, 2, 1, 0]
            run.epoch(start)
            if start:
                binding.stage()
            else:
                unstaged = work.table("user").get(ids)
        assert work.table("user").get(USERS[:4]).tobytes() == unstaged.tobytes()
        assert work.table("user").get(USERS[4:8]).tobytes() != work.table("user").initial(USERS[4:8]).tobytes()
        work.discard()


def test_working_set_with_padding(work: Checkout) -> None:
    """Leading rows come before those of the set."""
    emb = nn.Embedding(3, DIM)
    binding = embstore.bind(work, emb, None, {"weight": Rows("item", first=1)})
    binding.restore(ids={"item": [1007, 1001]})
    assert binding.positions("item", [1001, 1007]).tolist() == [2, 1]
    assert bits(emb.weight[1:]) == work.table("item").get([1007, 1001]).tobytes()


def test_working_set_refuses(work: Checkout) -> None:
    """Unknown ids, repeats, other entities, and ids outside the set."""
    binding = Run("adam", USERS[:2], ITEMS).bind(work)
    with pytest.raises(UnknownIdError, match="'nobody'"):
        binding.restore(ids={"user": ["u1", "nobody"]})
    with pytest.raises(InvalidInputError, match="1 ids are given twice"):
        binding.restore(ids={"user": ["u1", "u1"]})
    with pytest.raises(UnknownNameError, match="entity 'genre'"):
        binding.restore(ids={"genre": ["u1"]})
    with pytest.raises(SchemaMismatchError, match=r"needs 3 \(3 ids\)"):
        binding.restore(ids={"user": ["u1", "u2", "u3"]})
    with pytest.raises(SchemaMismatchError, match=r"needs 30 \(30 ids\)"):
        binding.stage()
    binding.restore(ids={"user": ["u1", "u2"]})
    with pytest.raises(UnknownIdError, match="'u3': 1 not in the working set"):
        binding.positions("user", ["u1", "u3"])


def test_binding_follows_its_checkout(store: Store) -> None:
    """After a commit it goes on; after the checkout's end nothing goes on, and says so."""
    run = Run("adam", USERS, ITEMS)
    with store.checkout() as work:
        binding = run.bind(work)
        binding.restore()
        for number in range(3):
            run.epoch(number)
            binding.stage()
            work.commit(f"epoch {number}")
            binding.stage()
            assert not work.dirty
    for call in (binding.stage, binding.restore, lambda: binding.positions("user", USERS)):
        with pytest.raises(StaleCheckoutError):
            call()
    with pytest.raises(StaleCheckoutError):
        run.bind(work)
    assert [version.message for version in store.log()][:3] == ["epoch 2", "epoch 1", "epoch 0"]


def test_ids_appended_after_binding(work: Checkout) -> None:
    """A module that has become too small says what size to make it."""
    run = Run("adam", USERS, ITEMS)
    binding = run.bind(work)
    binding.restore()
    work.append("user", ["late"])
    for call in (binding.stage, binding.restore, lambda: binding.positions("user", ["late"])):
        with pytest.raises(SchemaMismatchError, match="has 30 rows on axis 0.*make the module with 31 and bind again"):
            call()


def test_empty_tables() -> None:
    """A store without ids binds a module without rows."""
    schema = embstore.Schema((embstore.TableSpec("item", "item", DIM),), {"item": "int64"})
    store = embstore.create("memory://no-rows", schema=schema)
    model = nn.ParameterDict({"item": nn.Parameter(torch.empty(0, DIM)), "scale": nn.Parameter(torch.ones(()))})
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    with store.checkout() as work:
        binding = embstore.bind(work, model, adam, {"item": "item"})
        binding.restore()
        (model["item"].sum() + model["scale"]).backward()
        adam.step()
        binding.stage()
        work.commit("nothing but a number")
        binding.restore()
        assert binding.positions("item", []).tolist() == []
    assert store.at().dense["model.scale"].tolist() == pytest.approx(0.9)
