"""One trainer on one split, in a process of its own: ``python -m tools.quality_random.ours``, told and answered in JSON."""

from __future__ import annotations

import json
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import embstore
from embstore import Interactions, Store
from embstore.metrics import evaluate_ranked, top_k
from tools.quality_random.splits import N_ITEMS, N_USERS, PARTS, read

METRICS = ("recall@20", "ndcg@100")
# Chosen on the validation parts; batches are as large as RecBole's.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "BPR": ("bpr", {"negatives": 1, "lr": 0.003, "l2": 0.01, "epochs": 50, "batch_size": 2048}),
    "MultVAE": ("mult_vae", {"noise": 0.01, "batch_size": 500, "epochs": 100}),
    "MultDAE": ("mult_dae", {"dropout": 0.6, "batch_size": 500, "epochs": 100}),
}
Report = Callable[[int, Mapping[str, float]], None]


@contextmanager
def _store() -> Iterator[Store]:
    """Yield a store that has all items: those that nobody has had are candidates too."""
    with tempfile.TemporaryDirectory(prefix="embstore-quality-") as folder:
        store = embstore.create(Path(folder) / "store")
        with store.checkout() as work:
            work.add_entity("item", "int64")
            work.append("item", np.arange(1, N_ITEMS + 1))
            work.commit("all items")
        yield store


def _judge(scores: NDArray[Any], targets: tuple[Any, Any], had: list[tuple[Any, Any]]) -> dict[str, float]:
    """Return the metrics of ``targets``, with all that ``had`` has left out of the ranking; scores are by row and id - 1."""
    from scipy.sparse import csr_array  # after the training, whose memory is measured

    scores = scores.copy()
    for users, items in had:
        scores[users, items - 1] = -np.inf
    users, items = targets
    wanted = csr_array((np.ones(len(users)), (users, items - 1)), shape=scores.shape)
    found = evaluate_ranked(top_k(scores, 100), wanted, METRICS)
    return {name: found[name] for name in METRICS}


def peak_mb() -> float:
    """Return the most memory that this program has taken: not what a process was that it was started by, as ru_maxrss would."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8")) if status.exists() else None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def measure(name: str, settings: Mapping[str, Any], folder: Path, *, seed: int) -> dict[str, Any]:
    """Return metrics on both held-out parts, CPU seconds of the epochs after the first, and the most memory that was taken."""
    pairs, stamps = {part: read(folder, part) for part in PARTS}, [0.0]
    trainer = embstore.find_trainer(name)(**settings, seed=seed)

    def stamp(epoch: int, metrics: Mapping[str, float]) -> None:
        stamps.append(time.process_time())

    with _store() as store:
        version = embstore.fit(store, trainer, Interactions(*pairs["train"]), message="train", progress=stamp)
        peak = peak_mb()
        scores = trainer.scores(version, np.arange(N_USERS))
        rows = {part: (version.ids("user").rows(users), items) for part, (users, items) in pairs.items()}
    return {
        "valid": _judge(scores, rows["valid"], [rows["train"]]),
        "test": _judge(scores, rows["test"], [rows["train"], rows["valid"]]),
        "epoch_cpu_s": np.diff(stamps[1:]).tolist(),
        "peak_mb": peak,
    }


def main() -> None:
    """Measure one job."""
    job = json.load(sys.stdin)
    name, settings = SETTINGS[job["model"]]
    settings = {**settings, **job.get("settings", {})}
    if "hidden" in settings:
        settings["hidden"] = tuple(settings["hidden"])
    json.dump(measure(name, settings, Path(job["folder"]), seed=job["seed"]), sys.stdout)


if __name__ == "__main__":
    main()
