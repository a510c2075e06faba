"""A net between a checkout and its training: restored with its optimizers, stepped, and staged with its default vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embstore import Checkout, InvalidInputError, View, bind
from trainers.columns import Column, entities_of, inputs, no_values, stage_scale
from trainers.nets import Vectors, begin, is_table, key_of
from trainers.uncompiled import NetAdam, TableAdam

Arrays = Mapping[str, NDArray[Any]]


class Learned:
    """A net with `Vectors` called ``vectors``, restored from a checkout together with its optimizers.

    Parameters
    ----------
    work
        With all ids, features and tables.
    net
        With as many rows as these.
    prefix
        What the names of its tables and arrays begin with.
    columns
        All of the net's.
    lr, l2
        Learning rate of all parameters; L2 of rows of tables, once for each step that a row takes.
    seed
        Where parameters start that the checkout does not have.
    """

    def __init__(
        self, work: Checkout, net: nn.Module, prefix: str, columns: Sequence[Column], *, lr: float, l2: float, seed: int
    ) -> None:
        self._work = work
        self._prefix = prefix
        self._counter = f"{prefix}.epoch"
        self._vectors = _vectors_of(net)
        self._parameters = list(net.parameters())
        begin(net, seed)
        tables = {key_of(entity): f"{prefix}.{entity}" for entity in self._vectors.defaults}
        rows = list(self._vectors.tables.parameters())
        others = [p for name, p in net.named_parameters() if not is_table(name)]
        self._optimizers: dict[str, torch.optim.Optimizer] = {"rows": TableAdam(rows, lr, weight_decay=l2)}
        if others:
            self._optimizers["net"] = NetAdam(others, lr)
        bound = {f"{prefix}.vectors.tables.{key}": table for key, table in tables.items()}
        self._binding = bind(work, nn.ModuleDict({prefix: net}), self._optimizers, bound)
        self._binding.restore()
        self._find_defaults()
        for column in columns:
            stage_scale(work, column, prefix)
        self.inputs = {key: torch.from_numpy(array) for key, array in inputs(work, columns, prefix).items()}

    def epochs(self, n: int) -> range:
        """Return the numbers of the next ``n`` epochs."""
        first = int(self._work.dense[self._counter]) if self._counter in self._work.dense else 0
        return range(first, first + n)

    def step(self, loss: Tensor) -> float:
        """Go one step down the gradient of a loss; return the loss."""
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self._optimizers.values():
            optimizer.step()
        return loss.item()

    def stage(self, epoch: int) -> None:
        """Stage what has changed by the end of an epoch: rows, arrays, default vectors and the number of epochs."""
        self._find_defaults()
        self._binding.stage()
        for entity, default in self._vectors.defaults.items():
            self._work.dense[default_name(self._prefix, entity)] = default.numpy()
        self._work.dense[self._counter] = np.array(epoch + 1)

    def _find_defaults(self) -> None:
        """Let the default vectors be the means of all live rows as they are now."""
        for entity, default in self._vectors.defaults.items():
            values = self._vectors.tables[key_of(entity)].detach().numpy()
            idmap = self._work.ids(entity)
            live = values[idmap.live_rows()] if len(idmap.removed_rows()) else values
            default.copy_(torch.from_numpy(live.sum(axis=0, dtype=np.float64) / max(1, len(live))))


def default_name(prefix: str, entity: str) -> str:
    """Return the dense array with the default vector of an entity."""
    return f"default.{prefix}.{entity}"


def n_rows(view: View, columns: Sequence[Column]) -> dict[str, int]:
    """Return how many rows each entity with vectors has."""
    return {entity: len(view.ids(entity)) for entity in entities_of(columns)}


def load(view: View, net: nn.Module, prefix: str) -> None:
    """Let a net be what a view holds.

    Raises
    ------
    InvalidInputError
        If the view lacks one of its arrays, as of a column that was never trained with.
    """
    vectors = _vectors_of(net)
    for entity, default in vectors.defaults.items():
        view.table(f"{prefix}.{entity}").values(out=vectors.tables[key_of(entity)].detach().numpy())
        default.copy_(torch.from_numpy(_dense(view, default_name(prefix, entity))))
    for name, parameter in net.named_parameters():
        if not is_table(name):
            parameter.detach().copy_(torch.from_numpy(_dense(view, f"model.{prefix}.{name}")))


def _dense(view: View, name: str) -> NDArray[Any]:
    if name not in view.dense:
        msg = f"no array {name!r}: this was not trained with all of these columns; fit with them, or leave the new ones out"
        raise InvalidInputError(msg)
    return cast("NDArray[Any]", view.dense[name])


def _vectors_of(net: nn.Module) -> Vectors:
    return cast("Vectors", net.vectors)


def take(values: Arrays, columns: Sequence[Column], rows: NDArray[np.int64]) -> dict[str, Tensor]:
    """Return columns of one side for some of its rows; for row -1 what there is of somebody unknown: nothing."""
    found = {}
    for column in columns:
        taken = no_values(column, len(rows)).astype(values[column.key].dtype)
        taken[rows >= 0] = values[column.key][rows[rows >= 0]]
        found[column.key] = torch.from_numpy(taken)
    return found
