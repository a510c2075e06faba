"""The demo: months cut from real pairs, figures that add up, and a store that can be looked at afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import embstore
from embstore import Interactions, InvalidInputError
from embstore.cli import main
from embstore.cli.output import size
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
    with pytest.raises(InvalidInputError, match="no pairs: "):
        list(months(Interactions(user_ids=[], item_ids=[], ratings=None, times=[])))
    with pytest.raises(InvalidInputError, match="give seconds, milli-, micro- or nanoseconds since 1970, or dates"):
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
    changed = embstore.open("memory://demo").diff("main~1", "main").tables.values()
    assert sum(len({id_ for t in changed if t.spec.entity == e for id_ in t.changed_ids.tolist()}) for e in ("user", "item")) == (
        done[-1].rows_changed
    )
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


DATED = "user,item,time\n" + "".join(f"{i % 5},{i % 7},{1 + i // 30 * 2_700_000}\n" for i in range(60))


def test_the_demo_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    """A place that is taken, a missing file and pairs that cannot be cut into months end with one line and an exit code."""
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(DATED)
    assert 5 == run_cli("demo", tmp_path, "--data", pairs)[0]
    new = tmp_path / "new"
    assert 2 == run_cli("demo", new, "--data", tmp_path / "missing.csv")[0]
    for text, told in (
        ("user,item\n1,2\n", "needs interactions with times"),
        ("user,item,time\n", "no pairs"),
        ("user,item,time\n1,2,-5\n", "since 1970"),
    ):
        pairs.write_text(text)
        code, out, err = run_cli("demo", new, "--data", pairs)
        assert (2, "") == (code, out)
        assert told in err
    assert not new.exists()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("empty.csv", "", "the file is empty"),
        ("blank.tsv", "\n\n", "the file is empty"),
        ("one.csv", "item\n1\n", "it has the columns item; give item (or item_id) and title"),
        ("other.txt", "item,title\n1,x\n", "the ending tells the format"),
    ],
)
def test_titles_that_cannot_be_used_are_told(tmp_path: Path, name: str, text: str, told: str) -> None:
    """A file of titles without titles is refused by its name before there is a store."""
    (tmp_path / "pairs.csv").write_text(DATED)
    (tmp_path / name).write_text(text)
    code, out, err = run_cli("demo", tmp_path / "new", "--data", tmp_path / "pairs.csv", "--titles", tmp_path / name)
    assert (2, "") == (code, out)
    assert name in err
    assert told in err
    assert not (tmp_path / "new").exists()


def test_a_store_in_memory_has_its_bytes_and_titles_are_titles(tmp_path: Path) -> None:
    """Where there are no files to count, versions say what they wrote; a column title comes before others that end so."""
    (tmp_path / "pairs.csv").write_text(DATED + "9,0,2700002\n")
    (tmp_path / "titles.csv").write_text("item,subtitle,title\n" + "".join(f"{i},wrong {i},right {i}\n" for i in range(7)))
    code, out, err = run_cli("demo", "memory://demo-bytes", "--data", tmp_path / "pairs.csv", "--titles", tmp_path / "titles.csv")
    assert (0, "") == (code, err)
    assert "right 0" in out
    assert "wrong" not in out
    summary = next(line for line in out.splitlines() if line.startswith("2 versions"))
    store = embstore.open("memory://demo-bytes")
    assert size(sum(version.lineage["bytes"] for version in store.log())) in summary
    assert "0.00 x" not in summary
