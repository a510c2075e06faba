"""Initial vectors, keys of ids and digests: fixed for ever, the same everywhere; two strings of one key stay two ids."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

import embstore
from embstore import Constant, Normal, Schema, Store, TableSpec, Uniform, Zeros
from embstore.initial import id_keys, row_digests
from tests.store.agreement import as_read

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
USERS = TableSpec("user", "user", 4)


def mix(x: int) -> int:
    """Return the splitmix64 finalizer of a number, one step a line."""
    x = (x ^ (x >> 30)) * MULTIPLIERS[0] & MASK
    x = (x ^ (x >> 27)) * MULTIPLIERS[1] & MASK
    return x ^ (x >> 31)


def unmix(y: int) -> int:
    """Return the number that ``mix`` turns into ``y``."""
    for shift, multiplier in ((31, MULTIPLIERS[1]), (27, MULTIPLIERS[0]), (30, 1)):
        x = y
        for _ in range(64 // shift + 1):
            x = y ^ (x >> shift)
        y = x * pow(multiplier, -1, 2**64) & MASK
    return y


def key_of(text: str) -> int:
    """Return the key of a string as docs/format.md tells it."""
    raw = text.encode()
    words = [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8)]
    total = sum(mix(word ^ mix((j + 1) * GOLDEN & MASK)) for j, word in enumerate(words))
    return mix((total + len(raw) * GOLDEN) & MASK)


def vector_of(spec: TableSpec, id_: Any) -> list[float]:
    """Return an initial vector as docs/format.md tells it, in float64."""
    key = key_of(id_) if isinstance(id_, str) else id_ & MASK
    state = mix(key ^ mix(key_of(spec.name) ^ mix(((spec.seed & MASK) + GOLDEN) & MASK)))
    bits = [mix((state + (c + 1) * GOLDEN) & MASK) for c in range(spec.dim or 1)]
    if isinstance(spec.init, Uniform):
        return [(b >> 11) * 2.0**-53 * (spec.init.high - spec.init.low) + spec.init.low for b in bits]
    assert isinstance(spec.init, Normal)
    scale = spec.init.std / math.sqrt(4 * (65536**2 - 1) / 12)
    return [(sum((b >> s) & 0xFFFF for s in (0, 16, 32, 48)) - 131070) * scale for b in bits]


def _table(url: str, spec: TableSpec) -> embstore.Table:
    return embstore.create(url, schema=Schema((spec,))).at().table(spec.name)


FIXED = [
    (TableSpec("user", "user", 3), [0, 1, -1], "c71412bbf1e1a4bb2adf3dbcdd10fe3b990aa83c294a36bc2900883a8a08223b2f54a63b"),
    (
        TableSpec("user", "user", 3, seed=-1),
        [0, 2**63 - 1, -(2**63)],
        "e6b922bceb6ea83b364997bbf021743b1a51993cbbabc7bb82237b3c021a9e3b717d19bc",
    ),
    (
        TableSpec("item", "item", 2, "float64", init=Uniform(-1, 3), seed=7),
        ["a", "é", "12345678", "123456789"],
        "c29fb5476881f33fa8aae768daf4044064842f31b539e43fbed581cdf665fc3f9ee0b2b32090fa3f70a517341541e43f091ab2989ed803400001353c04ddb33f",
    ),
    (TableSpec("b.1", "item", None, "float16", init=Normal(2)), ["x" * 16, "x" * 17], "a040cac1"),
    (TableSpec("int", "item", 2, "int16", init=Constant(-2)), ["a"], "fefffeff"),
    (TableSpec("zero", "item", 1, "float32", init=Zeros()), [5], "00000000"),
]


@pytest.mark.parametrize(("spec", "ids", "expected"), FIXED, ids=lambda value: getattr(value, "name", None))
def test_fixed_vectors(url: str, spec: TableSpec, ids: list[Any], expected: str) -> None:
    """These bytes never change: a store of today starts the same ids in the same place in ten years."""
    assert _table(url, spec).initial(ids).tobytes().hex() == expected


KEYS = {"a": "e9fc4ef02d601d17", "user-42": "72fc35c163cb1ebb", "é": "037941917d0ffae5", "x" * 24: "09f573322cb33ca3"}


def test_fixed_keys() -> None:
    """The keys of strings never change, nor those of integers, which are their own."""
    keys = id_keys(np.array(list(KEYS), object)).view(np.uint64)
    assert [f"{key:016x}" for key in keys.tolist()] == list(KEYS.values())
    assert id_keys(np.array([5, -1])).tolist() == [5, -1]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40), min_size=1))
def test_keys_are_what_the_format_says(texts: list[str]) -> None:
    """Word by word in plain integers gives the same keys, whatever strings stand beside each other."""
    assert id_keys(np.array(texts, object)).view(np.uint64).tolist() == [key_of(text) for text in texts]


@pytest.mark.parametrize("init", [Normal(0.5), Uniform(-2, 5)], ids=str)
def test_vectors_are_what_the_format_says(url: str, init: Any) -> None:
    """Plain integers and one float multiplication give the same bits."""
    spec = TableSpec("t.1", "user", 5, "float64", init=init, seed=123)
    for number, ids in enumerate(([0, 1, -1, 2**63 - 1, -(2**63)], ["a", "longer than a word", "日本語"])):
        expected = np.array([vector_of(spec, id_) for id_ in ids])
        assert as_read(_table(f"{url}{number}", spec).initial(ids)) == as_read(expected)


def test_order_batch_and_neighbours_do_not_matter(store: Store) -> None:
    """An id starts in the same place alone or among 50,000, appended first or last, asked before or after."""
    ids = np.random.default_rng(0).permutation(50_000)
    expected = store.at().table("user").initial(np.arange(50_000))
    work = store.checkout()
    assert as_read(work.table("user").initial(ids)) == as_read(expected[ids])
    work.append("user", ids[:7])
    work.append("user", ids[5:])
    version = work.commit("x")
    assert as_read(version.table("user").values()) == as_read(expected[ids])
    assert as_read(version.table("user").get([3])) == as_read(store.at("main~1").table("user").initial([3]))


def test_another_process_starts_ids_in_the_same_place(store: Store) -> None:
    """Whatever its hash seed: two jobs that meet the same new id agree."""
    code = (
        "import embstore; from embstore import *; "
        "s = embstore.create('memory://x', schema=Schema((TableSpec('user', 'user', 4),)));"
        "print(s.at().table('user').initial(['a', 'é']).tobytes().hex())"
    )
    expected = store.at().table("user").initial(["a", "é"]).tobytes().hex()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-X", "utf8", "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.strip() == expected


def test_tables_and_seeds_share_no_vector(url: str) -> None:
    """Another name or another seed, and every number is another one."""
    specs = [
        TableSpec("a", "e", 8, seed=0),
        TableSpec("b", "e", 8, seed=0),
        TableSpec("A", "e", 8, seed=0),
        TableSpec("a2", "e", 8),
    ]
    specs += [TableSpec("c", "e", 8, seed=seed) for seed in (0, 1, -1, 2**62)]
    store = embstore.create(url, schema=Schema(tuple(specs[:5])))
    drawn = [store.at().table(spec.name).initial(range(200)) for spec in specs[:5]]
    drawn += [_table(f"{url}{spec.seed}", spec).initial(range(200)) for spec in specs[5:]]
    rows = {row.tobytes() for one in drawn for row in one}
    assert len(rows) == 200 * len(specs)
    joined = np.stack([one.ravel() for one in drawn])
    assert np.abs(np.corrcoef(joined) - np.eye(len(specs))).max() < 0.12


def _draws(url: str) -> Iterator[tuple[str, NDArray[Any]]]:
    spec = TableSpec("t", "e", 64, "float64", init=Normal(1))
    yield "integers", _table(f"{url}1", spec).initial(range(5_000))
    yield "texts", _table(f"{url}2", spec).initial([f"user {n}" for n in range(5_000)])
    yield "far apart", _table(f"{url}3", spec).initial([(n - 2_500) * 2**50 for n in range(5_000)])


def test_normal_vectors_look_normal(url: str) -> None:
    """Mean, spread, tails and columns of 320,000 numbers are those of the distribution: nothing depends on the id's shape."""
    for name, drawn in _draws(url):
        assert abs(drawn.mean()) < 0.01, name
        assert abs(drawn.std() - 1) < 0.01, name
        assert np.abs(drawn).max() <= 3.5, name
        # The sum of four uniform numbers: kurtosis 3 - 1.2 / 4.
        assert abs((drawn**4).mean() - 2.7) < 0.05, name
        assert np.abs(np.corrcoef(drawn.T) - np.eye(64)).max() < 0.08, name
        assert len(np.unique(drawn)) > 100_000, name


