"""Pairs come out of frames, files and matrices as they are there, and are split and ordered as documented."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, strategies as st

from embstore.errors import IdTypeError, InvalidInputError, UnknownIdError
from embstore.interactions import Interactions

ROWS = st.lists(st.tuples(st.integers(8, 11), st.integers(0, 5), st.integers(0, 4)), max_size=40)

ZIPPED = gzip.compress(b"user", mtime=0)


def _pairs(rows: list[tuple[int, int, int]], *, text: bool = False, times: bool = True) -> Interactions:
    """Return interactions of (user, item, time), with the position in ``rows`` as rating."""
    users, items, when = ([row[i] for row in rows] for i in range(3))
    return Interactions(list(map(str, users)) if text else users, items, np.arange(len(rows)), when if times else None)


def _positions(part: Interactions) -> list[Any]:
    return [] if part.ratings is None else part.ratings.tolist()


def _columns(pairs: Any) -> list[Any]:
    return [None if column is None else column.tolist() for column in list(vars(pairs).values())[:4]]


class _Ids(list[Any]):
    """Ids whose row is their place, as much of an id map as pairs need."""

    def rows(self, ids: Any, *, missing: Any = "raise") -> np.ndarray:
        if missing == "raise" and not set(ids.tolist()) <= set(self):
            raise UnknownIdError
        return np.array([self.index(i) if i in self else -1 for i in ids.tolist()], np.int64)


class _View:
    def ids(self, entity: str) -> _Ids:
        return _Ids({"user": ["b", "a"], "item": [5, 6, 7]}[entity])


@given(rows=ROWS, text=st.booleans(), times=st.booleans())
def test_ordered(rows: list[Any], text: bool, times: bool) -> None:
    """The order is time, user, item (text by code points), then as it was."""
    keys = [(row[2] if times else 0, str(row[0]) if text else row[0], row[1]) for row in rows]
    expected = sorted(range(len(rows)), key=keys.__getitem__)
    assert _positions(_pairs(rows, text=text, times=times).ordered()) == expected


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [([2, 0, 0], [2, 0, 0]), ([True, False, True], [0, 2]), (np.array([-1]), [2]), (slice(1, None), [1, 2]), ([], [])],
)
def test_take(chosen: Any, expected: list[int]) -> None:
    """Some pairs, with all their columns and the types these had."""
    taken = Interactions(["a", "b", "c"], [1, 2, 3], [0, 1, 2], [0, 0.5, 1]).take(chosen)
    assert _columns(taken) == [["abc"[p] for p in expected], [p + 1 for p in expected], expected, [p / 2 for p in expected]]
    assert taken.times is not None
    assert taken.times.dtype == np.float64


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "x"]), st.integers(4, 7))))
def test_matrix_of_known_pairs(pairs: list[tuple[str, int]]) -> None:
    """Known pairs are 1.0 however often they are there; read back, the matrix gives each once."""
    csr = Interactions([u for u, _ in pairs], [i for _, i in pairs]).to_csr(_View())
    known = sorted(({*pairs} & {(u, i) for u in "ba" for i in (5, 6, 7)}), key=lambda pair: (-ord(pair[0]), pair[1]))
    assert (csr.format, csr.shape, csr.has_canonical_format) == ("csr", (2, 3), True)
    back = _columns(Interactions.from_csr(csr, ["b", "a"], [5, 6, 7]))
    assert back == [[u for u, _ in known], [i for _, i in known], [1.0] * len(known), None]


def test_from_csr_leaves_out_zeros() -> None:
    """Values are ratings, duplicates add up, stored zeros and sums of zero are left out; the matrix stays as it was."""
    matrix = scipy.sparse.coo_array(([3, 0, 2, 4, 1, -1], ([1, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1])), shape=(2, 2))
    assert _columns(Interactions.from_csr(matrix, ["b", "a"], range(2))) == [["b", "a"], [1, 0], [6.0, 3.0], None]
    assert matrix.nnz == 6


def test_batch_has_rows() -> None:
    """A batch has the rows of ids, the ratings and times of the pairs; an unknown id raises."""
    batch = Interactions(["a", "b"], [7, 5], [1, 2], [8, 9]).to_batch(_View())
    assert (len(batch), _columns(batch)) == (2, [[1, 0], [2, 0], [1.0, 2.0], [8, 9]])
    with pytest.raises(UnknownIdError):
        Interactions(["a"], [8]).to_batch(_View())


FRAME = pd.DataFrame([["a", 3, 1, 0], ["b", 3, 2, 9]], columns=["user", "item", "x", "x"])
DATED = pd.DataFrame({"u": ["a", "b"], "item": [3, 3], "rating": [1, 2], "at": pd.to_datetime(["1970-01-01", "1970-01-02"])})


def test_from_frame() -> None:
    """Only the named columns are taken; features are carried along through every part."""
    pairs = Interactions.from_frame(DATED, user="u", time="at", user_features=FRAME)
    assert _columns(pairs) == [["a", "b"], [3, 3], None, [0, 86400 * 10**9]]
    assert all(part.user_features is FRAME and part.item_features is None for part in [pairs, *pairs.split("time", 0.5)])
    assert _columns(Interactions.from_frame(DATED, user="u", rating="rating")) == [["a", "b"], [3, 3], [1.0, 2.0], None]


def test_no_pairs_are_pairs() -> None:
    """A frame of no rows is no error, nor is anything done with it."""
    pairs = Interactions.from_frame(pd.DataFrame({"user": [], "item": [], "ts": []}), time="ts")
    parts = [pairs.ordered(), pairs.take([]), *pairs.split("time", 0.2), *pairs.split("within", 0.2), *pairs.split("user", 0.2)]
    assert [len(part) for part in [pairs, *parts, pairs.to_batch(_View())]] == [0] * 10


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: Interactions([1, 2], [3]), "lengths {'user_ids': 2, 'item_ids': 1}: give one value for each pair"),
        (lambda: Interactions([1], [2], [1.0, 2.0]), "lengths {'user_ids': 1, 'item_ids': 1, 'ratings': 2}"),
        (lambda: Interactions([1], [None]), "item id None at position 0"),
        (lambda: Interactions([1], [2], [np.nan]), "rating nan at position 0"),
        (lambda: Interactions([1], [2], None, [np.inf]), "time inf at position 0"),
        (lambda: Interactions.from_frame(None), "frame NoneType: give a DataFrame"),
        (lambda: Interactions.from_frame({"user": [1], "item": [2]}), "frame dict: give a DataFrame"),
        (lambda: Interactions.from_frame(FRAME, user="uid"), "'uid' for user is there 0 times, not once; .* user, item, x, x"),
        (lambda: Interactions.from_frame(FRAME, time="x"), "column 'x' for time is there 2 times"),
        (lambda: Interactions.from_frame(FRAME, item=None), "frame: name the column of item ids"),
        (lambda: Interactions.from_csr(np.eye(1), ["a"], [1]), r"ndarray \(1, 1\): give a sparse matrix of shape \(1, 1\)"),
        (lambda: Interactions.from_csr(scipy.sparse.csr_array(np.eye(2)), ["a"], [1, 2]), r"\(2, 2\): give .* of shape \(1, 2\)"),
        (lambda: _pairs([(1, 2, 3)]).take([1]), "out of bounds .*; choose among 1 pairs"),
        (lambda: _pairs([(1, 2, 3)]).take([True, False]), "choose among 1 pairs by that many bools"),
        (lambda: _pairs([(1, 2, 3)]).take([[0]]), "choose among 1 pairs"),
        (lambda: _pairs([(1, 2, 3)]).take([0.5]), "choose among 1 pairs"),
        (lambda: _pairs([], times=False).split("time", 0.2), "by='time': these pairs have no times; name their column"),
        (lambda: _pairs([]).split("item", 0.2), "by='item': use 'time', 'user' or 'within'"),
        (lambda: _pairs([]).split("user", 0.2, seed=-1), "seed -1: give a whole number from 0"),
        *((lambda s=s: _pairs([]).split("time", s), f"share {s!r}: give a") for s in (0, 1, 1.5, -0.1, np.nan, "half", None)),
    ],
)
def test_unusable_input_is_refused(refused: Callable[[], Any], message: str) -> None:
    """What cannot be used is an InvalidInputError that says what and why."""
    with pytest.raises(InvalidInputError, match=message):
        refused()


TEXT = 'who,item,ts,note,rating\n007,85123A,5,"a,b",1.5\nNA,null,6,,4.35\n'
READ = [["007", "NA"], ["85123A", "null"], [1.5, 4.35], [5, 6]]
WHO = {"columns": {"user": "who"}}
PAIRS = "user\titem\tts\ttime\n7\t-12\t1\t2.5\n0\t9223372036854775807\t1\t3\n"
DATES = "user,item,time\n1,2,1970-01-01\n1,2,1970-01-01T02:00:01+01:00\n"
ATOMIC = 'timestamp:float\titem:token\tuser_id:token\n8.0\t"a\tb"c\n9.0\td\te\n'


def _write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    data = gzip.compress(text.encode()) if isinstance(text, str) and text and name.endswith(".gz") else text
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text", "options", "expected"),
    [
        *((name, text, WHO, READ) for name in ("x.csv", "x.CSV.gz") for text in (TEXT, "\ufeff" + TEXT, "\n" + TEXT)),
        ("x.tsv", TEXT.replace(",", "\t"), {"columns": {"user": "who", "time": "rating"}}, [*READ[:3], READ[2]]),
        ("x.inter", ATOMIC, {"columns": {"item": "item"}}, [['b"c', "e"], ['"a', "d"], None, [8, 9]]),
        ("x.tsv", PAIRS, {}, [[7, 0], [-12, 2**63 - 1], None, [2.5, 3.0]]),
        (
            "x.tsv",
            PAIRS,
            {"columns": {"time": "ts"}, "id_type": {"item": "str"}},
            [[7, 0], ["-12", f"{2**63 - 1}"], None, [1, 1]],
        ),
        ("x.tsv", PAIRS, {"id_type": "str"}, [["7", "0"], ["-12", f"{2**63 - 1}"], None, [2.5, 3.0]]),
        *(("x.csv", f"user,item\n{i},1\n", {}, [[i], [1], None, None]) for i in ("07", "+7", "-0", " 7", "1_0", "٣", str(2**63))),
        ("x.csv", DATES, {}, [[1, 1], [2, 2], None, [0, 3601 * 10**9]]),
        ("x.csv", "ts,user,item,rating\n", {}, [[], [], [], []]),
    ],
)
def test_text_file(tmp_path: Path, name: str, text: str, options: Any, expected: list[Any]) -> None:
    """Ids are text unless all are plain whole numbers, or what is asked for; nothing stands for a missing one."""
    assert _columns(Interactions.from_file(_write(tmp_path, name, text), **options)) == expected


def test_named_formats(tmp_path: Path) -> None:
    """A csv file has only what is named, a parquet file the types it has, and a folder's name means nothing."""
    (tmp_path / "user=3").mkdir()
    path = _write(tmp_path, "x", TEXT)
    assert _columns(Interactions.from_csv(path, user="who", rating="ts", time="rating")) == [*READ[:2], [5.0, 6.0], READ[2]]
    parquet = tmp_path / "user=3" / "x.pq"
    DATED.assign(user=["7", "8"], u=["x", None], item=pd.Categorical([3, 4])).to_parquet(parquet)
    assert _columns(Interactions.from_parquet(parquet)) == [["7", "8"], [3, 4], None, None]
    assert _columns(Interactions.from_file(parquet, columns={"time": "at"}))[2:] == [[1.0, 2.0], [0, 86400 * 10**9]]
    with pytest.raises(InvalidInputError, match="user id None at position 1"):
        Interactions.from_parquet(parquet, user="u")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "{}", r"the ending tells the format, and is none of .csv, .* .pq, .inter .and .npz for pairs"),
        *((name, "", f"{name}: the file is empty") for name in ("x.csv", "x.csv.gz", "x.parquet", "x.inter")),
        ("x.csv", "\n\n", "x.csv: the file is empty"),
        ("x.parquet", "user,item", "x.parquet: cannot be read: "),
        *(("x.csv", text, "x.csv: not text in UTF-8") for text in (ZIPPED, "user,item\nä,b".encode("latin-1"))),
        ("x.csv.gz", b"user,item\n", "x.csv.gz: cannot be read: "),
        ("x.csv", "user;item\n1;2\n", "column 'user' for user is there 0 times, not once; the columns are user;item"),
        ("x.inter", "user\titem_id\n1\t2\n", "column 'user_id' for user is there 0 times, .* the columns are user, item_id"),
        ("x.csv", "user,item\n1,2,3\n4,5,6\n", "rows have more fields than the header has columns"),
        ("x.csv", "user,item\n1,2\n4,5,6\n", "x.csv: cannot be read: .*Expected 2 fields in line 3, saw 3"),
        ("x.csv", 'user,item\n1,"2\n', "x.csv: cannot be read: "),
        ("x.csv", "user,item\na,b\nc\n", "item id '' at position 1"),
        *(("x.csv", f"user,item,rating\n1,2,3\n1,2,{r}\n", f"rating {r!r} at position 1: give a num") for r in ("", "1_5", "x")),
        ("x.csv", "user,item,rating\n1,2,inf\n", "rating inf at position 0"),
        *(("x.csv", f"user,item,time\n1,2,2026-01-01\n1,2,{t}\n", f"{t!r} at position 1: give numbers, or") for t in ("now", "")),
        *(("x.csv", f"user,item,time\n1,2,{t}\n", "time .*: .* 1677 to 2262") for t in ("9999-12-31", "0001-01-01 12:00+01:00")),
        ("x.csv", "user,item,time\n1,2,3\n1,2,2026-01-01\n", "time '2026-01-01' at position 1: give a number"),
    ],
)
def test_unusable_file_is_refused(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    """A file that cannot be used is an InvalidInputError that says where and why."""
    with pytest.raises(InvalidInputError, match=message):
        Interactions.from_file(_write(tmp_path, name, text))


def test_unusable_request_is_refused(tmp_path: Path) -> None:
    """A missing file, a misspelled role and ids of a type they are not in are bad input."""
    path = _write(tmp_path, "x.csv", TEXT)
    with pytest.raises(InvalidInputError, match="y.csv: no such file"):
        Interactions.from_csv(tmp_path / "y.csv")
    with pytest.raises(InvalidInputError, match="columns 'usr'='who': the left side is one of user, item, rating, time"):
        Interactions.from_file(path, columns={"usr": "who"})
    with pytest.raises(IdTypeError, match="user id '007' at position 0: no plain whole number"):
        Interactions.from_file(path, columns=WHO["columns"], id_type="int64")


def test_parquet_needs_pyarrow(tmp_path: Path) -> None:
    """Without pyarrow the message says how to get it; what reads no file loads neither pandas nor scipy."""
    code = (
        "import sys; sys.modules['pyarrow'] = None; from embstore.interactions import Interactions\n"
        "Interactions(['a'] * 9, [1] * 9, times=[1] * 9).split('within', .5)[0].ordered().split('user', .1)\n"
        "assert not {'pandas', 'scipy'} & set(sys.modules)\n"
        "try: Interactions.from_parquet(sys.argv[1])\n"
        "except ValueError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(_write(tmp_path, "x.pq", "PAR1"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("reading parquet needs pyarrow: pip install embstore[parquet]\n", "")


def test_real_files(data_dir: Path) -> None:
    """MovieLens is all integers; online-retail has integer users, text items, and names of its own."""
    pairs = Interactions.from_inter(data_dir / "ml-100k" / "ml-100k.inter")
    assert [column[0] for column in _columns(pairs)] == [196, 242, 3.0, 881250949]
    assert (len(pairs), len(set(pairs.user_ids)), len(set(pairs.item_ids))) == (100_000, 943, 1_682)
    pairs = Interactions.from_file(data_dir / "online-retail" / "online_retail.csv.gz", columns={"rating": "qty"})
    assert [column[0] for column in _columns(pairs)] == [17850, "85123A", 6.0, 1291191960]
    assert (len(pairs), len(set(pairs.user_ids)), len(set(pairs.item_ids))) == (396_370, 4_335, 3_659)
