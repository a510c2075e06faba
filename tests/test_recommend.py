"""recommend and evaluate against the obvious: sort all items by score, take away what is not to be shown, count the hits."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

import embstore
from embstore import (
    Batch,
    Checkout,
    Interactions,
    InvalidInputError,
    Schema,
    UnknownIdError,
    UnknownTrainerError,
    Version,
    View,
)
from embstore.recommending import Ranker
from tests.examples import DAY_1, DAY_2, Scripted, new_store, state_of
from tests.plugin.tinymf import TinyMF
from trainers.popularity import Popularity

N_USERS, N_ITEMS = 4, 6


@dataclass(frozen=True)
class Written:
    """Scores users as an array without rows says; the mean user by its mean."""

    form: str = "right"
    name: ClassVar[str] = "written"

    def schema(self) -> Schema:
        """Return no tables."""
        return Schema()

    def train(self, work: Checkout, batch: Batch) -> Any:
        """Learn nothing."""
        return iter(())

    def scores(self, view: View, user_rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows of the array."""
        written = view.dense["scores"]
        scores = np.vstack([written, written.mean(axis=0)])[user_rows]
        return {"right": scores, "text": scores.astype(str), "flat": scores.ravel()}[self.form]


def _view(scores: list[list[float]], pairs: set[tuple[int, int]], removed: set[int], *, committed: bool) -> Version | Checkout:
    """Return a view with users 0, 1 … and items 100, 101 …, what they have had, and items that were removed."""
    work = new_store().checkout()
    for entity in ("user", "item"):
        work.add_entity(entity)
    work.append("user", range(N_USERS))
    work.append("item", range(100, 100 + N_ITEMS))
    had = sorted(pairs) + sorted(pairs)[:2]
    work.consumed.append([u for u, _ in had], [i for _, i in had])
    work.dense["scores"] = np.array(scores)
    work.remove("item", [100 + item for item in removed])
    return work.commit("ready", allow_nonfinite=True) if committed else work


def _best(scores: list[float], hidden: set[int], k: int) -> list[tuple[int, float, int]]:
    """Return item id, score and rank of the best items, the obvious way."""
    left = [item for item in range(N_ITEMS) if item not in hidden and not math.isnan(scores[item]) and scores[item] > -math.inf]
    ordered = sorted(left, key=lambda item: (-scores[item], item))[:k]
    return [(100 + item, scores[item], rank) for rank, item in enumerate(ordered, start=1)]


_number = st.sampled_from([0.0, -1.0, 1.0, 2.5, math.nan, -math.inf])
_matrix = st.lists(st.lists(_number, min_size=N_ITEMS, max_size=N_ITEMS), min_size=N_USERS, max_size=N_USERS)
_pairs = st.sets(st.tuples(st.integers(0, N_USERS - 1), st.integers(0, N_ITEMS - 1)))


@settings(max_examples=60)
@given(
    scores=_matrix,
    pairs=_pairs,
    removed=st.sets(st.integers(0, N_ITEMS - 1)),
    users=st.lists(st.integers(0, N_USERS - 1)),
    k=st.integers(1, N_ITEMS + 2),
    committed=st.booleans(),
    exclude=st.booleans(),
)
def test_recommended_is_the_best_of_what_is_left(
    scores: list[list[float]],
    pairs: set[tuple[int, int]],
    removed: set[int],
    users: list[int],
    k: int,
    committed: bool,
    exclude: bool,
) -> None:
    """No consumed or removed item is recommended, none twice, none without a score; equal ones by row."""
    view = _view(scores, pairs, removed, committed=committed)
    frame = embstore.recommend(view, users, k, trainer=Written(), exclude_consumed=exclude)
    expected = [
        (user, *row)
        for user in dict.fromkeys(users)
        for row in _best(scores[user], removed | {i for u, i in pairs if u == user and exclude}, k)
    ]
    assert list(frame.itertuples(index=False, name=None)) == expected
    assert frame.dtypes.astype(str).to_dict() == {"user": "int64", "item": "int64", "score": "float64", "rank": "int64"}


