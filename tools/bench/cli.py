"""Starting up: the help of the command line, and the import of the package."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from tools.bench.figures import Cell, Figure, Grid, Result, Settings
from tools.bench.timing import Stopwatch, run_command, run_python

TIMES = 5
HEAVY = ("numpy", "scipy", "pandas", "pyarrow", "torch", "zarr", "icechunk", "click", "rich")
BARE, IMPORT, HELP = "bare Python", "import embstore", "embstore --help"


def run(settings: Settings) -> Result:
    """Time fresh processes, and list what they load."""
    commands = {
        BARE: [sys.executable, "-c", "pass"],
        IMPORT: [sys.executable, "-c", "import embstore"],
        HELP: [str(Path(sysconfig.get_path("scripts")) / "embstore"), "--help"],
    }
    watch = Stopwatch()
    for _ in range(TIMES):
        for name, command in commands.items():
            with watch.time(name):
                run_command(command)
    loaded = {IMPORT: _loaded("import embstore"), HELP: _loaded(_HELP)}
    lines: list[list[Cell]] = [[name, watch.cell(name), ", ".join(loaded.get(name, [])) or "none"] for name in commands]
    return Result(
        "cli: fresh processes",
        [
            Figure("embstore --help, median", watch.median(HELP), "s", 0.3),
            Figure("import embstore, median", watch.median(IMPORT), "s"),
        ],
        [Grid("median (minimum), s", ["", "seconds", "heavy packages it loads"], lines)],
    )


_HELP = """
import contextlib, io, sys
from embstore.cli import main
sys.argv = ["embstore", "--help"]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
"""


def _loaded(code: str) -> list[str]:
    """Return the heavy packages that are loaded after running ``code``."""
    listing = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    return run_python("-c", listing).split()
