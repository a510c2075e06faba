"""Tensors as numpy arrays: the rows of one wherever they lie, in the dtype that is stored.

numpy has no bfloat16. Such numbers are stored as float32, which holds each of them exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embstore.errors import InvalidInputError

# Small enough that a block and what is made of it stay below a tenth of a table of 50 MB.
_BLOCK_BYTES = 1 << 20
_NARROW = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool,
        torch.uint8,
        torch.uint16,
        torch.uint32,
        torch.uint64,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    )
}


def dtype_name(tensor: torch.Tensor) -> str:
    """Return the name of a tensor's dtype, such as ``"bfloat16"``."""
    return str(tensor.dtype).removeprefix("torch.")


def named_dtype(name: str) -> torch.dtype:
    """Return the dtype of which ``dtype_name`` gave the name."""
    return _NARROW[name]


def stored_dtype(tensor: torch.Tensor, what: str) -> str:
    """Return the numpy dtype in which a tensor is stored.

    Raises
    ------
    InvalidInputError
        For sparse tensors and dtypes that numpy does not have (complex, quantized and 8-bit floats).
    """
    name = dtype_name(tensor)
    if tensor.layout is not torch.strided or name not in _NARROW:
        msg = f"{what}: {tensor.layout}, {tensor.dtype} cannot be stored; convert it to a dense real tensor"
        raise InvalidInputError(msg)
    return "float32" if name == "bfloat16" else name


def to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a tensor's numbers, contiguous; without a copy where they are so in this machine's memory."""
    given = tensor.detach()
    array: NDArray[Any] = (given.float() if given.dtype is torch.bfloat16 else given).cpu().contiguous().numpy()
    return array


def from_numpy(array: NDArray[Any], dtype: str, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the tensor of a dtype, by name, that ``to_numpy`` gave."""
    return torch.from_numpy(np.array(array, order="C")).to(device=device, dtype=_NARROW[dtype])


def new_like(tensor: torch.Tensor, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return fresh memory for optimizer state of ``tensor``; where the shapes are equal, laid out as it."""
    if shape == tuple(tensor.shape):
        return torch.empty_like(tensor, dtype=_NARROW[dtype], requires_grad=False)
    return torch.empty(shape, dtype=_NARROW[dtype], device=tensor.device)


class RowView:
    """A tensor seen as rows: the numbers at one position of an axis are a row, and the first few are no rows of an id.

    Parameters
    ----------
    tensor
        Of any device; seen, not copied.
    axis
        On which rows lie.
    first
        Leading rows that are no id's.
    flat
        Whether a row is one number, and a block of rows ``[n]``; else it is ``[n, dim]``.
    """

    def __init__(self, tensor: torch.Tensor, axis: int, first: int, *, flat: bool) -> None:
        self._all = tensor.detach().movedim(axis, 0)
        self._first = first
        self._width = () if flat else (math.prod(self._all.shape[1:]),)

    def __len__(self) -> int:
        return len(self._all) - self._first

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield where blocks of about 1 MiB start and stop."""
        row_bytes = math.prod(self._all.shape[1:]) * max(self._all.element_size(), 4)
        height = max(1, _BLOCK_BYTES // max(1, row_bytes))
        return ((start, min(start + height, len(self))) for start in range(0, len(self), height))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return some rows; their memory is the tensor's where it can be."""
        return self._shaped(self._all[self._first + start : self._first + stop])

    def write(self, start: int, values: NDArray[Any]) -> None:
        """Set the rows that begin at ``start``."""
        self._put(self._all[self._first + start : self._first + start + len(values)], values)

    def read_leading(self) -> NDArray[Any]:
        """Return the rows that are no id's."""
        return self._shaped(self._all[: self._first])

    def write_leading(self, values: NDArray[Any]) -> None:
        """Set the rows that are no id's."""
        self._put(self._all[: self._first], values)

    def fill(self, value: float) -> None:
        """Set every row, leading ones too, to one number."""
        self._all.fill_(value)

    def memory(self) -> NDArray[Any] | None:
        """Return the rows of all ids as an array in the tensor's own memory; None where there is no such array."""
        rows = self._all[self._first :]
        own = rows.device.type == "cpu" and rows.is_contiguous() and rows.dtype is not torch.bfloat16
        return self._shaped(rows) if own else None

    def _shaped(self, rows: torch.Tensor) -> NDArray[Any]:
        return to_numpy(rows).reshape(len(rows), *self._width)

    def _put(self, rows: torch.Tensor, values: NDArray[Any]) -> None:
        rows.copy_(torch.from_numpy(values).reshape(rows.shape))