@settings(max_examples=40)
@given(scores=_matrix, pairs=_pairs, targets=_pairs, committed=st.booleans(), exclude=st.booleans())
def test_evaluation_counts_hits(
    scores: list[list[float]], pairs: set[tuple[int, int]], targets: set[tuple[int, int]], committed: bool, exclude: bool
) -> None:
    """Recall and NDCG are what counting by hand gives; unknown users and items are dropped and counted."""
    view = _view(scores, pairs, set(), committed=committed)
    asked = [(u, 100 + i) for u, i in sorted(targets)] + [(99, 100), (0, 999), (0, 999)]
    found = embstore.evaluate(
        view,
        Interactions([u for u, _ in asked], [i for _, i in asked]),
        trainer=Written(),
        metrics=("recall@2", "ndcg@3"),
        exclude_consumed=exclude,
    )
    recalls, ndcgs = [], []
    for user in sorted({u for u, _ in targets}):
        wanted = {100 + i for u, i in targets if u == user}
        best = [item for item, _, _ in _best(scores[user], {i for u, i in pairs if u == user and exclude}, 3)]
        recalls.append(len(wanted & set(best[:2])) / len(wanted))
        ideal = sum(1 / math.log2(place + 2) for place in range(min(3, len(wanted))))
        ndcgs.append(sum(1 / math.log2(place + 2) for place, item in enumerate(best) if item in wanted) / ideal)
    n_users = len(recalls)
    n_asked = len({u for u, _ in asked})
    assert (found["users"], found["dropped_users"], found["dropped_targets"]) == (n_users, n_asked - n_users, 2)
    expected = [sum(values) / n_users if n_users else math.nan for values in (recalls, ndcgs)]
    np.testing.assert_allclose([found["recall@2"], found["ndcg@3"]], expected, rtol=1e-12)


@given(scores=_matrix, pairs=_pairs, height=st.integers(1, 4))
def test_blocks_of_users_make_no_difference(scores: list[list[float]], pairs: set[tuple[int, int]], height: int) -> None:
    """Users ranked a few at a time get what they get all at once."""
    view, rows = _view(scores, pairs, {2}, committed=False), np.array([2, 0, -1, 1, 3])
    whole = Ranker(view, Written(), rows).rank(4)
    parts = Ranker(view, Written(), rows, block_scores=height * N_ITEMS).rank(4)
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_array_equal(parts[1][whole[0] >= 0], whole[1][whole[0] >= 0])


def _small() -> Version:
    """Return four users of which 3 has had most; items 100 and 103 were had by two users, 101 by one, often."""
    scores = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]] * 3 + [[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]]
    view = _view(scores, {(0, 0), (1, 0), (0, 3), (2, 3), (3, 1), (3, 5)}, {4}, committed=False)
    assert isinstance(view, Checkout)
    view.consumed.append([3, 3, 3], [1, 1, 1])
    return view.commit("ready")


def test_unknown_users_raise() -> None:
    """Without another wish a user who is not there is an error that names it."""
    with pytest.raises(UnknownIdError, match=r"user id 7, 8: 2 unknown"):
        embstore.recommend(_small(), [7, 0, 8], trainer=Written())


def test_unknown_users_get_the_popular() -> None:
    """Popular is what most users have had, not what one has had most often; known users get theirs, in the order asked."""
    frame = embstore.recommend(_small(), [7, 1, 8], 3, trainer=Written(), unknown="popular")
    assert frame[frame["user"] == 1]["item"].tolist() == [105, 103, 102]
    for user in (7, 8):
        rows = frame[frame["user"] == user]
        assert rows["item"].tolist() == [100, 103, 101]
        assert rows["score"].tolist() == [2, 2, 1]
    assert frame["user"].tolist() == [7] * 3 + [1] * 3 + [8] * 3


def test_removed_items_are_not_popular() -> None:
    """What was removed is shown to unknown users no more than to others."""
    work = _view([[0.0] * N_ITEMS] * N_USERS, set(), {1, 4}, committed=False)
    assert embstore.recommend(work, [7], 9, trainer=Written(), unknown="popular")["item"].tolist() == [100, 102, 103, 105]


def test_unknown_users_get_what_the_mean_user_gets() -> None:
    """The mean user is the trainer's; nothing is taken away but what was removed."""
    frame = embstore.recommend(_small(), [7], 9, trainer=Written(), unknown="mean")
    assert frame["item"].tolist() == [105, 103, 102, 101, 100]
    assert frame["score"].tolist() == [4.75, 3.75, 3.25, 2.75, 2.25]


