"""Nets from sparse rows of items to scores of items, in torch: pure modules, which know no store.

Parameters with a row for each item are tables: `ItemsIn` multiplies a sparse matrix by some of their rows, `ItemsOut` scores some
of their rows, and gradients have these rows alone. So a step costs the same however many other items there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from embstore import InvalidInputError
from trainers.histories import RowMatrix

Keep = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Keep] = {
    "none": lambda given: given,
    "relu": torch.relu,
    "selu": torch.selu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def find_activation(name: object) -> Keep:
    """Return the activation of that name; raise InvalidInputError if there is none."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        msg = f"activation {name!r}: use one of {', '.join(ACTIVATIONS)}"
        raise InvalidInputError(msg)
    return ACTIVATIONS[name]


class SparseInput:
    """A sparse matrix of users by item rows, ready to be multiplied by a table and back.

    torch multiplies it fastest as bags: the values of each row one after the other.

    Attributes
    ----------
    rows
        int64[m], the rows of items that it has values for, ascending.
    values
        float32[n_values], user by user.

    Parameters
    ----------
    matrix
        ``[n, n_items]``.
    """

    def __init__(self, matrix: RowMatrix) -> None:
        items, places = np.unique(matrix.indices, return_inverse=True)
        order = np.argsort(places, kind="stable")
        users = np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))[order]
        ends = np.searchsorted(places[order], np.arange(len(items)))
        whole = (items, places, matrix.indptr[:-1], order, users, ends)
        self.rows, self._places, self._starts, *back = (torch.from_numpy(part.astype(np.int64)) for part in whole)
        self._order, self._users, self._item_starts = back
        self.values = torch.from_numpy(matrix.data.astype(np.float32, copy=False))

    def __len__(self) -> int:
        return len(self._starts)

    def dropped(self, share: float) -> SparseInput:
        """Return the matrix with that share of its values dropped, and the others larger, by torch's generator."""
        thinner = copy(self)
        thinner.values = nn.functional.dropout(self.values, share)
        return thinner

    def times(self, table: Tensor) -> Tensor:
        """Return the product with a table ``[n_items, width]``: ``[n, width]``."""
        return _bags(self.rows[self._places], table, self._starts, self.values)

    def back(self, slopes: Tensor) -> Tensor:
        """Return the gradient of the rows that took part, ``[m, width]``, by the slopes of the product, ``[n, width]``."""
        return _bags(self._users, slopes.contiguous(), self._item_starts, self.values[self._order])


def _bags(rows: Tensor, table: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    return nn.functional.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights.to(table.dtype))


def row_gradient(rows: Tensor, values: Tensor, like: Tensor, *, sparse: bool) -> Tensor:
    """Return a gradient with these rows, each there once and ascending, and nothing else.

    Parameters
    ----------
    rows, values
        int64[m], and ``[m]`` or ``[m, ...]``.
    like
        The parameter.
    sparse
        As a sparse tensor, as `trainers.optim.RowAdam` wants it; else with zeros for all other rows.
    """
    if sparse:
        return torch.sparse_coo_tensor(rows[None], values, like.shape, check_invariants=False, is_coalesced=True)
    return torch.zeros_like(like).index_copy_(0, rows, values.to(like.dtype))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, given: SparseInput, sparse: bool) -> Tensor:
        ctx.given, ctx.sparse = given, sparse
        ctx.save_for_backward(table)
        return given.times(table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None, None]:
        (table,) = ctx.saved_tensors
        return row_gradient(ctx.given.rows, ctx.given.back(slopes), table, sparse=ctx.sparse), None, None


class _Chosen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, sparse: bool) -> Tensor:
        ctx.sparse = sparse
        ctx.save_for_backward(table, rows)
        return table[rows] if len(rows) < len(table) else table.view_as(table)  # all of them need no copy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None, None]:
        table, rows = ctx.saved_tensors
        return row_gradient(rows, slopes, table, sparse=ctx.sparse), None, None


def chosen(table: Tensor, rows: Tensor, *, sparse: bool = True) -> Tensor:
    """Return distinct, ascending rows of a table; its gradient has these rows, see `row_gradient`."""
    return cast("Tensor", _Chosen.apply(table, rows, sparse))  # type: ignore[no-untyped-call]


class ItemsIn(nn.Module):
    """What users have had, through a layer with a row for each item: ``matrix @ rows + bias``.

    Parameters
    ----------
    n_items, width
        Shape of ``rows``, which is a table's.
    sparse
        Whether gradients are, see `row_gradient`.
    """

    def __init__(self, n_items: int, width: int, *, sparse: bool = True) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(n_items, width))
        self.bias = nn.Parameter(torch.zeros(width))
        self._sparse = sparse

    def forward(self, given: SparseInput) -> Tensor:
        """Return ``[n, width]``."""
        return cast("Tensor", _Product.apply(self.rows, given, self._sparse)) + self.bias  # type: ignore[no-untyped-call]


