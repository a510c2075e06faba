"""A callback of Lightning 2: a module checked out when its training starts, and committed every few epochs or when it is best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from embstore import InvalidInputError, Rows, Store
from trainers.adapters.loop import Kept

if TYPE_CHECKING:
    _Checkpoint: Any = object
else:
    try:
        from lightning.pytorch.callbacks import Checkpoint as _Checkpoint
    except ImportError:
        from pytorch_lightning.callbacks import Checkpoint as _Checkpoint


class KeptCallback(_Checkpoint):  # type: ignore[misc]
    """Keeps a module, its optimizers and their schedulers in a store: ``Trainer(callbacks=[KeptCallback(store, rows, ids)])``.

    Lightning takes it for its checkpointing, and makes no files of its own beside it.

    Parameters
    ----------
    store, rows, ids, name, branch, first, every
        As `trainers.adapters.loop.Kept` takes them; parameters as the module names them.
    monitor
        A logged figure by which an epoch has to be better than all before it to be committed; None: every so many epochs, and
        the last one.
    mode
        ``"min"`` or ``"max"``: which is better.

    Raises
    ------
    InvalidInputError
        For another ``mode``.
    """

    def __init__(
        self,
        store: Store,
        rows: Mapping[str, str | Rows],
        ids: Mapping[str, Any],
        *,
        name: str = "lightning",
        branch: str = "main",
        first: int = 0,
        every: int = 1,
        monitor: str | None = None,
        mode: str = "min",
    ) -> None:
        super().__init__()
        if mode not in ("min", "max"):
            msg = f"mode {mode!r}: give 'min' or 'max', whichever is better"
            raise InvalidInputError(msg)
        self._store, self._rows, self._ids = store, rows, ids
        self._name, self._branch, self._first = name, branch, first
        self._every, self._monitor, self._least = every, monitor, mode == "min"
        self._committed = 0
        self.kept: Kept | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore what the branch has."""
        optimizers = {f"optimizer{i}": optimizer for i, optimizer in enumerate(trainer.optimizers)}
        schedulers = {f"scheduler{i}": config.scheduler for i, config in enumerate(trainer.lr_scheduler_configs)}
        self.kept = Kept(
            self._store,
            pl_module,
            optimizers,
            self._rows,
            self._ids,
            name=self._name,
            branch=self._branch,
            first=self._first,
            extra=schedulers,
            every=self._every,
            best=self._monitor,
            least=self._least,
        )
        self._committed = self.kept.epoch

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Commit the epoch if it is one to be kept, with the figures that were logged."""
        assert self.kept is not None
        if self.kept.after_epoch(_figures(trainer)) is not None:
            self._committed = self.kept.epoch

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Commit the last epoch, where no figure decides and it was not committed yet."""
        assert self.kept is not None
        if self._monitor is None and self._committed != self.kept.epoch:
            self.kept.commit(_figures(trainer))
        self.kept.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Give up what was not committed."""
        if self.kept is not None:
            self.kept.close()


def _figures(trainer: Any) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}
