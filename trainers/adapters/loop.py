"""A loop of plain torch: its net and optimizers checked out of a store, and committed every few epochs or when they are best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embstore import Checkout, IdMap, InvalidInputError, NonFiniteError, Rows, StaleCheckoutError, Store, TableSpec, Version, bind
from trainers.adapters.places import places, tensors_of
from trainers.settings import check_count

Optimizers = torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer] | None


class Kept:
    """A net that is trained elsewhere, with its optimizers, as versions of a branch.

    Made, it restores what the branch has, by id: whatever order the rows have here, and however many ids are new. What the
    store lacks, rows of new ids too, stays as the net has it.

    ::

        kept = Kept(store, net, optimizer, {"users.weight": "user", "items.weight": "item"}, {"user": users, "item": items})
        for epoch in range(kept.epoch, n_epochs):
            …
            kept.after_epoch({"loss": loss})
        kept.close()

    Parameters
    ----------
    store, branch
        Where the versions are.
    net, optimizer
        As `embstore.bind` takes them; both on their device.
    rows
        Parameter -> the entity that it has a row for each id of: on the first axis of an ``nn.Embedding``, else on the one that
        is as long. Where another may come to be as long, say which: ``Rows("item", axis=1)`` (`embstore.Rows`, here of an
        entity); a ``first`` of its own counts in place of the one for all.
    ids
        Entity -> n distinct ids, in the order of the net's rows.
    name
        Of what is trained: its tables are ``<name>.<parameter>``, its arrays ``model.<name>.<parameter>``.
    first
        How many leading rows are no id's, such as a padding row.
    extra
        As `embstore.bind` takes it: schedulers, scalers.
    every
        After how many epochs to commit.
    best
        The figure by which an epoch has to be better than all before it to be committed; None: every so many epochs.
    least
        Whether less of it is better.

    Raises
    ------
    InvalidInputError
        If a parameter has no axis of that length or two of them, or ids are given twice.
    """

    def __init__(
        self,
        store: Store,
        net: nn.Module,
        optimizer: Optimizers,
        rows: Mapping[str, str | Rows],
        ids: Mapping[str, Any],
        *,
        name: str = "kept",
        branch: str = "main",
        first: int = 0,
        extra: Mapping[str, Any] | None = None,
        every: int = 1,
        best: str | None = None,
        least: bool = False,
    ) -> None:
        check_count(every, "every")
        check_count(first, "first", least=0)
        self._store, self._branch, self._name = store, branch, name
        self._net, self._optimizer, self._ids = _called(name, net), optimizer, ids
        self._extra = {f"{name}.{what}": value for what, value in (extra or {}).items()}
        self._every, self._best, self._sign = every, best, -1.0 if least else 1.0
        self._bound = places(net, rows, ids, name=name, first=first)
        self._open()
        self.epoch = int(self.work.dense.get(f"{name}.epoch", 0))
        self.resumed = f"{name} at epoch {self.epoch} of version {self.work.version.id}" if self.epoch else None

    def _open(self) -> None:
        """Check out, make what is missing, and restore."""
        self.work: Checkout = self._store.checkout(self._branch)
        self._is_staged = False
        try:
            self._make_rows()
            parameters = {parameter: rows for parameter, (_, rows) in self._bound.items()}
            self._binding = bind(self.work, self._net, self._optimizer, parameters, extra=self._extra)
            self._binding.restore(ids=self._ids)
        except BaseException:
            self.close()
            raise

    def restore(self) -> None:
        """Let net and optimizers be what was committed last, also after a commit that was refused.

        What was never committed stays as the net has it, and epochs count on.
        """
        if self._is_staged:
            self.close()
            self._open()
        else:
            self._binding.restore(ids=self._ids)

    def _make_rows(self) -> None:
        tensors = tensors_of(self._net)
        values = {rows.table: _values(tensors[parameter], rows) for parameter, (_, rows) in self._bound.items()}
        new = set(values) - set(self.work.tables)
        for entity, rows in self._bound.values():
            numbers = values[rows.table]
            dim = None if numbers.ndim == 1 else numbers.shape[1]
            self.work.add_table(TableSpec(rows.table, entity, dim, str(numbers.dtype)))
        for entity, ids in self._ids.items():
            tables = [rows.table for owner, rows in self._bound.values() if owner == entity]
            at = self.work.append(entity, ids, init={table: values[table] for table in tables})
            _check_distinct(entity, self.work.ids(entity), at)
            for table in new.intersection(tables):
                self.work.table(table).scatter(at, values[table])

    def after_epoch(self, figures: Mapping[str, float] | None = None) -> Version | None:
        """Count an epoch; commit it if it is one to be kept, and return the version.

        Parameters
        ----------
        figures
            Of this epoch, which become the version's metadata.

        Raises
        ------
        NonFiniteError
            For a figure, or a number of the net, that is NaN or infinity; nothing of the epoch is committed.
        ConflictError
            If the branch has moved, and rows of this net were changed there too. It stays so until ``restore`` takes them up;
            ``kept.work.commit(message, branch=...)`` keeps what was trained here on another branch.
        InvalidInputError
            If a figure is no number, or the one that decides is not among them.
        """
        self.epoch += 1
        found = self._checked(figures or {})
        return self.commit(found) if self._is_kept(found) else None

    def _checked(self, figures: Mapping[str, float]) -> dict[str, float]:
        found: dict[str, float] = {}
        for what, value in figures.items():
            try:
                found[what] = float(value)
            except (TypeError, ValueError, RuntimeError) as error:
                msg = f"epoch {self.epoch}: {what} {value!r}; give a number"
                raise InvalidInputError(msg) from error
            if not np.isfinite(found[what]):
                msg = f"epoch {self.epoch}: {what} is {found[what]}; nothing of it is committed"
                raise NonFiniteError(msg)
        return found

    def _is_kept(self, figures: Mapping[str, float]) -> bool:
        if self._best is None:
            return self.epoch % self._every == 0
        if self._best not in figures:
            msg = f"epoch {self.epoch}: no figure {self._best!r} among {', '.join(figures) or 'none'}; give the one that decides"
            raise InvalidInputError(msg)
        before = self.work.version.dense.get(f"{self._name}.best", np.array(-np.inf))
        return self._sign * figures[self._best] > float(before)

    def commit(self, figures: Mapping[str, float], message: str | None = None) -> Version:
        """Commit net and optimizers as they are; raises as ``after_epoch``."""
        self.work.check_open()
        self._is_staged = True
        self._binding.stage()
        self.work.dense[f"{self._name}.epoch"] = np.array(self.epoch)
        if self._best is not None and self._best in figures:
            self.work.dense[f"{self._name}.best"] = np.array(self._sign * figures[self._best])
        metadata = {**figures, "epoch": self.epoch} | ({"resumed": self.resumed} if self.resumed else {})
        version = self.work.commit(message or f"{self._name}: epoch {self.epoch}", metadata=metadata, allow_empty=True)
        self._is_staged = False
        try:
            self.work.check_open()
        except StaleCheckoutError:  # the branch had moved, so that rows may be others now
            self._open()
        return version

    def close(self) -> None:
        """Give up what was not committed."""
        self.work.discard()


def _called(name: str, net: nn.Module) -> nn.ModuleDict:
    """Return the net in a module in which it has a name."""
    try:
        return nn.ModuleDict({name: net})
    except (KeyError, TypeError) as error:
        msg = f"name {name!r}: {error.args[0]}; take another"
        raise InvalidInputError(msg) from error


def _check_distinct(entity: str, idmap: IdMap, at: NDArray[np.int64]) -> None:
    repeated = np.setdiff1d(np.arange(len(at)), np.unique(at, return_index=True)[1])
    if len(repeated):
        place = int(repeated[0])
        (twice,) = idmap.ids(at[[place]]).tolist()
        msg = f"ids of {entity!r}: {twice!r} at position {place} is there more than once; give each once, as the net has a row"
        raise InvalidInputError(msg)


def _values(tensor: torch.Tensor, rows: Rows) -> NDArray[Any]:
    """Return the rows of ids as numbers ``[n, dim]``, ``[n]`` where a row is one."""
    by_row = tensor.detach().movedim(rows.axis, 0)[rows.first :].cpu()
    flat = by_row if by_row.ndim == 1 else by_row.flatten(1)
    found: NDArray[Any] = (flat.float() if flat.dtype is torch.bfloat16 else flat).numpy()
    return found
