"""One generation of LibRecommender, in its own environment: ``python theirs.py JOB``, a JSON file that `ours` writes.

Reads the folder of the generation before, if there is one, merges new pairs, trains, saves, and writes what it recommends.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from libreco.algorithms import BPR, FM
from libreco.data import DataInfo, DatasetFeat, DatasetPure

NAME = "m"
FEATURES = {
    "user_col": ["gender", "occupation", "age"],
    "item_col": ["genre1", "genre2", "genre3"],
    "sparse_col": ["gender", "occupation"],
    "multi_sparse_col": [["genre1", "genre2", "genre3"]],
    "dense_col": ["age"],
}


def main() -> None:
    """Do one job."""
    tf.compat.v1.logging.set_verbosity("ERROR")
    job = json.loads(Path(sys.argv[1]).read_text())
    with contextlib.redirect_stdout(sys.stderr):
        figures = run(job)
    Path(job["figures"]).write_text(json.dumps(figures))


def run(job: dict) -> dict:
    """Train and save; return CPU seconds by what they went to."""
    frame, figures = pd.read_csv(job["pairs"]), {}
    frame.insert(2, "label", 1)
    kind, data_set = (FM, DatasetFeat) if job["features"] else (BPR, DatasetPure)
    Path(job["folder"]).mkdir(parents=True)
    start = time.process_time()
    if job["previous"]:
        info = DataInfo.load(job["previous"], model_name=NAME)
        data, info = data_set.merge_trainset(frame, info, merge_behavior=True)
    else:
        data, info = data_set.build_trainset(frame, **(FEATURES if job["features"] else {}))
    model = kind("ranking", info, **job["settings"])
    if job["previous"]:
        model.rebuild_model(path=job["previous"], model_name=NAME, full_assign=True)
    start = noted(figures, "load, merge, rebuild", start)
    model.fit(data, neg_sampling=True, verbose=0, shuffle=True)
    start = noted(figures, "fit", start)
    info.save(path=job["folder"], model_name=NAME)
    model.save(path=job["folder"], model_name=NAME, manual=True, inference_only=False)
    noted(figures, "save", start)
    if job["answers"]:
        answer(model, job)
    return figures


def noted(figures: dict, name: str, start: float) -> float:
    """Note the CPU seconds since ``start``; return the time."""
    now = time.process_time()
    figures[name] = now - start
    return now


def answer(model, job: dict) -> None:
    """Write the ids that are recommended to some users, with the scores."""
    found = model.recommend_user(user=job["users"], n_rec=job["k"], filter_consumed=True)
    items = np.array([found[user] for user in job["users"]])
    users = np.repeat(job["users"], job["k"])
    predicted = np.array(model.predict(user=users.tolist(), item=items.ravel().tolist()))
    np.savez(job["answers"], users=users, items=items.ravel(), predicted=predicted)


if __name__ == "__main__":
    main()
