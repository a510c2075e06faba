"""Metrics have the values of their definitions, and rankings are exact to the last tie."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from embstore.errors import InvalidInputError
from embstore.interactions import Interactions
from embstore.metrics import FUNCTIONS, Metric, evaluate_ranked, parse_metric, top_k
from embstore.targets import hits

N_ITEMS = 8
RANKINGS = st.lists(
    st.tuples(
        st.lists(st.integers(0, N_ITEMS - 1), unique=True, max_size=N_ITEMS),
        st.lists(st.integers(0, N_ITEMS - 1), max_size=2 * N_ITEMS),
    ),
    max_size=6,
)


def _padded(rankings: list[list[int]]) -> np.ndarray:
    """Return int64[users, N_ITEMS] with -1 after the end of each ranking."""
    rows = [items + [-1] * (N_ITEMS - len(items)) for items in rankings]
    return np.array(rows, np.int64).reshape(len(rankings), N_ITEMS)


def _defined(name: str, ranking: list[int], targets: set[int], k: int) -> float:
    """Return one user's value, spelled out."""
    places = [place for place, item in enumerate(ranking[:k], start=1) if item in targets]
    reachable = min(k, len(targets))
    return {
        "recall": len(places) / len(targets),
        "capped_recall": len(places) / reachable,
        "ndcg": sum(1 / math.log2(p + 1) for p in places) / sum(1 / math.log2(p + 1) for p in range(1, reachable + 1)),
        "ap": sum(count / place for count, place in enumerate(places, start=1)) / reachable,
        "hit": 1.0 if places else 0.0,
        "mrr": 1 / places[0] if places else 0.0,
    }[name]


@given(users=RANKINGS, k=st.integers(1, N_ITEMS))
def test_metrics_are_their_definitions(users: list[tuple[list[int], list[int]]], k: int) -> None:
    """Every metric is the mean of its spelled-out value over the users with targets; the others are counted."""
    names = [f"{name}@{k}" for name in FUNCTIONS]
    result = evaluate_ranked(_padded([r for r, _ in users]), [t for _, t in users], names)
    counted = [(ranking, set(targets)) for ranking, targets in users if targets]
    assert (result.pop("users"), result.pop("dropped_users")) == (len(counted), len(users) - len(counted))
    assert list(result) == names
    for name in FUNCTIONS:
        values = [_defined(name, ranking, targets, k) for ranking, targets in counted]
        expected = sum(values) / len(values) if values else math.nan
        assert result[f"{name}@{k}"] == pytest.approx(expected, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("recall@4", 2 / 5),
        ("capped_recall@4", 2 / 4),
        ("ndcg@4", (1 / math.log2(3) + 1 / math.log2(5)) / sum(1 / math.log2(p + 1) for p in (1, 2, 3, 4))),
        ("ap@4", (1 / 2 + 2 / 4) / 4),
        ("hit@4", 1.0),
        ("mrr@4", 1 / 2),
        ("recall@1", 0.0),
        ("mrr@1", 0.0),
        ("hit@1", 0.0),
    ],
)
def test_worked_example(name: str, expected: float) -> None:
    """One user with five targets, two of them found, at places 2 and 4."""
    result = evaluate_ranked(np.array([[9, 3, 8, 1]]), [[1, 2, 3, 4, 5]], [name])
    assert result == {name: pytest.approx(expected, rel=1e-15), "users": 1, "dropped_users": 0}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_zero_without_targets(name: str) -> None:
    """A function called for a user without targets, and so without hits, gives 0 and no warning."""
    values = FUNCTIONS[name](np.array([[False, False], [True, True]]), np.array([0, 2]))
    assert (values.dtype, values.tolist()) == (np.float64, [0.0, 1.0])


