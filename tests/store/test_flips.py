"""Bytes on disk that have changed: every flipped bit and every swapped file is found, or harms nothing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
from zarr.core.buffer import default_buffer_prototype

import embstore
from embstore import Schema, SlotSpec, Store, TableSpec, Version
from embstore.errors import DamagedStoreError, EmbstoreError
from tests.store.sizes import at_most

SCHEMA = Schema(
    (
        TableSpec("user", "user", 40, slots=(SlotSpec("m", 40), SlotSpec("v", 40), SlotSpec("n", None, fill=0.5))),
        TableSpec("item", "item", 4, slots=(SlotSpec("m", 4), SlotSpec("v", 4))),
    )
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Make a store of two versions, the second of which has all chunks of the first and segments over them."""
    store = embstore.create(tmp_path / "s", schema=SCHEMA, durability="none")
    rng = np.random.default_rng(0)
    work = store.checkout()
    users = work.append("user", [f"user {n}" for n in range(800)])
    items = work.append("item", range(1_000))
    for table, slots in (("user", "mvn"), ("item", "mv")):
        for slot in slots:
            column = work.table(table).slot(slot)
            column.scatter(np.arange(len(column)), rng.standard_normal(column.values().shape))
    work.consumed.append(rng.choice(users, 2_000), rng.choice(items, 2_000), times=rng.random(2_000))
    work.dense["w"], work.dense["b"], work.dense["small"] = rng.random(200), rng.random(200), rng.random(3)
    work.commit("first", metadata={"a": 1})
    work.table("user").scatter(users[:200:3], rng.random((67, 40)))
    work.table("user").slot("m").scatter(users[1:200:3], rng.random((67, 40)))
    work.consumed.append(rng.choice(users, 700), rng.choice(items, 700), times=rng.random(700))
    work.dense["late"] = rng.random(200)
    work.commit("second", metadata={"b": [1, {"c": 2}]})
    return tmp_path / "s"


def _read(version: Version) -> list[Any]:
    """Return everything that a version says, so that it can be compared."""
    found: list[Any] = [version.id, version.message, version.time, version.metadata, version.parents, version.lineage]
    found.append(dict(version.tables))
    for entity in version.entities:
        ids = version.ids(entity).ids()
        found += [entity, ids.tolist(), version.ids(entity).rows(ids).tolist()]
        found.append([had.tolist() for had in version.consumed.of(entity, ids)])
    for name in version.tables:
        table = version.table(name)
        found += [table.values().tobytes(), *(slot.values().tobytes() for slot in table.slots.values())]
    return [*found, {name: version.dense[name].tobytes() for name in version.dense}]


def _files(place: Path, *folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (place / folder).rglob("*") if path.is_file())


def _keys(place: Path) -> dict[bytes, set[str]]:
    """Return the keys of each stored chunk of the tip by its bytes."""
    store = icechunk.Repository.open(icechunk.local_filesystem_storage(str(place))).readonly_session("main").store

    async def collect() -> dict[bytes, set[str]]:
        found: dict[bytes, set[str]] = {}
        async for key in store.list():
            buffer = await store.get(key, default_buffer_prototype())
            assert buffer is not None
            found.setdefault(buffer.to_bytes(), set()).add(key)
        return found

    return asyncio.run(collect())


