"""The demo: months cut from real pairs, figures that add up, and a store that can be looked at afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import embstore
from embstore import Interactions, InvalidInputError
from embstore.cli import main
from embstore.demo import Retraining, months


def interactions(times: object) -> Interactions:
    """Return pairs of ten users at these times."""
    n = len(np.asarray(times))
    return Interactions(user_ids=np.arange(n) % 10, item_ids=np.arange(n) % 7, ratings=None, times=np.asarray(times))


def run_cli(*arguments: object) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of one call."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_months_are_those_of_the_calendar(unit: int) -> None:
    """Times in seconds, milli-, micro- and nanoseconds give the same months (UTC)."""
    seconds = np.array([875_000_000, 875_664_000, 875_663_999, 893_286_638])
    found = {name: part.times.tolist() for name, part in months(interactions(seconds * unit)) if part.times is not None}
    expected = {"1997-09": [875_000_000, 875_663_999], "1997-10": [875_664_000], "1998-04": [893_286_638]}
    assert {name: [t * unit for t in times] for name, times in expected.items()} == found


def test_months_need_times() -> None:
    """Without times, or with numbers that are no times, the error says what to give."""
    with pytest.raises(InvalidInputError, match="with times"):
        list(months(Interactions(user_ids=np.array([1]), item_ids=np.array([1]), ratings=None, times=None)))
    with pytest.raises(InvalidInputError, match="since 1970"):
        list(months(interactions([-5, 1])))


def test_figures_of_a_month_are_those_of_its_version() -> None:
    """Users, items and full bytes of each month are what the store says of that version."""
    month = 31 * 86_400
    pairs = interactions(np.concatenate([np.arange(100), np.arange(150) + 2 * month]) + 10_000_000)
    pairs = Interactions(
        user_ids=pairs.user_ids + (np.arange(250) > 200) * 5, item_ids=pairs.item_ids, ratings=None, times=pairs.times
    )
    bpr, popularity = embstore.find_trainer("bpr"), embstore.find_trainer("popularity")
    store, baseline = embstore.create("memory://demo"), embstore.create("memory://demo-baseline")
    done = list(Retraining(store, bpr(dim=4, epochs=2), baseline, popularity()).run(pairs))
    assert [(10, 10), (15, 5)] == [m.users for m in done]
    assert [(7, 7), (7, 0)] == [m.items for m in done]
    row = 4 * 4 * 3 + 4
    assert 15 * row + 7 * (row + 16) + 8 * (15 + 7) == done[-1].full_bytes
    assert ["retrain on 1970-06", "retrain on 1970-04"] == [v.message for v in store.log()][:2]
    assert done[0].returning.users == 0
    assert 0 < done[1].returning.users


def test_the_demo_shows_and_leaves_a_store(tmp_path: Path, data_dir: Path) -> None:
    """On MovieLens-100k: a line a month, the log, a diff, and titles of films for a new user; versions stay small."""
    data = data_dir / "ml-100k"
    code, out, err = run_cli(
        "demo", tmp_path / "store", "--data", data / "ml-100k.inter", "--titles", data / "ml-100k.item", "-q"
    )
    assert (0, "") == (code, err)
    assert all(f"{month}  " in out for month in ("1997-09", "1997-12", "1998-04"))
    assert "943 (+74)" in out
    assert "drift mean" in out or "drift" in out
    store = embstore.open(tmp_path / "store")
    assert 9 == len(list(store.log()))
    assert store.verify().ok
    ratios = [float(line.split(":")[1].split("x")[0]) for line in out.splitlines() if ": " in line and " x" in line]
    assert all(ratio <= 1.3 for ratio in ratios)
    assert 2 == len(ratios)


def test_the_demo_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    """A place that is taken, a missing file and pairs without times end with one line and their exit code."""
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("user,item\n1,2\n")
    assert 2 == run_cli("demo", tmp_path / "new", "--data", pairs)[0]
    assert 2 == run_cli("demo", tmp_path / "new", "--data", tmp_path / "missing.csv")[0]
    assert 5 == run_cli("demo", tmp_path, "--data", pairs)[0]