@given(users=RANKINGS)
def test_forms_of_targets_are_equal(users: list[tuple[list[int], list[int]]]) -> None:
    """Lists, sets, (indptr, indices) and sparse matrices of scipy, stored zeros or not, of the same targets give the same."""
    ranked = _padded([ranking for ranking, _ in users])
    lists = [targets for _, targets in users]
    indptr, indices = np.cumsum([0, *map(len, lists)]), np.array([t for targets in lists for t in targets], np.int64)
    expected = evaluate_ranked(ranked, lists, ["ap@3"])
    forms: list[Any] = [(indptr, indices), [set(targets) for targets in lists]]
    if users:
        csr = scipy.sparse.csr_array((np.ones(len(indices)), indices, indptr), shape=(len(users), N_ITEMS))
        coo = csr.tocoo()
        zeros = scipy.sparse.coo_array(([*coo.data, 0.0], ([*coo.row, 0], [*coo.col, 1])), shape=csr.shape)
        forms += [csr, csr.tocsc(), csr.copy().tolil(), coo, scipy.sparse.coo_matrix(csr), zeros]
    for form in forms:
        np.testing.assert_equal(evaluate_ranked(ranked, form, ["ap@3"]), expected)


@given(
    scores=hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9),
        elements=st.integers(-2, 2),
    ),
    never=st.data(),
    k=st.integers(1, 12),
)
def test_top_k_is_a_sort(scores: np.ndarray, never: st.DataObject, k: int) -> None:
    """The ranking is a full sort by (score down, row up) without NaN and -inf, cut at k, filled with -1; ties abound."""
    if scores.dtype.kind == "f":
        odd = never.draw(hnp.arrays(float, scores.shape, elements=st.sampled_from([0.0, 0.0, -0.0, np.nan, np.inf, -np.inf])))
        scores = scores + odd.astype(scores.dtype)
    expected = []
    for row in scores.tolist():
        items = [item for item in range(len(row)) if row[item] > -math.inf]
        items.sort(key=lambda item: (-row[item], item))
        expected.append([*items, *[-1] * k][:k])
    result = top_k(scores, k)
    assert (result.dtype, result.shape) == (np.int64, (len(scores), k))
    assert result.tolist() == expected


def test_top_k_leaves_its_input() -> None:
    """The caller's scores are not written to."""
    scores = np.array([[1.0, np.nan, 3.0, -np.inf]])
    assert top_k(scores, 3).tolist() == [[2, 0, -1]]
    np.testing.assert_array_equal(scores, [[1.0, np.nan, 3.0, -np.inf]])


@given(users=RANKINGS)
def test_hits_are_membership(users: list[tuple[list[int], list[int]]]) -> None:
    """A place is a hit if its item is among that user's targets, never another's."""
    ranked = _padded([ranking for ranking, _ in users])
    pairs = [(user, item) for user, (_, targets) in enumerate(users) for item in targets]
    target_users, target_items = np.array(pairs, np.int64).reshape(-1, 2).T
    result = hits(ranked, target_users, target_items, N_ITEMS)
    assert result.dtype == bool
    assert result.tolist() == [[item in targets for item in row] for row, (_, targets) in zip(ranked, users, strict=True)]


def shallow(hits: np.ndarray, n_targets: np.ndarray) -> np.ndarray:
    """Return whether the first place is a hit."""
    return hits[:, 0]


class Width:
    """A callable without a name of its own."""

    def __call__(self, hits: np.ndarray, n_targets: np.ndarray) -> np.ndarray:
        """Return the number of places and the number of targets in one."""
        return hits.shape[1] * 10.0 + n_targets


def test_callables_are_metrics() -> None:
    """A callable sees all places and the numbers of distinct targets; its name is its result's."""
    metric = Metric("first", 1, shallow)
    result = evaluate_ranked(np.array([[0, 1, 2], [2, 0, 1]]), [[0, 0, 2], [0]], [shallow, Width(), metric, "recall@1"])
    assert result == {"shallow": 0.5, "Width": 31.5, "first": 0.5, "recall@1": 0.25, "users": 2, "dropped_users": 0}


