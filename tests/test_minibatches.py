"""Batches of users whose negatives are what the others have had."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from embstore import InvalidInputError
from trainers.milestones import lr_at
from trainers.minibatches import Batching, UserBatch
from trainers.pairs import Pairs
from trainers.sampling import dropout

ROWS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12)), min_size=1, max_size=40)


def batches(batching: Batching, pairs: Pairs, epoch: int = 0) -> list[UserBatch]:
    """Return those of an epoch, where without sampling all of 13 items are scored."""
    return list(batching.batches(pairs, np.arange(13), seed=3, epoch=epoch))


def items_of(pairs: Pairs, users: list[int]) -> list[int]:
    """Return what any of some users has."""
    return sorted({int(item) for user in users for item in pairs.columns[pairs.ends[user] : pairs.ends[user + 1]]})


@given(ROWS, st.integers(1, 4), st.integers(0, 3))
def test_batches_share_what_sampled_users_have(rows: list[tuple[int, int]], batch_size: int, n_batches: int) -> None:
    """Every user is there once, with all pairs of theirs; so many batches score what any of their users has."""
    pairs = Pairs.of(np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), None, n_groups=9)
    found = batches(Batching(batch_size, True, n_batches * batch_size), pairs)
    assert sorted(np.concatenate([part.users for part in found]).tolist()) == list(range(9))
    for start in range(0, len(found), n_batches or 1):
        together = found[start : start + (n_batches or 1)]
        wanted = items_of(pairs, [user for part in together for user in part.users.tolist()])
        assert [part.items.tolist() for part in together] == [wanted] * len(together)
    for part in found:
        assert len(part.users) <= batch_size
        for place, user in enumerate(part.users.tolist()):
            own = part.pairs.columns[part.pairs.ends[place] : part.pairs.ends[place + 1]]
            assert part.items[own].tolist() == items_of(pairs, [user])


def test_without_sampling_all_items_are_scored() -> None:
    """Or, where there are none to be scored, those of the batch's own pairs; the order of users is another in every epoch."""
    pairs = Pairs.of(np.repeat(np.arange(8), 2), np.tile([2, 5, 5, 9], 4), None, n_groups=8)
    first, second = (batches(Batching(3), pairs, epoch) for epoch in (0, 1))
    assert {tuple(part.items.tolist()) for part in first} == {tuple(range(13))}
    assert [part.users.tolist() for part in first] != [part.users.tolist() for part in second]
    own = next(iter(Batching(1).batches(pairs, None, seed=0, epoch=0)))
    assert own.items.tolist() == items_of(pairs, own.users.tolist())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0,), "batch_size 0: give a whole number"),
        ((4, 1), "negative_sampling 1: give True or False"),
        ((4, True, 6), "num_sampling_users 6: give 0, or a multiple of batch_size 4"),
        ((4, True, -4), "num_sampling_users -4: give 0"),
        ((4, False, 8), "num_sampling_users 8 without negative_sampling"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: tuple[int, ...], message: str) -> None:
    """Each is named."""
    with pytest.raises(InvalidInputError, match=message):
        Batching(*settings)  # type: ignore[arg-type]


def test_learning_rates_fall_at_milestones() -> None:
    """To a tenth after so many epochs, each time."""
    assert [lr_at(1.0, (2, 3), epoch) for epoch in range(5)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])


def test_dropout_keeps_its_share_and_the_mean() -> None:
    """What is dropped is a function of seed, epoch and step, and another for each."""
    masks = [
        dropout((300, 100), 0.3, seed=s, epoch=e, step=n) for s, e, n in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]
    ]
    assert np.array_equal(masks[0], masks[4])
    for mask in masks[1:4]:
        assert 0.4 < (mask == masks[0]).mean() < 0.7
    for mask in masks:
        assert (mask == 0).mean() == pytest.approx(0.3, abs=0.01)
        assert mask.mean() == pytest.approx(1, abs=0.02)
