"""What a save by ``torch.distributed.checkpoint`` writes and refuses, in one process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.checkpoint import CheckpointException

import embstore
from embstore import Store
from embstore.dcp import Column, StoreReader, StoreWriter
from embstore.errors import ConflictError, NameSpentError
from tests.with_torch.states import DIM, TABLES, N, State, flat, full, items, load, save


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with 101 items."""
    return items(tmp_path)


def test_a_save_writes_what_changed(store: Store) -> None:
    """Of tables only the rows whose bits changed, and none of what is as it was; what is no longer saved goes."""
    state = full(3)
    first = save(state, StoreWriter(store, message="all", tables=TABLES)).storage_data["version"]
    state["model"]["emb.weight"][[3, 7]] += 1
    state["loop"].pop("mask")
    save(state, StoreWriter(store, message="two rows", tables=TABLES, parent=first))
    assert store.diff(first).tables["item"].changed_ids.tolist() == [1003, 1007]
    assert store.diff(first).tables["item"].slots == {"exp_avg": 0, "exp_avg_sq": 0}
    assert "loop.mask" not in store.at().dense
    assert sorted(store.at().lineage["counts"]["dense"]) == ["dcp", "loop.mask"]
    with pytest.raises(CheckpointException, match="has moved from") as caught:
        save(state, StoreWriter(store, message="stale", tables=TABLES, parent=first))
    assert isinstance(next(iter(caught.value.failures.values()))[0], ConflictError)


def test_new_ids_come_with_a_save(store: Store) -> None:
    """A save may append ids; a tensor saved by ids is loaded in their order, or in that of other ids."""
    ids = [5, 1001, 6, 1000]
    weight, bias = torch.arange(4.0).repeat(DIM, 1).T.contiguous(), torch.arange(4.0)
    tables = {"emb": Column("item", first=0), "bias": "bias"}
    save({"emb": weight, "bias": bias}, StoreWriter(store, message="new", tables=tables, ids={"item": ids}))
    version = store.at()
    assert version.table("item").get(ids)[:, 0].tolist() == [0, 1, 2, 3]
    assert version.entities == {"item": N + 2}
    loaded = {"emb": torch.zeros(4, DIM), "bias": torch.zeros(4)}
    load(loaded, StoreReader(store))
    assert torch.equal(loaded["emb"], weight)
    assert torch.equal(loaded["bias"], bias)
    other = {"emb": torch.zeros(2, DIM)}
    load(other, StoreReader(store, ids={"item": [1000, 6]}))
    assert other["emb"][:, 0].tolist() == [3, 2]


def test_leading_rows_and_growth(store: Store) -> None:
    """Padding rows are kept beside the table; a tensor in the store's order is as long as the table is now."""
    weight = torch.arange(float((N + 2) * DIM)).reshape(N + 2, DIM)
    save({"emb": weight}, StoreWriter(store, message="padded", tables={"emb": Column("item", first=2)}))
    with store.checkout() as work:
        work.append("item", [7], init={"item": [[9.0] * DIM]})
        work.remove("item", [1000])
        work.commit("grown")
    loaded = {"emb": torch.zeros(N + 3, DIM)}
    load(loaded, StoreReader(store))
    expected = torch.cat([weight, torch.full((1, DIM), 9.0)])
    expected[2] = 0
    assert torch.equal(loaded["emb"], expected)
    save({"emb": loaded["emb"] + 1}, StoreWriter(store, message="again", tables={"emb": Column("item", first=2)}))
    assert store.at().table("item").gather([0, 1, N])[:, 0].tolist() == [0.0, float(3 * DIM) + 1, 10.0]
    assert store.verify().ok


def test_versions_that_were_not_saved_so_are_loaded(store: Store) -> None:
    """What a binding has stored is loaded by naming its tables."""
    model = nn.ModuleDict({"emb": nn.Embedding(N, DIM), "top": nn.Linear(DIM, 2)})
    with store.checkout() as work:
        optimizer = torch.optim.Adam(model.parameters())
        model["top"](model["emb"].weight).sum().backward()
        optimizer.step()
        embstore.bind(work, model, optimizer, {"emb.weight": "item"}).stage()
        work.commit("bound")
    state = {"model": {name: torch.zeros_like(value) for name, value in model.state_dict().items()}, "m": torch.zeros(N, DIM)}
    load(state, StoreReader(store, tables={"model.emb.weight": "item", "m": Column("item", "exp_avg")}))
    assert dict(flat(state["model"])) == dict(flat(dict(model.state_dict())))
    assert torch.equal(state["m"], optimizer.state[model["emb"].weight]["exp_avg"])


