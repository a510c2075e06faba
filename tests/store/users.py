"""Versions with users whose numbers follow from their ids."""

from __future__ import annotations

import numpy as np

import embstore
from embstore import Schema, SlotSpec, Store, TableSpec

SCHEMA = Schema((TableSpec("user", "user", 4, slots=(SlotSpec("n", None, fill=0.5),)), TableSpec("item", "item", 4)))


def append(store: Store, ids: list[int], *, branch: str = "main") -> embstore.Version:
    """Commit new users whose vectors and slot are their id."""
    work = store.checkout(branch)
    rows = work.append("user", ids)
    work.table("user").scatter(rows, np.repeat(np.array(ids, np.float32)[:, None], 4, axis=1))
    work.table("user").slot("n").scatter(rows, ids)
    return work.commit(f"users {ids}")


def messages(store: Store, ref: str = "main") -> list[str]:
    """Return the messages of a log."""
    return [version.message for version in store.log(ref)]
