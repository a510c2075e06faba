"""``expire`` and ``gc``: told first, done with --yes, and what they say of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import embstore
from tests.cli_running import error_of, json_of, make_store, run, text_of


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store to be copied."""
    path = tmp_path_factory.mktemp("cli") / "store"
    make_store(path)
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """Return a store that the test may change."""
    return Path(shutil.copytree(template, tmp_path / "store"))


def log(path: Path) -> list[str]:
    """Return the first lines of the messages of main."""
    return [version.message.partition("\n")[0] for version in embstore.open(path).log()]


def test_expire_tells_first(path: Path) -> None:
    """Without --yes nothing happens, and it is said what would; the versions are listed newest first."""
    text = text_of("expire", path, "--older-than", "0s")
    assert 5 == len(log(path))
    assert text.endswith("nothing was changed; --yes does it\n")
    assert [line.split("  ")[-1] for line in text.splitlines() if line[:5].isupper()] == ["tuesday", "monday", "create the store"]
    assert "(dry run)" in text.splitlines()[0]
    assert "nothing was changed" not in text_of("expire", path, "--older-than", "0s", "-q")


def test_expire_does_it(path: Path) -> None:
    """With --yes the log ends; tags keep theirs unless they are named."""
    done = json_of("expire", path, "--older-than", "0s", "--yes")
    assert (["forget 3"], ["exp", "main"], ["v1"]) == (log(path), *(sorted(names) for names in _refs(path)))
    assert (3, 2, []) == (done["counts"]["expired"], done["counts"]["kept"], done["tags"])
    assert ["tuesday", "monday", "create the store"] == [version["message"] for version in done["expired"]]
    done = json_of("expire", path, "--older-than", "30d", "--tag", "v1", "--yes")
    assert (["v1"], set()) == (done["tags"], _refs(path)[1])
    assert 3 == error_of("expire", path, "--older-than", "30d", "--tag", "v1")[0]


def _refs(path: Path) -> tuple[set[str], set[str]]:
    store = embstore.open(path)
    return set(store.branches()), set(store.tags())


def test_gc_tells_first_and_then_frees(path: Path) -> None:
    """What it says it would free is what it frees."""
    run("expire", path, "--older-than", "0s", "--yes")
    before = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    told = json_of("gc", path, "--older-than", "0s")
    assert "nothing was deleted; --yes does it" in text_of("gc", path, "--older-than", "0s")
    done = json_of("gc", path, "--older-than", "0s", "--yes")
    after = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert (told["counts"], before - after) == (done["counts"], done["counts"]["bytes"])
    assert (True, [], 3) == (done["ok"], done["problems"], done["counts"]["snapshots"])
    assert "0 B" in text_of("gc", path, "--older-than", "0s", "--yes")


def test_gc_names_who_is_in_the_way(path: Path) -> None:
    """A pinned version is named with its holder."""
    with embstore.open(path).at().pin() as version:
        assert f"has kept {version.id} since" in text_of("gc", path, "--older-than", "7d")
        assert [version.id] == [lease["version"] for lease in json_of("gc", path, "--older-than", "7d")["leases"]]


def test_a_damaged_store(path: Path) -> None:
    """A dry run names what is not whole and exits with 6; --yes deletes nothing."""
    kept = embstore.open(path).at("v1").id
    (path / "snapshots" / kept).write_bytes((path / "snapshots" / embstore.open(path).at("main~1").id).read_bytes())
    for arguments in ((), ("--yes",)):
        before = sorted(path.rglob("*"))
        done = run("gc", path, "--older-than", "0s", *arguments)
        assert (6, before) == (done.exit_code, sorted(path.rglob("*")))


@pytest.mark.parametrize("verb", ["expire", "gc"])
def test_wrong_input(path: Path, verb: str) -> None:
    """An age must be given, and be one."""
    assert (2, "--older-than 'soon': give an age such as 30d or 12h") == error_of(verb, path, "--older-than", "soon")
    assert 2 == run(verb, path).exit_code
    assert 3 == error_of(verb, path / "nowhere", "--older-than", "30d")[0]
