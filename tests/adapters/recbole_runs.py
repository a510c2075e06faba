"""RecBole's BPR on pairs, kept in a store or by RecBole itself; one job of it in this process, told in JSON on stdin."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import embstore
from embstore import Interactions, Store
from embstore.metrics import evaluate_ranked, top_k

# RecBole 1.2.1 asks numpy for names that numpy 2 has no longer.
np.float_, np.complex_, np.unicode_ = np.float64, np.complex128, np.str_  # type: ignore[attr-defined]

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.utils import get_model, init_seed  # noqa: E402

from trainers.adapters.recbole import KeptTrainer  # noqa: E402

FIELDS = {"user_embedding.weight": "user_id", "item_embedding.weight": "item_id"}


class Run:
    """RecBole's dataset, model and trainer for some pairs.

    Parameters
    ----------
    folder
        Where RecBole may write.
    users, items
        Pairs, in the order in which they are to be in the file.
    epochs, seed, model, dim
        RecBole's settings.
    shares
        How the pairs are split into train, validation and test.
    """

    def __init__(
        self,
        folder: Path,
        users: Sequence[Any],
        items: Sequence[Any],
        *,
        epochs: int,
        seed: int = 1,
        model: str = "BPR",
        dim: int = 64,
        shares: tuple[float, float, float] = (1.0, 0.0, 0.0),
    ) -> None:
        file = folder / "pairs" / "pairs.inter"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{user}\t{item}" for user, item in zip(users, items, strict=True)]
        file.write_text("\n".join(["user_id:token\titem_id:token", *lines, ""]), encoding="utf-8")
        settings: dict[str, Any] = {"data_path": str(folder), "checkpoint_dir": str(folder / "saved"), "state": "ERROR"}
        settings |= {"epochs": epochs, "seed": seed, "reproducibility": True, "use_gpu": False, "show_progress": False}
        settings |= {"train_batch_size": 2048, "embedding_size": dim, "stopping_step": 1000, "topk": [20], "metrics": ["NDCG"]}
        settings |= {"valid_metric": "NDCG@20", "load_col": {"inter": ["user_id", "item_id"]}}
        settings["eval_args"] = {"split": {"RS": list(shares)}, "group_by": None, "order": "RO", "mode": "full"}
        if model != "BPR":
            settings |= {"train_neg_sample_args": None, "mlp_hidden_size": [16], "latent_dimension": 8, "train_batch_size": 64}
        self.config = Config(model=model, dataset="pairs", config_dict=settings)
        init_seed(seed, reproducibility=True)
        self.data = create_dataset(self.config)
        self.train, self.valid, _ = data_preparation(self.config, self.data)
        self.model: Any = get_model(model)(self.config, self.train._dataset)
        self.trainer = KeptTrainer(self.config, self.model)

    def fit(self, *, judged: bool = False, saved: bool = True) -> None:
        """Train; the config has the number of epochs in all."""
        self.trainer.fit(self.train, self.valid if judged else None, saved=saved, show_progress=False)

    def vectors(self, parameter: str) -> dict[str, NDArray[Any]]:
        """Return the vector of each token, as the model has it now."""
        tokens = self.data.field2id_token[FIELDS[parameter]][1:]
        table = self.model.state_dict()[parameter].detach().numpy()[1:]
        return dict(zip(tokens.tolist(), table.copy(), strict=True))


def recall(run: Run, had: Interactions, targets: Interactions) -> float:
    """Return recall@20, hits over all targets, of the users who have some; what they had is not ranked."""
    users, items = (run.vectors(parameter) for parameter in FIELDS)
    item_ids = sorted(items)
    place = {item: i for i, item in enumerate(item_ids)}
    matrix = np.array([items[item] for item in item_ids])
    wanted: dict[str, list[int]] = {}
    for user, item in zip(map(str, targets.user_ids), map(str, targets.item_ids), strict=True):
        if user in users and item in place:
            wanted.setdefault(user, []).append(place[item])
    rows = {user: i for i, user in enumerate(sorted(wanted))}
    scores = np.array([users[user] for user in rows]) @ matrix.T
    for user, item in zip(map(str, had.user_ids), map(str, had.item_ids), strict=True):
        if user in rows:
            scores[rows[user], place[item]] = -np.inf
    ends = np.concatenate([[0], np.cumsum([len(wanted[user]) for user in rows])])
    found = evaluate_ranked(top_k(scores, 20), (ends, np.concatenate([wanted[user] for user in rows])), ("recall@20",))
    return found["recall@20"]


def do(job: dict[str, Any]) -> dict[str, Any]:
    """Train as a job says: ``pairs``, ``had`` and ``targets`` are files of numbers ``[2, n]``; return what came of it."""
    torch.set_num_threads(1)
    users, items = np.load(job["pairs"])
    run = Run(Path(job["folder"]), users, items, epochs=job["epochs"], seed=job["seed"])
    found: dict[str, Any] = {"users": len(run.data.field2id_token["user_id"]) - 1}
    if job["store"]:
        store: Store = embstore.open(job["store"])
        found["resumed"] = run.trainer.keep(store, run.data, FIELDS, name="bpr", every=job["every"]).resumed
    elif job["resume"]:
        found["resumed"] = _resume_as_recbole_does(run, job["resume"])
    if job["stop_at"]:
        run.trainer.epochs = job["stop_at"]
    run.fit(saved=bool(job["store"]))
    if job["save"]:
        super(KeptTrainer, run.trainer)._save_checkpoint(run.trainer.epochs - 1, verbose=False, saved_model_file=job["save"])
    had, targets = (Interactions(*np.load(job[what])) for what in ("had", "targets"))
    return found | {"recall@20": recall(run, had, targets)}


def _resume_as_recbole_does(run: Run, file: str) -> str:
    """Load RecBole's own checkpoint into its own trainer, which torch's default refuses since 2.6."""
    load = torch.load
    torch.load = lambda *given, **options: load(*given, **{"weights_only": False, **options})  # type: ignore[assignment]
    try:
        super(KeptTrainer, run.trainer).resume_checkpoint(file)
    finally:
        torch.load = load
    return file


if __name__ == "__main__":
    sys.stdout.write(json.dumps(do(json.load(sys.stdin))) + "\n")
