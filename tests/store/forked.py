"""A small store whose branches are about to part, and edits of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import embstore
from embstore import Schema, SlotSpec, Store, TableSpec, Zeros

SCHEMA = Schema(
    (
        TableSpec("user", "user", 2, slots=(SlotSpec("m", 2), SlotSpec("step", None))),
        TableSpec("item", "item", 2),
        TableSpec("age", "user", None, "int16", init=Zeros()),
    )
)
Edit = Callable[[embstore.Checkout], object]


def fork(url: str) -> Store:
    """Return a store with users 1, 2, 3, items "a" and "b", three pairs and an array, and a branch side beside main."""
    store = embstore.create(url, schema=SCHEMA)
    with store.checkout() as work:
        users, items = work.append("user", [1, 2, 3]), work.append("item", ["a", "b"])
        work.table("user").scatter(users, np.zeros((3, 2)))
        work.consumed.append(users, items[[0, 1, 0]])
        work.dense["w"] = [1.0, 2.0]
        work.commit("fork")
    store.branch("side")
    return store


def edit(store: Store, branch: str, *edits: Edit) -> embstore.Version:
    """Commit edits to a branch."""
    work = store.checkout(branch)
    for one in edits:
        one(work)
    return work.commit(f"on {branch}")


def put(table: str, ids: Sequence[Any], value: object, *, slot: str | None = None) -> Edit:
    """Return what gives rows of a table or slot one number."""

    def act(work: embstore.Checkout) -> None:
        target = work.table(table) if slot is None else work.table(table).slot(slot)
        rows = work.ids(work.tables[table].entity).rows(list(ids))
        target.scatter(rows, np.full_like(target.gather(rows), value))

    return act


def array(name: str, value: object) -> Edit:
    """Return what assigns an array without rows, or deletes it."""
    return lambda work: work.dense.pop(name) if value is None else work.dense.update({name: np.asarray(value)})


def had(version: embstore.View, user: int) -> list[Any]:
    """Return the items of a user."""
    return list(version.consumed.of("user", [user])[0].tolist())


def first_numbers(version: embstore.View, table: str, ids: Sequence[Any]) -> list[float]:
    """Return the first number of some rows."""
    return [float(row.ravel()[0]) for row in version.table(table).get(list(ids))]
