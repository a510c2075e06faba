"""recommend and evaluate against the obvious: sort all items by score, take away what is not to be shown, count the hits."""

from __future__ import annotations

import math
import tracemalloc
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
    SchemaMismatchError,
    UnknownIdError,
    UnknownTrainerError,
    Version,
    View,
)
from embstore.ranking import Ranker
from tests.examples import DAY_1, DAY_2, new_store
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


def test_more_places_than_items_take_no_memory() -> None:
    """Asking for a million places of six items gives what six places give, and no array of so many numbers."""
    view, targets = _small(), Interactions([0, 1, 3], [101, 105, 100])
    everything = embstore.recommend(view, [0, 3, 7], N_ITEMS, trainer=Written(), unknown="popular")
    assert embstore.recommend(view, [0, 3, 7], 10**12, trainer=Written(), unknown="popular").equals(everything)
    tracemalloc.start()
    deep = embstore.evaluate(view, targets, trainer=Written(), metrics=("recall@999999", "mrr@999999"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert deep["recall@999999"] == embstore.evaluate(view, targets, trainer=Written(), metrics=("recall@6",))["recall@6"]
    assert peak < 2 * 3 * 999_999


def test_tables_are_those_of_the_trainer() -> None:
    """A store without the trainer's tables, or with others of their names, is told before anything is ranked."""
    version = embstore.fit(new_store(), TinyMF(), DAY_1, message="fit")
    for call in (embstore.recommend, embstore.evaluate):
        what: Any = [1] if call is embstore.recommend else DAY_1
        with pytest.raises(SchemaMismatchError, match=r"table 'tinymf.user': dim is 4 in the store, 3 was asked for"):
            call(version, what, trainer=TinyMF(dim=3))
        with pytest.raises(InvalidInputError, match="no table popularity of trainer 'popularity' to rank by; fit first"):
            call(version, what, trainer=Popularity())
        with pytest.raises(InvalidInputError, match="no users and items of trainer 'written' to rank by; fit first"):
            call(new_store().at(), what, trainer=Written())


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
