"""Fetch MovieLens-100k for the demo and the tests: python tools/movielens.py [FOLDER].

The three files are taken out of the wheel of recbole 1.2.1, which carries them as its example data set.
The wheel is only unzipped, never installed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
INSIDE = "recbole/dataset_example/ml-100k"
FILES_SHA256 = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
LICENCE = """\
MovieLens-100k was collected by GroupLens Research at the University of Minnesota. It is for research: acknowledge it in
publications, do not redistribute it, and ask GroupLens before any commercial use.
F. M. Harper and J. A. Konstan (2015). The MovieLens Datasets: History and Context. ACM TiiS 5(4), 19."""


class FetchError(Exception):
    """The data could not be fetched, or is not what it should be."""


def fetch(target: Path) -> Path:
    """Return ``target`` holding the three files of MovieLens-100k; where it has them already, nothing is downloaded.

    Raises
    ------
    FetchError
        If the wheel cannot be downloaded or is not the one that was expected.
    """
    if not _is_complete(target):
        with tempfile.TemporaryDirectory() as folder:
            unpack(download(Path(folder)), target)
    return target


def download(folder: Path) -> Path:
    """Return the wheel, downloaded into ``folder`` by pip from whatever index pip is set up to use.

    Raises
    ------
    FetchError
        If pip fails; the message ends with pip's own last line.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--retries", "2"]
    command += ["--only-binary", ":all:", "--dest", str(folder), "recbole==1.2.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not (folder / WHEEL).is_file():
        lines = done.stderr.strip().splitlines() or ["pip gave no reason"]
        msg = f"{WHEEL}: pip could not download it; check the network and pip's index settings, then try again ({lines[-1]})"
        raise FetchError(msg)
    return folder / WHEEL


def unpack(wheel: Path, target: Path) -> None:
    """Write the three files of ``wheel`` into ``target``, each whole or not at all.

    Raises
    ------
    FetchError
        If the wheel is not, byte for byte, the one that was expected; nothing is written then.
    """
    found = _sha256(wheel.read_bytes())
    if found != WHEEL_SHA256:
        msg = f"{wheel.name}: sha256 {found}, expected {WHEEL_SHA256}; it is damaged or another file, so nothing was written"
        raise FetchError(msg)
    target.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES_SHA256:
            _write(target / name, archive.read(f"{INSIDE}/{name}"))


def _is_complete(target: Path) -> bool:
    return all((target / n).is_file() and _sha256((target / n).read_bytes()) == h for n, h in FILES_SHA256.items())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main() -> int:
    """Fetch into the folder named on the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Fetch MovieLens-100k.", epilog=LICENCE)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(".cache/ml-100k"), help="default: %(default)s")
    folder = parser.parse_args().folder
    try:
        fetch(folder)
    except (FetchError, OSError) as error:
        print(f"movielens: {error}", file=sys.stderr)
        return 1
    print(f"{folder}\n{LICENCE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
