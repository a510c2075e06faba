"""What needs torch says so where torch is not installed, and breaks nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_WITHOUT = "import sys; sys.modules['torch'] = None; import inspect, embstore\n"


def without_torch(code: str) -> str:
    """Return what a program writes that runs where there is no torch."""
    done = subprocess.run([sys.executable, "-c", _WITHOUT + code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("call", ["bind(None, None, None, {})", "share(None)", "Rows('item', axis=1)", "Binding()", "Shard()"])
def test_a_name_that_needs_torch_says_what_to_install(call: str) -> None:
    """Any of them can be imported and looked at; its first use is an error of our tree that is an ImportError too."""
    name = call.partition("(")[0]
    told = without_torch(
        f"from embstore import {name}\n"
        f"try: embstore.{call}\n"
        "except ImportError as error: print(isinstance(error, embstore.InvalidInputError), error)"
    )
    assert f"True embstore.{name} needs torch: pip install embstore[torch]\n" == told


def test_looking_at_everything_needs_no_torch() -> None:
    """The package can be inspected, and what it has not is no attribute."""
    code = "names = dict(inspect.getmembers(embstore)); print('bind' in names, 'fit' in names, isinstance(3, names['Rows']))"
    assert "True True False\n" == without_torch(code)


def test_a_trainer_that_needs_torch_says_what_to_install(tmp_path: Path) -> None:
    """A trainer of networks is told from one that is broken; those in numpy do without."""
    code = (
        "for name in ('bpr', 'mult_vae', 'deepfm'):\n"
        "    try: print(embstore.find_trainer(name).name)\n"
        "    except embstore.UnknownTrainerError as error: print(error)"
    )
    told = without_torch(code).splitlines()
    assert ["bpr", "mult_vae"] == told[:2]
    assert told[2].endswith("needs torch: pip install embstore[torch]")
    code = f"from embstore.cli import main; main(['train', {str(tmp_path / 's')!r}, 'x.csv', '-m', 'm', '--trainer', 'deepfm'])"
    command = [sys.executable, "-c", _WITHOUT + f"embstore.create({str(tmp_path / 's')!r})\n" + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 2 == done.returncode
    assert done.stderr.endswith("needs torch: pip install embstore[torch]\n")
