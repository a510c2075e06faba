"""Trainers by name, ours and strangers'; a plug-in is installed by pip and used in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

import embstore
from embstore import Interactions, UnknownTrainerError
from embstore.registry import installed_trainers, trainer_of
from embstore.trainer import settings_of, with_settings
from tests.plugin.tinymf import TinyMF
from trainers.popularity import Popularity

PLUGIN = Path(__file__).parent / "plugin"
PAIRS = Interactions([1, 1, 2, 3], ["a", "b", "b", "c"])

_FIT = """
import sys, embstore
from embstore import Interactions
trainer = embstore.find_trainer("tinymf")(dim=2, epochs=1)
store = embstore.create(sys.argv[1])
version = embstore.fit(store, trainer, Interactions([1, 1, 2, 3], ["a", "b", "b", "c"]), message="by a plug-in")
print(trainer.__module__, sys.modules[trainer.__module__].__file__)
"""
_RECOMMEND = """
import sys, embstore
print(embstore.recommend(embstore.open(sys.argv[1]).at(), [3])["item"].tolist())
"""
_FIND = "import sys, embstore; embstore.find_trainer(sys.argv[1])"


def _run(code: str, *arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in an interpreter of its own, in the folder ``cwd``, with ``path`` before all that is installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {} if path is None else {"PYTHONPATH": str(path)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def _wheel(folder: Path) -> Path:
    """Return the plug-in as a wheel, made from its pyproject.toml; pip can install that without any other package."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stem = f"{project['name'].replace('-', '_')}-{project['version']}"
    entries = project["entry-points"]["embstore.trainers"]
    files = {
        "tinymf.py": (PLUGIN / "tinymf.py").read_text(encoding="utf-8"),
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/entry_points.txt": _entry_points(entries),
    }
    files[f"{stem}.dist-info/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{stem}.dist-info/RECORD"])
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return folder / f"{stem}-py3-none-any.whl"


def _entry_points(entries: dict[str, str]) -> str:
    return "[embstore.trainers]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())


def _distribution(folder: Path, name: str, entries: dict[str, str]) -> None:
    """Make a folder look as if a distribution with these entry points were installed in it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(_entry_points(entries), encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder where this process looks for distributions and modules first."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_built_in_is_found() -> None:
    """A built-in trainer comes in by the door of all trainers."""
    assert embstore.find_trainer("popularity") is Popularity
    assert installed_trainers()["popularity"].startswith("embstore ")


def test_packages_say_that_they_are_typed() -> None:
    """Type checkers believe the annotations of both packages."""
    assert all((files(package) / "py.typed").is_file() for package in ("embstore", "trainers"))


def test_unknown_name_lists_the_known() -> None:
    """A name that there is not is told with those that there are."""
    with pytest.raises(UnknownTrainerError, match=r"trainer 'popularty': there is .*popularity"):
        embstore.find_trainer("popularty")


def test_installed_plugin_trains_and_recommends(tmp_path: Path) -> None:
    """A plug-in that pip installed is found by name, and by the lineage of what it trained in another process."""
    site, store = tmp_path / "site", str(tmp_path / "store")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(site), str(_wheel(tmp_path))], check=True)
    fitted = _run(_FIT, store, cwd=tmp_path, path=site)
    assert (fitted.stderr, fitted.stdout) == ("", f"tinymf {site / 'tinymf.py'}\n")
    recommended = _run(_RECOMMEND, store, cwd=tmp_path, path=site)
    assert (recommended.stderr, sorted(json.loads(recommended.stdout.replace("'", '"')))) == ("", ["a", "b"])
    without = _run(_RECOMMEND, store, cwd=tmp_path)
    assert "UnknownTrainerError: trainer 'tinymf': there is " in without.stderr


def test_folder_that_hides_the_built_ins_is_told(tmp_path: Path) -> None:
    """A folder called trainers where one happens to stand is neither imported nor taken for ours."""
    package = tmp_path / "trainers"
    package.mkdir()
    (package / "__init__.py").write_text("open('imported', 'w').close()\n", encoding="utf-8")
    found = _run(_FIND, "popularity", cwd=tmp_path)
    assert f"UnknownTrainerError: {package} hides the built-in trainers" in found.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trainers"]


def test_folder_without_init_hides_nothing(tmp_path: Path) -> None:
    """A folder called trainers that is no package does not come before ours."""
    (tmp_path / "trainers").mkdir()
    found = _run(_FIND, "popularity", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")


def test_broken_plugin_is_told(place: Path) -> None:
    """What a plug-in lacks is said with its name and the package that brought it."""
    (place / "torn_plugin.py").write_text("import a_module_that_is_not_there\n", encoding="utf-8")
    _distribution(place, "torn", {"torn": "torn_plugin:Torn", "absent": "torn_plugin_2:Torn"})
    (place / "torn_plugin_2.py").write_text("Thorn = 1\n", encoding="utf-8")
    with pytest.raises(UnknownTrainerError, match=r"'torn' of torn 1\.0 cannot be imported: No module named 'a_module_that"):
        embstore.find_trainer("torn")
    with pytest.raises(UnknownTrainerError, match=r"'absent' of torn 1\.0 cannot be imported: .*has no attribute 'Torn'"):
        embstore.find_trainer("absent")


def test_what_is_no_trainer_of_that_name_is_told(place: Path) -> None:
    """An entry point leads to a dataclass that calls itself by the entry point's name."""
    text = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Other:\n    name: str = 'other'\n"
    (place / "misnamed_plugin.py").write_text(text, encoding="utf-8")
    _distribution(place, "misnamed", {"misnamed": "misnamed_plugin:Other", "other": "misnamed_plugin:Other"})
    with pytest.raises(UnknownTrainerError, match=r"misnamed_plugin:Other is no dataclass with name = 'misnamed'"):
        embstore.find_trainer("misnamed")
    assert embstore.find_trainer("other").__name__ == "Other"


def test_name_brought_twice_is_told(place: Path) -> None:
    """Of two packages with a trainer of one name neither is taken."""
    for name in ("first", "second"):
        _distribution(place, name, {"doubled": f"{name}_plugin:Doubled"})
    with pytest.raises(UnknownTrainerError, match=r"'doubled': first 1\.0 and second 1\.0 both bring one"):
        embstore.find_trainer("doubled")


def test_settings_make_the_trainer_again() -> None:
    """Settings that are not given keep their defaults; one that there is not is told with those that there are."""
    assert with_settings(TinyMF, {"dim": 8}) == TinyMF(dim=8)
    assert with_settings(TinyMF, settings_of(TinyMF(lr=0.5))) == TinyMF(lr=0.5)
    with pytest.raises(UnknownTrainerError, match=r"setting dims of trainer 'tinymf': it has dim, epochs, lr, l2, seed"):
        with_settings(TinyMF, {"dims": 8})


def test_lineage_names_the_trainer() -> None:
    """The newest training counts, also below versions that no trainer made."""
    store = embstore.create("memory://registry-lineage")
    with pytest.raises(embstore.InvalidInputError, match="no version up to here records a trainer; pass trainer="):
        trainer_of(store.at())
    first = embstore.fit(store, Popularity(0.5), PAIRS, message="count")
    with store.checkout() as work:
        work.append("user", [9])
        work.commit("one more user")
        assert trainer_of(work) == Popularity(0.5)
    assert trainer_of(store.at()) == Popularity(0.5)
    embstore.fit(store, Popularity(0.25), PAIRS, message="count again")
    assert trainer_of(store.at()) == Popularity(0.25)
    assert trainer_of(store.revert(first.id)) == Popularity(0.5)
