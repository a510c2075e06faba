"""What a refused commit leaves of a kept net: nothing counts that was not committed, and one can go back or on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from embstore import ConflictError, InvalidInputError, NonFiniteError, Store
from tests.examples import new_store
from trainers.adapters.loop import Kept

USERS = ["a", "b", "c"]


def begin(store: Store, **options: Any) -> tuple[Kept, nn.Embedding, torch.optim.Adam]:
    """Return a kept table of users that was committed once, after a step of its optimizer."""
    net = nn.ModuleDict({"users": nn.Embedding(3, 2)})
    users: Any = net["users"]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    kept = Kept(store, net, optimizer, {"users.weight": "user"}, {"user": USERS}, **options)
    step(users, optimizer)
    kept.after_epoch({"loss": 0.5})
    return kept, users, optimizer


def step(users: nn.Embedding, optimizer: torch.optim.Adam) -> None:
    """Train a little."""
    optimizer.zero_grad()
    users.weight.square().sum().backward()
    optimizer.step()


def state(users: nn.Embedding, optimizer: torch.optim.Adam) -> list[list[float]]:
    """Return values and moments."""
    return [tensor.flatten().tolist() for tensor in (users.weight, optimizer.state[users.weight]["exp_avg"])]


def spoil(users: nn.Embedding, number: float = float("nan")) -> None:
    """Let the vector of the first user be one that cannot be, or another."""
    with torch.no_grad():
        users.weight[0] = number


def test_one_goes_back_to_what_was_committed() -> None:
    """NaN was staged and refused; values and moments are then those of the last version, and training goes on from there."""
    store = new_store()
    kept, users, optimizer = begin(store)
    committed = state(users, optimizer)
    step(users, optimizer)
    spoil(users)
    with pytest.raises(NonFiniteError, match="ids 'a'"):
        kept.after_epoch({"loss": 0.1})
    kept.restore()
    assert state(users, optimizer) == committed
    step(users, optimizer)
    kept.after_epoch({"loss": 0.4})
    assert store.at().table("kept.users.weight").values().tolist() == users.weight.tolist()
    assert [version.metadata.get("epoch") for version in store.log()] == [3, 1, None]


def test_the_best_is_the_best_that_was_committed() -> None:
    """A refused epoch is no record: one that is better than what the store has is committed, from the net as it was mended."""
    store = new_store()
    kept, users, _ = begin(store, best="loss", least=True)
    spoil(users)
    with pytest.raises(NonFiniteError, match="ids 'a'"):
        kept.after_epoch({"loss": 0.1})
    spoil(users, 7)
    assert kept.after_epoch({"loss": 0.6}) is None
    assert kept.after_epoch({"loss": 0.3}) is not None
    assert store.at().table("kept.users.weight").get(["a"]).tolist() == [[7, 7]]
    assert [version.metadata.get("loss") for version in store.log()] == [0.3, 0.5, None]


def test_after_a_conflict_nothing_of_the_others_is_lost() -> None:
    """It stays one until the net is restored to what they have; what was trained here can go to another branch."""
    store = new_store()
    kept, users, optimizer = begin(store)
    with store.checkout() as work:
        work.table("kept.users.weight").scatter(work.ids("user").rows(["a", "b"]), [[7, 7], [8, 8]])
        work.commit("somebody else")
    spoil(users, 9)
    for _ in range(2):
        with pytest.raises(ConflictError, match="on_conflict="):
            kept.after_epoch()
    mine = kept.work.commit("mine", branch="mine")
    assert mine.table("kept.users.weight").get(["a"]).tolist() == [[9, 9]]
    kept.restore()
    assert users.weight.tolist()[:2] == [[7, 7], [8, 8]]
    step(users, optimizer)
    kept.after_epoch()
    assert store.at().message == "kept: epoch 4"


def test_a_closed_one_stays_closed() -> None:
    """Neither a commit nor going back opens it again."""
    kept, *_ = begin(new_store())
    kept.close()
    for after in (kept.after_epoch, kept.restore):
        with pytest.raises(ConflictError, match="it was discarded"):
            after()


@pytest.mark.parametrize("figure", ["much", None, [1.0, 2.0], torch.ones(2)])
def test_figures_are_numbers(figure: Any) -> None:
    """What is none is named."""
    kept, *_ = begin(new_store())
    with pytest.raises(InvalidInputError, match=r"epoch 2: loss .*; give a number"):
        kept.after_epoch({"loss": figure})


def test_figures_do_not_hide_what_the_metadata_says() -> None:
    """The epoch is the epoch, and what was resumed is what was resumed, whatever figures are called."""
    store = new_store()
    begin(store)[0].close()
    kept, *_ = begin(store)
    kept.after_epoch({"epoch": 99, "resumed": 1, "loss": 0.25})
    assert store.at().metadata == {"epoch": 3, "resumed": kept.resumed, "loss": 0.25}
