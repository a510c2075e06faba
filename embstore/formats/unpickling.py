"""Run as a program of its own, never imported: a pickle on standard input, plain data as JSON on standard output.

What a pickle may ask for by name is answered with functions of this file, which only put numbers and texts together; any other
name ends the program. It needs no package, so it runs without site-packages and without the caller's environment, and gives
itself limits before it reads: ``unpickling.py SECONDS MEMORY_BYTES OUTPUT_BYTES``.
"""

from __future__ import annotations

import json
import pickle
import resource
import struct
import sys
from collections.abc import Callable
from typing import Any

_DEPTH = 200
_LEAVES = {int, float, str}
_FORMATS = {"i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f4": "f", "f8": "d"}


class _Refused(Exception):
    """The pickle has what is no plain data."""


class _Dtype:
    """What stands for a numpy dtype: its code, and the byte order that its state brings."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code.lstrip("<>=|"), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def read(self, raw: Any) -> list[Any]:
        """Return the values in ``raw``: bytes, or a list of objects."""
        if self.code.startswith("O"):
            return list(raw)
        if self.code.startswith("U"):
            return self._texts(bytes(raw))
        if self.code not in _FORMATS:
            msg = f"an array of {self.code[:20]!r}"
            raise _Refused(msg)
        n_values = len(raw) // int(self.code[1:])
        return list(struct.unpack(f"{self.order}{n_values}{_FORMATS[self.code]}", raw))

    def _texts(self, raw: bytes) -> list[str]:
        # Not by a codec: Python would open a file for it.
        letters, width = struct.unpack(f"{self.order}{len(raw) // 4}I", raw), int(self.code[1:])
        return ["".join(map(chr, letters[at : at + width])).rstrip("\0") for at in range(0, len(letters), width)]


class _Array:
    """What stands for a numpy array of one dimension at most."""

    def __init__(self) -> None:
        self.values: list[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, _, raw = state
        self.values = _one_dimension(shape, dtype.read(raw))


def _one_dimension(shape: Any, values: list[Any]) -> list[Any]:
    if len(shape) > 1 or len(values) != (shape[0] if shape else 1):
        msg = f"an array of shape {shape!r:.40}"
        raise _Refused(msg)
    return values


def _from_buffer(buffer: Any, dtype: Any, shape: Any, _: Any) -> list[Any]:
    return _one_dimension(shape, dtype.read(buffer))


_ANSWERS: dict[str, Any] = {
    "numpy.ndarray": "ndarray",
    "numpy.dtype": lambda code, *_: _Dtype(code),
    "numpy.core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy.core.multiarray.scalar": lambda dtype, raw: dtype.read(raw)[0],
    "numpy.core.numeric._frombuffer": _from_buffer,
}


class _Restricted(pickle.Unpickler):
    """An unpickler that imports nothing."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return our own answer to a name."""
        name = f"{module_name.replace('numpy._core', 'numpy.core')}.{global_name}"
        if name not in _ANSWERS:
            msg = f"it asks for {name[:80]}"
            raise _Refused(msg)
        return _ANSWERS[name]


def _plain(value: Any) -> Any:
    """Return data for JSON: a mapping becomes its keys and its values, so that keys keep their types."""
    if type(value) is _Array and value.values is not None:
        value = value.values
    if type(value) in _LEAVES:
        return value
    if type(value) is list:
        return value if set(map(type, value)) <= _LEAVES else [_plain(item) for item in value]
    if type(value) is dict and set(map(type, value)) <= {int, str}:
        return {"keys": list(value), "values": _plain(list(value.values()))}
    msg = f"it holds a {type(value).__name__.lstrip('_')}"
    raise _Refused(msg)


def _limit(seconds: int, memory_bytes: int, output_bytes: int) -> None:
    limits = {"CPU": seconds, "AS": memory_bytes, "FSIZE": output_bytes, "CORE": 0, "NPROC": 0, "NOFILE": 0}
    for name, wanted in limits.items():
        which = getattr(resource, f"RLIMIT_{name}")
        most = resource.getrlimit(which)[1]
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(which, (limit, limit))
    sys.setrecursionlimit(_DEPTH)


def _run(read: Callable[[], Any]) -> int:
    try:
        sys.stdout.write(json.dumps(_plain(read()), allow_nan=False))
        sys.stdout.flush()
    except MemoryError:
        reason = "it needs more memory than it may have"
    except RecursionError:
        reason = "it is nested too deeply"
    except Exception as error:  # whatever a made-up pickle can raise
        reason = str(error) or type(error).__name__
    else:
        return 0
    sys.stderr.write(reason[:200])
    return 1


if __name__ == "__main__":
    _limit(*map(int, sys.argv[1:4]))
    sys.exit(_run(_Restricted(sys.stdin.buffer).load))
