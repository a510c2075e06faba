"""A tower of `TwoTowerNet` that stands still, in numpy and float64: where a vector goes, and the way of a gradient back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.columns import Column
from trainers.nets import Layers

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class FixedTower:
    """The layers of a tower, if it has any.

    Parameters
    ----------
    first
        ``[n_hidden, dim]`` of each column, the first of which is the id; ``n_hidden`` is 0 where there are no layers.
    bias
        Of the first layer.
    others
        Weights ``[n_out, n_in]`` and biases of the other layers.
    """

    first: Sequence[F64]
    bias: F64
    others: Sequence[tuple[F64, F64]]

    @classmethod
    def of(cls, layers: Layers | None, columns: Sequence[Column], dim: int) -> FixedTower:
        """Return the layers as they are now."""
        if layers is None:
            return cls([np.zeros((0, dim)) for _ in columns], np.zeros(0), [(np.zeros((dim, 0)), np.zeros(dim))])
        kept = {name: parameter.detach().numpy().astype(np.float64) for name, parameter in layers.named_parameters()}
        first = [kept[f"first.{column.key}"] for column in columns]
        others = [(kept[f"others.{i}.weight"], kept[f"others.{i}.bias"]) for i in range(len(layers.others))]
        return cls(first, kept["bias"], others)

    def rest(self, vectors: F64) -> tuple[F64, F64]:
        """Return what the columns but the id add up to, and what they and the bias enter the first layer with.

        Parameters
        ----------
        vectors
            ``[n, n_columns, dim]``.
        """
        total, entered = np.zeros_like(vectors[:, 0]), np.tile(self.bias, (len(vectors), 1))
        for i, weights in enumerate(self.first[1:], start=1):
            total += vectors[:, i]
            entered += np.ascontiguousarray(vectors[:, i]) @ weights.T
        return total, entered

    def forward(self, ids: F64, rest: tuple[F64, F64]) -> tuple[F64, Callable[[F64], F64]]:
        """Return the tower's output ``[n, dim]``, and what turns a gradient by it into one by ``ids``.

        Parameters
        ----------
        ids
            ``[n, dim]``, vectors of the id.
        rest
            What the other columns come to.
        """
        total, entered = rest
        given = np.ascontiguousarray(ids)
        inner = [entered + given @ self.first[0].T]
        for weights, bias in self.others:
            inner.append(np.maximum(inner[-1], 0) @ weights.T + bias)

        def back(slope: F64) -> F64:
            inside = slope
            for (weights, _), before in zip(reversed(self.others), reversed(inner[:-1]), strict=True):
                inside = (inside @ weights) * (before > 0)
            return slope + inside @ self.first[0]

        return given + total + inner[-1], back
