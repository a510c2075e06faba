"""Order and negatives of an epoch, against the same hashes in Python's whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from embstore import InvalidInputError
from trainers.sampling import PairSet, hashed_negatives, normals, shuffled, shuffled_batches, starting_normals, uniform_negatives

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
SEEDS = st.integers(-(2**63), 2**64 - 1)
KEYS = st.integers(-(2**63), 2**63 - 1)
Pairs = set[tuple[int, int]]


def mix(x: int) -> int:
    x &= MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def stream(*numbers: int) -> int:
    key = 0
    for number in numbers:
        key = mix(key + number * GOLDEN + 1)
    return key


def pair_set(pairs: Pairs, n_users: int, n_items: int, **options: Any) -> PairSet:
    ordered = sorted(pairs)
    counts = np.bincount([user for user, _ in ordered], minlength=n_users)
    indices = np.array([item for _, item in ordered], np.int32)
    return PairSet(np.concatenate([[0], np.cumsum(counts)]), indices, n_items=n_items, **options)


def drawn(state: int, user: int, consumed: Pairs, *, n_items: int, tries: int) -> int:
    item = -1
    for attempt in range(1, tries + 1):
        item = mix(state + attempt * GOLDEN) % n_items
        if (user, item) not in consumed:
            break
    return item


@st.composite
def consumed_pairs(draw: st.DrawFn) -> tuple[int, int, Pairs]:
    n_users, n_items = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    return n_users, n_items, draw(st.sets(st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1))))


def every_pair(n_users: int, n_items: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    users, items = np.divmod(np.arange(n_users * n_items), n_items)
    return users, items


@given(given_pairs=consumed_pairs(), bitmap_bits=st.sampled_from([0, 1 << 26]))
def test_pair_set_is_a_set_of_pairs(given_pairs: tuple[int, int, Pairs], bitmap_bits: int) -> None:
    """Bitmap and sorted keys both answer as a Python set does."""
    n_users, n_items, pairs = given_pairs
    users, items = every_pair(n_users, n_items)
    expected = [pair in pairs for pair in zip(users.tolist(), items.tolist(), strict=True)]
    assert expected == pair_set(pairs, n_users, n_items, bitmap_bits=bitmap_bits).contains(users, items).tolist()


@pytest.mark.parametrize("bitmap_bits", [0, 1 << 26])
def test_pair_set_takes_unsorted_and_repeated_items(bitmap_bits: int) -> None:
    """A CSR that is neither sorted nor distinct is the same set."""
    pairs = PairSet(np.array([0, 3, 4]), np.array([9, 2, 9, 0]), n_items=10, bitmap_bits=bitmap_bits)
    users, items = every_pair(2, 10)
    assert np.flatnonzero(pairs.contains(users, items)).tolist() == [2, 9, 10]


@pytest.mark.parametrize("item", [-1, 3])
def test_pair_set_refuses_items_outside(item: int) -> None:
    """An item row that there is not would fall on another user's bit."""
    with pytest.raises(InvalidInputError, match=f"item row {item}: there are 3 items"):
        PairSet(np.array([0, 2]), np.array([0, item]), n_items=3)


@given(n=st.integers(0, 300), seed=SEEDS, epoch=st.integers(0, 2**40))
def test_shuffled_sorts_positions_by_their_hash(n: int, seed: int, epoch: int) -> None:
    """The order is that of the low 32 bits of each position's hash, ties by position."""
    key = stream(1, seed, epoch)
    expected = sorted(range(n), key=lambda position: mix((position + 1) * GOLDEN + key) & 0xFFFFFFFF)
    assert expected == shuffled(n, seed=seed, epoch=epoch).tolist()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    """Neighbouring epochs and seeds share no order, and every position comes about equally often first."""
    orders = [shuffled(50, seed=seed, epoch=epoch).tolist() for seed in range(20) for epoch in range(50)]
    assert len({tuple(order) for order in orders}) == 1000
    firsts = np.bincount([order[0] for order in orders], minlength=50)
    assert firsts.min() > 0
    assert firsts.max() < 50


