"""Training that stops, is committed and goes on elsewhere ends, to the bit, where training without a stop ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import embstore
from embstore import Version
from tests.with_torch.test_binding_cases import CASES, FILLS, ITEMS, USERS, Run, bits, new_store, train_and_commit

NEW_USERS = [f"n{i}" for i in range(7)]
NEW_ITEMS = list(range(5))


@pytest.mark.parametrize("case", CASES)
def test_resumed_equals_uninterrupted(case: str) -> None:
    """Three epochs, a commit, and two more on a new module, optimizer and handle are five epochs."""
    url = f"memory://resume-{case}"
    store = new_store(url)
    whole = Run(case, USERS, ITEMS)
    with store.checkout() as work:
        whole.bind(work).restore()
    for number in range(5):
        whole.epoch(number)
    train_and_commit(store, Run(case, USERS, ITEMS), range(3))
    resumed = Run(case, USERS, ITEMS)
    train_and_commit(embstore.open(url), resumed, range(3, 5))
    assert resumed.bits() == whole.bits()
    assert resumed.types() == whole.types()
    again = Run(case, USERS, ITEMS)
    with embstore.open(url).checkout() as work:
        again.bind(work).restore()
    assert again.bits() == whole.bits()
    assert again.types() == whole.types()


@pytest.mark.parametrize("case", CASES)
def test_growth_equals_growth_by_hand(case: str) -> None:
    """Ids appended between two runs start from their initial vectors and empty state; old rows keep every bit."""
    store = new_store(f"memory://growth-{case}")
    run = Run(case, USERS, ITEMS)
    train_and_commit(store, run, range(3))
    before = _stored(store.at(), USERS, ITEMS)
    with store.checkout() as work:
        work.append("user", NEW_USERS)
        work.append("item", NEW_ITEMS)
        work.commit("new ids")
    assert _stored(store.at(), USERS, ITEMS) == before

    grown = _grown_by_hand(run, store.at())
    resumed = Run(case, USERS + NEW_USERS, ITEMS + NEW_ITEMS)
    with store.checkout() as work:
        resumed.bind(work).restore()
    assert resumed.bits() == grown.bits()
    for number in range(3, 6):
        grown.epoch(number)
        resumed.epoch(number)
    assert resumed.bits() == grown.bits()


def _stored(version: Version, users: list[str], items: list[int]) -> dict[str, bytes]:
    """Return the bits of all columns of some ids."""
    found = {}
    for name, ids in (("user", users), ("item", items)):
        table = version.table(name)
        found |= {f"{name}.{slot}": table.slots[slot].get(ids).tobytes() for slot in table.slots}
        found[name] = table.get(ids).tobytes()
    return found


def _grown_by_hand(run: Run, version: Version) -> Run:
    """Return a larger run with the rows of ``run`` first, as a careful user would make it without a store."""
    grown = Run(run.case, USERS + NEW_USERS, ITEMS + NEW_ITEMS)
    starts = {"user.weight": version.table("user").initial(NEW_USERS), "item.weight": version.table("item").initial(NEW_ITEMS)}
    olds = dict(run.model.named_parameters())
    with torch.no_grad():
        for name, param in grown.model.named_parameters():
            old, n_new = olds[name], len(starts.get(name, ()))
            param.copy_(torch.cat([old, torch.from_numpy(starts[name])]) if n_new else old)
            state: dict[str, Any] = grown.optimizer.state[param] if run.optimizer.state.get(old) else {}
            for key, value in run.optimizer.state.get(old, {}).items():
                by_row = isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == len(old) and n_new
                fill = FILLS.get((run.case, key), 0.0)
                state[key] = torch.cat([value, value.new_full((n_new, *value.shape[1:]), fill)]) if by_row else value
    return grown


@pytest.mark.parametrize("case", ["adam", "sgd-momentum", "sparse-adam", "row-adam"])
def test_learning_rate_of_the_caller_wins(case: str) -> None:
    """A changed learning rate takes effect on resume, and is that of an uninterrupted run that changed it."""
    store = new_store(f"memory://lr-{case}")
    whole = Run(case, USERS, ITEMS)
    train_and_commit(store, whole, range(2))
    resumed = Run(case, USERS, ITEMS)
    for run in (whole, resumed):
        run.optimizer.param_groups[0]["lr"] = 0.003
    with store.checkout() as work:
        resumed.bind(work).restore()
    assert resumed.optimizer.param_groups[0]["lr"] == 0.003
    whole.epoch(2)
    resumed.epoch(2)
    assert resumed.bits() == whole.bits()


def test_diff_after_one_batch_lists_the_touched_ids() -> None:
    """After one user's batch with SparseAdam only that user and its items have changed, in values and in slots."""
    store = new_store("memory://diff")
    train_and_commit(store, Run("sparse-adam", USERS, ITEMS), range(2))
    run = Run("sparse-adam", USERS, ITEMS)
    with store.checkout() as work:
        binding = run.bind(work)
        binding.restore()
        users, items = (torch.from_numpy(binding.positions(*p)) for p in (("user", ["u5"] * 3), ("item", [1003, 1007, 1011])))
        run.model(users, items).sum().backward()
        run.optimizer.step()
        binding.stage()
        work.commit("one user")
    diff = store.diff("main~1", "main")
    assert list(diff.tables["user"].changed_ids) == ["u5"]
    assert list(diff.tables["item"].changed_ids) == [1003, 1007, 1011]


def test_resume_in_another_process(tmp_path: Path) -> None:
    """A process that knows only the store's path goes on where this one stopped."""
    whole = Run("adam", USERS, ITEMS)
    store = new_store(tmp_path / "store")
    with store.checkout() as work:
        whole.bind(work).restore()
    for number in range(4):
        whole.epoch(number)
    train_and_commit(store, Run("adam", USERS, ITEMS), range(2))
    code = (
        "import sys, embstore; from tests.with_torch.test_binding_cases import *;"
        "train_and_commit(embstore.open(sys.argv[1]), Run('adam', USERS, ITEMS), range(2, 4))"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "store")], cwd=root, check=True, timeout=200)
    version = embstore.open(tmp_path / "store").at()
    assert version.table("user").get(USERS).tobytes() == bits(whole.model.user.weight)
    assert version.table("user").slot("exp_avg").get(USERS).tobytes() == bits(
        whole.optimizer.state[whole.model.user.weight]["exp_avg"]
    )
