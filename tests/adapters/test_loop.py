"""A loop of plain torch, kept in a store: rows by id, every few epochs or the best ones, and a branch that moves meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from embstore import InvalidInputError, NonFiniteError, Rows, Store
from tests.examples import new_store, state_of
from trainers.adapters.loop import Kept

USERS, ITEMS = ["ann", "bob", "cy", "di"], [10, 20, 30]
ROWS = {"users.weight": "user", "items.weight": "item", "mix.weight": Rows("item", axis=1)}


class Net(nn.Module):
    """A user's and an item's vector after a row of padding, and a layer with an input for each item."""

    def __init__(self, n_users: int, n_items: int, *, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.users = nn.Embedding(n_users + 1, 2, padding_idx=0)
        self.items = nn.Embedding(n_items + 1, 2)
        self.mix = nn.Linear(n_items + 1, 5, bias=False)

    def forward(self) -> Tensor:
        """Return the scores of everybody, ``[n_users, n_items]``, and of nobody."""
        return self.users.weight @ self.items.weight.T + self.mix.weight.sum(0)


def train(net: Net, optimizer: torch.optim.Optimizer) -> float:
    """Take a step towards 1 everywhere; return the loss."""
    optimizer.zero_grad()
    loss = (net() - 1).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def begin(store: Store, users: list[str] = USERS, items: list[int] = ITEMS, **options: Any) -> tuple[Kept, Net, torch.optim.Adam]:
    """Return a kept net with its optimizer."""
    net = Net(len(users), len(items), seed=options.pop("seed", 0))
    optimizer = torch.optim.Adam(net.parameters(), lr=options.pop("lr", 0.1))
    return Kept(store, net, optimizer, ROWS, {"user": users, "item": items}, first=1, **options), net, optimizer


def trained(store: Store, *, until: int, **options: Any) -> Kept:
    """Train up to an epoch from where the store is."""
    kept, net, optimizer = begin(store, **options)
    for _ in range(kept.epoch, until):
        kept.after_epoch({"loss": train(net, optimizer)})
    return kept


def test_stopped_and_resumed_equals_uninterrupted() -> None:
    """A net of other initial weights goes on from the stored ones: values, moments, steps and padding, to the bit."""
    whole, parts = new_store(), new_store()
    trained(whole, until=5)
    trained(parts, until=2)
    kept = trained(parts, until=5, seed=1)
    assert state_of(parts.at()) == state_of(whole.at())
    assert kept.resumed == f"kept at epoch 2 of version {parts.at('main~3').id}"
    assert parts.at().metadata["resumed"] == kept.resumed
    assert [version.metadata.get("epoch") for version in parts.log()] == [5, 4, 3, 2, 1, None]


def test_rows_in_another_order_belong_to_the_same_ids() -> None:
    """Whatever order the data has its ids in, each finds its values and moments, on either axis."""
    store = new_store()
    _, before, old = begin(store)
    kept = trained(store, until=3)
    kept, net, optimizer = begin(store, USERS[::-1], [20, 10, 30], seed=1)
    version = store.at()
    assert torch.equal(net.users.weight[1:].flip(0), torch.from_numpy(version.table("kept.users.weight").get(USERS)))
    for place, item in enumerate([20, 10, 30], start=1):
        assert torch.equal(net.mix.weight[:, place], torch.from_numpy(version.table("kept.mix.weight").get([item])[0]))
        moments = version.table("kept.mix.weight").slot("exp_avg").get([item])[0]
        assert torch.equal(optimizer.state[net.mix.weight]["exp_avg"][:, place], torch.from_numpy(moments))
    kept.after_epoch({"loss": train(net, optimizer)})
    ordered = new_store()
    trained(ordered, until=4)
    np.testing.assert_allclose(
        store.at().table("kept.users.weight").get(USERS), ordered.at().table("kept.users.weight").get(USERS), rtol=1e-5
    )


def test_new_ids_begin_as_the_net_has_them() -> None:
    """Old ids keep what they learned, new ones have the vectors that this net was made with, and empty moments."""
    store = new_store()
    trained(store, until=2)
    learned = store.at().table("kept.users.weight").get(USERS)
    users = ["eve", *USERS, "flo"]
    made = Net(len(users), 4, seed=3).users.weight.detach().numpy()
    kept, net, optimizer = begin(store, users, [5, *ITEMS], seed=3)
    np.testing.assert_array_equal(net.users.weight.detach()[2:6], learned)
    np.testing.assert_array_equal(net.users.weight.detach()[[1, 6]], made[[1, 6]])
    assert float(optimizer.state[net.users.weight]["exp_avg"][1].abs().sum()) == 0
    kept.after_epoch({"loss": train(net, optimizer)})
    assert (len(store.at().ids("user")), store.at().ids("user").rows(["eve"]).tolist()) == (6, [4])


def test_ids_that_are_not_in_the_data_stay() -> None:
    """Rows of ids that today's data lacks are in the next version as they were."""
    store = new_store()
    trained(store, until=2)
    before = store.at()
    trained(store, until=4, users=USERS[:2], items=ITEMS)
    for column in ("", "exp_avg"):
        tables = [version.table("kept.users.weight") for version in (before, store.at())]
        one, other = (table.slot(column) if column else table for table in tables)
        np.testing.assert_array_equal(one.get(["cy", "di"]), other.get(["cy", "di"]))
        assert not np.array_equal(one.get(["ann"]), other.get(["ann"]))


