"""One task in a process of its own: ``python -m tools.quality.worker``, told in JSON on stdin, answers in JSON on stdout."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.quality.measures import measure, popularity
from tools.quality.protocol import DATA_SETS, load, load_inner
from tools.quality.scan import scan


def run(task: str, data: str, folder: Path, *, seed: int) -> Any:
    """Return what a task comes to: ``"measure"``, ``"popularity"``, or ``"scan"``, which is on the inner parts."""
    if task == "scan":
        return scan(load_inner(DATA_SETS[data], folder), seed=seed)
    parts = load(DATA_SETS[data], folder)
    with tempfile.TemporaryDirectory(prefix="embstore-quality-") as stores:
        return popularity(parts, Path(stores)) if task == "popularity" else measure(parts, Path(stores), seed=seed)


def main() -> None:
    """Run one task."""
    job = json.load(sys.stdin)
    json.dump(run(job["task"], job["data"], Path(job["folder"]), seed=job["seed"]), sys.stdout)


if __name__ == "__main__":
    main()
