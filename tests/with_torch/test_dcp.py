"""``torch.distributed.checkpoint`` over a store: any number of ranks save, any other number loads, and nothing is unpickled."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed._shard.sharded_tensor import Shard as LocalShard, init_from_local_shards
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import embstore
from embstore import Store
from embstore.dcp import StoreReader, StoreWriter
from tests.with_torch.ranks import LOST, Ranks
from tests.with_torch.states import DIM, TABLES, N, flat, full, items, load, sharded


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with 101 items."""
    return items(tmp_path)


# --- what audit hooks see

_seen: list[str] = []
_watching = False


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _watching and ("pickle" in event or "marshal" in event or event in ("exec", "compile")):
        _seen.append(f"{event} {args}")


class Watched(StoreReader):
    """Notes every unpickling while something is read from the store; what ranks tell each other of their plans is not that."""

    def read_metadata(self, *args: Any, **options: Any) -> Any:
        with watching():
            return super().read_metadata(*args, **options)

    def read_data(self, plan: Any, planner: Any) -> Any:
        with watching():
            return super().read_data(plan, planner)


class watching:  # noqa: N801
    """While this block runs, audit events are noted."""

    def __enter__(self) -> None:
        global _watching
        if not getattr(sys, "_embstore_watch", False):
            sys.addaudithook(_watch)
            sys._embstore_watch = True  # type: ignore[attr-defined]
        _watching = True

    def __exit__(self, *_: object) -> None:
        global _watching
        _watching = False


# --- jobs


def _save(url: str, seed: int, options: dict[str, Any]) -> str:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    writer = StoreWriter(embstore.open(url), message=f"state {seed}", tables=TABLES, **options)
    return dcp.save(sharded(full(seed), mesh), storage_writer=writer).storage_data["version"]


def _load(url: str) -> tuple[dict[str, Any], list[str]]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    state = sharded(full(99), mesh)
    _seen.clear()
    dcp.load(state, storage_reader=Watched(embstore.open(url)))
    return dict(flat(state)), list(_seen)


def test_two_ranks_save_and_one_and_three_load(store: Store, ranks: Ranks) -> None:
    """Everything comes back to the bit on another number of ranks; rows by id in tables and slots; and nothing is unpickled."""
    versions = ranks.run(2, _save, store.url, 1, {"ids": {"item": [*range(1000, 1000 + N)][::-1]}})
    version = store.at()
    assert versions == [version.id] * 2
    assert [v.message for v in store.log()][:2] == ["state 1", "items"]
    expected = dict(flat(full(1)))
    for loaded, seen in ranks.run(3, _load, store.url):
        assert (loaded, seen) == (expected, [])
    alone = full(99)
    with watching():
        _seen.clear()
        load(alone, StoreReader(store))
    assert (dict(flat(alone)), [event for event in _seen if "pickle" in event]) == (expected, [])
    table = version.table("item")
    assert table.get(range(1000, 1000 + N)).tobytes() == full(1)["model"]["emb.weight"].flip(0).numpy().tobytes()
    assert sorted(table.slots) == ["exp_avg", "exp_avg_sq"]
    assert "model.top.weight" in version.dense
    assert "model.emb.weight" not in version.dense
    assert store.verify().ok


