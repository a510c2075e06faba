"""Rehearsal: which earlier pairs are trained on again."""

from __future__ import annotations

import numpy as np
import pytest

from embstore import Batch, Checkout, Interactions
from tests.examples import new_store
from trainers.rehearsal import Rehearsal

EARLIER = [(user, item) for user in range(6) for item in range(7) if (user + item) % 2]
LATER = [(2, 1), (2, 1), (9, 3), (0, 8), (4, 4)]


def consumed(work: Checkout, pairs: list[tuple[int, int]]) -> Batch:
    """Append pairs of ids to a checkout as a fit does."""
    users, items = zip(*pairs, strict=True)
    work.add_entity("user")
    work.add_entity("item")
    work.append("user", list(users))
    work.append("item", list(items))
    batch = Interactions(list(users), list(items)).to_batch(work)
    work.consumed.append(batch.users, batch.items)
    return batch


def drawn(rehearsal: Rehearsal, batch: Batch, epoch: int) -> list[tuple[int, int]]:
    """Return the earlier pairs of an epoch, in rows; the batch comes first."""
    users, items = rehearsal.pairs(epoch)
    assert users[: len(batch)].tolist() == batch.users.tolist()
    assert items[: len(batch)].tolist() == batch.items.tolist()
    return list(zip(users[len(batch) :].tolist(), items[len(batch) :].tolist(), strict=True))


@pytest.mark.parametrize(("share", "n"), [(0.0, 0), (0.2, 1), (1.0, 5), (2.0, 10), (100.0, 20)])
def test_earlier_pairs_are_drawn_once_each_and_none_of_the_new(share: float, n: int) -> None:
    """As many as the share says or as there are, others in each epoch, and the same ones for the same seed."""
    with new_store().checkout() as work:
        earlier = consumed(work, EARLIER)
        batch = consumed(work, LATER)
        rehearsal, again = (Rehearsal(work, batch, share=share, seed=3) for _ in range(2))
        epochs = [drawn(rehearsal, batch, epoch) for epoch in range(4)]
        assert [drawn(again, batch, epoch) for epoch in range(4)] == epochs
        known = set(zip(earlier.users.tolist(), earlier.items.tolist(), strict=True))
        known -= set(zip(batch.users.tolist(), batch.items.tolist(), strict=True))
        assert len(known) == 20
        for pairs in epochs:
            assert (len(pairs), len(set(pairs)), set(pairs) <= known) == (n, n, True)
        assert (len({tuple(sorted(pairs)) for pairs in epochs}) == 1) == (n in (0, 20))
        work.discard()


def test_a_first_fit_has_nothing_to_rehearse() -> None:
    """All that was consumed is in the batch itself."""
    with new_store().checkout() as work:
        batch = consumed(work, EARLIER)
        assert drawn(Rehearsal(work, batch, share=5.0, seed=0), batch, 0) == []
        work.discard()


def test_pairs_of_removed_ids_are_not_rehearsed() -> None:
    """What was removed is forgotten."""
    with new_store().checkout() as work:
        consumed(work, EARLIER)
        work.commit("earlier")
        work.remove("user", [1])
        work.remove("item", [2])
        batch = consumed(work, LATER)
        gone = work.ids("user").removed_rows().tolist(), work.ids("item").removed_rows().tolist()
        pairs = drawn(Rehearsal(work, batch, share=100.0, seed=0), batch, 0)
        assert gone == ([1], [4])
        assert [pair for pair in pairs if pair[0] in gone[0] or pair[1] in gone[1]] == []
        work.discard()


def test_rows_are_int64() -> None:
    """As those of a batch are, even with nothing to add."""
    with new_store().checkout() as work:
        batch = consumed(work, EARLIER)
        users, items = Rehearsal(work, batch, share=1.0, seed=0).pairs(0)
        assert (users.dtype, items.dtype) == (np.dtype("int64"), np.dtype("int64"))
        work.discard()
