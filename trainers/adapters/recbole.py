"""Trainers of RecBole 1.2 whose checkpoints are versions of a store: rows belong to ids, in whatever order the data has them.

RecBole numbers users and items by where they first come in a file, and its checkpoints do not say how. Resumed with new ids they
do not fit; with the same ids in another order they fit, and every vector is somebody else's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from embstore import InvalidInputError, Rows, Store
from trainers.adapters.loop import Kept
from trainers.loop import mixed
from trainers.settings import check_count

# RecBole has no types, and calls what begins with an underscore: the methods below are those that its guide says to revise.
if TYPE_CHECKING:
    _Trainer: Any = object
else:
    from recbole.trainer import Trainer as _Trainer

_COUNTS = ("start_epoch", "cur_step", "best_valid_score")


class _Progress:
    """What a trainer has counted, and on how many pairs; on other data it counts anew."""

    def __init__(self, trainer: Any, n_pairs: int, attributes: Sequence[str]) -> None:
        self._trainer, self._n_pairs, self._attributes = trainer, n_pairs, attributes

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, the attributes, and what the model says is its other state."""
        counts = {name: getattr(self._trainer, name) for name in _COUNTS} | {"n_pairs": self._n_pairs}
        counts["best_valid_score"] = float(counts["best_valid_score"])
        model = self._trainer.model
        return counts | {"model": {name: getattr(model, name) for name in self._attributes}, "other": model.other_parameter()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set them."""
        if state["n_pairs"] == self._n_pairs:
            for name in _COUNTS:
                setattr(self._trainer, name, state[name])
        for name in self._attributes:
            setattr(self._trainer.model, name, state["model"][name])
        self._trainer.model.load_other_parameter(state["other"])


class KeptTrainer(_Trainer):  # type: ignore[misc]
    """RecBole's ``Trainer``, whose checkpoints are versions; for another of its trainers ``class Mine(KeptTrainer, MKRTrainer)``.

    After ``keep`` it begins where the branch is, by id. Where there is validation data an epoch is committed that is better than
    all before it, else every so many. Stopped, and started again with as many pairs, it goes on with the next epoch; with others
    it counts epochs anew. ``evaluate`` takes what was committed last for the best model.
    """

    kept: Kept
    _every = 1
    _is_judged = False

    def keep(
        self,
        store: Store,
        data: Any,
        fields: Mapping[str, str | Rows],
        *,
        name: str = "recbole",
        branch: str = "main",
        every: int = 1,
        attributes: Sequence[str] = (),
    ) -> Kept:
        """Restore what a branch has, and commit to it from now on.

        Parameters
        ----------
        store, name, branch, every
            As `trainers.adapters.loop.Kept` takes them.
        data
            RecBole's dataset, whose tokens are the ids.
        fields
            Parameter of the model -> field whose tokens it has rows of, after one of padding:
            ``{"user_embedding.weight": "user_id"}``, or ``Rows("item_id", axis=1)`` to say on which axis. The entity is called
            as the field, without ``_id``.
        attributes
            Of the model, that count and are no parameters, such as ``"update"`` of MultiVAE, by which it anneals.

        Raises
        ------
        InvalidInputError
            If the data has no such field, the model no such parameter or attribute, or as `trainers.adapters.loop.Kept` says.
        """
        check_count(every, "every")
        self._check_attributes(attributes)
        rows: dict[str, str | Rows] = {}
        ids: dict[str, list[str]] = {}
        for parameter, given in fields.items():
            field = given.table if isinstance(given, Rows) else given
            entity = field.removesuffix("_id")
            ids[entity] = _tokens(data, field, parameter)
            rows[parameter] = replace(given, table=entity) if isinstance(given, Rows) else entity
        extra = {"progress": _Progress(self, data.inter_num, attributes)}
        self._every = every
        self.kept = Kept(store, self.model, self.optimizer, rows, ids, name=name, branch=branch, first=1, extra=extra)
        return self.kept

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[..., Any] | None = None,
    ) -> Any:
        """Train as RecBole does.

        Raises
        ------
        InvalidInputError
            If checkpoints are to be saved, and ``keep`` was not called.
        """
        if saved:
            self._check_kept("fit")
        self._is_judged = bool(valid_data) and self.eval_step > 0
        return super().fit(train_data, valid_data, verbose, saved, show_progress, callback_fn)

    def _train_epoch(self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False) -> Any:
        # Order, negatives and dropout as functions of seed and epoch, for RecBole keeps no generator.
        seed = mixed(self.config["seed"], epoch_idx)
        torch.manual_seed(seed)
        np.random.seed(seed % (1 << 32))
        train_data.generator.manual_seed(seed)
        return super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)

    def _save_checkpoint(self, epoch: int, verbose: bool = True, saved_model_file: str | None = None) -> None:
        is_due = self._is_judged or (epoch + 1) % self._every == 0 or epoch + 1 == self.epochs
        if epoch >= 0 and is_due:
            self.start_epoch = self.kept.epoch = epoch + 1
            figures = {"train_loss": self.train_loss_dict[epoch], "valid_score": float(self.best_valid_score)}
            self.kept.commit({what: value for what, value in figures.items() if math.isfinite(value)})

    def resume_checkpoint(self, resume_file: Any) -> None:
        """Do nothing: ``keep`` has restored what there is."""

    def evaluate(
        self, eval_data: Any, load_best_model: bool = True, model_file: str | None = None, show_progress: bool = False
    ) -> Any:
        """Evaluate what was committed last, or the model as it is.

        Raises
        ------
        InvalidInputError
            If it is to be what was committed last, and ``keep`` was not called.
        """
        if load_best_model:
            self._check_kept("evaluate")
            self.kept.restore()
        return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)

    def _check_kept(self, what: str) -> None:
        if not hasattr(self, "kept"):
            msg = f"{what} of a KeptTrainer without a store: call keep(store, data, fields) first"
            raise InvalidInputError(msg)

    def _check_attributes(self, attributes: Sequence[str]) -> None:
        for name in attributes:
            if not hasattr(self.model, name):
                msg = f"attribute {name!r}: {type(self.model).__name__} has none of that name; leave it out"
                raise InvalidInputError(msg)


def _tokens(data: Any, field: str, parameter: str) -> list[str]:
    """Return the tokens of a field without the one of padding."""
    if field not in data.field2id_token:
        msg = f"field {field!r} of {parameter!r}: the data has tokens of {', '.join(data.field2id_token)}; give one of these"
        raise InvalidInputError(msg)
    return [str(token) for token in data.field2id_token[field][1:]]
