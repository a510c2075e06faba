"""What the tools that measure quality share: where the data is, and processes of their own with one thread."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tools.quality.protocol import DATA_SETS

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")


def answer(module: str, *arguments: str, job: object = None) -> Any:
    """Return what ``python -m module`` answers in JSON, told ``arguments`` and, on its stdin, ``job``."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, **ONE_THREAD}
    done = subprocess.run(command, input=json.dumps(job), env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def data_folder(parser: argparse.ArgumentParser, names: Iterable[str] = ("ml-100k",)) -> Path:
    """Return the folder with these data sets; where one is missing, end as for a wrong argument."""
    folder = Path(os.environ.get("EMBSTORE_DATA", "."))
    missing = [DATA_SETS[name].file for name in names if not (folder / DATA_SETS[name].file).is_file()]
    if missing:
        parser.error(f"no {', '.join(missing)} in {folder}: set EMBSTORE_DATA to the folder with the data sets")
    return folder


def chosen_data(prog: str, description: str | None) -> argparse.Namespace:
    """Return what the command line of a tool says that measures data sets with several seeds, or scans settings."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--data", choices=[*DATA_SETS, "both"], default="both", help="which pairs (default both)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 1 on (default 3)")
    parser.add_argument("--scan", action="store_true", help="try the grid of settings on the inner parts instead")
    parser.add_argument("--json", type=Path, help="a file to write all figures to")
    found = parser.parse_args()
    if found.seeds < 1:
        parser.error(f"--seeds {found.seeds}: give a whole number from 1")
    found.names = list(DATA_SETS) if found.data == "both" else [found.data]
    found.folder = data_folder(parser, found.names)
    return found
