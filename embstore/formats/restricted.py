"""Plain data out of a pickle that nobody vouches for: read in a process of its own, where no name in it is ever looked up."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

from embstore.errors import InvalidInputError

_CHILD = Path(__file__).with_name("unpickling.py")
_SECONDS = 120
_MEMORY_BYTES = 4 << 30
# JSON has at most this many bytes for each of a pickle that says nothing twice, and a little for the rest.
_GROWTH = 16
_LEAST_BYTES = 1 << 20


def read_plain(file: BinaryIO, *, what: str, seconds: int = _SECONDS, memory_bytes: int = _MEMORY_BYTES) -> Any:
    """Return what a pickle holds: mappings, lists, whole numbers, floats and text.

    A numpy scalar becomes a number or text, an array of one dimension a list. Anything else is refused. The pickle is read in
    a process of its own with limits on time, memory and output, without files to open or processes to start, by an unpickler
    that imports nothing; back comes JSON.

    Parameters
    ----------
    file
        Of the operating system, at the beginning of the pickle.
    what
        How messages call it.
    seconds, memory_bytes
        The most that the process may take.

    Raises
    ------
    InvalidInputError
        For a pickle that holds or asks for anything else, takes too much, or is damaged.
    """
    n_bytes = _bytes_left(file)
    limits = [seconds, memory_bytes, _LEAST_BYTES + _GROWTH * n_bytes]
    # -I -S: neither the environment nor installed packages have a say in what this process runs.
    command = [sys.executable, "-I", "-S", str(_CHILD), *map(str, limits)]
    with tempfile.TemporaryFile() as out:
        try:
            done = subprocess.run(command, stdin=file, stdout=out, stderr=subprocess.PIPE, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise _refused(what, f"it takes more than {seconds} seconds to read") from error
        if done.returncode < 0:
            raise _refused(what, "it takes more time or memory to read than it may have")
        if done.returncode:
            raise _refused(what, (done.stderr.decode(errors="replace").strip().splitlines() or ["it cannot be read"])[-1])
        out.seek(0)
        return json.load(out, object_hook=lambda pairs: dict(zip(pairs["keys"], pairs["values"], strict=True)))


def _bytes_left(file: BinaryIO) -> int:
    start = file.tell()
    n_bytes = file.seek(0, 2) - start
    file.seek(start)
    return n_bytes


def _refused(what: str, reason: str) -> InvalidInputError:
    return InvalidInputError(f"{what}: no pickle of plain data: {reason}; nothing of it is run or imported")
