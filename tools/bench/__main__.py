"""Run the benchmark: ``python -m tools.bench [SECTION …] [--days N] [--scale X] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tools.bench import append, cli, diff, small, update, w
from tools.bench.figures import Result, Settings
from tools.bench.timing import note

SECTIONS: dict[str, Callable[[Settings], Result]] = {
    "w": w.run,
    "append": append.run,
    "update": update.run,
    "diff": diff.run,
    "small": small.run,
    "cli": cli.run,
}
LIBRARIES = ("icechunk", "zarr", "numpy", "torch")


def machine() -> dict[str, Any]:
    """Return what was measured on."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)} or all (default)", default=["all"])
    parser.add_argument("--days", type=int, default=10, help="days of workload W (default 10)")
    parser.add_argument("--scale", type=float, default=1.0, help="rows of all tables over the full number, to try it out")
    parser.add_argument("--folder", type=Path, help="where stores are made (default: the system's folder for temporary files)")
    parser.add_argument("--json", type=Path, help="a file to write all figures to")
    found = parser.parse_args()
    if found.days < 1:
        parser.error(f"--days {found.days}: give 1 or more")
    if not 0 < found.scale < math.inf:
        parser.error(f"--scale {found.scale}: give a number above zero")
    if found.folder and not found.folder.is_dir():
        parser.error(f"--folder {found.folder}: no such folder")
    if found.json and not found.json.parent.is_dir():
        parser.error(f"--json {found.json}: no such folder")
    unknown = set(found.sections) - {*SECTIONS, "all"}
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    return found


def main() -> None:
    """Run the sections that the command line names and print what came of each."""
    chosen = _arguments()
    names = list(SECTIONS) if "all" in chosen.sections else chosen.sections
    document: dict[str, Any] = {"machine": machine(), "days": chosen.days, "scale": chosen.scale, "sections": {}}
    print("  ".join(f"{key} {value}" for key, value in document["machine"].items()))
    for name in names:
        note(name)
        with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="embstore-bench-") as folder:
            result = SECTIONS[name](Settings(Path(folder), chosen.days, chosen.scale))
        document["sections"][name] = result.to_dict()
        print(f"\n{result}", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