class Net(nn.Module):
    """Embeddings and a layer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.emb = nn.Embedding(N, DIM)
        self.top = nn.Linear(DIM, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.top(self.emb(rows))


def _fsdp(url: str) -> list[bool]:
    """Save a module that FSDP has cut up, after a step, and load it into another one, by torch's own functions for it."""
    store, mesh = embstore.open(url), init_device_mesh("cpu", (2,))

    def made(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        net = fully_shard(Net(seed), mesh=mesh)
        return net, torch.optim.Adam(net.parameters(), lr=0.1 * seed)

    net, optimizer = made(1)
    net(torch.arange(N)).square().sum().backward()
    optimizer.step()
    state = get_state_dict(net, optimizer)
    dcp.save({"model": state[0], "optim": state[1]}, storage_writer=StoreWriter(store, message="fsdp", tables=TABLES))
    other = made(2)
    theirs = get_state_dict(*other)
    dcp.load({"model": theirs[0], "optim": theirs[1]}, storage_reader=StoreReader(store))
    set_state_dict(*other, model_state_dict=theirs[0], optim_state_dict=theirs[1])
    loaded = get_state_dict(*other)
    same = [dict(flat(one)) == dict(flat(two)) for one, two in zip(state, loaded, strict=True)]
    later = dcp.async_save({"model": state[0]}, storage_writer=StoreWriter(store, message="later"))
    return [*same, later.result().storage_data["version"] == store.at().id]


def _sharded_tensor(url: str) -> bool:
    store, rank = embstore.open(url), dist.get_rank()
    rows = full(5)["model"]["emb.weight"][:60] if rank == 0 else full(5)["model"]["emb.weight"][60:]

    def held(local: torch.Tensor) -> Any:
        return init_from_local_shards([LocalShard.from_tensor_and_offsets(local, [60 * rank, 0], rank)], N, DIM)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch means to give them up; TorchRec has them
        dcp.save({"emb": held(rows)}, storage_writer=StoreWriter(store, message="sharded", tables={"emb": "item"}))
        loaded = {"emb": held(torch.zeros_like(rows))}
        dcp.load(loaded, storage_reader=StoreReader(store))
        return torch.equal(loaded["emb"].local_shards()[0].tensor, rows)


def test_fsdp_and_sharded_tensors(store: Store, ranks: Ranks) -> None:
    """Modules of FSDP with their optimizers, and the sharded tensors that TorchRec has, come back to the bit."""
    assert ranks.run(2, _fsdp, store.url) == [[True] * 3] * 2
    assert [v.message for v in store.log()][:2] == ["later", "fsdp"]
    assert ranks.run(2, _sharded_tensor, store.url) == [True, True]
    assert store.at().table("item").values().tobytes() == full(5)["model"]["emb.weight"].numpy().tobytes()


def test_a_watched_pickle_is_seen() -> None:
    """The hook would see it."""
    import pickle

    packed = pickle.dumps(Path("x"))
    with watching():
        _seen.clear()
        pickle.loads(packed)
    assert any("pickle.find_class" in event for event in _seen)


def _fail(url: str) -> str:
    mesh = init_device_mesh("cpu", (2,))

    def refuse(*_: object) -> None:
        msg = "this rank has no room"
        raise embstore.StorageError(msg)

    with pytest.MonkeyPatch.context() as patched:
        if dist.get_rank() == 1:
            patched.setattr("embstore.dcp.piece_of", refuse)
        with pytest.raises(CheckpointException) as caught:
            dcp.save(sharded(full(2), mesh), storage_writer=StoreWriter(embstore.open(url), message="never", tables=TABLES))
    return str(caught.value)


def test_a_rank_that_refuses_leaves_no_version(store: Store, ranks: Ranks) -> None:
    """Where one rank cannot save its part, every rank is told, and the branch stays."""
    assert ["this rank has no room" in message for message in ranks.run(2, _fail, store.url)] == [True, True]
    assert [v.message for v in store.log()] == ["items", "create the store"]


def _die(url: str) -> str:
    mesh = init_device_mesh("cpu", (2,))
    writer = StoreWriter(embstore.open(url), message="never", tables=TABLES)
    if dist.get_rank() == 1:
        writer.write_data = lambda *_: __import__("os")._exit(7)  # type: ignore[method-assign,assignment]
    with pytest.raises(RuntimeError):
        dcp.save(sharded(full(2), mesh), storage_writer=writer)
    return "told"


def test_a_rank_that_dies_leaves_no_version(store: Store, ranks: Ranks) -> None:
    """The branch stays at the last version."""
    assert ranks.run(2, _die, store.url) == ["told", LOST]
    assert [v.message for v in store.log()] == ["items", "create the store"]
