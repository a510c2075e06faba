"""Random edits of a checkout: few ids and few numbers, so that two sides often meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from embstore import Checkout, Constant, Schema, SlotSpec, TableSpec, Uniform
from tests.store.model import ITEM, USER

GENRE = "genre"
SCHEMA = Schema(
    (
        TableSpec("user", USER, 3, slots=(SlotSpec("exp_avg", 3), SlotSpec("step", None, "int32", fill=1))),
        TableSpec("wide", USER, 40),
        TableSpec("item", ITEM, 2, "float64", init=Uniform(-1, 1)),
        TableSpec("genres", ITEM, 2, "int32", init=Constant(-1), rows_of=GENRE),
    ),
    {USER: "int64"},
)
LATE_TABLES = (
    TableSpec("bias", ITEM, None, slots=(SlotSpec("sum", None, fill=0.5),), seed=3),
    TableSpec("thing", "thing", 2, init=Uniform(0, 1)),
)
LATE_SLOTS = (("user", SlotSpec("max", 3, fill=0.25)), ("item", SlotSpec("late", None, "float16")))
IDS: dict[str, list[Any]] = {USER: list(range(6)), ITEM: list("abcde"), "thing": [7, 8], GENRE: ["g0", "g1", "g2", "g3"]}
SEEDS = st.integers(0, 3)
Edit = tuple[Any, ...]


def _ids(entity: str, most: int = 4) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(IDS[entity]), max_size=most)


_PAIRS = st.lists(st.tuples(st.sampled_from(IDS[USER]), st.sampled_from(IDS[ITEM])), max_size=4)
_ENTITIES = st.sampled_from([USER, ITEM])
EDIT: st.SearchStrategy[Edit] = st.one_of(
    _ENTITIES.flatmap(lambda entity: st.tuples(st.just("append"), st.just(entity), _ids(entity), st.none() | SEEDS)),
    _ENTITIES.flatmap(lambda entity: st.tuples(st.just("remove"), st.just(entity), _ids(entity, 1))),
    _ENTITIES.flatmap(lambda entity: st.tuples(st.just("append_again"), st.just(entity), _ids(entity, 1))),
    st.tuples(
        st.just("scatter"), st.sampled_from(["user", "wide", "item", "bias", "thing"]), st.integers(0, 3), _ids(USER), SEEDS
    ),
    st.tuples(st.just("scatter"), st.just("item"), st.integers(0, 1), _ids(ITEM), SEEDS),
    st.tuples(st.just("point"), _ids(ITEM), st.lists(st.sampled_from(IDS[GENRE]), min_size=1, max_size=2)),
    st.tuples(st.just("consume"), _PAIRS, st.booleans(), st.booleans()),
    st.tuples(st.just("dense"), st.sampled_from(["w", "v"]), SEEDS),
    st.tuples(st.just("drop_dense"), st.sampled_from(["w", "v"])),
    st.tuples(st.just("table"), st.sampled_from(LATE_TABLES)),
    st.tuples(st.just("things"), _ids("thing")),
    st.tuples(st.just("slot"), st.sampled_from(LATE_SLOTS)),
)
EDITS = st.lists(EDIT, max_size=7)


def apply(work: Checkout, edits: Sequence[Edit]) -> Checkout:
    """Stage edits; what they speak of and what is not there is passed over."""
    for what, *rest in edits:
        _STEPS[what](work, *rest)
    return work


def _numbers(seed: int, shape: tuple[int, ...], dtype: str) -> Any:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 9, shape).astype(dtype) if np.dtype(dtype).kind == "i" else rng.standard_normal(shape).astype(dtype)


def _append(work: Checkout, entity: str, ids: list[Any], seed: int | None) -> None:
    new = [id_ for id_ in dict.fromkeys(ids) if id_ not in work.ids(entity)]
    own = {"user": 3, "item": 2}[entity]
    init = {} if seed is None else {entity: _numbers(seed, (len(new), own), work.tables[entity].dtype)}
    work.append(entity, new, init=init)


def _remove(work: Checkout, entity: str, ids: list[Any]) -> None:
    work.remove(entity, [id_ for id_ in ids if id_ in work.ids(entity)])


def _append_again(work: Checkout, entity: str, ids: list[Any]) -> None:
    _remove(work, entity, ids)
    work.append(entity, ids)


def _scatter(work: Checkout, name: str, which: int, ids: list[Any], seed: int) -> None:
    if name not in work.tables:
        return
    spec = work.tables[name]
    if spec.entity == ITEM:
        ids = [IDS[ITEM][id_] if isinstance(id_, int) and id_ < 5 else id_ for id_ in ids if id_ != 5]
    known = [id_ for id_ in dict.fromkeys(ids) if id_ in work.ids(spec.entity)]
    columns = [spec, *spec.slots]
    shaped = columns[which % len(columns)]
    target = work.table(name) if shaped is spec else work.table(name).slot(shaped.name)
    shape = (len(known),) if shaped.dim is None else (len(known), shaped.dim)
    target.scatter(work.ids(spec.entity).rows(known), _numbers(seed, shape, shaped.dtype))


def _point(work: Checkout, items: list[Any], genres: list[str]) -> None:
    known = [id_ for id_ in dict.fromkeys(items) if id_ in work.ids(ITEM)]
    work.append(GENRE, genres)
    rows = [*work.ids(GENRE).rows(genres).tolist(), -1][:2]
    work.table("genres").scatter(work.ids(ITEM).rows(known), np.tile(rows, (len(known), 1)).astype(np.int32))


def _consume(work: Checkout, pairs: list[tuple[Any, Any]], timed: bool, replace: bool) -> None:
    known = [(user, item) for user, item in pairs if user in work.ids(USER) and item in work.ids(ITEM)]
    users, items = work.ids(USER).rows([user for user, _ in known]), work.ids(ITEM).rows([item for _, item in known])
    work.consumed.append(users, items, times=[ord(item) for _, item in known] if timed else None, replace=replace)


def _dense(work: Checkout, name: str, seed: int) -> None:
    work.dense[name] = _numbers(seed, (2,), "float32")


def _things(work: Checkout, ids: list[Any]) -> None:
    work.add_table(LATE_TABLES[1])
    work.append("thing", ids)
    _scatter(work, "thing", 0, ids[:1], len(ids))


def _drop_dense(work: Checkout, name: str) -> None:
    if name in work.dense:
        del work.dense[name]


_STEPS: dict[str, Any] = {
    "append": _append,
    "remove": _remove,
    "append_again": _append_again,
    "scatter": _scatter,
    "point": _point,
    "consume": _consume,
    "dense": _dense,
    "drop_dense": _drop_dense,
    "things": _things,
    "table": lambda work, spec: work.add_table(spec),
    "slot": lambda work, which: work.table(which[0]).add_slot(which[1]),
}
