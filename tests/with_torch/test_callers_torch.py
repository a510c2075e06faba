"""What a caller has told torch does not change what trainers learn and give, and is as it was afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pytest
import torch

import embstore
from embstore import Interactions, Version
from embstore.testing import example_interactions
from tests.examples import new_store, state_of
from tests.with_torch.small_net import Small
from trainers.deepfm import DeepFM
from trainers.dynamic_autoencoder import DynamicAutoencoder
from trainers.two_tower import TwoTower

PAIRS = example_interactions()
NEWCOMER = Interactions([700, 700], ["item 01", "item 03"])
TRAINERS: dict[str, Any] = {
    "deepfm": DeepFM(dim=4, hidden=(4,), epochs=2),
    "two_tower": TwoTower(dim=4, hidden=(4,), epochs=2),
    "dynamic_autoencoder": DynamicAutoencoder(hidden=(4,), epochs=2, dropout=0.2),
    "small": Small(),
    "small, bfloat16": Small(precision="bfloat16"),
}


@contextmanager
def _float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


CALLERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": _float64,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


def _modes() -> tuple[Any, ...]:
    grad = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
    return (torch.get_default_dtype(), torch.get_num_threads(), *grad)


def _given(trainer: Any, version: Version) -> list[Any]:
    users = np.arange(-1, len(version.ids("user")))
    found = [np.asarray(trainer.scores(version, users)).tobytes(), embstore.evaluate(version, PAIRS, trainer=trainer)]
    return [*found, embstore.recommend(version, [1, 2], k=3, trainer=trainer).to_dict()]


def _learned(trainer: Any, seen: list[Any]) -> list[Any]:
    """Return all that comes of a training, of another one and of folding in; note the caller's modes after each epoch."""
    store = new_store()
    for message in ("fit", "again"):
        version = embstore.fit(store, trainer, PAIRS, message=message, progress=lambda *_: seen.append(_modes()))
    found = [state_of(version), *_given(trainer, version)]
    if hasattr(trainer, "fold_in"):
        found.append(state_of(embstore.fold_in(store, trainer, NEWCOMER, message="fold")))
    return found


@functools.cache
def _expected(name: str) -> list[Any]:
    return _learned(TRAINERS[name], [])


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("name", TRAINERS)
def test_what_the_caller_has_told_torch(name: str, caller: str) -> None:
    """Rows, slots, arrays, scores and vectors of new users have the same bits; the caller's modes hold between epochs."""
    trainer, seen, expected = TRAINERS[name], [], _expected(name)
    with CALLERS[caller]():
        before = _modes()
        found = _learned(trainer, seen)
        assert [*seen, _modes()] == [before] * (2 * trainer.epochs + 1)
    assert found == expected
