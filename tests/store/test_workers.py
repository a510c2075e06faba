"""Workers of a checkout: what they stage elsewhere comes out as one version, as if one process had staged it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import numpy as np
import pytest

from embstore import Checkout, Constant, Schema, SlotSpec, Store, TableSpec
from embstore.errors import (
    ConflictError,
    InvalidInputError,
    RefusedError,
    SchemaMismatchError,
    StaleCheckoutError,
    UnknownIdError,
)
from tests.store.views import same, sent


@pytest.fixture
def work(filled: Store) -> Iterator[Checkout]:
    """Return a checkout of users 1, 2, 3 and items "a" and "b" that has appended user 4 and item "c"."""
    checkout = filled.checkout()
    checkout.append("user", [4], init={"user": np.full((1, 4), 7.0)})
    checkout.append("item", ["c"])
    checkout.table("user").scatter([0], np.ones((1, 4)))
    checkout.dense["note"] = [1]
    checkout.consumed.append([3], [2])
    yield checkout
    checkout.discard()


def test_a_worker_sees_what_the_checkout_sees(work: Checkout) -> None:
    """Stored rows, new ones and what was staged, in this process and in another."""
    work.remove("user", [2])
    work.table("user").slot("m").scatter([1, 3], np.ones((2, 4)))
    for worker in (work.fork(), sent(work.fork())):
        same(worker, work)
        rows = [3, 0, 1, 2, 0]
        assert worker.table("user").gather(rows).tolist() == work.table("user").gather(rows).tolist()
        assert worker.table("item").get(["c", "a"]).tolist() == work.table("item").get(["c", "a"]).tolist()
        assert not worker.dirty
        with pytest.raises(UnknownIdError):
            worker.ids("user").rows([2])


def test_new_rows_are_not_sent(filled: Store) -> None:
    """Rows that are where they start are computed by whoever asks for them."""
    work = filled.checkout()
    work.append("user", range(100, 5100))
    assert len(pickle.dumps(work.fork())) < 5000 * 8 + 5000
    same(sent(work.fork()), work)


def test_a_table_that_is_not_stored_yet(filled: Store) -> None:
    """A worker sees and fills a table, and a slot of it, that the checkout has just added."""
    work = filled.checkout()
    work.remove("user", [3])
    work.add_table(TableSpec("fresh", "user", 3, slots=(SlotSpec("s", None, fill=2.0),), init=Constant(0.25)))
    worker = sent(work.fork())
    same(worker, work)
    assert worker.table("fresh").values()[:, 0].tolist() == [0.25, 0.25, 0.0]
    worker.table("fresh").slot("s").scatter([1], [5.0])
    work.collect([worker])
    assert work.commit("fresh").table("fresh").slot("s").values().tolist() == [2.0, 5.0, 2.0]


def test_what_workers_stage_is_one_version(work: Checkout, filled: Store) -> None:
    """Rows, slots, added slots, records and arrays of two workers are there after one commit."""
    one, two = sent(work.fork()), sent(work.fork())
    one.table("user").scatter([0, 3], [[1, 2, 3, 4], [5, 6, 7, 8]])
    one.table("user").slot("m").scatter([3], [[9, 9, 9, 9]])
    one.consumed.append([0], [2])
    one.dense["one"] = [1.5]
    two.table("item").add_slot(SlotSpec("sum", 4, fill=0.5)).scatter([1], [[1, 1, 1, 1]])
    two.table("user").scatter([1], [[0, 0, 0, 1]])
    two.consumed.append([1], [0], replace=True)
    del two.dense["w"]
    assert one.dirty
    assert two.dirty
    work.collect([sent(one), sent(two)])
    version = work.commit("both")
    assert [v.message for v in filled.log()][:2] == ["both", "first"]
    assert version.table("user").values()[[0, 1, 3]].tolist() == [[1, 2, 3, 4], [0, 0, 0, 1], [5, 6, 7, 8]]
    assert version.table("user").slot("m").values()[3].tolist() == [9, 9, 9, 9]
    assert version.table("item").slot("sum").values()[:, 0].tolist() == [0.5, 1.0, 0.5]
    assert {name: array.tolist() for name, array in version.dense.items()} == {"note": [1], "one": [1.5]}
    assert [o.tolist() for o in version.consumed.of("user", [1, 2, 4])] == [["a", "b", "c"], ["a"], ["c"]]
    assert filled.verify().ok


def test_two_workers_with_one_row(work: Checkout) -> None:
    """The same numbers from both are no conflict; others are, and then nothing of either is staged."""
    one, two = work.fork(), work.fork()
    for worker in (one, two):
        worker.table("user").scatter([2, 3], np.full((2, 4), 3.0))
        worker.dense["w"] = [2.0]
    one.table("item").scatter([0, 2], np.zeros((2, 4)))
    two.table("item").scatter([2, 1], np.ones((2, 4)))
    before = str(work.changes)
    with pytest.raises(ConflictError, match=r"table 'item': two workers staged 1 of its rows .*\(ids 'c'\)"):
        work.collect([one, two])
    assert str(work.changes) == before
    two.table("item").scatter([2], np.zeros((1, 4)))
    work.collect([one, two])
    assert work.table("user").gather([2, 3])[:, 0].tolist() == [3.0, 3.0]
    assert work.table("item").values()[:, 0].tolist() == [0.0, 1.0, 0.0]


def test_two_workers_with_one_array(work: Checkout) -> None:
    """Arrays without rows are the same from all workers that stage them, or one worker's."""
    one, two = work.fork(), work.fork()
    one.dense["w"], two.dense["w"] = [1.0], [1]
    with pytest.raises(ConflictError, match="dense array 'w'"):
        work.collect([one, two])
    del two.dense["w"]
    with pytest.raises(ConflictError, match="dense array 'w'"):
        work.collect([one, two])


