"""Nets over feature columns in torch: pure modules, which know no store.

Matrices of vectors have exactly the rows of their tables. A value that is none, -1, gets its entity's default vector, which is no
row and takes no part in the training. First layers have a weight for every column, so that a column can join later.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from trainers.columns import SIDES, Column

Values = Mapping[str, Tensor]
_BYTE = 256


class Vectors(nn.Module):
    """A vector for every value of every column.

    Parameters
    ----------
    columns
        Columns of one entity share its matrix.
    n_rows
        Rows of each entity that ids and categories are of.
    width
        Length of the vectors.
    """

    def __init__(self, columns: Sequence[Column], n_rows: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.tables = nn.ParameterDict({key_of(entity): torch.empty(n, width) for entity, n in n_rows.items()})
        self.weights = nn.ParameterDict({c.key: torch.empty(width) for c in columns if c.kind == "dense"})
        self.defaults = {entity: torch.zeros(width) for entity in n_rows}

    def forward(self, columns: Sequence[Column], values: Values) -> Tensor:
        """Return the vectors of some columns, ``[n, len(columns), width]``.

        Parameters
        ----------
        columns
            Some of those that this was made of.
        values
            By the column's key: int64 rows of its entity, ``[n]`` or ``[n, n_values]``; of a dense column float32[n], by which
            the column's vector is multiplied.
        """
        return torch.stack([self._of(column, values[column.key]) for column in columns], dim=1)

    def _of(self, column: Column, values: Tensor) -> Tensor:
        if column.kind == "dense":
            weights: Tensor = self.weights[column.key]
            return values[:, None] * weights
        table, default = self.tables[key_of(column.entity)], self.defaults[column.entity]
        return _means(table, values, default) if column.kind == "multi" else _rows(table, values, default)


def key_of(entity: str) -> str:
    """Return the name by which a module keeps what belongs to an entity: torch wants no dots in it, and none of its own names."""
    return f"of/{entity.replace('.', '/')}"


def _rows(table: Tensor, rows: Tensor, default: Tensor) -> Tensor:
    known = rows >= 0
    if bool(known.all()):
        return nn.functional.embedding(rows, table, sparse=True)
    found = nn.functional.embedding(rows[known], table, sparse=True)
    return default.repeat(len(rows), 1).index_put((known,), found)


def _means(table: Tensor, rows: Tensor, default: Tensor) -> Tensor:
    """Return the mean over the values of each row; the default vector where there are none."""
    known = rows >= 0
    n_values = known.sum(dim=1)
    starts = torch.cumsum(n_values, 0) - n_values
    means = nn.functional.embedding_bag(rows[known], table, starts, mode="mean", sparse=True)
    return means + (n_values == 0)[:, None] * default


class Dropout:
    """Dropout whose masks are a function of seed and epoch, and of how many were drawn before.

    One random byte decides over a number, so that the share that is kept is a multiple of 1/256.
    """

    def __init__(self, share: float, *, seed: int, epoch: int) -> None:
        self._n_kept = _BYTE - round(share * _BYTE)
        self._generator = torch.Generator().manual_seed(_mixed(seed, f"dropout {epoch}"))

    def __call__(self, given: Tensor) -> Tensor:
        """Return ``given`` with some numbers zero and the others larger, so that the mean stays."""
        if self._n_kept == _BYTE:
            return given
        words = torch.empty((given.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None, generator=self._generator)
        is_kept = words.view(torch.uint8)[: given.numel()].view(given.shape) < self._n_kept
        return given * (is_kept * (_BYTE / max(1, self._n_kept)))


def no_dropout(given: Tensor) -> Tensor:
    """Return ``given``."""
    return given


class Layers(nn.Module):
    """Linear layers with ReLU between them, the first with a weight for every column.

    Parameters
    ----------
    columns
        Whose vectors are the input.
    sizes
        Of a column's vector, of each hidden layer, and of the output.
    """

    def __init__(self, columns: Sequence[Column], sizes: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.ParameterDict({column.key: torch.empty(sizes[1], sizes[0]) for column in columns})
        self.bias = nn.Parameter(torch.empty(sizes[1]))
        self.others = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in zip(sizes[1:], sizes[2:], strict=False))

    def enter(self, columns: Sequence[Column], vectors: Tensor) -> Tensor:
        """Return what some columns add to the first layer, without its bias: ``[n, sizes[1]]``.

        Parameters
        ----------
        columns
            n_columns of those that this was made of.
        vectors
            ``[n, n_columns * sizes[0]]``.
        """
        return vectors @ torch.cat([self.first[column.key] for column in columns], dim=1).T

    def leave(self, entered: Tensor, dropout: Callable[[Tensor], Tensor] = no_dropout) -> Tensor:
        """Return the output ``[..., sizes[-1]]`` for what all columns together add to the first layer."""
        out = entered + self.bias
        for layer in self.others:
            out = layer(dropout(torch.relu(out)))
        return out


class DeepFMNet(nn.Module):
    """A factorization machine and a deep net over the same vectors (Guo et al. 2017).

    Parameters
    ----------
    columns
        Of users and items.
    n_rows
        Rows of each entity.
    dim
        Length of the vectors that are multiplied; one more number of each row is its first-order weight.
    hidden
        Sizes of the deep net's hidden layers.
    """

    def __init__(self, columns: Sequence[Column], n_rows: Mapping[str, int], *, dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.dim = dim
        self.vectors = Vectors(columns, n_rows, dim + 1)
        self.deep = Layers(columns, (dim, *hidden, 1))

    def forward(self, values: Values, dropout: Callable[[Tensor], Tensor] = no_dropout) -> Tensor:
        """Return the logits ``[n]`` of pairs; ``values`` has every column of each pair's user and item by key."""
        found = self.vectors(self.columns, values)
        deep = self.deep.enter(self.columns, dropout(found[..., : self.dim].flatten(1)))
        return self._orders(found) + self.deep.leave(deep, dropout)[:, 0]

    def scores(self, users: Values, items: Values, *, block: int) -> Tensor:
        """Return the logits of all pairs ``[n_users, n_items]``, as ``forward`` gives them but for rounding.

        What users and items each add to the first layer, and products among their own columns, are computed once.

        Parameters
        ----------
        users, items
            The columns of either side.
        block
            About how many pairs go through the deep net at a time.
        """
        own, total, entered = self._side("user", users)
        item_own, item_total, item_entered = self._side("item", items)
        out = own[:, None] + item_own + total @ item_total.T
        height = max(1, block // max(1, len(item_own)))
        for start in range(0, len(out), height):
            part = slice(start, start + height)
            out[part] += self.deep.leave(entered[part, None] + item_entered)[..., 0]
        return out

    def _side(self, side: str, values: Values) -> tuple[Tensor, Tensor, Tensor]:
        """Return the two orders within one side, the sum of its vectors, and what it adds to the first layer."""
        columns = [column for column in self.columns if column.side == side]
        found = self.vectors(columns, values)
        vectors = found[..., : self.dim]
        return self._orders(found), vectors.sum(1), self.deep.enter(columns, vectors.flatten(1))

    def _orders(self, found: Tensor) -> Tensor:
        """Return the first-order weights and the products of all pairs of vectors, summed: ``[n]``."""
        vectors = found[..., : self.dim]
        total = vectors.sum(1)
        return found[..., self.dim].sum(1) + ((total * total).sum(1) - (vectors * vectors).sum((1, 2))) / 2


class TwoTowerNet(nn.Module):
    """A vector for a user and one for an item, each of an id and features; their product is the score (Yi et al. 2019).

    Parameters
    ----------
    columns, n_rows
        As in `DeepFMNet`.
    dim
        Length of the vectors of columns, and of a tower's output.
    hidden
        Sizes of the hidden layers of either tower; without any a tower is the sum alone.
    """

    def __init__(self, columns: Sequence[Column], n_rows: Mapping[str, int], *, dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.columns = {side: tuple(column for column in columns if column.side == side) for side in SIDES}
        self.vectors = Vectors(columns, n_rows, dim)
        sizes = (dim, *hidden, dim)
        self.layers = nn.ModuleDict({side: Layers(self.columns[side], sizes) for side in SIDES if hidden})

    def forward(self, side: str, values: Values) -> Tensor:
        """Return the vectors ``[n, dim]`` of users or items: the sum over their columns, and what the layers add to it."""
        columns = self.columns[side]
        vectors: Tensor = self.vectors(columns, values)
        layers, total = self.layers_of(side), vectors.sum(1)
        return total if layers is None else total + layers.leave(layers.enter(columns, vectors.flatten(1)))

    def layers_of(self, side: str) -> Layers | None:
        """Return the layers of users or items; None if there are none."""
        return cast("Layers", self.layers[side]) if side in self.layers else None


def is_table(name: str) -> bool:
    """Return whether a parameter of a net has the rows of a table."""
    return name.startswith("vectors.tables.")


def begin(net: nn.Module, seed: int) -> None:
    """Set all parameters but those of tables to where they start: a function of the seed and of each one's name and shape.

    Matrices are uniform (Glorot and Bengio 2010), but for those that end layers: they are zero, as vectors are, so that layers
    begin by adding nothing.
    """
    ends = {id(layers.others[-1].weight) for layers in net.modules() if isinstance(layers, Layers) and layers.others}
    for name, parameter in net.named_parameters():
        if is_table(name):
            continue
        generator = torch.Generator().manual_seed(_mixed(seed, name))
        is_zero = parameter.ndim < 2 or id(parameter) in ends
        bound = 0.0 if is_zero else (6 / sum(parameter.shape)) ** 0.5
        with torch.no_grad():
            parameter.uniform_(-bound, bound, generator=generator)


def _mixed(seed: int, text: str) -> int:
    """Return a seed of 63 bits for one purpose."""
    return (seed * 0x9E3779B97F4A7C15 + zlib.crc32(text.encode()) * 0xBF58476D1CE4E5B9) % 2**63
