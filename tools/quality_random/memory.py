"""The most memory that a first fit takes: ``python -m tools.quality_random.memory [TRAINER …]``.

Trainers have their own settings and all of MovieLens-100k, in a fresh store and a process with one thread. numpy reads the pairs,
since pandas would take 60 MB more; features are not among them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import embstore
from embstore import Interactions
from tools.quality_random.ours import peak_mb

FILE = "ml-100k/ml-100k.inter"
TRAINERS = ("bpr", "matrix_factorization", "deepfm", "two_tower", "dynamic_autoencoder", "mult_vae", "mult_dae")
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_CHILD = "from tools.quality_random.memory import child; child()"


def measure(name: str, file: Path) -> dict[str, Any]:
    """Return how much this process has taken before and in the end, and the median of the CPU seconds of an epoch."""
    trainer, stamps = embstore.find_trainer(name)(), []
    users, items, times = np.loadtxt(file, np.int64, skiprows=1, usecols=(0, 1, 3), unpack=True)
    pairs = Interactions(users, items, times=times)
    before = peak_mb()
    with tempfile.TemporaryDirectory(prefix="embstore-memory-") as folder:
        store = embstore.create(Path(folder) / "store")
        embstore.fit(store, trainer, pairs, message="fit", progress=lambda *_: stamps.append(time.process_time()))
        return {"before": before, "peak": peak_mb(), "epoch_cpu_s": median(np.diff(stamps).tolist())}


def child() -> None:
    """Measure what the command line names."""
    json.dump(measure(sys.argv[1], Path(sys.argv[2])), sys.stdout)


def main() -> None:
    """Measure trainers in turn, each in a process of its own, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m tools.quality_random.memory", description=__doc__)
    parser.add_argument("trainers", nargs="*", metavar="TRAINER", help=f"which (default {', '.join(TRAINERS)})")
    file = Path(os.environ.get("EMBSTORE_DATA", ".")) / FILE
    chosen = parser.parse_args().trainers or TRAINERS
    if not file.is_file():
        parser.error(f"no {FILE}: set EMBSTORE_DATA to the folder with the data sets")
    print(f"{'':22}before MB   peak MB   CPU s an epoch")
    for name in chosen:
        command = [sys.executable, "-c", _CHILD, name, str(file)]
        done = subprocess.run(command, env={**os.environ, **_ONE_THREAD}, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout)
        print(f"{name:22}{found['before']:9.0f}{found['peak']:10.0f}{found['epoch_cpu_s']:17.3f}", flush=True)


if __name__ == "__main__":
    main()