def test_workers_may_be_collected_one_by_one(work: Checkout) -> None:
    """A worker that was forked before another was collected has not seen its rows; one forked after has, and may change them."""
    one, two = work.fork(), work.fork()
    one.table("user").scatter([0], np.full((1, 4), 1.0))
    two.table("user").scatter([0], np.full((1, 4), 2.0))
    work.collect([sent(one)])
    three = work.fork()
    three.table("user").scatter([0], np.full((1, 4), 3.0))
    with pytest.raises(ConflictError, match="table 'user'"):
        work.collect([two])
    work.collect([three])
    assert work.table("user").gather([0])[0, 0] == 3.0


def test_a_worker_goes_on_after_it_was_collected(work: Checkout) -> None:
    """It sees what it has handed over, and hands over only what is new."""
    worker = work.fork()
    worker.table("user").scatter([0], np.full((1, 4), 1.0))
    worker.consumed.append([0], [2])
    worker.dense["w"] = [9.0]
    work.collect([worker])
    assert not worker.dirty
    same(worker, work)
    worker.table("user").scatter([0], np.full((1, 4), 2.0))
    work.collect([worker])
    same(worker, work)
    assert [o.tolist() for o in work.consumed.of("user", [1])] == [["a", "b", "c"]]


def test_a_worker_follows_a_commit(work: Checkout) -> None:
    """On the new version it sees all workers' rows."""
    one, two = work.fork(), work.fork()
    one.table("user").scatter([0], np.full((1, 4), 1.0))
    two.table("user").scatter([1], np.full((1, 4), 2.0))
    work.collect([one, two])
    version = work.commit("both")
    one.follow(version)
    same(one, version)
    one.table("user").scatter([1], np.full((1, 4), 3.0))
    with pytest.raises(InvalidInputError, match="before its last commit"):
        work.collect([one])


def test_a_copy_is_not_collected_twice(work: Checkout) -> None:
    """A pool that gives back one worker twice is told so; records would be there twice."""
    worker = work.fork()
    worker.consumed.append([0], [2])
    packed = sent(worker)
    work.collect([worker])
    with pytest.raises(InvalidInputError, match="collected already"):
        work.collect([packed])


def test_workers_of_others(work: Checkout, filled: Store) -> None:
    """A worker belongs to the checkout that gave it, as that was then."""
    with pytest.raises(InvalidInputError, match="another checkout"):
        filled.checkout().collect([work.fork()])
    worker = work.fork()
    work.commit("meanwhile")
    with pytest.raises(InvalidInputError, match="fork again"):
        work.collect([worker])
    with pytest.raises(InvalidInputError, match="give the workers"):
        work.collect([work])  # type: ignore[list-item]


def test_a_worker_that_is_no_list(work: Checkout) -> None:
    """Given alone, or nothing at all, the error says what to give, and nothing is staged."""
    worker = work.fork()
    worker.table("user").scatter([0], np.full((1, 4), 9.0))
    for given, kind in ((worker, "Worker"), (None, "NoneType"), (3, "int"), ([None], "NoneType")):
        with pytest.raises(InvalidInputError, match=rf"collect\({kind}\): give the workers that fork\(\) gave, in a list"):
            work.collect(given)  # type: ignore[arg-type]
    assert work.table("user").gather([0])[0, 0] == 1.0


def test_what_only_the_checkout_may(work: Checkout) -> None:
    """Whatever would give two workers one row, or one of them a table that the other lacks, is refused."""
    worker = work.fork()
    assert worker.append("user", [4, 1]).tolist() == [3, 0]
    for act in (
        lambda: worker.append("user", [77]),
        lambda: worker.remove("user", [1]),
        lambda: worker.add_entity("genre"),
        lambda: worker.add_table(TableSpec("t", "user", 2)),
        lambda: worker.adopt(Schema()),
    ):
        with pytest.raises(RefusedError, match="let the checkout do it, before fork"):
            act()
    one, two = work.fork(), work.fork()
    one.table("item").add_slot(SlotSpec("s", 4))
    two.table("item").add_slot(SlotSpec("s", None))
    with pytest.raises(SchemaMismatchError):
        work.collect([one, two])
    assert work.tables["item"].slots == ()


def test_rows_removed_meanwhile_stay_removed(work: Checkout) -> None:
    """What a worker has learned of an id that was forgotten since is forgotten too."""
    worker = work.fork()
    worker.table("user").scatter([0, 1], np.full((2, 4), 5.0))
    worker.consumed.append([0, 1], [2, 2])
    work.remove("user", [1])
    work.collect([worker])
    version = work.commit("forgotten")
    assert version.table("user").gather([0, 1])[:, 0].tolist() == [0.0, 5.0]
    assert [o.tolist() for o in version.consumed.of("item", ["c"])] == [[4, 2]]


def test_a_closed_checkout_has_no_workers(work: Checkout) -> None:
    """After discard nothing is forked or collected, and a closed worker stages nothing."""
    worker = work.fork()
    worker.close("enough")
    with pytest.raises(StaleCheckoutError, match="enough"):
        worker.table("user").scatter([0], np.ones((1, 4)))
    work.discard()
    with pytest.raises(StaleCheckoutError):
        work.fork()
    with pytest.raises(StaleCheckoutError):
        work.collect([])