def test_uniform_vectors_stay_within(url: str) -> None:
    """From low, never above high, mean in the middle."""
    drawn = _table(url, TableSpec("t", "e", 64, init=Uniform(-1, 3))).initial(range(5_000))
    assert (drawn.min() >= -1, drawn.max() <= 3, drawn.min() < -0.999, drawn.max() > 2.999) == (True, True, True, True)
    assert abs(drawn.mean() - 1) < 0.02


def collide(first: str) -> str:
    """Return another string of 16 ASCII characters with the key of ``first``: any first word, and the second that fits it."""
    words = [int.from_bytes(first[i : i + 8].encode(), "little") for i in (0, 8)]
    places = [mix(GOLDEN), mix(2 * GOLDEN & MASK)]
    total = sum(mix(word ^ place) for word, place in zip(words, places, strict=True)) & MASK
    for number in range(100_000):
        head = f"{number:08d}"
        tail = unmix((total - mix(int.from_bytes(head.encode(), "little") ^ places[0])) & MASK) ^ places[1]
        raw = tail.to_bytes(8, "little")
        if raw.isascii() and 0 not in raw:
            return head + raw.decode("ascii")
    raise AssertionError("no second word is text")


@pytest.mark.parametrize("commits", [False, True])
def test_strings_of_one_key_stay_two_ids(store: Store, commits: bool) -> None:
    """Two ids with one key have their own rows: staged, in one run of the index, in two, and after one is removed."""
    one = "a user's own name"[:16]
    other = collide(one)
    assert (one != other, key_of(one)) == (True, key_of(other))
    work = store.checkout()
    work.append("user", ["before", one])
    assert (other in work.ids("user"), work.ids("user").rows([other], missing=-1).tolist()) == (False, [-1])
    if commits:
        assert other not in work.commit("x").ids("user")
    assert work.append("user", [other, "after", one, other]).tolist() == [2, 3, 1, 2]
    work.table("user").scatter([1, 2], [[1] * 4, [2] * 4])
    for view in (work, work.commit("y"), store.compact()):
        assert view.ids("user").rows([other, one, other]).tolist() == [2, 1, 2]
        assert view.ids("user").ids([1, 2]).tolist() == [one, other]
        assert view.table("user").get([other, one])[:, 0].tolist() == [2, 1]
    assert store.verify().problems == []
    work = store.checkout()
    work.remove("user", [one])
    for view in (work, work.commit("z")):
        assert view.ids("user").rows([one, other], missing=-1).tolist() == [-1, 2]
    assert work.append("user", [one]).tolist() == [4]
    assert work.commit("again").ids("user").rows([one, other]).tolist() == [4, 2]
    assert store.diff("main~1").ids["user"].appended.tolist() == [one]


