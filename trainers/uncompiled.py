"""Optimizers that do without torch's compiler, whose import costs 75 MB and a second of CPU."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

from trainers.optim import RowAdam


class Uncompiled(torch.optim.Optimizer):
    """Goes before another optimizer: takes the same steps, but asks no closure."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters."""
        inspect.unwrap(torch.optim.Optimizer.add_param_group)(self, param_group)

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step; ``closure`` is not asked."""
        with torch.no_grad():
            inspect.unwrap(super().step.__func__)(self)  # type: ignore[attr-defined]


class TableAdam(RowAdam, Uncompiled):  # type: ignore[misc]
    """`RowAdam`, without torch's compiler."""


class NetAdam(Uncompiled, torch.optim.Adam):
    """torch's Adam, without torch's compiler."""


@functools.cache
def uncompiled(kind: type[torch.optim.Optimizer]) -> type[Any]:
    """Return one of torch's optimizers without torch's compiler: ``uncompiled(torch.optim.SGD)(parameters, lr=0.1)``.

    Its state can be restored into the optimizer that it was made of, and the other way round.
    """
    return type(kind.__name__, (Uncompiled, kind), {"__doc__": f"torch's {kind.__name__}, without torch's compiler."})