def test_every_few_epochs() -> None:
    """Only those become versions; what came after the last of them is given up."""
    store = new_store()
    kept = trained(store, until=5, every=2)
    kept.close()
    assert [version.metadata.get("epoch") for version in store.log()] == [4, 2, None]


@pytest.mark.parametrize(("least", "epochs"), [(True, [4, 3, 1, None]), (False, [5, 1, None])])
def test_best_epochs(least: bool, epochs: list[int | None]) -> None:
    """Only an epoch that is better than all before it becomes a version, those before a restart too; a tie is not better."""
    store = new_store()
    kept, *_ = begin(store, best="figure", least=least)
    for figure in (3.0, 3.0, 2.0):
        kept.after_epoch({"figure": figure})
    kept.close()
    kept, *_ = begin(store, best="figure", least=least)
    kept.epoch = 3
    for figure in (1.0, 4.0, 2.0):
        kept.after_epoch({"figure": figure})
    assert [version.metadata.get("epoch") for version in store.log()] == epochs


def test_figures_that_cannot_be_kept_are_refused() -> None:
    """NaN is named; so is the figure that decides where nobody gives it."""
    store = new_store()
    kept, *_ = begin(store, best="figure")
    with pytest.raises(NonFiniteError, match="epoch 1: loss is nan; nothing of it is committed"):
        kept.after_epoch({"loss": float("nan"), "figure": 1.0})
    with pytest.raises(InvalidInputError, match="epoch 2: no figure 'figure' among loss"):
        kept.after_epoch({"loss": 1.0})
    assert len(list(store.log())) == 1


def test_parameters_without_such_rows_are_refused() -> None:
    """A message says what is there and what is needed."""
    net = Net(4, 3)
    with pytest.raises(InvalidInputError, match=r"'users.weight' of shape \(5, 2\): give one with 4 rows on axis 0, for 4 ids"):
        Kept(new_store(), net, None, {"users.weight": "user"}, {"user": USERS})
    with pytest.raises(InvalidInputError, match=r"parameter 'user' is not among users.weight, items.weight, mix.weight"):
        Kept(new_store(), net, None, {"user": "user"}, {"user": USERS}, first=1)
    with pytest.raises(InvalidInputError, match="every 0: give a whole number from 1"):
        begin(new_store(), every=0)


def test_branch_that_moves_is_followed() -> None:
    """What others commit meanwhile is merged by row, and the training goes on from there."""
    store = new_store()
    kept, net, optimizer = begin(store)
    kept.after_epoch({"loss": train(net, optimizer)})
    with store.checkout() as work:
        work.append("user", ["zoe"])
        work.commit("somebody else")
    for _ in range(2):
        kept.after_epoch({"loss": train(net, optimizer)})
    version, alone = store.at(), new_store()
    trained(alone, until=3)
    assert ("zoe" in version.ids("user"), "resumed" in version.metadata) == (True, False)
    np.testing.assert_array_equal(version.table("kept.users.weight").get(USERS), alone.at().table("kept.users.weight").get(USERS))


def test_what_else_has_a_state_is_kept() -> None:
    """A scheduler goes on counting, and two nets in one store do not meet."""
    store = new_store()
    for epoch, lr in ((2, 0.05), (4, 0.025)):
        net = Net(4, 3)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
        ids = {"user": USERS, "item": ITEMS}
        kept = Kept(store, net, optimizer, ROWS, ids, first=1, name="cooled", extra={"schedule": scheduler})
        while kept.epoch < epoch:
            loss = train(net, optimizer)
            scheduler.step()
            kept.after_epoch({"loss": loss})
        assert optimizer.param_groups[0]["lr"] == pytest.approx(lr)
    before = state_of(store.at())["cooled.users.weight"]
    trained(store, until=1)
    assert state_of(store.at())["cooled.users.weight"] == before


def test_restore_goes_back_to_what_was_committed() -> None:
    """Net and optimizer are as the last version has them."""
    store = new_store()
    kept, net, optimizer = begin(store, every=2)
    for _ in range(2):
        kept.after_epoch({"loss": train(net, optimizer)})
    expected = net.users.weight.detach().clone()
    train(net, optimizer)
    assert not torch.equal(net.users.weight, expected)
    kept.restore()
    assert torch.equal(net.users.weight, expected)
