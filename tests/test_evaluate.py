"""evaluate: held-out users, metrics of one's own, and what is told where pairs or a version should be."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import embstore
from embstore import Interactions, InvalidInputError
from embstore.metrics import parse_metric
from tests.examples import DAY_1, Scripted, new_store, state_of
from tests.plugin.tinymf import TinyMF
from trainers.popularity import Popularity


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
    assert embstore.evaluate(version, DAY_1, metrics=(parse_metric("hit@150"), "hit@7", width))["width"] == 150
    with pytest.raises(InvalidInputError, match="metric 'recall': use one of"):
        embstore.evaluate(version, DAY_1, metrics=("recall",))


def test_what_is_no_view_and_no_pairs_is_refused() -> None:
    """A store in place of its version, and a frame in place of pairs, are told with what to give."""
    store = new_store()
    version = embstore.fit(store, TinyMF(), DAY_1, message="fit")
    frame: Any = pd.DataFrame({"user": [1], "item": ["a"]})
    for refused in (
        lambda: embstore.recommend(store, [1]),  # type: ignore[arg-type]
        lambda: embstore.evaluate(store, DAY_1, trainer=TinyMF()),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidInputError, match=r"view Store: give a version or a checkout, such as store.at\(\)"):
            refused()
    with pytest.raises(InvalidInputError, match=r"targets DataFrame: give Interactions, such as Interactions.from_frame\(df\)"):
        embstore.evaluate(version, frame, trainer=TinyMF())
    with pytest.raises(InvalidInputError, match="given DataFrame: give Interactions"):
        embstore.evaluate(version, DAY_1, trainer=TinyMF(), given=frame)
    with pytest.raises(InvalidInputError, match="interactions DataFrame: give Interactions"):
        embstore.fold_in(store, TinyMF(), frame, message="newcomers")