class ItemsOut(nn.Module):
    """Scores of items, a row and a bias for each: ``hidden @ rows.T + bias``.

    Parameters
    ----------
    n_items, width
        Shape of ``rows``, which is a table's; ``bias`` ``[n_items]`` is another one's.
    sparse
        Whether gradients are, see `row_gradient`.
    rows
        To share with `ItemsIn`; None: rows of its own.
    """

    def __init__(self, n_items: int, width: int, *, sparse: bool = True, rows: nn.Parameter | None = None) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(n_items, width)) if rows is None else rows
        self.bias = nn.Parameter(torch.zeros(n_items))
        self._sparse = sparse

    def forward(self, hidden: Tensor, columns: Tensor) -> Tensor:
        """Return the scores of some items ``[n, m]``.

        Parameters
        ----------
        hidden
            ``[n, width]``.
        columns
            int64[m], distinct rows of items, ascending.
        """
        rows, bias = (chosen(part, columns, sparse=self._sparse) for part in (self.rows, self.bias))
        return torch.addmm(bias, hidden, rows.T)


class Hidden(nn.Module):
    """Linear layers of some sizes, each followed by the same activation; weights start as Glorot and Bengio (2010) say."""

    def __init__(self, sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        pairs = zip(sizes, sizes[1:], strict=False)
        self.weights = nn.ParameterList(nn.init.xavier_uniform_(torch.empty(n_out, n_in)) for n_in, n_out in pairs)
        self.biases = nn.ParameterList(torch.zeros(n_out) for n_out in sizes[1:])
        self._activate = find_activation(activation)

    def forward(self, given: Tensor, others: Sequence[Tensor] = ()) -> Tensor:
        """Return the last layer's output ``[n, sizes[-1]]``; ``others`` are weights for layers that have none of their own."""
        for weight, bias in zip(self.weights or others, self.biases, strict=True):
            given = self._activate(nn.functional.linear(given, weight, bias))
        return given


class AutoencoderNet(nn.Module):
    """From what a user has had through hidden layers to scores of items, and back the same way (Recoder's DynamicAutoencoder).

    Parameters
    ----------
    n_items
        Rows of items.
    hidden
        Sizes of the layers down to the bottleneck; decoding goes through the same sizes backwards.
    activation
        A name in `ACTIVATIONS`.
    noise, dropout
        Shares of the input and of the bottleneck that are dropped while training.
    tied
        Decode with the encoder's weights, transposed; biases are always there twice.
    sparse
        Whether gradients of item rows are, see `row_gradient`.
    """

    def __init__(
        self,
        n_items: int,
        hidden: Sequence[int],
        *,
        activation: str = "tanh",
        noise: float = 0.0,
        dropout: float = 0.0,
        tied: bool = False,
        sparse: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = ItemsIn(n_items, hidden[0], sparse=sparse)
        self.inner = Hidden(hidden, activation)
        self.dropout = nn.Dropout(dropout)
        self.outer = _Biases(hidden[::-1], activation) if tied else Hidden(hidden[::-1], activation)
        self.decoder = ItemsOut(n_items, hidden[0], sparse=sparse, rows=self.encoder.rows if tied else None)
        self._noise = noise
        self._activate = find_activation(activation)

    def encode(self, given: SparseInput) -> Tensor:
        """Return the bottleneck ``[n, hidden[-1]]``."""
        return cast("Tensor", self.inner(self._activate(self.encoder(given))))

    def decode(self, code: Tensor, items: Tensor) -> Tensor:
        """Return scores of some items, ``[n, m]``; ``items`` int64[m], distinct rows, ascending."""
        tied = [weight.T for weight in reversed(list(self.inner.weights))]
        return cast("Tensor", self.decoder(self.outer(code, tied), items))

    def forward(self, given: SparseInput, users: Tensor, items: Tensor) -> Tensor:
        """Return scores of some items, ``[n, m]``; it does not matter who the users are, only what they have had."""
        given = given.dropped(self._noise) if self.training else given
        return self.decode(self.dropout(self.encode(given)), items)


class _Biases(Hidden):
    """Layers that have no weights of their own."""

    def __init__(self, sizes: Sequence[int], activation: str) -> None:
        super().__init__(sizes, activation)
        self.weights = nn.ParameterList()