def test_checkpoint_ids_are_tags_and_refs(store: Store) -> None:
    """``checkpoint_id`` names the version that is made, and the one that is read."""
    for step in (1, 2):
        save({"w": torch.tensor([step])}, StoreWriter(store, message=f"{step}", branch="main"), checkpoint_id=f"step-{step}")
    for taken, why in (("step-1", "has this name"), ("main", "has this name"), ("step 3", "step 3")):
        with pytest.raises(CheckpointException, match=why):
            save({"w": torch.tensor([9])}, StoreWriter(store, message="no"), checkpoint_id=taken)
    assert store.at().message == "2"
    loaded = {"w": torch.tensor([0])}
    reader = StoreReader(store)
    load(loaded, reader, checkpoint_id="step-1")
    assert (loaded["w"].item(), reader.version.message, sorted(store.tags())) == (1, "1", ["step-1", "step-2"])


@pytest.mark.parametrize(
    ("state", "tables", "message"),
    [
        ({"rng": np.random.default_rng(0)}, {}, "rng: Generator cannot be stored"),
        ({"box": {"inner": (np.zeros(2),)}}, {}, "make it an item of the state dict"),
        ({"w": torch.zeros(2, dtype=torch.complex64)}, {}, "complex64 cannot be stored"),
        ({"w": torch.zeros(3, DIM)}, {"w": "item"}, r"for table 'item' it has 101 rows \(101 rows are in the store\)"),
        ({"w": torch.zeros(N, 3)}, {"w": "item"}, "3 numbers of float32 a row, table 'item' has 8 of float32"),
        ({"w": torch.zeros(N, DIM).double()}, {"w": "item"}, "8 numbers of float64"),
        ({"w": torch.zeros(N, DIM)}, {"w": "user"}, "table 'user': the store has item, bias"),
        ({"w": torch.zeros(N, DIM)}, {"v": "item"}, "the state dict has no tensor 'v'; it has w"),
        ({"w": torch.full((2,), torch.nan)}, {}, "not finite"),
    ],
)
def test_what_cannot_be_saved(store: Store, state: State, tables: dict[str, str], message: str) -> None:
    """Each is refused by name, and there is no version."""
    with pytest.raises(CheckpointException, match=message):
        save(state, StoreWriter(store, message="no", tables=tables))
    assert store.at().message == "items"


def test_ids_are_given_once(store: Store) -> None:
    """Two rows of a tensor for one id would leave one of them nowhere."""
    state = {"w": torch.arange(3.0).repeat(DIM, 1).T.contiguous()}
    with pytest.raises(CheckpointException, match=r"ids\['item'\]: 1001 stands there twice"):
        save(state, StoreWriter(store, message="no", tables={"w": "item"}, ids={"item": [7, 1001, 1001]}))
    assert (store.at().message, store.at().entities) == ("items", {"item": N})
    save(state, StoreWriter(store, message="three", tables={"w": "item"}, ids={"item": [7, 1001, 1002]}))
    loaded = {"w": torch.zeros(3, DIM)}
    load(loaded, StoreReader(store, ids={"item": [1001, 7, 1001]}))
    assert loaded["w"][:, 0].tolist() == [1, 0, 1]


def test_the_name_of_a_deleted_tag(store: Store) -> None:
    """That it is spent shows when the version is there: the error names it, so that nobody saves again."""
    store.tag("step-1")
    store.delete_tag("step-1")
    with pytest.raises(CheckpointException, match="stays spent") as caught:
        save({"w": torch.tensor([1.0])}, StoreWriter(store, message="saved"), checkpoint_id="step-1")
    error = next(iter(caught.value.failures.values()))[0]
    assert isinstance(error, NameSpentError)
    assert f"saved as version {store.at().id}, without a tag: name that with store.tag" in str(error)
    assert [version.message for version in store.log()][:2] == ["saved", "items"]


def test_columns_are_checked(store: Store) -> None:
    """A column is a table's name, or says more of it, and is one tensor's."""
    with pytest.raises(embstore.InvalidInputError, match="give the name of a table"):
        StoreWriter(store, message="no", tables={"w": 3})  # type: ignore[dict-item]
    with pytest.raises(embstore.InvalidInputError, match="of its own"):
        StoreReader(store, tables={"w": "item", "v": Column("item")})
