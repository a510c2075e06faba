"""One step of Adam on some rows, whose moments and step count belong to each row: numpy arrays or torch tensors.

Adam as usually written has one step count for a table. A row that joins at step 10,000 then gets no bias correction, and its
first move is ``(1 - beta1) / sqrt(1 - beta2)`` = 3.16 times the learning rate. Here every row counts its own steps, so a row
ends where it would have ended had it been trained alone, to the bit, whatever else is in the table or the batch.

Every operation below rounds once, none is fused, so numpy and torch, a vector loop and its tail all give the same bits.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from embstore import InvalidInputError

Array = TypeVar("Array", bound=Any)
CORRECTIONS = ("row", "none")


def row_adam_(
    param: Array,
    rows: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    step: Array,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    correction: str = "row",
) -> None:
    """Take one Adam step on some rows, in place (Kingma and Ba 2015, with ``eps`` outside the corrected root, as torch's Adam).

    Parameters
    ----------
    param
        ``[N]`` or ``[N, ...]``, floating; a numpy array or a torch tensor, the others of the same kind.
    rows
        int64[n], each row once.
    grad
        ``[n]`` or ``[n, ...]``, of these rows, in the dtype of ``param``.
    exp_avg, exp_avg_sq
        Moments, shaped as ``param``.
    step
        int32[N], steps that each row has taken.
    lr, betas, eps
        As in Adam.
    correction
        ``"row"`` corrects the moments' bias by the row's own step; ``"none"`` leaves them, so first moves are larger.

    Raises
    ------
    InvalidInputError
        For another ``correction``.
    """
    check_correction(correction)
    steps = step[rows] + 1
    step[rows] = steps
    move = _blend(exp_avg, rows, grad, beta=betas[0])
    root = _blend(exp_avg_sq, rows, grad * grad, beta=betas[1])
    root **= 0.5
    if correction == "row":
        root *= _per_row(_unbias(steps, betas[1]) ** -0.5, move)
    root += eps
    move /= root
    move *= _per_row(lr / _unbias(steps, betas[0]), move) if correction == "row" else lr
    param[rows] -= move


def _blend(state: Array, rows: Array, value: Array, *, beta: float) -> Array:
    blended: Array = state[rows]
    blended *= beta
    blended += value * (1.0 - beta)
    state[rows] = blended
    return blended


def _unbias(steps: Any, beta: float) -> NDArray[np.float64]:
    # In numpy for tensors too: torch's float64 power differs in the last bit between its vector loop and the tail.
    counts = steps if isinstance(steps, np.ndarray) else steps.cpu().numpy()
    return cast("NDArray[np.float64]", 1.0 - beta ** counts.astype(np.float64))


def _per_row(values: NDArray[np.float64], like: Array) -> Array:
    """Return ``values`` as a column that multiplies the rows of ``like``, in its dtype and on its device."""
    column = values.reshape(-1, *[1] * (like.ndim - 1))
    if isinstance(like, np.ndarray):
        narrow: NDArray[Any] = column.astype(like.dtype)
        return cast("Array", narrow)
    return cast("Array", like.new_tensor(column))


def check_correction(correction: object) -> None:
    """Raise InvalidInputError for an unknown bias correction."""
    if correction not in CORRECTIONS:
        msg = f"correction {correction!r}: use one of {', '.join(CORRECTIONS)}"
        raise InvalidInputError(msg)
