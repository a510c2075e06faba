"""A person who is removed is forgotten: no byte of them is left in any file of the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numcodecs.zstd import decompress

import embstore
from embstore import Constant, Schema, SlotSpec, Store, TableSpec
from embstore.initial import id_keys, row_digests

SCHEMA = Schema(
    (
        TableSpec("user", "user", 40, slots=(SlotSpec("m", 40), SlotSpec("n", 5))),
        TableSpec("bias", "user", 5),
        TableSpec("genres", "user", 4, "int32", init=Constant(-1), rows_of="genre"),
        TableSpec("income", "user", None, "float64"),
        TableSpec("item", "item", 3),
    )
)
FRAME = b"\x28\xb5\x2f\xfd"
PERSON = 41


def with_first_at(place: int, names: list[Any], key_type: Any) -> list[Any]:
    """Return names in an order where the one with the first key stands at ``place``: an index tells its first key in a text."""
    first = int(np.argmin(id_keys(np.array(names, key_type))))
    names[first], names[place] = names[place], names[first]
    return names


NAMES: dict[str, list[Any]] = {
    "int64": with_first_at(PERSON, [7_000_000_000_000_000 + n for n in range(90)], np.int64),
    "str": with_first_at(PERSON, [f"somebody-{n:03d}@example.org" for n in range(90)], object),
}
GENRES = [101, 17, 93, 55]
TIMES = [1_700_000_123.25, 1_700_000_457.75, 1_700_000_999.5]
WIDE = {"user", "m"}


def contents(place: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file, and everything that is compressed in it, however deep."""
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        yield from ((f"{path.relative_to(place)}", text) for text in unpacked(path.read_bytes()))


def unpacked(raw: bytes) -> Iterator[bytes]:
    """Yield bytes, and those that are compressed in them."""
    yield raw
    at = raw.find(FRAME)
    while at >= 0:
        inside = any_frame(raw[at:])
        if inside is not None:
            yield from unpacked(inside)
        at = raw.find(FRAME, at + 1)


def any_frame(raw: bytes) -> bytes | None:
    """Return what is compressed in the frame that ``raw`` begins with; None if it is no whole one (RFC 8878, 3.1)."""
    try:
        return bytes(decompress(raw[: frame_length(raw)]))
    except (RuntimeError, ValueError, IndexError):
        return None


def frame_length(raw: bytes) -> int:
    """Return how long the frame is that ``raw`` begins with."""
    descriptor = raw[4]
    is_single, content_size = descriptor >> 5 & 1, (0, 2, 4, 8)[descriptor >> 6]
    at = 5 + (0 if is_single else 1) + (0, 1, 2, 4)[descriptor & 3] + (content_size or is_single)
    is_last = False
    while not is_last:
        header = int.from_bytes(raw[at : at + 3], "little")
        is_last = bool(header & 1) or at >= len(raw)
        at += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)
    return at + (4 if descriptor >> 2 & 1 else 0)


def places(place: Path, needle: bytes) -> list[str]:
    """Return the files that hold ``needle``."""
    return sorted({name for name, text in contents(place) if needle in text})


def numbers(day: int, rows: int, dim: int) -> np.ndarray[Any, Any]:
    """Return numbers that follow from the day."""
    return np.random.default_rng([day, dim]).standard_normal((rows, dim)).astype(np.float32)