def test_digests_tell_rows_apart() -> None:
    """Equal rows have equal digests; one bit, two numbers swapped, or signs flipped, and they differ."""
    rows = np.random.default_rng(5).standard_normal((200, 64)).astype(np.float32)
    digests = row_digests(rows)
    assert row_digests(rows[::-1])[::-1].tolist() == digests.tolist()
    changed = [rows.copy() for _ in range(4)]
    changed[0].view(np.uint32)[np.arange(200), np.arange(200) % 64] ^= np.uint32(1) << (np.arange(200) % 32).astype(np.uint32)
    changed[1][:, [3, 40]] = rows[:, [40, 3]]
    changed[2][:, :2] *= -1
    changed[3] *= -1
    for other in changed:
        assert not (row_digests(other) == digests).any()
    assert len({*digests.tolist(), *(d for other in changed for d in row_digests(other).tolist())}) == 1_000


def test_missing_vectors_of_a_removed_id(filled: Store) -> None:
    """An id that was removed starts anew where it would have started at first."""
    work = filled.checkout()
    expected = work.table("user").initial([1])
    work.table("user").scatter([0], np.ones((1, 4)))
    work.remove("user", [1])
    work.append("user", [1])
    assert as_read(work.commit("x").table("user").get([1])) == as_read(expected)
    assert not (expected == 1).any()
