"""What must be measured in a process of its own: ``python -m tools.bench.fresh restore|peak PEER FOLDER``; prints JSON."""

from __future__ import annotations

import json
import resource
import sys
import zlib
from pathlib import Path

import numpy as np

from tools.bench.peers import PEERS
from tools.bench.timing import Stopwatch
from tools.bench.workload import ENTITIES, State


def digest(state: State) -> int:
    """Return a number that differs where one byte of the state does."""
    value = 0
    for key in sorted(state):
        value = zlib.crc32(np.ascontiguousarray(state[key]).view(np.uint8).data, value)
    return value


def peak_bytes() -> int:
    """Return the most memory that this process has had; on Linux without what it inherited from its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def restore(peer: str, folder: Path) -> dict[str, float]:
    """Time the first restore of a process."""
    watch = Stopwatch()
    with watch.time("restore"):
        state = PEERS[peer](folder).restore()
    return {"seconds": watch.median("restore"), "digest": digest(state)}


def peak(peer: str, folder: Path) -> dict[str, float]:
    """Restore everything, change as many rows as a day does, store them; return the memory it took."""
    before = peak_bytes()
    kept = PEERS[peer](folder)
    state = kept.restore()
    rng = np.random.default_rng(1)
    rows = {}
    for name, entity in ENTITIES.items():
        n = len(state[name, "ids"])
        rows[name] = rng.choice(n, int(n * entity.changed), replace=False)
        for column in ("values", "exp_avg", "exp_avg_sq"):
            state[name, column][rows[name]] *= 0.5
    kept.store_rows(state, rows)
    return {"bytes": peak_bytes() - before, "arrays": sum(array.nbytes for array in state.values())}


if __name__ == "__main__":
    action, name, where = sys.argv[1:]
    print(json.dumps({"restore": restore, "peak": peak}[action](name, Path(where))))