def _flip(path: Path, rng: random.Random) -> bytes:
    """Flip one bit of a file and return what it was before."""
    before = path.read_bytes()
    bit = rng.randrange(len(before) * 8)
    after = bytearray(before)
    after[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(after)
    return before


def _silently_wrong(place: Path, expected: list[Any]) -> bool:
    """Return whether a new handle reads something else and does not say so."""
    try:
        return _read(embstore.open(place).at()) != expected
    except DamagedStoreError:
        return False


def test_every_flipped_bit_in_data_is_found(place: Path) -> None:
    """Of some hundred flips in chunk files, verify names the array of each, and no read gives a wrong number."""
    rng, keys, expected = random.Random(1), _keys(place), _read(embstore.open(place).at())
    paths = [path for path in _files(place, "chunks") if path.read_bytes() in keys]
    assert len(paths) == len(_files(place, "chunks")) > 15
    for number in range(at_most(200)):
        path = paths[number % len(paths)]
        before = _flip(path, rng)
        report = embstore.open(place).verify(deep=True)
        assert not report.ok
        assert any(key in problem for key in keys[before] for problem in report.problems), report.problems
        assert number % 4 or not _silently_wrong(place, expected)
        path.write_bytes(before)
    assert embstore.open(place).verify(deep=True).problems == []


def _outcome(place: Path, expected: list[Any]) -> str:
    """Return what becomes of opening, verifying and reading the tip."""
    try:
        store = embstore.open(place)
        version = store.at()
        report = store.verify(deep=True)
    except DamagedStoreError:
        return "refused"
    if not report.ok:
        return "reported"
    return "harmless" if _read(version) == expected else "silent"


@pytest.mark.parametrize(
    ("folders", "flips", "one_in"),
    # Of eight files of the last kind one matters, the branch; where a flip falls in the others' ids differs from run to run.
    [(("snapshots",), 120, 10), (("manifests",), 80, 10), (("refs", "transactions", "config.yaml"), 60, 20)],
    ids=["snapshots", "manifests", "refs"],
)
def test_flipped_bits_in_descriptions(place: Path, folders: tuple[str, ...], flips: int, one_in: int) -> None:
    """A flip in a file that says what there is, is refused or reported, or changes nothing that can be read."""
    rng, store = random.Random(2), embstore.open(place)
    expected, tip = _read(store.at()), store.at().id
    paths = [path for path in [*_files(place, *folders), place / folders[-1]] if path.is_file()]
    # What the tip says of itself matters most.
    paths += [path for path in paths if path.name == tip] * 4
    outcomes, flips = Counter[str](), at_most(flips)
    for number in range(flips):
        path = paths[number % len(paths)]
        before = _flip(path, rng)
        outcomes[_outcome(place, expected)] += 1
        path.write_bytes(before)
    assert outcomes["silent"] == 0, outcomes
    assert outcomes["refused"] + outcomes["reported"] > flips / one_in, outcomes
    assert outcomes.total() == flips
    assert _outcome(place, expected) == "harmless"


@pytest.mark.parametrize("folder", ["snapshots", "manifests"])
def test_descriptions_in_the_place_of_others_are_found(place: Path, folder: str) -> None:
    """A file that says what there is, replaced by another one that is whole: refused or reported, or it changes nothing."""
    expected = _read(embstore.open(place).at())
    paths = _files(place, folder)
    outcomes = Counter[str]()
    tip = place / "snapshots" / embstore.open(place).at().id
    pairs = [(path, other) for path in paths for other in paths if path != other and (path == tip or folder == "manifests")]
    pairs = random.Random(4).sample(pairs, min(len(pairs), at_most(40)))
    for path, other in pairs:
        before = path.read_bytes()
        path.write_bytes(other.read_bytes())
        outcomes[_outcome(place, expected)] += 1
        path.write_bytes(before)
    assert (outcomes["silent"], outcomes.total()) == (0, len(pairs)), outcomes
    assert outcomes["refused"] + outcomes["reported"] > 0
    assert _outcome(place, expected) == "harmless"


def test_swapped_files_are_found(place: Path) -> None:
    """Two chunk files of one size that change places have right checksums, and are found all the same."""
    keys = _keys(place)
    groups: dict[int, list[Path]] = {}
    for path in _files(place, "chunks"):
        groups.setdefault(path.stat().st_size, []).append(path)
    pairs = [(group[i], group[j]) for group in groups.values() for i in range(len(group)) for j in range(i)]
    pairs = [(one, other) for one, other in pairs if one.read_bytes() != other.read_bytes()]
    assert len(pairs) > 5
    missed = []
    for one, other in pairs:
        contents = one.read_bytes(), other.read_bytes()
        one.write_bytes(contents[1])
        other.write_bytes(contents[0])
        if embstore.open(place).verify(deep=True).ok:
            missed.append((sorted(keys[contents[0]]), sorted(keys[contents[1]])))
        one.write_bytes(contents[0])
        other.write_bytes(contents[1])
    assert missed == []


def test_swapped_chunks_of_one_array_are_found(tmp_path: Path) -> None:
    """Two chunks of one column change places: wide rows, narrow ones and one number a row."""
    specs = (TableSpec("wide", "few", 64), TableSpec("narrow", "many", 16), TableSpec("one", "many", 4, "float64"))
    store = embstore.create(tmp_path / "s", schema=Schema(specs), durability="none")
    work, rng = store.checkout(), np.random.default_rng(3)
    work.append("few", range(30_000))
    work.append("many", range(150_000), init={"one": rng.random((150_000, 4))})
    work.commit("x")
    keys = _keys(tmp_path / "s")
    by_array: dict[str, list[Path]] = {}
    for path in _files(tmp_path / "s", "chunks"):
        for key in keys[path.read_bytes()]:
            if "/base/values/c/" in key:
                by_array.setdefault(key.partition("/c/")[0], []).append(path)
    missed = []
    for name, (one, other, *_) in by_array.items():
        contents = one.read_bytes(), other.read_bytes()
        one.write_bytes(contents[1])
        other.write_bytes(contents[0])
        if embstore.open(tmp_path / "s").verify(deep=True).ok:
            missed.append(name)
        one.write_bytes(contents[0])
        other.write_bytes(contents[1])
    assert (sorted(by_array), missed) == (
        [f"tables/{spec.name}/base/values" for spec in sorted(specs, key=lambda spec: spec.name)],
        [],
    )


@pytest.mark.parametrize("damage", ["delete", "truncate", "empty", "lengthen"])
def test_files_that_are_gone_or_cut(place: Path, damage: str) -> None:
    """A chunk file that is missing, short, empty or too long is found, and nothing wrong is read."""
    keys, expected = _keys(place), _read(embstore.open(place).at())
    for path in _files(place, "chunks")[::2]:
        before = path.read_bytes()
        {
            "delete": path.unlink,
            "truncate": lambda path=path, raw=before: path.write_bytes(raw[: len(raw) // 2]),
            "empty": lambda path=path: path.write_bytes(b""),
            "lengthen": lambda path=path, raw=before: path.write_bytes(raw + raw),
        }[damage]()
        report = embstore.open(place).verify(deep=True)
        wrong = _silently_wrong(place, expected)
        path.write_bytes(before)
        assert (report.ok and damage != "lengthen", wrong) == (False, False)
        assert report.ok or any(key in problem for key in keys[before] for problem in report.problems), report.problems


def test_the_way_back_from_a_damaged_version(place: Path) -> None:
    """A store opens though the newest version of main cannot be read, so that main can be pointed to an older one."""
    store = embstore.open(place)
    tip, older = store.at(), store.at("main~1")
    path = place / "snapshots" / tip.id
    path.write_bytes(path.read_bytes()[:100])
    store = embstore.open(place)
    for read in (store.at, store.checkout, store.verify, lambda: list(store.log())):
        with pytest.raises(DamagedStoreError):
            read()
    store.branch("main", at=older.id, move=True)
    assert (embstore.open(place).at(), store.verify().problems) == (older, [])
    with store.checkout() as work:
        work.dense["late"] = 1
        assert work.commit("goes on").parent == older.id


def test_a_commit_on_a_damaged_version_is_refused(place: Path) -> None:
    """What cannot be read cannot be written on; the tip stays where it was, and reading elsewhere goes on."""
    keys = _keys(place)
    (path,) = [p for p in _files(place, "chunks") if "tables/user/base/values/c/0/0" in keys[p.read_bytes()]]
    store: Store = embstore.open(place)
    tip, before = store.branches(), path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    work = embstore.open(place).checkout()
    with pytest.raises(DamagedStoreError, match="tables/user/base/values"):
        work.table("user").values()
    with pytest.raises(EmbstoreError) as caught:
        embstore.open(place).compact()
    assert (caught.value.exit_code, store.branches()) == (6, tip)
    assert work.table("item").values().shape == (1_000, 4)
    assert embstore.open(place).verify(deep=False).ok
    path.write_bytes(before)
    assert embstore.open(place).compact().parent == tip["main"]
