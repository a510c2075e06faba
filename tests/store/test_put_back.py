"""Rows of removed ids stay zeros whatever is written, and rows of one entity are not those of another."""

from __future__ import annotations

import numpy as np
import pytest

import embstore
from embstore import Schema, SlotSpec, Store, TableSpec, UnknownNameError

ONES = np.ones((3, 4))


def test_rows_of_removed_ids_stay_zeros_whatever_is_written() -> None:
    """A job that puts whole tables back, in the same checkout or later, writes nothing for an id that was removed."""
    spec = TableSpec("user", "user", 4, slots=(SlotSpec("s", 4),))
    store = embstore.create("memory://put-back", schema=Schema((spec,)))
    with store.checkout() as work:
        work.append("user", ["ann", "bob", "cy"])
        work.table("user").slot("s").scatter([0, 1, 2], ONES)
        work.commit("three")
    for _ in range(2):
        with store.checkout() as work:
            if "bob" in work.ids("user"):
                work.remove("user", ["bob"])
            for column in (work.table("user"), work.table("user").slot("s")):
                column.scatter(np.arange(3), ONES * 7)
            work.commit("all rows", allow_empty=True)
        for column in (store.at().table("user"), store.at().table("user").slot("s")):
            assert column.values().tolist() == [[7.0] * 4, [0.0] * 4, [7.0] * 4]
    assert store.diff("main").is_empty
    assert store.verify(deep=True).problems == []


def test_blame_asks_for_a_table_of_the_entity(filled: Store) -> None:
    """The row of an id is no row of another entity's table."""
    with pytest.raises(UnknownNameError, match=r"table 'item': its rows are those of 'item', not of 'user'"):
        filled.blame("user", 1, table="item")
