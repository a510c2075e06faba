"""One task in a process of its own: ``python -m tools.quality_als.worker``, told in JSON on stdin, answers in JSON on stdout."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tools.quality.protocol import DATA_SETS, load, load_inner
from tools.quality_als.measures import measure, scan


def main() -> None:
    """Run one task."""
    job = json.load(sys.stdin)
    data, source = DATA_SETS[job["data"]], Path(job["folder"])
    with tempfile.TemporaryDirectory(prefix="embstore-quality-") as folder:
        if job["task"] == "scan":
            found = scan(load_inner(data, source), points=job["points"], seed=job["seed"])
        else:
            found = measure(load(data, source), Path(folder), settings=job["settings"], seed=job["seed"])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
