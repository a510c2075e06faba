"""Whatever has ``state_dict`` and ``load_state_dict``, as dense arrays: JSON, and the tensors in it apart.

``extra.<name>`` is a JSON text in utf-8, ``extra.<name>/<n>`` is its n-th tensor. JSON has no tuples, no keys but strings and no
infinity: such a value is an object with the key ``"$"`` that says what it is.

Of a learning-rate scheduler of torch only what it has counted is stored: epochs, steps, bad epochs, the best metric. Its settings
are those it was made with, as the base learning rates of the optimizer are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim.lr_scheduler import LRScheduler

from embstore.errors import InvalidInputError, SchemaMismatchError
from embstore.names import check_name
from embstore.tensors import dtype_name, from_numpy, stored_dtype, to_numpy

_COUNTED = ("last_epoch", "_step_count", "T_cur", "T_i", "best", "num_bad_epochs", "cooldown_counter")
_PARTS = "_schedulers"
Arrays = list[NDArray[Any]]


class Extra:
    """One object whose state is stored with the module.

    Raises
    ------
    InvalidInputError
        If it has no ``state_dict`` and ``load_state_dict``, or a name that cannot be stored.
    """

    def __init__(self, name: str, kept: Any) -> None:
        self.name = f"extra.{check_name(name, 'extra')}"
        self.kept = kept
        if not (callable(getattr(kept, "state_dict", None)) and callable(getattr(kept, "load_state_dict", None))):
            msg = f"extra {name!r}: {type(kept).__name__} has no state_dict and load_state_dict; give it both"
            raise InvalidInputError(msg)
        # Here, since a scheduler changes the options of the groups from its first step on.
        self._base_lrs = _base_lrs(kept) if isinstance(kept, LRScheduler) else []

    def stage(self, dense: MutableMapping[str, NDArray[Any]]) -> None:
        """Store the state as it is now.

        Raises
        ------
        InvalidInputError
            For a state with anything but numbers, text, lists, mappings and tensors.
        """
        arrays: Arrays = []
        kept = self.kept
        state = _progress(kept, self._base_lrs) if isinstance(kept, LRScheduler) else kept.state_dict()
        text = json.dumps(encode(state, self.name, arrays), sort_keys=True, allow_nan=False)
        parts = [name for name in dense if name.startswith(f"{self.name}/")]
        for name in [name for name in parts if int(name.rpartition("/")[2]) >= len(arrays)]:
            del dense[name]
        dense[self.name] = np.frombuffer(text.encode(), np.uint8)
        for i, array in enumerate(arrays):
            dense[f"{self.name}/{i}"] = array

    def restore(self, dense: Mapping[str, NDArray[Any]]) -> None:
        """Load what is stored; nothing if nothing is.

        Raises
        ------
        SchemaMismatchError
            For a scheduler of an optimizer that had another number of parameter groups, or a module of other shapes.
        """
        if self.name not in dense:
            return
        state = decode(json.loads(dense[self.name].tobytes()), lambda i: dense[f"{self.name}/{i}"])
        if isinstance(self.kept, LRScheduler):
            _resume(self.kept, state, self._base_lrs)
            return
        try:
            self.kept.load_state_dict(state)
        except RuntimeError as error:  # as torch's modules raise it for tensors of another shape
            advice = "tensors of an extra do not grow: leave it out of extra=, and bind its parameters to tables of their own"
            msg = f"{self.name}: {' '.join(str(error).split())}; {advice}"
            raise SchemaMismatchError(msg) from error


def _base_lrs(scheduler: LRScheduler) -> list[float]:
    """Return the caller's learning rate of each group, whatever the scheduler has made of it."""
    optimizer, fresh = scheduler.optimizer, getattr(scheduler, "last_epoch", 0) <= 0
    lrs = [group.get("initial_lr", group["lr"] if fresh else optimizer.defaults["lr"]) for group in optimizer.param_groups]
    return [float(lr) for lr in lrs]


def _progress(scheduler: LRScheduler, base_lrs: list[float]) -> dict[str, Any]:
    """Return what a scheduler has counted, and what it has made of the options it changes."""
    names = ("momentum", "betas") if getattr(scheduler, "cycle_momentum", False) else ()
    groups = scheduler.optimizer.param_groups
    options = [{"lr": float(group["lr"])} | {name: group[name] for name in names if name in group} for group in groups]
    by_torch = type(scheduler).__module__.startswith("torch.")
    return {"counted": _counted(scheduler.state_dict(), by_torch=by_torch), "base_lrs": base_lrs, "groups": options}


