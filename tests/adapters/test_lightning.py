"""Lightning with a callback that keeps its module in a store: stopped, grown and reordered trainings go on by id."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from embstore import InvalidInputError, Rows, Store
from tests.examples import new_store, state_of
from trainers.adapters.lightning import KeptCallback

pytestmark = pytest.mark.filterwarnings("ignore")
USERS, ITEMS = ["ann", "bob", "cy", "di"], [10, 20, 30]
ROWS = {"users.weight": "user", "items.weight": "item"}


class Module(LightningModule):
    """Learns that everybody likes everything; its validation follows a script."""

    def __init__(self, n_users: int, n_items: int, script: tuple[float, ...] = (), *, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.users, self.items = nn.Embedding(n_users, 3), nn.Embedding(n_items, 3)
        self.script = script

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of some pairs."""
        users, items = batch
        loss = ((self.users(users) * self.items(items)).sum(1) - 1).square().mean()
        self.log("loss", loss, on_epoch=True, on_step=False)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log what the script says of this epoch."""
        if self.script:
            self.log("judged", self.script[self.current_epoch])

    def configure_optimizers(self) -> Any:
        """Return Adam, and a schedule of its rate."""
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)]


def fit(
    store: Store,
    epochs: int,
    *,
    users: list[str] = USERS,
    items: list[int] = ITEMS,
    script: tuple[float, ...] = (),
    **options: Any,
) -> Module:
    """Train so many epochs from where the store is."""
    module = Module(len(users), len(items), script, seed=options.pop("seed", 0))
    pairs = torch.cartesian_prod(torch.arange(len(users)), torch.arange(len(items)))
    callback = KeptCallback(store, ROWS, {"user": users, "item": items}, name="module", **options)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[callback], enable_model_summary=False, **quiet)
    trainer.fit(module, DataLoader(TensorDataset(*pairs.T), batch_size=6))
    return module


def test_stopped_and_started_again_equals_uninterrupted() -> None:
    """Two epochs, then three of a module that began elsewhere, are five: values, moments, steps and schedule, to the bit."""
    whole, parts = new_store(), new_store()
    fit(whole, 5)
    fit(parts, 2)
    fit(parts, 3, seed=1)
    assert state_of(parts.at()) == state_of(whole.at())
    assert [version.metadata.get("epoch") for version in parts.log()] == [5, 4, 3, 2, 1, None]
    assert parts.at().metadata["resumed"].startswith("module at epoch 2 of version ")


def test_new_ids_and_another_order_are_followed_by_id() -> None:
    """An old id has what it learned wherever the data has it; those that the data lacks stay as they were."""
    store = new_store()
    fit(store, 2)
    before = store.at().table("module.users.weight")
    fit(store, 1, users=["eve", "di", "ann"], items=ITEMS[::-1], seed=2)
    after = store.at()
    assert after.entities == {"user": 5, "item": 3}
    np.testing.assert_array_equal(after.table("module.users.weight").get(["bob", "cy"]), before.get(["bob", "cy"]))
    assert np.abs(after.table("module.users.weight").get(["ann"]) - before.get(["ann"])).max() < 0.5


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({"every": 2}, [5, 4, 2, None]),
        ({"monitor": "judged", "mode": "max"}, [4, 1, None]),
        ({"monitor": "judged"}, [3, 2, 1, None]),
    ],
)
def test_epochs_to_be_kept(options: dict[str, Any], epochs: list[int | None]) -> None:
    """Every so many and the last one, or those that are better than all before them."""
    store = new_store()
    fit(store, 5, script=(3.0, 2.0, 1.0, 4.0, 4.0), **options)
    assert [version.metadata.get("epoch") for version in store.log()] == epochs


def test_interrupted_training_leaves_the_last_version() -> None:
    """What was not committed is given up, and the branch can be trained on."""
    store = new_store()

    class Failing(Module):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                raise RuntimeError("stop")

    module, callback = Failing(4, 3), KeptCallback(store, ROWS, {"user": USERS, "item": ITEMS}, name="module")
    trainer = Trainer(max_epochs=3, accelerator="cpu", callbacks=[callback], logger=False)
    with pytest.raises(RuntimeError, match="stop"):
        trainer.fit(module, DataLoader(TensorDataset(torch.tensor([0, 1]), torch.tensor([0, 1]))))
    assert [version.metadata.get("epoch") for version in store.log()] == [1, None]
    fit(store, 1)
    assert store.at().metadata["epoch"] == 2


def test_modes_that_there_are_not() -> None:
    """Neither is taken for the other."""
    with pytest.raises(InvalidInputError, match="mode 'maximum': give 'min' or 'max'"):
        KeptCallback(new_store(), ROWS, {"user": USERS, "item": ITEMS}, monitor="loss", mode="maximum")


def test_the_axis_of_rows_can_be_said() -> None:
    """A layer as wide as there are items is asked about, and said."""

    class Wide(Module):
        def __init__(self) -> None:
            super().__init__(4, 3)
            self.mix = nn.Linear(3, 3, bias=False)

    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    store, module = new_store(), Wide()
    pairs = DataLoader(TensorDataset(torch.tensor([0, 1]), torch.tensor([0, 1])))
    ids = {"user": USERS, "item": ITEMS}
    with pytest.raises(InvalidInputError, match="'mix.weight' of shape .*say on which"):
        callback = KeptCallback(store, {**ROWS, "mix.weight": "item"}, ids)
        Trainer(max_epochs=1, accelerator="cpu", callbacks=[callback], **quiet).fit(module, pairs)
    callback = KeptCallback(store, {**ROWS, "mix.weight": Rows("item", axis=1)}, ids)
    Trainer(max_epochs=1, accelerator="cpu", callbacks=[callback], **quiet).fit(module, pairs)
    found = store.at().table("lightning.mix.weight").get(ITEMS)
    np.testing.assert_array_equal(found, module.mix.weight.detach().numpy().T)
