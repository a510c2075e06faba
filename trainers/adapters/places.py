"""Where the rows of an entity lie in a parameter: said by the caller, by torch's embeddings, or found by their number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from embstore import InvalidInputError, Rows

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def tensors_of(net: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name."""
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def places(
    net: nn.Module, rows: Mapping[str, str | Rows], ids: Mapping[str, Any], *, name: str, first: int
) -> dict[str, tuple[str, Rows]]:
    """Return the entity of each parameter, and where its rows lie in ``<name>.<parameter>``, which is its table too.

    Raises
    ------
    InvalidInputError
        If there is no such parameter, no ids of its entity, or no axis that has a row for each, or more than one.
    """
    tensors, found = tensors_of(net), {}
    for parameter, given in rows.items():
        said = Rows(given) if isinstance(given, str) else given
        if not isinstance(said, Rows):
            msg = f"parameter {parameter!r}: {given!r}; give the entity that it has rows of, or Rows(entity, axis=...)"
            raise InvalidInputError(msg)
        if parameter not in tensors:
            msg = f"parameter {parameter!r} is not among {', '.join(tensors)}; give one of these"
            raise InvalidInputError(msg)
        n_leading = said.first or first
        axes = _possible_axes(net, parameter, tensors[parameter].ndim, given)
        axis = _axis(parameter, tensors[parameter], axes, said.table, (_n_ids(parameter, said.table, ids), n_leading))
        found[f"{name}.{parameter}"] = (said.table, Rows(f"{name}.{parameter}", axis=axis, first=n_leading))
    return found


def _n_ids(parameter: str, entity: str, ids: Mapping[str, Any]) -> int:
    if entity not in ids:
        msg = f"parameter {parameter!r} has rows of {entity!r}: ids has {', '.join(ids) or 'none'}; give those of {entity!r} too"
        raise InvalidInputError(msg)
    if not hasattr(ids[entity], "__len__"):
        msg = f"ids of {entity!r} as {type(ids[entity]).__name__}: give a list, in the order of the net's rows"
        raise InvalidInputError(msg)
    return len(ids[entity])


def _possible_axes(net: nn.Module, parameter: str, n_axes: int, given: str | Rows) -> list[int]:
    """Return the axis that is said or that torch has for an embedding's rows, else all."""
    if isinstance(given, Rows):
        return [given.axis % n_axes if -n_axes <= given.axis < n_axes else given.axis]
    path, _, last = parameter.rpartition(".")
    return [0] if last == "weight" and isinstance(net.get_submodule(path), _EMBEDDINGS) else list(range(n_axes))


def _axis(parameter: str, tensor: torch.Tensor, axes: list[int], entity: str, counts: tuple[int, int]) -> int:
    """Return the one axis that has a row for each id and each leading one."""
    (n_ids, n_leading), shape = counts, tuple(tensor.shape)
    n_rows = n_ids + n_leading
    fitting = [axis for axis in axes if shape[axis : axis + 1] == (n_rows,)]
    what = f"parameter {parameter!r} of shape {shape}"
    if not fitting:
        wanted = f"with {n_rows} rows on axis {axes[0]}" if len(axes) == 1 else f"with an axis of {n_rows}"
        msg = f"{what}: give one {wanted}, for {n_ids} ids and {n_leading} leading rows"
        raise InvalidInputError(msg)
    if len(fitting) > 1:
        said = " or ".join(f"Rows({entity!r}, axis={axis})" for axis in fitting)
        can = f"the rows of {n_ids} ids and {n_leading} leading ones can lie on axis {' or '.join(map(str, fitting))}"
        msg = f"{what}: {can}; say on which: {said} in place of {entity!r}"
        raise InvalidInputError(msg)
    return fitting[0]
