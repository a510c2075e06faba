"""A torch module and its optimizers as tables, slots and dense arrays of a checkout, and back.

Rows of bound parameters are those of tables. Of the other parameters and of persistent buffers the dense arrays are
``model.<parameter>``; rows of a bound parameter that are no id's are ``rows.<parameter>``, and their optimizer state
``rows.optim.<parameter>.<key>``. numpy has no bfloat16: such numbers are stored as float32, which holds each of them exactly,
so a table for such a parameter is a float32 one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embstore.bound import Bound, Held, RowNumbers, Rows, RowSet, bound_parameters, tensors_of
from embstore.errors import InvalidInputError, SchemaMismatchError, UnknownIdError
from embstore.extras import Extra
from embstore.initial import U64
from embstore.optimizers import OptimizerState
from embstore.owned import owners
from embstore.tensors import to_numpy
from embstore.workspace import Workspace

__all__ = ["Binding", "Rows", "bind"]
Optimizers = torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer] | None


def bind(
    work: Workspace,
    model: torch.nn.Module,
    optimizer: Optimizers,
    parameters: Mapping[str, str | Rows],
    *,
    extra: Mapping[str, Any] | None = None,
) -> Binding:
    """Tie a module and its optimizers to a checkout.

    Parameters
    ----------
    work
        Whose tables are meant: a checkout, or a part of one that a worker or a rank has; ids are appended before.
    model
        Its bound parameters have one row for each row of their table (``len(work.ids(entity))``, plus leading rows), or, for a
        working set, one for each id given to ``restore``.
    optimizer
        One, several by name, or None. Their options (learning rate, ...) are the caller's and never stored.
    parameters
        Names of parameters or buffers, as in ``named_parameters()``, and the table of each, or ``Rows`` for one whose rows lie
        on another axis or begin later. The tables are there already.
    extra
        Objects with ``state_dict`` and ``load_state_dict``, by name, to be stored too: schedulers, scalers, averages. Their
        tensors do not grow: where ids come, bind the parameters of an averaged module to tables of their own instead.
        A scheduler of torch goes on counting where it was, with the settings that it has been made with here. Where the base
        learning rate of a group (the one before the scheduler began) is that of the stored run, so is the current one; where it
        is another, the current one is what the scheduler's formula makes of it at that count, or, without a formula, the stored
        one times the new base over the old. Of a group that came after ``bind`` the base is not known, and taken to be the same.

    Returns
    -------
    A binding; nothing is read or staged yet.

    Raises
    ------
    UnknownNameError
        If the module has no such parameter, or the store no such table.
    SchemaMismatchError
        If a parameter does not fit its table.
    InvalidInputError
        If a parameter or table is named twice, an optimizer has a parameter that the module lacks, or an extra has no state;
        if what is to have names has none.
    """
    if not isinstance(work, Workspace) or not isinstance(model, torch.nn.Module):
        msg = f"bind({type(work).__name__}, {type(model).__name__}): give a checkout and a torch module"
        raise InvalidInputError(msg)
    _check_named(parameters, "parameters", "{'user.weight': 'user'}")
    _check_named({} if extra is None else extra, "extra", "{'scheduler': scheduler}")
    work.check_open()
    extras = [Extra(name, kept) for name, kept in (extra or {}).items()]
    return Binding(work, model, optimizer, bound_parameters(work, model, parameters), extras)


def _check_named(given: object, what: str, example: str) -> None:
    if not isinstance(given, Mapping):
        msg = f"{what} {type(given).__name__}: give a mapping, such as {example}"
        raise InvalidInputError(msg)


class Binding:
    """A module tied to a checkout; made by ``bind``. It follows its checkout through commits, until that is closed."""

    def __init__(
        self, work: Workspace, model: torch.nn.Module, optimizers: Optimizers, bound: list[Bound], extras: list[Extra]
    ) -> None:
        self._work = work
        self._model = model
        self._optimizers = optimizers
        self._bound = {b.name: b for b in bound}
        self._extras = extras
        self._parameters = dict(model.named_parameters())
        self._sets: dict[str, RowSet] = {}
        self._digests: dict[tuple[str, str], U64] = {}
        self._states()

    def __repr__(self) -> str:
        return f"Binding({', '.join(f'{b.name}={b.table}' for b in self._bound.values())})"

    def restore(self, ids: Mapping[str, object] | None = None) -> None:
        """Load what the checkout has; what it lacks stays as the module has it.

        Optimizer state is laid into the optimizer without touching its options, so the caller's learning rate holds. State that
        was never stored is not made; rows that were never trained have their initial vectors and empty state.

        Parameters
        ----------
        ids
            Entity -> n distinct ids, a working set: parameters with rows of that entity have n rows (and the leading ones), row i
            is that of the i-th id, and only these are read and staged. Stage what an earlier set has learned before.

        Raises
        ------
        UnknownIdError
            For ids that the entity does not have.
        SchemaMismatchError
            If a parameter has another number of rows or another dtype, a dense array or a tensor of an extra another shape, or
            the optimizer is of another kind.
        InvalidInputError
            For ids given twice, of an entity that no bound parameter has, or without the name of one.
        StaleCheckoutError
            If the checkout is closed.
        """
        self._work.check_open()
        _check_named({} if ids is None else ids, "ids", "{'user': [3, 1]}")
        sets = {entity: self._row_set(entity, wanted) for entity, wanted in (ids or {}).items()}
        tensors = self._tensors()
        self._check_lengths(tensors, sets)
        dense = self._checked_dense(tensors)
        states = [(state, state.stored()) for state in self._states()]
        self._sets, self._digests = sets, {}
        with torch.no_grad():
            for bound in self._bound.values():
                held = self._held(bound, tensors[bound.name])
                self._digests[bound.table, ""] = held.load()
                if bound.name in dense:
                    held.view.write_leading(dense.pop(bound.name))
            for state, entries in states:
                self._digests |= state.load(entries, self._rows_of(state.bound))
            for name, array in dense.items():
                tensors[name].copy_(torch.from_numpy(array))
        for extra in self._extras:
            extra.restore(self._work.dense)

    def positions(self, entity: str, ids: object) -> RowNumbers:
        """Return where ids lie in the bound parameters of their entity: int64[n].

        Raises
        ------
        UnknownIdError
            For ids that the entity, or the working set, does not have.
        SchemaMismatchError
            If ids were appended since the module was made.
        InvalidInputError
            If no parameter is bound to a table of that entity, or two have another number of leading rows.
        StaleCheckoutError
            If the checkout is closed.
        """
        self._work.check_open()
        self._check_lengths(self._tensors(), self._sets)
        firsts = {bound.name: bound.first for bound in self._of_entity(entity)}
        if len(set(firsts.values())) > 1:
            msg = f"positions of {entity!r}: leading rows differ ({firsts}), so do positions; take work.ids({entity!r}).rows(ids)"
            raise InvalidInputError(msg)
        idmap = self._work.ids(entity)
        rows = idmap.rows(ids)
        if entity in self._sets:
            rows = self._sets[entity].places(rows)
        if (rows < 0).any():
            lost = idmap.checked(ids)[rows < 0].tolist()
            msg = f"{entity} id {lost[0]!r}: {len(lost)} not in the working set; restore with them"
            raise UnknownIdError(msg)
        return rows + next(iter(firsts.values()))

    def stage(self) -> None:
        """Stage what differs from what was restored or staged last: rows whose bits changed, and dense arrays.

        Rows are compared block by block through 64-bit digests, 8 bytes a row for values and each slot. Rows of removed ids are
        left out. A binding that never restored compares with what the checkout has.

        Raises
        ------
        SchemaMismatchError
            If ids were appended or the module converted since it was bound, or a slot is there with another shape or type.
        InvalidInputError
            For optimizer state or extras that cannot be stored; nothing of the tables is staged then.
        StaleCheckoutError
            If the checkout is closed.
        """
        self._work.check_open()
        tensors = self._tensors()
        self._check_lengths(tensors, self._sets)
        states = [(state, state.owned.entries()) for state in self._states()]
        for extra in self._extras:
            extra.stage(self._work.dense)
        held = {(bound.table, ""): self._held(bound, tensors[bound.name]) for bound in self._bound.values()}
        for state, entries in states:
            held |= state.held(entries, self._rows_of(state.bound))
        for state, entries in states:
            state.stage_dense(entries)
        self._stage_dense(tensors)
        removed = {name: self._work.ids(spec.entity).removed_rows() for name, spec in self._work.tables.items()}
        for key, column in held.items():
            self._digests[key] = column.stage(self._digests.get(key), removed[key[0]])

    def _states(self) -> list[OptimizerState]:
        # Asked for anew each time: parameters may be given to an optimizer while training.
        names: dict[torch.Tensor, str] = {param: name for name, param in self._model.named_parameters()}
        owned = owners(self._optimizers, names, {bound.name: bound.axis for bound in self._bound.values()})
        return [OptimizerState(self._work, one, self._bound.get(one.name)) for one in owned]

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = tensors_of(self._model)
        for name, param in self._parameters.items():
            if tensors.get(name) is not param:
                msg = f"parameter {name!r} was replaced since the module was bound; bind again"
                raise InvalidInputError(msg)
        return tensors

    def _of_entity(self, entity: str) -> list[Bound]:
        self._work.check_entity(entity)
        found = [bound for bound in self._bound.values() if bound.entity == entity]
        if not found:
            msg = f"entity {entity!r}: no bound parameter has its rows; bind one to a table of it"
            raise InvalidInputError(msg)
        return found

    def _row_set(self, entity: str, ids: object) -> RowSet:
        self._of_entity(entity)
        rows = self._work.ids(entity).rows(ids)
        if len(np.unique(rows)) < len(rows):
            msg = f"working set of {entity!r}: {len(rows) - len(np.unique(rows))} ids are given twice; give each once"
            raise InvalidInputError(msg)
        return RowSet(rows)

    def _check_lengths(self, tensors: Mapping[str, torch.Tensor], sets: Mapping[str, RowSet]) -> None:
        for bound in self._bound.values():
            n_ids = len(sets[bound.entity].rows) if bound.entity in sets else len(self._work.ids(bound.entity))
            bound.check_length(tensors[bound.name], n_ids)
            bound.check_dtype(tensors[bound.name])

    def _rows_of(self, bound: Bound | None) -> RowNumbers | None:
        """Return the rows of a working set; None where a parameter has them all."""
        return self._sets[bound.entity].rows if bound is not None and bound.entity in self._sets else None

    def _held(self, bound: Bound, tensor: torch.Tensor) -> Held:
        return Held(bound.view(tensor), self._work.table(bound.table), self._rows_of(bound))

    def _dense_names(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
        """Return where parameters and persistent buffers are stored, or the leading rows of bound ones, by name."""
        kept = self._model.state_dict(keep_vars=True)
        names = {name: f"model.{name}" for name in tensors if name in kept and name not in self._bound}
        return names | {bound.name: f"rows.{bound.name}" for bound in self._bound.values() if bound.first}

    def _to_store(self, name: str, tensor: torch.Tensor) -> NDArray[Any]:
        return self._bound[name].view(tensor).read_leading() if name in self._bound else to_numpy(tensor)

    def _checked_dense(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
        """Return the stored arrays without rows, by name of the parameter."""
        found = {name: self._work.dense[at] for name, at in self._dense_names(tensors).items() if at in self._work.dense}
        for name, array in found.items():
            mine = self._to_store(name, tensors[name])
            if (mine.shape, mine.dtype) != (array.shape, array.dtype):
                msg = f"{name!r} is stored as {array.dtype} of shape {array.shape}, the module has {mine.dtype} of {mine.shape}"
                raise SchemaMismatchError(msg)
        return found

    def _stage_dense(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, at in self._dense_names(tensors).items():
            self._work.dense[at] = self._to_store(name, tensors[name])