class Person:
    """Somebody in a store, and what is known of them.

    Parameters
    ----------
    store
        Where nobody is yet.
    names
        Of everybody.
    """

    def __init__(self, store: Store, names: list[Any]) -> None:
        self.store, self.names, self.name = store, names, names[PERSON]
        self.needles: dict[str, bytes] = {}
        key = id_keys(np.array([self.name], np.int64 if isinstance(self.name, int) else object))
        self.needles["key"] = key.tobytes()
        self.needles["key in a text"] = str(int(key[0])).encode()
        self.needles["id"] = key.tobytes() if isinstance(self.name, int) else self.name.encode()

    def grow(self, day: int, names: list[Any], *, branch: str = "main") -> None:
        """Commit a day of these people, who may be new."""
        with self.store.checkout(branch) as work:
            rows = work.append("user", names)
            items = work.append("item", range(200))
            genres = work.append("genre", range(120))
            place = names.index(self.name) if self.name in names else None
            for name, dim in (("user", 40), ("m", 40), ("n", 5), ("bias", 5)):
                target = work.table("user").slots[name] if name in "mn" else work.table(name)
                values = numbers(day + 100 * len(name) + ord(name[0]), len(rows), dim)
                target.scatter(rows, values)
                if place is not None:
                    self.needles[f"{name} of day {day}"] = values[place].tobytes()
                    if name in WIDE:
                        self.needles[f"digest of {name} of day {day}"] = row_digests(values[place : place + 1]).tobytes()
            if place is not None:
                self._personal(work, rows[place], items, genres, day)
            work.consumed.append(np.repeat(rows, 2), items[np.arange(2 * len(rows)) % 11], times=np.arange(2.0 * len(rows)))
            work.commit(f"day {day}", metadata={"day": day})

    def _personal(self, work: embstore.Checkout, row: int, items: Any, genres: Any, day: int) -> None:
        mine, drawn = np.array([row]), np.array([23, 181, 59]) + day
        income = np.array([1234.5678 + day])
        work.table("income").scatter(mine, income)
        work.table("genres").scatter(mine, genres[[GENRES]].astype(np.int32))
        work.consumed.append(np.repeat(mine, 3), items[drawn], times=np.array(TIMES) + day)
        self.needles["genres"] = genres[GENRES].astype(np.int32).tobytes()
        self.needles[f"income of day {day}"] = income.tobytes()
        self.needles[f"consumed of day {day}"] = items[drawn].astype(np.int32).tobytes()
        second = TIMES[1] + day
        self.needles[f"time of day {day}"] = np.array([second // 2048, second % 2048]).tobytes()

    def found(self, place: Path) -> dict[str, list[str]]:
        """Return what is found of them, and where."""
        everything = list(contents(place))
        found = {what: [name for name, text in everything if needle in text] for what, needle in self.needles.items()}
        return {what: names for what, names in found.items() if names}


def forget(store: Store, entity: str, name: object) -> None:
    """Forget somebody, as ``docs/retention.md`` says."""
    for branch in store.branches():
        with store.checkout(branch) as work:
            if name in work.ids(entity):
                work.remove(entity, [name])
                work.commit("remove one id")
        store.compact(branch)
    tags = [tag for tag in store.tags() if name in store.at(tag).ids(entity)]
    store.expire("0s", tags=tags, dry_run=False)
    store.gc("0s", dry_run=False)


def everybody_else(store: Store, person: Person) -> dict[str, Any]:
    """Return what the tip of main has of all others."""
    version = store.at()
    others = [name for name in version.ids("user").ids().tolist() if name != person.name]
    tables = {name: version.table(name).get(others).tobytes() for name, spec in version.tables.items() if spec.entity == "user"}
    slots = {name: slot.get(others).tobytes() for name, slot in version.table("user").slots.items()}
    return {"tables": tables, "slots": slots, "had": [had.tolist() for had in version.consumed.of("user", others)]}


@pytest.mark.parametrize(("id_type", "last_day"), [("int64", "all"), ("str", "all"), ("int64", "some"), ("str", "none")])
def test_no_byte_is_left(tmp_path: Path, id_type: str, last_day: str) -> None:
    """Of id, key, vectors, slots, digests, features, record and times of all days, on branches and in tags, nothing is left."""
    names = NAMES[id_type]
    store = embstore.create(tmp_path / "s", schema=SCHEMA, durability="none")
    person = Person(store, names)
    person.grow(0, names[:80])
    store.tag("with", at="main")
    person.grow(1, names[30:50])
    store.branch("side", at="main~1")
    person.grow(2, [names[PERSON], *names[80:85]], branch="side")
    if last_day != "none":
        person.grow(3, names if last_day == "all" else [*names[38:44], *names[85:]])
    if last_day == "some":
        store.merge("side", on_conflict="ours")
    others = everybody_else(store, person)
    assert set(person.needles) == set(person.found(tmp_path / "s"))

    forget(store, "user", person.name)

    assert person.found(tmp_path / "s") == {}
    assert others == everybody_else(embstore.open(tmp_path / "s"), person)
    assert ({"side"}, set()) == (set(store.branches()) - {"main"}, set(store.tags()))
    assert [store.verify(ref).problems for ref in store.branches()] == [[], []]


def test_without_a_step_something_is_left(tmp_path: Path) -> None:
    """The search finds what is left after each step but the last, so that it would find a step that does nothing."""
    store = embstore.create(tmp_path / "s", schema=SCHEMA, durability="none")
    person = Person(store, NAMES["str"])
    person.grow(0, person.names[:80])
    person.grow(1, person.names[35:45])
    with store.checkout() as work:
        work.remove("user", [person.name])
        work.commit("remove one id")
    left = [set(person.found(tmp_path / "s"))]
    store.expire("0s", dry_run=False)
    left.append(set(person.found(tmp_path / "s")))
    store.gc("0s", dry_run=False)  # without having compacted
    left.append(set(person.found(tmp_path / "s")))
    store.compact()
    store.expire("0s", dry_run=False)
    store.gc("0s", dry_run=False)
    left.append(set(person.found(tmp_path / "s")))
    assert (set(person.needles), set(person.needles), set()) == (left[0], left[1], left[3])
    assert {"consumed of day 0", "user of day 0"} <= left[2]
    assert "id" not in left[2]


def test_an_item_is_forgotten_with_every_record_of_it(tmp_path: Path) -> None:
    """An item's id is found nowhere, and nobody has had it."""
    store = embstore.create(tmp_path / "s", schema=SCHEMA, durability="none")
    names = [f"thing {n} of many" for n in range(30)]
    with store.checkout() as work:
        users, items = work.append("user", range(10)), work.append("item", names)
        work.consumed.append(np.repeat(users, 3), np.resize(items[5:15], 30))
        work.commit("first")
    assert places(tmp_path / "s", names[7].encode()) != []
    forget(store, "item", names[7])
    assert places(tmp_path / "s", names[7].encode()) == []
    had = [set(one.tolist()) for one in store.at().consumed.of("user", range(10))]
    assert (27, False) == (sum(map(len, had)), any(names[7] in one for one in had))


@pytest.mark.parametrize("id_type", ["int64", "str"])
def test_where_there_is_nothing_to_fold(tmp_path: Path, id_type: str) -> None:
    """Also where so few are left that the removal itself writes all anew, and compacting finds nothing to do."""
    names = NAMES[id_type][PERSON : PERSON + 1]
    store = embstore.create(tmp_path / "s", schema=Schema((TableSpec("user", "user", 4),)), durability="none")
    for day in range(2):
        with store.checkout() as work:
            work.table("user").scatter(work.append("user", names), numbers(day, 1, 4))
            work.commit(f"day {day}")
    needles = [str(names[0]).encode(), np.array(names[:1]).tobytes(), *(numbers(day, 1, 4).tobytes() for day in range(2))]
    assert [] != places(tmp_path / "s", needles[-1])
    forget(store, "user", names[0])
    assert "remove one id" == store.at().message
    assert [[], [], [], []] == [places(tmp_path / "s", needle) for needle in needles]
