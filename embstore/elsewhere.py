"""Trainings in a process of their own, and one that is killed on the way: what the tests of trainers do elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from embstore.checkout import Checkout
from embstore.interactions import Batch, Interactions
from embstore.store import Store, open as open_store
from embstore.trainer import Trainer, settings_of, with_settings
from embstore.training import fit

if TYPE_CHECKING:
    import pandas as pd

RUN = "elsewhere"


def job_of(store: Store, trainer: Trainer, pairs: Interactions, *, run: bool = False, kill_at: int | None = None) -> str:
    """Return a training as JSON: an epoch and a commit; or a run that commits every epoch, and may be killed in one.

    Parameters
    ----------
    store
        On a disk.
    trainer, pairs
        Who trains on what.
    run
        Whether it is the run, which goes on where it was cut short.
    kill_at
        In which epoch of the run the process is killed, before anything of that epoch is committed.
    """
    kind = type(trainer)
    job: dict[str, Any] = {"url": store.url, "module": kind.__module__, "file": inspect.getfile(kind), "class": kind.__qualname__}
    job |= {"settings": settings_of(trainer), "users": pairs.user_ids.tolist(), "items": pairs.item_ids.tolist()}
    job |= {name: _as_list(getattr(pairs, name)) for name in ("ratings", "times")}
    job |= {name: _as_columns(getattr(pairs, name)) for name in ("user_features", "item_features")}
    return json.dumps({**job, "run": run, "kill_at": kill_at})


def _as_list(column: NDArray[Any] | None) -> list[Any] | None:
    return None if column is None else column.tolist()


def _as_columns(frame: pd.DataFrame | None) -> dict[str, list[Any]] | None:
    """Return the columns as JSON data; what is missing is null."""
    if frame is None:
        return None
    return {str(name): frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame}


def in_new_process(job: str) -> int:
    """Do a job in an interpreter of its own; return its exit code, negative if a signal ended it.

    Raises
    ------
    RuntimeError
        If it ended with an error.
    """
    code = "import sys; from embstore.elsewhere import train_in_this_process; train_in_this_process(sys.stdin.read())"
    path = os.pathsep.join(part for part in sys.path if part)
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=job, env=environment, capture_output=True, text=True, check=False)
    if done.returncode > 0:
        msg = f"the training elsewhere ended with code {done.returncode}: {done.stderr}"
        raise RuntimeError(msg)
    return done.returncode


def train_in_this_process(text: str) -> None:
    """Do a job that ``job_of`` has told."""
    job = json.loads(text)
    trainer = with_settings(_load(job["module"], job["file"], job["class"].split(".")), job["settings"])
    pairs = Interactions(job["users"], job["items"], job["ratings"], job["times"])
    store = open_store(job["url"])
    if job["run"]:
        featured = replace(pairs, user_features=_frame(job["user_features"]), item_features=_frame(job["item_features"]))
        fit_run(store, trainer, featured, kill_at=job["kill_at"])
        return
    with store.checkout() as work:
        train_epochs(trainer, work, pairs.to_batch(work))
        work.commit("one more epoch")


def _frame(columns: Mapping[str, list[Any]] | None) -> pd.DataFrame | None:
    if columns is None:
        return None
    import pandas as pd

    return pd.DataFrame(columns, dtype=object)  # so that whole numbers beside nothing stay whole


def fit_run(store: Store, trainer: Trainer, pairs: Interactions, *, kill_at: int | None) -> None:
    """Fit as a run that commits every epoch; in epoch ``kill_at`` kill this process."""

    def kill(epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch == kill_at:
            signal.raise_signal(getattr(signal, "SIGKILL", signal.SIGTERM))

    fit(store, trainer, pairs, message="a run", run=RUN, commit_every=1, progress=kill)


def train_epochs(trainer: Any, work: Checkout, batch: Batch, *, n_epochs: int = 1) -> None:
    """Train so many epochs without an end between them; as many trainings where the trainer cannot be told a number."""
    if not hasattr(trainer, "epochs"):
        for _ in range(n_epochs):
            assert len(list(trainer.train(work, batch))) > 0
    else:
        assert len(list(replace(trainer, epochs=n_epochs).train(work, batch))) == n_epochs


def _load(module: str, file: str, names: Iterable[str]) -> Any:
    """Return a class by its module's name, or by its file where the module is none that can be imported."""
    try:
        found: Any = importlib.import_module(module)
    except ImportError:
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec is not None
        assert spec.loader is not None
        found = sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
    for name in names:
        found = getattr(found, name)
    return found
