"""RecBole on one split: a program of its own for an interpreter that has RecBole 1.2.1, told and answered in JSON.

It imports nothing of this project. Models have the sizes that they are compared by; batches, rates and negatives are RecBole's.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

N_EPOCHS = 100
_SHARED: dict[str, Any] = {
    "epochs": N_EPOCHS,
    "stopping_step": 1000,
    "eval_batch_size": 4096,
    "topk": [20, 100],
    "metrics": ["Recall", "NDCG"],
    "valid_metric": "NDCG@100",
    "benchmark_filename": ["train", "valid", "test"],
    "load_col": {"inter": ["user_id", "item_id"]},
    "eval_args": {"group_by": "user", "order": "RO", "mode": "full"},
    "show_progress": False,
    "use_gpu": False,
    "state": "ERROR",
    "reproducibility": True,
    "learning_rate": 1e-3,
}
_AUTOENCODER = {"train_batch_size": 500, "mlp_hidden_size": [600], "latent_dimension": 200, "train_neg_sample_args": None}
_MODELS: dict[str, dict[str, Any]] = {
    "BPR": {"train_batch_size": 2048, "embedding_size": 64},
    "MultiVAE": _AUTOENCODER,
    "MultiDAE": _AUTOENCODER,
}


def peak_mb() -> float:
    """Return the most memory that this program has taken: not what a process was that it was started by, as ru_maxrss would."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8")) if status.exists() else None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def measure(model: str, folder: str, seed: int, checkpoints: str) -> dict[str, Any]:
    """Return metrics of the last epoch, CPU seconds of the epochs after the first, and the most memory that was taken."""
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    torch.set_num_threads(1)
    settings = {**_SHARED, **_MODELS[model], "data_path": folder, "seed": seed, "checkpoint_dir": checkpoints}
    config = Config(model=model, dataset="split", config_dict=settings)
    init_seed(seed, True)
    train, _, test = data_preparation(config, create_dataset(config))
    net = get_model(config["model"])(config, train._dataset).to(config["device"])
    trainer, stamps = get_trainer(config["MODEL_TYPE"], config["model"])(config, net), []
    epoch = trainer._train_epoch

    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.process_time()
        found = epoch(*arguments, **options)
        stamps.append(time.process_time() - start)
        return found

    trainer._train_epoch = timed
    trainer.fit(train, None, saved=False, show_progress=False)
    peak = peak_mb()
    found = trainer.evaluate(test, load_best_model=False, show_progress=False)
    return {"test": {name: float(found[name]) for name in ("recall@20", "ndcg@100")}, "epoch_cpu_s": stamps[1:], "peak_mb": peak}


def main() -> None:
    """Measure one job; RecBole reads the command line too, so the job comes on stdin."""
    warnings.filterwarnings("ignore")
    job = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as checkpoints:
        os.chdir(checkpoints)  # RecBole leaves logs in the folder that it is run in
        found = measure(job["model"], job["folder"], job["seed"], checkpoints)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