@pytest.mark.parametrize("k", [1, 20, 999_999])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_parsed_metric(name: str, k: int) -> None:
    """A name is a function and a number of places."""
    assert parse_metric(f"{name}@{k}") == Metric(f"{name}@{k}", k, FUNCTIONS[name])


@pytest.mark.parametrize(
    "name", ["recall", "recall@", "recall@0", "recall@05", "recall@-1", "recall@1000000", "f1@5", "", "ndcg@5 ", 3]
)
def test_unknown_metric_is_refused(name: Any) -> None:
    """Another name, or no whole number of places, lists what there is."""
    with pytest.raises(InvalidInputError, match="use one of recall, capped_recall, ndcg, ap, hit, mrr with"):
        parse_metric(name)


def users(hits: np.ndarray, n_targets: np.ndarray) -> np.ndarray:
    """Bear the name of a count."""
    return n_targets


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["recall@4"], "metric 'recall@4': rankings have 3 places; rank 4"),
        (["hit@1", "hit@1"], "metric 'hit@1': the name is there twice"),
        ([users], "metric 'users': the name is there twice"),
        ([lambda hits, n_targets: 0.5], r"metric '<lambda>' gave shape \(\): return one number for each of 1 users"),
    ],
)
def test_unusable_metrics_are_refused(metrics: list[Any], message: str) -> None:
    """Metrics deeper than the ranking, of one name, or of another shape are refused."""
    with pytest.raises(InvalidInputError, match=message):
        evaluate_ranked(np.array([[0, 1, 2]]), [[1]], metrics)


@pytest.mark.parametrize(
    ("ranked", "targets", "message"),
    [
        ([0, 1], [[1]], r"ranked of shape \(2,\)"),
        ([[0, 1]], [[1], [0]], "targets of 2 users with 2 items: give targets for each of the 1 ranked"),
        ([[0, 1]], ([0, 3], [1, 0]), "targets of 1 users with 2 items"),
        ([[0], [1], [2]], ([0, 2, 1, 2], [1, 0]), "targets of 3 users"),
        ([[0, 1]], [[-1]], "target item -1: give rows from 0"),
        ([[0, -2]], [[1]], "ranked item -2: give rows from -1"),
        ([[0], [1]], scipy.sparse.csc_array(np.eye(3)), "targets of 3 users with 3 items: give .* each of the 2 ranked users"),
        ([[0]], scipy.sparse.coo_array(np.ones(1)), r"targets coo_array of shape \(1,\): give a sparse matrix \[users, items\]"),
        ([[0]], ([0], [1], [2]), r"targets in a tuple of 3: give \(indptr, indices\), or a list"),
        ([[0]], ([0, 1], [0.5]), "target item 0.5 at position 0: give whole numbers"),
        ([[0]], ([0, 1.5], [0]), "target indptr 1.5 at position 1: give whole numbers"),
        ([[0]], None, "targets None: give the item rows of each user"),
        ([[0], [1]], [[1], None], "targets of user 1 None: give the item rows of each user"),
        ([[0], [1]], [[1], [0, 1.5]], "target item of user 1, 1.5 at position 1: give whole numbers, the rows of items"),
        *(
            ([[0]], [[value]], f"target item of user 0, {value!r} at position 0: give whole numbers")
            for value in ("a", math.nan, 2**70, True)
        ),
        ([[0]], np.eye(1), "target item of user 0, .*1.0.* at position 0: give whole numbers"),
        ([[0]], [[2**62]], "target item 4611686018427387904: give rows from 0"),
        ([[0], [1, 2]], [[1]], "ranked: users with different numbers of items; give .* -1 where there are fewer"),
        *(
            ([[0, 1], [1, value]], [[1], []], f"ranked item of user 1, {value!r} at position 1: give whole numbers")
            for value in ("a", 1.5, 2**70, None)
        ),
    ],
)
def test_unfitting_targets_are_refused(ranked: Any, targets: Any, message: str) -> None:
    """Targets need one entry for each ranking, and both only rows of items: nothing is rounded or guessed."""
    with pytest.raises(InvalidInputError, match=message):
        evaluate_ranked(ranked, targets, ["hit@1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[5]], [0], [1]), "ranked item 5: give rows from -1 to 4"),
        (([[1]], [1], [1]), "target user 1: give rows from 0 to 0"),
        (([[1]], [0], [5]), "target item 5: give rows from 0 to 4"),
    ],
)
def test_hits_outside_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    """A row outside would be taken for another user's item."""
    with pytest.raises(InvalidInputError, match=message):
        hits(*map(np.array, arguments), 5)