def _counted(state: Mapping[str, Any], *, by_torch: bool) -> dict[str, Any]:
    # Nobody knows which entries of a stranger's scheduler are settings, so it keeps all but the learning rates.
    left_out = ("base_lrs", "_last_lr", _PARTS)
    kept = {key: value for key, value in state.items() if (key in _COUNTED if by_torch else key not in left_out)}
    if _PARTS in state:
        kept[_PARTS] = [_counted(part, by_torch=by_torch) for part in state[_PARTS]]
    return kept


def _resume(scheduler: LRScheduler, saved: Mapping[str, Any], base_lrs: list[float]) -> None:
    """Go on counting; where the caller's base learning rate is another, the current one follows it.

    Of groups that came after the binding, then or now, there is no base rate.
    """
    groups = scheduler.optimizer.param_groups
    if len(saved["groups"]) != len(groups):
        msg = f"scheduler: stored for {len(saved['groups'])} parameter groups, now {len(groups)}; leave it out of extra="
        raise SchemaMismatchError(msg)
    scheduler.load_state_dict(_merged(scheduler.state_dict(), saved["counted"]))
    lrs = _current_lrs(scheduler, saved, base_lrs)
    for group, options, lr in zip(groups, saved["groups"], lrs, strict=True):
        group.update({name: value for name, value in options.items() if name != "lr"})
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    scheduler.load_state_dict(scheduler.state_dict() | {"_last_lr": lrs})


def _merged(state: Mapping[str, Any], counted: Mapping[str, Any]) -> dict[str, Any]:
    mine, stored = state.get(_PARTS, []), counted.get(_PARTS, [])
    if len(mine) != len(stored):
        msg = f"scheduler: stored with {len(stored)} schedulers in it, now {len(mine)}; leave it out of extra="
        raise SchemaMismatchError(msg)
    parts = {_PARTS: [_merged(*pair) for pair in zip(mine, stored, strict=True)]} if mine else {}
    return {**state, **counted, **parts}


def _current_lrs(scheduler: LRScheduler, saved: Mapping[str, Any], base_lrs: list[float]) -> list[float]:
    """Return the stored rates; of a group with another base rate what its formula says, or the stored one scaled."""
    lrs = [options["lr"] for options in saved["groups"]]
    formula = getattr(scheduler, "_get_closed_form_lr", None)
    bases = list(zip(base_lrs, saved["base_lrs"], strict=False))
    scaled = [lr * now / before if before else now for lr, (now, before) in zip(lrs, bases, strict=False)]
    others = [float(lr) for lr in formula()] if formula else scaled
    known = [lr if now == before else other for lr, other, (now, before) in zip(lrs, others, bases, strict=False)]
    return known + lrs[len(known) :]


def encode(value: Any, what: str, arrays: Arrays) -> Any:
    """Return ``value`` in JSON; tensors and arrays go to the end of ``arrays``.

    Raises
    ------
    InvalidInputError
        For anything but numbers, text, lists, mappings and tensors.
    """
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    if type(value) is float:
        return {"$": "float", "value": repr(value)}
    if isinstance(value, Mapping):
        return _encode_mapping(value, what, arrays)
    if isinstance(value, (list, tuple)):
        items = [encode(item, f"{what}[{i}]", arrays) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$": "tuple", "items": items}
    if isinstance(value, torch.Tensor):
        stored_dtype(value, what)
        arrays.append(to_numpy(value))
        return {"$": "tensor", "at": len(arrays) - 1, "dtype": dtype_name(value)}
    if isinstance(value, (np.ndarray, np.generic)):
        arrays.append(np.asarray(value))
        return {"$": "array", "at": len(arrays) - 1}
    msg = f"{what}: {type(value).__name__} cannot be stored; a state is numbers, text, lists, mappings and tensors"
    raise InvalidInputError(msg)


def _encode_mapping(value: Mapping[Any, Any], what: str, arrays: Arrays) -> dict[str, Any]:
    items = [(key, encode(item, f"{what}[{key!r}]", arrays)) for key, item in value.items()]
    if "$" not in value and all(type(key) is str for key in value):
        return dict(items)
    return {"$": "mapping", "items": [[encode(key, what, arrays), item] for key, item in items]}


def decode(value: Any, read: Callable[[int], NDArray[Any]]) -> Any:
    """Return what ``encode`` was given; ``read`` gives its arrays."""
    if isinstance(value, list):
        return [decode(item, read) for item in value]
    if not isinstance(value, dict):
        return value
    match value.get("$"):
        case None:
            return {key: decode(item, read) for key, item in value.items()}
        case "float":
            return float(value["value"])
        case "tuple":
            return tuple(decode(item, read) for item in value["items"])
        case "mapping":
            return {decode(key, read): decode(item, read) for key, item in value["items"]}
        case "tensor":
            return from_numpy(read(value["at"]), value["dtype"])
    return read(value["at"])
