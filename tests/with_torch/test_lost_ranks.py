"""What goes wrong on one rank is told to all, and there is no version."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import embstore
from embstore import Store
from embstore.distributed import Shard
from embstore.errors import (
    ConflictError,
    InvalidInputError,
    LostRankError,
    NonFiniteError,
    StaleCheckoutError,
)
from tests.with_torch.ranks import LOST, Ranks
from tests.with_torch.shared_store import on_ranks, twelve

SOON = timedelta(seconds=6)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store in a folder with twelve users."""
    return twelve(tmp_path)


def _mended(shard: Shard) -> str:
    """Stage what cannot be committed on one rank, then what can."""
    users = shard.table("user")
    users.scatter([shard.rank], np.full((1, 4), np.nan if shard.rank == 1 else 1.0))
    with pytest.raises(NonFiniteError, match=r"^rank 1: values of table 'user'" if shard.rank != 1 else r"^values"):
        shard.commit("not finite")
    users.scatter([shard.rank], np.ones((1, 4)))
    users.scatter([5], np.full((1, 4), float(shard.rank % 2)))
    with pytest.raises(ConflictError, match=r"table 'user': two workers staged 1 of its rows with other numbers \(ids 5\)"):
        shard.commit("a row on two ranks")
    users.scatter([5], np.full((1, 4), 2.0))
    with pytest.raises(InvalidInputError, match="message"):
        shard.commit("" if shard.rank == 0 else "no")
    if shard.rank == 0:
        with shard._store.checkout() as other:
            other.table("user").scatter([8], np.full((1, 4), 5.0))
            other.commit("meanwhile")
    shard.table("user").scatter([7 + shard.rank], np.full((1, 4), 7.0))
    with pytest.raises(ConflictError, match="has moved"):
        shard.commit("too late")
    return shard.commit("mended", branch="mine").id


def test_errors_are_everybodys(store: Store, ranks: Ranks) -> None:
    """Where one rank, or rank 0 for all, cannot commit, every rank says so; nothing is lost, and they can commit again."""
    ids = ranks.run(3, on_ranks, store.url, _mended)
    assert ids == [store.branches()["mine"]] * 3
    version = store.at("mine")
    assert version.table("user").values()[[0, 1, 2, 5, 7, 8, 9], 0].tolist() == [1, 1, 1, 2, 7, 7, 7]
    assert [v.message for v in store.log()] == ["meanwhile", "twelve", "create the store"]


def _replayed(shard: Shard) -> tuple[str, list[str]]:
    if shard.rank == 0:
        with shard._store.checkout() as other:
            other.append("user", [55])
            other.table("user").scatter([8], np.full((1, 4), 5.0))
            other.commit("meanwhile")
    rows = shard.ids("user").rows([8 + shard.rank, 99])
    shard.table("user").scatter(rows, np.full((2, 4), 7.0))
    version = shard.commit("too late", on_conflict="theirs")
    with pytest.raises(StaleCheckoutError, match=f"committed as {version.id} on a branch that had moved"):
        shard.table("user").scatter(rows, np.full((2, 4), 8.0))
    return version.id, [v.message for v in shard._store.log()]


def test_a_branch_that_has_moved(store: Store, ranks: Ranks) -> None:
    """What all ranks have staged is laid on the new tip, by id; their rows are stale then."""
    done = ranks.run(2, on_ranks, store.url, _replayed)
    version = store.at()
    assert done == [(version.id, ["too late", "meanwhile", "twelve", "create the store"])] * 2
    assert version.table("user").get([8, 9, 99])[:, 0].tolist() == [5, 7, 7]
    assert (version.lineage["ranks"], version.lineage["replays"]) == (2, 1)


def _die(shard: Shard, when: str) -> str:
    shard.table("user").scatter([shard.rank], np.ones((1, 4)))
    shard.commit("before")
    shard.table("user").scatter([shard.rank], np.full((1, 4), 2.0))
    if shard.rank == 1:
        if when == "before":
            _kill()
        answers = [] if when == "first answer" else [shard._wire.answer]  # rows are told of by then, their values never come
        shard._wire.answer = lambda: (answers.pop() if answers else _kill)()  # type: ignore[method-assign]
    with pytest.raises(LostRankError, match="rank 1 is lost"):
        shard.commit("never")
    if shard.rank == 0 and when == "half sent":
        assert shard._work is not None
        with pytest.raises(StaleCheckoutError, match="a part of another rank's work is missing"):
            shard._work.commit("half of it")
    shard.discard()
    return "told"


def _kill(*_: object, **_options: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("when", ["before", pytest.param("first answer", marks=pytest.mark.soak), "half sent"])
def test_a_rank_that_dies_leaves_no_version(store: Store, ranks: Ranks, when: str) -> None:
    """The others are told at once which one it was, and the store stays at the last version."""
    assert ranks.run(3, on_ranks, store.url, _die, when) == ["told", LOST, "told"]
    assert [v.message for v in store.log()] == ["before", "twelve", "create the store"]
    assert store.at().table("user").values()[:3, 0].tolist() == [1, 1, 1]
    assert store.verify().ok
    with store.checkout() as work:  # the lock is free
        work.append("user", [1234])
        work.commit("goes on")


def _lead_no_more(shard: Shard) -> str:
    shard.table("user").scatter([shard.rank], np.ones((1, 4)))
    if shard._work is not None:
        shard._work.commit = _kill  # type: ignore[method-assign]
    with pytest.raises(LostRankError, match="rank 0 is lost .* it may have committed first"):
        shard.commit("never")
    return "told"


@pytest.mark.soak
def test_rank_0_dies(store: Store, ranks: Ranks) -> None:
    """The others are told that too, and where to look."""
    assert ranks.run(2, on_ranks, store.url, _lead_no_more) == [LOST, "told"]
    assert [v.message for v in store.log()] == ["twelve", "create the store"]


def _late(url: str, flag: Path) -> float:
    store = embstore.open(url)
    rank = torch.distributed.get_rank()
    shard = embstore.share(store, None if rank else store.checkout(), timeout=SOON)
    begun = time.monotonic()
    while rank == 1 and not flag.exists():
        time.sleep(0.05)
    with pytest.raises(LostRankError):
        shard.commit("too late", allow_empty=True)
    flag.touch()
    shard.discard()
    return time.monotonic() - begun


def test_waiting_ends(store: Store, ranks: Ranks, tmp_path: Path) -> None:
    """Ranks wait for each other as long as they were told to."""
    waited = ranks.run(2, _late, store.url, tmp_path / "flag")
    assert waited[0] > SOON.total_seconds() / 2
    assert [v.message for v in store.log()] == ["twelve", "create the store"]


def _wrong_places(url: str) -> str:
    store, rank = embstore.open(url), torch.distributed.get_rank()
    with pytest.raises(InvalidInputError, match=r"share on rank 0 of 2|rank 0: share on rank 0"):
        embstore.share(store)
    with pytest.raises(InvalidInputError, match="share on rank 1 of 2"):
        embstore.share(store, store.checkout())
    closed = store.checkout()
    closed.discard()
    with pytest.raises(StaleCheckoutError):
        embstore.share(store, None if rank else closed)
    return "told"


def test_share_on_wrong_ranks(store: Store, ranks: Ranks) -> None:
    """Every rank learns that rank 0 has no open checkout, or another one has one."""
    assert ranks.run(2, _wrong_places, store.url) == ["told", "told"]
