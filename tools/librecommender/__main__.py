"""Compare with LibRecommender: ``python -m tools.librecommender same|chain --python PYTHON``; see README.md."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from tools.librecommender.ours import FILE, THEIR_EPOCHS, THEIR_SETTINGS, Side, Theirs, generations, our_chains, their_chain
from tools.librecommender.same import same


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.librecommender", description=__doc__)
    parser.add_argument("task", choices=["same", "chain"])
    parser.add_argument("--python", required=True, help="the interpreter that has LibRecommender")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default 3)")
    parser.add_argument("--inner", action="store_true", help="inside the first half alone, to choose settings on")
    parser.add_argument("--set", action="append", default=[], help="a setting of LibRecommender's BPR, as lr=0.005")
    found = parser.parse_args()
    found.data = Path(os.environ.get("EMBSTORE_DATA", "."))
    if not (found.data / FILE).is_file():
        parser.error(f"no {FILE} in {found.data}: set EMBSTORE_DATA to the folder with the data sets")
    return found


def _chains(python: str, data: Path, seed: int, *, inner: bool, changed: dict[str, Any]) -> list[Side]:
    parts = generations(data, inner=inner)
    settings = {**THEIR_SETTINGS, **changed, "seed": seed}
    epochs = (settings.pop("n_epochs", THEIR_EPOCHS[0]), *[settings.pop("later_epochs", THEIR_EPOCHS[1])] * 2)
    with tempfile.TemporaryDirectory(prefix="embstore-librecommender-") as folder:
        theirs = their_chain(Theirs(python, Path(folder)), parts, settings=settings, epochs=epochs)
        return [*theirs, *our_chains(Path(folder), parts, seed=seed)]


def _table(runs: list[list[Side]]) -> list[str]:
    """Return the figures of all seeds: means, and of recall the lowest and the highest too."""
    columns = ("", "generation", "recall@20 old", "recall@20 new", "MB on disk", "CPU s", "consumed shown")
    lines = [columns, ("---",) * len(columns)]
    for sides in zip(*runs, strict=True):
        name, numbers = sides[0].name, range(len(sides[0].cpu_seconds))
        for number in numbers:
            recalls = [
                _spread([value for side in sides for value in getattr(side, who)[number : number + 1]]) for who in ("old", "new")
            ]
            shown = [n for side in sides for n in side.consumed_shown[number : number + 1]]
            lines.append((name, str(number + 1), *recalls, *_sizes(sides, [number]), str(sum(shown)) if shown else "-"))
        lines.append((name, "all", "", "", *_sizes(sides, numbers), ""))
    return [f"| {' | '.join(line)} |" for line in lines]


def _sizes(sides: Sequence[Side], numbers: Sequence[int]) -> tuple[str, str]:
    """Return megabytes and CPU seconds of some generations together, means of all seeds."""
    megabytes = mean(sum(side.n_bytes[number] for number in numbers) for side in sides) / 1e6
    return f"{megabytes:.2f}", f"{mean(sum(side.cpu_seconds[number] for number in numbers) for side in sides):.2f}"


def _spread(values: list[float]) -> str:
    known = [value for value in values if value == value]
    return f"{mean(known):.3f} ({min(known):.3f}-{max(known):.3f})" if known else "-"


def main() -> None:
    """Print what was asked for."""
    found = _arguments()
    if found.task == "same":
        with tempfile.TemporaryDirectory(prefix="embstore-librecommender-") as folder:
            for name, figure in same(Theirs(found.python, Path(folder)), found.data, generations(found.data, inner=False)):
                print(f"{name:45} {figure}", flush=True)
        return
    pairs = (text.partition("=") for text in found.set)
    changed = {name: float(value) if "." in value or "e" in value else int(value) for name, _, value in pairs}
    runs = [_chains(found.python, found.data, seed, inner=found.inner, changed=changed) for seed in range(1, found.seeds + 1)]
    print("\n".join(_table(runs)))


if __name__ == "__main__":
    main()