def test_mean_user_of_a_factor_model() -> None:
    """Its scores are the mean of all users' scores."""
    version = embstore.fit(new_store(), TinyMF(), DAY_1, message="fit")
    frame = embstore.recommend(version, [99], 4, trainer=TinyMF(), unknown="mean").sort_values("item")
    every = TinyMF().scores(version, np.arange(3))
    np.testing.assert_allclose(frame["score"], every.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unknown": "skip"}, "unknown='skip': give 'raise', 'popular' or 'mean'"),
        ({"k": 0}, "k 0: give a whole number from 1"),
        ({"k": 2.0}, "k 2.0: give a whole number from 1"),
        ({"trainer": Written("text")}, r"trainer 'written': scores <U32 of shape \(1, 6\); give numbers"),
        (
            {"trainer": Written("flat")},
            r"trainer 'written': scores float64 of shape \(6,\); give numbers \[users, items\], \(1, 6\)",
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused(options: dict[str, Any], message: str) -> None:
    """Options and scores that cannot be used are told with their value."""
    with pytest.raises(InvalidInputError, match=message):
        embstore.recommend(_small(), [0], **{"trainer": Written(), **options})


@pytest.mark.parametrize("ids", [[], [5]])
def test_empty_store_recommends_nothing(ids: list[int]) -> None:
    """Where there are no items and users, there is an empty frame, not an error."""
    version = embstore.fit(new_store(), Popularity(), DAY_1.take([]), message="begin")
    for unknown in ("popular", "mean"):
        frame = embstore.recommend(version, ids, unknown=unknown)
        assert (list(frame.columns), len(frame)) == (["user", "item", "score", "rank"], 0)


def test_trainer_is_that_of_the_lineage() -> None:
    """Without a trainer the newest one of the log is taken, with its settings, also after commits that no trainer made."""
    store = new_store()
    embstore.fit(store, Popularity(0.5), DAY_1, message="day 1")
    version = embstore.fit(store, Popularity(0.0), DAY_2, message="day 2")
    with store.checkout() as work:
        work.append("user", [50])
        later = work.commit("one more user")
    for view in (version, later):
        expected = embstore.recommend(view, [2, 3], trainer=Popularity(0.0))
        assert embstore.recommend(view, [2, 3]).equals(expected)
        assert embstore.evaluate(view, DAY_1) == embstore.evaluate(view, DAY_1, trainer=Popularity(0.0))
    assert embstore.recommend(later, [50])["item"].tolist() == later.ids("item").ids()[[0, 1, 4, 2, 3]].tolist()


def test_trainer_that_is_not_installed_is_told() -> None:
    """A lineage may name a trainer that this machine does not have."""
    version = embstore.fit(new_store(), TinyMF(), DAY_1, message="fit")
    with pytest.raises(UnknownTrainerError, match="trainer 'tinymf': there is .*popularity"):
        embstore.recommend(version, [1])


def test_given_pairs_are_folded_in_and_forgotten() -> None:
    """Held-out users are scored as if they had been folded in and committed; the store stays as it was."""
    store = new_store()
    trainer = TinyMF(epochs=8)
    version = embstore.fit(store, trainer, DAY_1, message="fit")
    before = state_of(version)
    known, targets = Interactions([8, 8, 9, 1], ["a", "c", "b", "d"]), Interactions([8, 9, 9, 77, 1], ["b", "a", "d", "a", "b"])
    found = embstore.evaluate(version, targets, trainer=trainer, given=known)
    assert [v.id for v in store.log()][0] == version.id
    assert state_of(version) == before
    folded = embstore.fold_in(store, trainer, known, message="for real")
    assert found == embstore.evaluate(folded, targets, trainer=trainer)
    assert (found["users"], found["dropped_users"]) == (3, 1)
    assert embstore.evaluate(version, targets, trainer=trainer)["users"] == 1


def test_given_pairs_need_fold_in_and_a_clean_view() -> None:
    """A trainer that cannot fold in, and a checkout with staged changes, are told; known users need no folding."""
    store = new_store()
    version = embstore.fit(store, Scripted(), DAY_1, message="fit")
    with pytest.raises(InvalidInputError, match="trainer 'scripted' cannot fold in"):
        embstore.evaluate(version, DAY_1, trainer=Scripted(), given=Interactions([9], ["a"]))
    plain = embstore.evaluate(version, Interactions([1], ["b"]), trainer=Scripted(), metrics=("mrr@9",))
    given = embstore.evaluate(
        version, Interactions([1], ["b"]), trainer=Scripted(), given=Interactions([1], ["d"]), metrics=("mrr@9",)
    )
    assert (plain["mrr@9"], given["mrr@9"]) == (1 / 2, 1.0)
    embstore.fit(store, Popularity(), DAY_1, message="count")
    with store.checkout() as work:
        clean = embstore.evaluate(work, Interactions([1], ["b"]), trainer=Popularity(), given=Interactions([1], ["d"]))
        work.append("user", [5])
        with pytest.raises(InvalidInputError, match="given= with a checkout that has staged changes"):
            embstore.evaluate(work, DAY_1, trainer=Popularity(), given=Interactions([9], ["a"]))
        work.discard()
    assert clean["users"] == 1


def test_metrics_may_be_functions() -> None:
    """A callable sees as many places as the deepest name asks for, else a hundred."""
    widths = itertools.count()

    def width(hits: NDArray[np.bool_], n_targets: NDArray[np.int64]) -> NDArray[np.float64]:
        next(widths)
        return np.full(len(hits), float(hits.shape[1]))

    version = embstore.fit(new_store(), Popularity(), DAY_1, message="fit")
    assert embstore.evaluate(version, DAY_1, metrics=("hit@7", width))["width"] == 7
    assert embstore.evaluate(version, DAY_1, metrics=(width,))["width"] == 100
    assert next(widths) == 2
    with pytest.raises(InvalidInputError, match="metric 'recall': use one of"):
        embstore.evaluate(version, DAY_1, metrics=("recall",))