@pytest.mark.parametrize(
    ("scores", "k", "message"),
    [([1.0], 1, r"scores float64 of shape \(1,\)"), ([["a"]], 1, "give numbers"), ([[1.0]], 0, "k 0"), ([[1.0]], 1.5, "k 1.5")],
)
def test_unusable_scores_are_refused(scores: Any, k: Any, message: str) -> None:
    """Scores are a matrix of numbers, k a whole number."""
    with pytest.raises(InvalidInputError, match=message):
        top_k(np.array(scores), k)


def _parts(pairs: Interactions) -> list[Interactions]:
    """Return train and test of the first four fifths of the time, then of the last."""
    return [part for window in pairs.split("time", 0.2) for part in window.split("within", 0.2)]


def test_popularity_of_movielens_by_time(data_dir: Path) -> None:
    """What was popular lately, without what a user has had, ranked and scored as when each user is gone through by hand."""
    parts = _parts(Interactions.from_inter(data_dir / "ml-100k" / "ml-100k.inter"))
    assert [len(part) for part in parts] == [64_285, 15_715, 16_122, 3_878]
    (old, old_items), _, (new, new_items), (test, test_items) = ((part.user_ids - 1, part.item_ids - 1) for part in parts)
    users, items = np.r_[old, new], np.r_[old_items, new_items]
    popularity = np.bincount(new_items, minlength=1_682)
    scores = np.tile(popularity.astype(float), (943, 1))
    scores[users, items] = -np.inf
    ranked, is_known = top_k(scores, 20), np.isin(test_items, items)
    targets = [set(test_items[is_known & (test == user)].tolist()) for user in range(943)]
    best = sorted(range(1_682), key=lambda item: (-popularity[item], item))
    had = [set(items[users == user].tolist()) for user in range(943)]
    by_hand = {u: _defined("recall", [i for i in best if i not in had[u]], targets[u], 20) for u in range(943) if targets[u]}
    result = evaluate_ranked(ranked, targets, ["recall@20"])
    assert ((~is_known).sum(), result["users"], result["dropped_users"]) == (27, 268, 943 - 268)
    assert result["recall@20"] == pytest.approx(sum(by_hand.values()) / 268, rel=1e-12)
    of_old = [user for user in by_hand if user in set(old.tolist())]
    assert round(evaluate_ranked(ranked[of_old], [targets[u] for u in of_old], ["recall@20"])["recall@20"], 3) == 0.17


def test_sizes_of_online_retail_by_time(data_dir: Path) -> None:
    """The first purchases of each pair, in the order of time, split into windows of known sizes."""
    pairs = Interactions.from_file(data_dir / "online-retail" / "online_retail.csv.gz")
    pairs = pairs.take(np.argsort(pairs.times, kind="stable"))
    seen = dict.fromkeys(zip(pairs.user_ids.tolist(), pairs.item_ids.tolist(), strict=True))
    first = {pair: position for position, pair in reversed(list(enumerate(zip(pairs.user_ids, pairs.item_ids, strict=True))))}
    assert [len(part) for part in _parts(pairs.take([first[pair] for pair in seen]))] == [171_941, 41_039, 43_365, 9_881]
