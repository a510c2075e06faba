"""Pickles read as plain data, by a process of its own in which nothing of them is run."""

from __future__ import annotations

import pickle
import tempfile
from typing import Any

import numpy as np
import pytest

from embstore import InvalidInputError
from embstore.formats.restricted import read_plain
from tests.librecommender_saved import objects


def nested(depth: int, width: int) -> Any:
    """Return lists in lists, each with the next one several times."""
    inner: Any = [1]
    for _ in range(depth):
        inner = [inner] * width
    return inner


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pickle.dumps(nested(300, 1)), "nested too deeply"),
        (pickle.dumps({0: ["x" * 5000] * 5000}), "File too large"),
        (b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"x.", "memory"),
        (pickle.dumps({1: (2, 3)}), "holds a tuple"),
        (pickle.dumps({1: b"x"}), "holds a bytes"),
        (pickle.dumps(np.zeros((2, 2))), "shape"),
        (pickle.dumps([float("nan")]), "JSON"),
        (b"cos\nsystem\n.", "asks for os.system"),
        (b"\x80\x04N\x8c\x01a\x93.", "STACK_GLOBAL"),
        (b"\x80\x04]q\x00", "exhausted|EOF|Ran out"),
        (b"", "Ran out of input"),
    ],
)
def test_a_pickle_of_anything_else_is_refused(data: bytes, reason: str) -> None:
    """Calls, other types, what needs too much room and damaged pickles end as one error."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        with pytest.raises(InvalidInputError, match=reason):
            read_plain(file, what="this", memory_bytes=1 << 30)


def test_a_pickle_has_its_time() -> None:
    """A few bytes that would be an endless list end as an error when their time is over."""
    with tempfile.TemporaryFile() as file:
        file.write(pickle.dumps(nested(60, 2)))
        file.seek(0)
        with pytest.raises(InvalidInputError, match="seconds|time or memory"):
            read_plain(file, what="this", seconds=1)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read(protocol: int) -> None:
    """Mappings, lists, numbers and text come back, with numpy's scalars and arrays as lists and numbers."""
    plain = {3: [1, 2.5, "a"], "k": {-1: []}}
    arrays = (
        {"i": np.array([1, -2], np.int16), "s": np.int64(7), "t": np.str_("né"), "o": objects("a", 3)} if protocol > 2 else {}
    )
    with tempfile.TemporaryFile() as file:
        file.write(pickle.dumps({**plain, **arrays}, protocol=protocol))
        file.seek(0)
        expected = {**plain, **({"i": [1, -2], "s": 7, "t": "né", "o": ["a", 3]} if arrays else {})}
        assert read_plain(file, what="this") == expected