@pytest.mark.parametrize(("n", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (3, [3]), (0, [])])
def test_batches_are_the_order_in_pieces(n: int, sizes: list[int]) -> None:
    """Batches hold every position once, in the epoch's order; the last may be smaller."""
    batches = list(shuffled_batches(n, batch_size=4, seed=7, epoch=3))
    assert [len(batch) for batch in batches] == sizes
    assert [int(x) for batch in batches for x in batch] == shuffled(n, seed=7, epoch=3).tolist()


@given(given_pairs=consumed_pairs(), data=st.data(), seed=SEEDS, epoch=st.integers(0, 2**40), tries=st.integers(1, 12))
def test_uniform_negatives_are_hashes_of_their_position(
    given_pairs: tuple[int, int, Pairs], data: st.DataObject, seed: int, epoch: int, tries: int
) -> None:
    """Each draw is the first of its tries that the user has not consumed, and the last one where all are consumed."""
    n_users, n_items, pairs = given_pairs
    users = data.draw(st.lists(st.integers(0, n_users - 1), max_size=20))
    width = data.draw(st.integers(1, 3))
    key = stream(2, seed, epoch)
    states = [mix((i + 1) * GOLDEN + key) for i in range(len(users) * width)]
    expected = [drawn(s, users[i // width], pairs, n_items=n_items, tries=tries) for i, s in enumerate(states)]
    actual = uniform_negatives(
        pair_set(pairs, n_users, n_items), np.array(users, np.int64), n_negatives=width, seed=seed, epoch=epoch, tries=tries
    )
    assert actual.shape == (len(users), width)
    assert expected == actual.ravel().tolist()


def test_many_are_ordered_and_drawn_as_few_are() -> None:
    """A hundred thousand are hashed block by block, which changes nothing."""
    n, seed, epoch = 100_003, 5, 2
    order, draw = stream(1, seed, epoch), stream(2, seed, epoch)
    hashes = np.array([mix((i + 1) * GOLDEN + order) & 0xFFFFFFFF for i in range(n)])
    np.testing.assert_array_equal(shuffled(n, seed=seed, epoch=epoch), np.argsort(hashes, kind="stable"))
    users = np.arange(n // 3) % 7
    found = uniform_negatives(pair_set(set(), 7, 11), users, n_negatives=3, seed=seed, epoch=epoch)
    assert found.ravel().tolist() == [mix(mix((i + 1) * GOLDEN + draw) + GOLDEN) % 11 for i in range(len(users) * 3)]


def test_uniform_negatives_are_uniform_over_what_is_left() -> None:
    """Of 20 items with 4 consumed, the others come equally often (within five standard deviations) and the four hardly ever."""
    consumed = pair_set({(0, item) for item in (0, 5, 6, 19)}, 1, 20)
    items = uniform_negatives(consumed, np.zeros(40_000, np.int64), n_negatives=2, seed=1, epoch=1)
    counts = np.bincount(items.ravel(), minlength=20)
    free = np.delete(counts, [0, 5, 6, 19])
    assert counts[[0, 5, 6, 19]].sum() < 5
    assert np.abs(free - 5000).max() < 5 * np.sqrt(5000)


def test_a_user_who_has_had_everything_still_gets_items() -> None:
    """After the last try a consumed item stays: the epoch ends in bounded time."""
    consumed = pair_set({(0, 0), (0, 1), (0, 2)}, 1, 3)
    items = uniform_negatives(consumed, np.zeros(50, np.int64), n_negatives=1, seed=1, epoch=1)
    assert set(items.ravel().tolist()) == {0, 1, 2}


@given(given_pairs=consumed_pairs(), data=st.data(), seed=SEEDS, epoch=st.integers(0, 2**40), tries=st.integers(1, 12))
def test_hashed_negatives_are_hashes_of_ids(
    given_pairs: tuple[int, int, Pairs], data: st.DataObject, seed: int, epoch: int, tries: int
) -> None:
    """Each draw is a function of seed, epoch, the two id keys and the user's own consumed items."""
    n_users, n_items, pairs = given_pairs
    rows = data.draw(st.lists(st.tuples(st.integers(0, n_users - 1), KEYS, KEYS), max_size=20))
    key = stream(3, seed, epoch)
    states = [mix(mix(user_key & MASK ^ key) + item_key * GOLDEN) for _, user_key, item_key in rows]
    expected = [drawn(s, user, pairs, n_items=n_items, tries=tries) for s, (user, _, _) in zip(states, rows, strict=True)]
    users, user_keys, item_keys = np.array(rows, np.int64).reshape(-1, 3).T.copy()
    actual = hashed_negatives(
        pair_set(pairs, n_users, n_items), users, user_keys=user_keys, item_keys=item_keys, seed=seed, epoch=epoch, tries=tries
    )
    assert expected == actual.tolist()


def test_hashed_negatives_of_a_user_alone_are_those_among_others() -> None:
    """Taken alone, under another row and in another order, a user's pairs meet the same items."""
    rng = np.random.default_rng(1)
    users, item_keys = rng.integers(0, 5, 200), rng.integers(0, 2**62, 200)
    pairs = {(int(u), int(i)) for u, i in rng.integers(0, [5, 30], (60, 2))}
    options = {"seed": 3, "epoch": 4}
    joint = hashed_negatives(pair_set(pairs, 5, 30), users, user_keys=users + 1000, item_keys=item_keys, **options)
    mine = rng.permutation(np.flatnonzero(users == 2))
    own = pair_set({(0, item) for user, item in pairs if user == 2}, 1, 30)
    zeros = np.zeros(len(mine), np.int64)
    alone = hashed_negatives(own, zeros, user_keys=zeros + 1002, item_keys=item_keys[mine], **options)
    assert joint[mine].tolist() == alone.tolist()


def test_hashed_negatives_change_with_the_epoch() -> None:
    """The next epoch brings other items."""
    consumed, zeros, keys = pair_set(set(), 1, 1000), np.zeros(100, np.int64), np.arange(100)
    drawn_in = [
        hashed_negatives(consumed, zeros, user_keys=zeros, item_keys=keys, seed=1, epoch=epoch).tolist() for epoch in range(2)
    ]
    assert sum(a == b for a, b in zip(*drawn_in, strict=True)) < 5


@pytest.mark.parametrize("of", [{"seed": 1, "epoch": 2, "step": 3}, {"seed": 1, "number": 2}])
def test_normal_numbers_are_normal_and_a_function_of_where_they_stand(of: dict[str, int]) -> None:
    """Mean, deviation and tails of a standard normal; of more numbers the first are the same, and other counters give others."""
    draw = normals if "epoch" in of else starting_normals
    found = draw((400, 500), **of)
    assert (found.dtype, found.shape) == (np.float32, (400, 500))
    assert found.mean() == pytest.approx(0, abs=0.01)
    assert found.std() == pytest.approx(1, abs=0.01)
    shares = [float((np.abs(found) < bound).mean()) for bound in (0.6745, 1.96, 3.2905)]
    assert shares == pytest.approx([0.5, 0.95, 0.999], abs=0.005)
    assert abs(np.corrcoef(found[0], found[1])[0, 1]) < 0.2
    assert draw((3,), **of).tolist() == found[0, :3].tolist()
    for what in of:
        assert draw((3,), **{**of, what: of[what] + 1}).tolist() != found[0, :3].tolist()
    assert normals((3,), seed=1, epoch=2, step=0).tolist() != starting_normals((3,), seed=1, number=2).tolist()


def test_counts_below_one_are_refused() -> None:
    """Batch size, negatives, tries and the number of items are whole numbers from 1."""
    consumed, users = pair_set(set(), 2, 4), np.array([0, 1])
    with pytest.raises(InvalidInputError, match="batch_size 0: give a whole number from 1"):
        next(shuffled_batches(3, batch_size=0, seed=1, epoch=1))
    with pytest.raises(InvalidInputError, match="n_negatives -1"):
        uniform_negatives(consumed, users, n_negatives=-1, seed=1, epoch=1)
    with pytest.raises(InvalidInputError, match="tries 0"):
        uniform_negatives(consumed, users, n_negatives=1, seed=1, epoch=1, tries=0)
    with pytest.raises(InvalidInputError, match="tries True"):
        hashed_negatives(consumed, users, user_keys=users, item_keys=users, seed=1, epoch=1, tries=True)
    with pytest.raises(InvalidInputError, match="number of items 0"):
        uniform_negatives(pair_set(set(), 2, 0), users, n_negatives=1, seed=1, epoch=1)
