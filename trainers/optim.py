"""Row-lazy Adam for embedding matrices of torch: moments and step count of a row change with that row's gradients alone."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch

from embstore import InvalidInputError
from trainers.row_adam import check_correction, row_adam_

# So many numbers and what is computed of them stay in the cache, and take little memory.
_BLOCK = 1 << 17
_OWN_PAGES = 1 << 20


class RowAdam(torch.optim.Optimizer):
    """Row-lazy Adam for embedding matrices with sparse gradients.

    Only rows that have a gradient move, or change their state; repeated rows of a gradient are summed first, in their order (on a
    GPU under ``torch.use_deterministic_algorithms``).
    State of a parameter with ``N`` rows: ``exp_avg`` and ``exp_avg_sq``, shaped as it, and ``step``, int32[N]: it is exact to
    2**31 where float32 stops counting at 2**24.

    Parameters
    ----------
    params
        Parameters or parameter groups, ``[N]`` or ``[N, ...]``; a group may have options of its own.
    lr
        Learning rate.
    betas
        Decay of the first and the second moment.
    eps
        Added to the root of the second moment.
    weight_decay
        L2: this much of the row is added to its gradient. It acts once a step and only on rows with a gradient, so rows that
        occur often shrink more.
    correction
        ``"row"``: bias correction by the row's own step; ``"none"``: none.

    Raises
    ------
    InvalidInputError
        For options out of range; in ``step``, for a gradient that is not sparse in its rows alone.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        correction: str = "row",
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "correction": correction}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with the optimizer's options where it has none of its own.

        Raises
        ------
        InvalidInputError
            For options out of range.
        """
        _check_options({**self.defaults, **param_group})
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the rows that have a gradient.

        Parameters
        ----------
        closure
            Computes the gradients once more and returns the loss.

        Raises
        ------
        InvalidInputError
            For a gradient that is not sparse in its rows alone.
        """
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        with torch.no_grad():
            for group in self.param_groups:
                for param in group["params"]:
                    if param.grad is not None:
                        self._update(param, group)
        return loss

    def _update(self, param: torch.Tensor, group: Mapping[str, Any]) -> None:
        rows, grad = _row_gradient(param)
        state = self.state[param]
        if not state:
            state["step"] = torch.zeros(len(param), dtype=torch.int32, device=param.device)
            state["exp_avg"], state["exp_avg_sq"] = _zeros(param), _zeros(param)
        options = {name: group[name] for name in ("lr", "betas", "eps", "correction")}
        height = max(1, _BLOCK * len(param) // max(1, param.numel()))
        for start in range(0, len(rows), height):
            mine, slopes = rows[start : start + height], grad[start : start + height]
            if group["weight_decay"]:
                slopes = slopes + param[mine] * group["weight_decay"]
            row_adam_(param, mine, slopes, state["exp_avg"], state["exp_avg_sq"], state["step"], **options)


def _zeros(param: torch.Tensor) -> torch.Tensor:
    """Return zeros for every number of a parameter.

    On the host large ones have pages of their own, which are the system's again as soon as they are free: what is freed to the C
    library's heap stays with the process, on top of what a commit takes then.
    """
    n_bytes = param.numel() * param.element_size()
    if param.device.type != "cpu" or not param.is_contiguous() or n_bytes < _OWN_PAGES:
        return torch.zeros_like(param)
    return torch.frombuffer(mmap.mmap(-1, n_bytes, access=mmap.ACCESS_COPY), dtype=param.dtype).view(param.shape)


def _row_gradient(param: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    grad = param.grad
    if grad is None or grad.layout is not torch.sparse_coo or grad.sparse_dim() != 1:
        found = "is missing" if grad is None else f"is {grad.layout} of shape {list(grad.shape)}"
        msg = f"gradient {found}, not sparse in its rows: use nn.Embedding(sparse=True), or torch.optim.Adam"
        raise InvalidInputError(msg)
    # Not coalesce(): its sort is not stable, and the order in which a row's gradients are added would depend on the other rows.
    rows, values = grad._indices()[0], grad._values()
    if grad.is_coalesced() or _ascend(rows):
        return rows, values
    rows, place = torch.unique(rows, return_inverse=True)
    return rows, values.new_zeros((len(rows), *values.shape[1:])).index_add_(0, place, values)


def _ascend(rows: torch.Tensor) -> bool:
    """Return whether each row is behind the one before; of rows in no order the first few tell at once."""
    first = rows[:8].tolist()
    return first == sorted(set(first)) and bool((rows[1:] > rows[:-1]).all())


def _check_options(options: Mapping[str, Any]) -> None:
    for name in ("lr", "weight_decay"):
        _check_range(options[name], name, low=0.0, high=math.inf)
    _check_range(options["eps"], "eps", low=math.ulp(0.0), high=math.inf)
    betas = options["betas"]
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        msg = f"betas {betas!r}: give two numbers, such as (0.9, 0.999)"
        raise InvalidInputError(msg)
    for beta in betas:
        _check_range(beta, "beta", low=0.0, high=1.0)
    check_correction(options["correction"])


def _check_range(value: object, what: str, *, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < high:
        msg = f"{what} {value!r}: give a number of at least {low:g} and below {high:g}"
        raise InvalidInputError(msg)
