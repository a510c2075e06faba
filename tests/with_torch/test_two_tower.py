"""The two towers: their vectors and loss by hand, items that nobody has had, new users folded in, growth, and MovieLens-100k."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

import embstore
from embstore import EmbstoreError, Interactions, InvalidInputError, Store, Version
from embstore.testing import TrainerContract
from tests.examples import new_store
from tests.with_torch.featured_pairs import COLUMNS, featured_interactions, item_frame, user_frame
from tools.quality.protocol import DATA_SETS, load as load_parts
from tools.quality_deepfm import COLUMNS as MOVIELENS, frames, with_features
from trainers.columns import columns_of, entities_of, inputs
from trainers.learned import load, n_rows
from trainers.nets import TwoTowerNet, begin
from trainers.towers import FixedTower
from trainers.two_tower import TwoTower, _loss

SMALL = TwoTower(dim=4, hidden=(6, 5), epochs=2, batch_size=32, lr=0.01)
FEATURED = replace(SMALL, **COLUMNS)
WIDER = replace(FEATURED, dim=8)
PAIRS = featured_interactions()
_branches = itertools.count()


class TestTwoTowerContract(TrainerContract):
    """The towers keep the contract without features and layers, as a sum of ids alone."""

    trainer = replace(SMALL, hidden=())


class TestFeaturedTwoTowerContract(TrainerContract):
    """So they do with columns of every kind."""

    trainer = FEATURED
    interactions = PAIRS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": True}, "dim True: give a whole number from 1"),
        ({"rehearsal": -1.0}, "rehearsal -1.0: give a number that is not negative"),
        ({"fold_steps": 0}, "fold_steps 0: give a whole number"),
        ({"fold_lr": -1}, "fold_lr -1: give a number that is not negative"),
        ({"l2": float("inf")}, "l2 inf: give a finite number"),
        ({"hidden": [8]}, "hidden .8.: give a tuple of whole numbers"),
        ({"seed": "1"}, "seed '1': give a whole number"),
        ({"item_sparse": ("a", "a")}, "item column 'a': it is there twice"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    """Each setting is checked when the trainer is made, and the message names it."""
    with pytest.raises(EmbstoreError, match=message):
        TwoTower(**settings)


class _Inputs:
    """Stands for what a training has in memory: columns of all rows."""

    def __init__(self, **inputs: torch.Tensor) -> None:
        self.inputs = {name.replace("_", "/"): values for name, values in inputs.items()}


def test_loss_is_the_softmax_over_the_batch_less_log_q() -> None:
    """A column for each pair's item, less the logarithm of its share; the same item of other pairs is left out."""
    net = TwoTowerNet(columns_of(TwoTower()), {"user": 5, "item": 6}, dim=3, hidden=())
    with torch.no_grad():
        for parameter in net.vectors.parameters():
            parameter.copy_(torch.linspace(-1, 2, parameter.numel()).view(parameter.shape).sin())
    users, items = np.array([0, 1, 1, 4, 2, 0, 3]), np.array([2, 5, 2, 0, 1, 1, 2])
    shares = np.array([0.3, 0.2, 0.25, 0.05, 0.1, 0.1])
    learned: Any = _Inputs(user_user=torch.arange(5), item_item=torch.arange(6))
    user, item = (table.detach().numpy().astype(float) for table in map(net.vectors.tables.get, ("of/user", "of/item")))
    expected = []
    for i in range(len(users)):
        logits = [user[users[i]] @ item[j] - np.log(shares[j]) for j in items]
        others = [logit for j, logit in zip(items, logits, strict=True) if j != items[i]]
        expected.append(logsumexp([logits[i], *others]) - logits[i])
    assert _loss(learned, net, users, items, shares).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_fixed_tower_is_the_net_and_its_gradient() -> None:
    """Output and gradient by the id's vector are those of torch, with layers and without."""
    columns = [column for column in columns_of(FEATURED) if column.side == "user"]
    n_rows_each = dict.fromkeys(entities_of(columns_of(FEATURED)), 3)
    for hidden in ((), (6,), (6, 5)):
        net = TwoTowerNet(columns_of(FEATURED), n_rows_each, dim=4, hidden=hidden)
        begin(net, 0)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in net.layers.parameters():
                parameter.normal_(generator=generator)
        vectors = torch.randn(7, len(columns), 4, generator=generator, dtype=torch.float64, requires_grad=True)
        layers = net.layers_of("user")
        out = vectors.sum(1)
        if layers is not None:
            layers.double()
            out = out + layers.leave(layers.enter(columns, vectors.flatten(1)))
        slope = torch.randn(7, 4, generator=generator, dtype=torch.float64)
        out.backward(slope)
        tower, given = FixedTower.of(layers, columns, 4), vectors.detach().numpy()
        found, back = tower.forward(given[:, 0], tower.rest(given))
        np.testing.assert_allclose(found, out.detach().numpy(), rtol=1e-9)
        assert vectors.grad is not None
        np.testing.assert_allclose(back(slope.numpy()), vectors.grad[:, 0].numpy(), rtol=1e-9, atol=1e-12)


def fitted(store: Store, trainer: TwoTower = FEATURED, pairs: Interactions = PAIRS) -> Version:
    """Return a version trained on pairs."""
    return embstore.fit(store, trainer, pairs, message="fit")


def test_an_item_nobody_has_had_is_recommended_for_its_features() -> None:
    """New items of a kind go to those who take that kind, before anybody has had them."""
    users, items = (grid.ravel() for grid in np.meshgrid(np.arange(20), np.arange(20)))
    had = (users % 2 == items % 2) & ((users + items // 2) % 3 > 0)
    kinds = pd.DataFrame({"item": np.arange(24), "kind": np.arange(24) % 2})
    trainer = TwoTower(dim=8, hidden=(8,), item_sparse=("kind",), epochs=80, batch_size=64, lr=0.01)
    version = fitted(new_store(), trainer, Interactions(users[had], items[had], item_features=kinds))
    assert version.entities["item"] == 24
    assert version.table("two_tower.item").slot("step").get(np.arange(20, 24)).tolist() == [0] * 4
    scores = trainer.scores(version, version.ids("user").rows(np.arange(20)))
    cold = scores[:, version.ids("item").rows(np.arange(20, 24))]
    of_kind = np.arange(20)[:, None] % 2 == np.arange(20, 24) % 2
    assert (cold[of_kind].reshape(20, 2).min(axis=1) > cold[~of_kind].reshape(20, 2).max(axis=1)).all()
    frame = embstore.recommend(version, list(range(20)), 4, trainer=trainer)
    assert set(frame["item"]) & {20, 21, 22, 23}
    assert ((frame["user"] - frame["item"]) % 2 == 0).mean() > 0.95


def test_an_unknown_user_has_the_default_vectors() -> None:
    """Nothing is known of row -1, neither id nor features: the means of the live rows count."""
    store = new_store()
    version = fitted(store, replace(FEATURED, hidden=()))
    with store.checkout() as work:
        work.remove("user", [0, 1])
        work.remove("type", ["a"])
        work.commit("forget some")
    version = fitted(store, replace(FEATURED, hidden=()), PAIRS.take(PAIRS.user_ids > 1))
    user = sum(
        version.table(f"two_tower.{entity}").gather(version.ids(entity).live_rows()).mean(axis=0, dtype=float)
        for entity in ("user", "gender", "type")
    )
    scores = replace(FEATURED, hidden=()).scores(version, np.array([-1, 5]))
    np.testing.assert_allclose(scores[0], item_vectors(version) @ user, rtol=1e-3, atol=1e-5)


def item_vectors(version: Version) -> NDArray[np.float64]:
    """Return the vectors of all items, where there are no layers, summed by hand."""
    out = version.table("two_tower.item").values().astype(float)
    for name, entity in (("year", "year"), ("gender", "gender"), ("tag.s", "tag.s")):
        table, default = version.table(f"two_tower.{entity}").values(), version.dense[f"default.two_tower.{entity}"]
        for row, values in enumerate(version.table(f"item.{name}").values()):
            known = [value for value in np.atleast_1d(values) if value >= 0]
            out[row] += table[known].mean(axis=0) if known else default
    prices, (mean, deviation) = version.table("item.price").values(), version.dense["two_tower.scale.item.price"]
    standard = np.where(prices != 0, (prices - mean) / deviation, 0)
    return out + standard[:, None] * version.dense["model.two_tower.vectors.weights.item/price"]


@pytest.fixture(scope="module")
def base() -> Store:
    """Return a store trained on 60 users and 50 items with features."""
    random = np.random.default_rng(3)
    items, users = [f"item {i:02}" for i in random.integers(0, 50, 900)], random.integers(0, 60, 900)
    features = {"user_features": user_frame(list(range(60))), "item_features": item_frame(sorted(set(items)))}
    store = new_store()
    fitted(store, WIDER, Interactions(users, items, times=np.arange(900), **features))
    return store


def folded(base: Store, pairs: Interactions, trainer: TwoTower = WIDER) -> Version:
    """Return a version of ``base`` with new users folded in, and check that nothing else has changed."""
    branch = f"fold-{next(_branches)}"
    base.branch(branch)
    version = embstore.fold_in(base, trainer, pairs, message="fold", branch=branch)
    diff = base.diff("main", version.id)
    assert [name for name, table in diff.tables.items() if len(table.changed_rows) or any(table.slots.values())] == []
    assert (diff.dense, diff.ids["item"].appended.tolist()) == ({}, [])
    return version


def test_a_folded_user_is_the_same_alone_together_and_in_any_order(base: Store) -> None:
    """Thirty users get equal bits whatever the company."""
    random = np.random.default_rng(4)
    users, items = np.repeat(np.arange(100, 130), np.arange(1, 61, 2)), random.integers(0, 50, 900)
    pairs = Interactions(users, [f"item {i:02}" for i in items], user_features=user_frame(list(range(100, 130))))
    together = folded(base, pairs)
    expected = together.table("two_tower.user").get(np.arange(100, 130))
    assert len(np.unique(expected, axis=0)) == 30
    assert (expected != together.table("two_tower.user").initial(np.arange(100, 130))).any(axis=1).all()
    companies = [pairs.take(random.permutation(900)), pairs.take(users >= 107), pairs.take(users % 3 == 2)]
    companies += [pairs.take(users == user) for user in range(100, 130, 3)]
    for company in companies:
        version, present = folded(base, company), np.unique(company.user_ids)
        np.testing.assert_array_equal(version.table("two_tower.user").get(present), expected[present - 100], strict=True)


def test_a_folded_user_comes_to_the_least_loss(base: Store) -> None:
    """With many small steps the gradient of -log softmax of the user's items, with L2 for each, is gone."""
    had, trainer = ["item 03", "item 11", "item 28", "item 28"], replace(WIDER, fold_steps=800, fold_lr=0.01)
    version = folded(base, Interactions([200] * 4, had, user_features=user_frame([200])), trainer)
    columns, table = columns_of(trainer), version.table("two_tower.user")
    net = TwoTowerNet(columns, n_rows(version, columns), dim=8, hidden=trainer.hidden)
    load(version, net, "two_tower")
    values = {key: torch.from_numpy(array) for key, array in inputs(version, columns, "two_tower").items()}
    items = net("item", {column.key: values[column.key] for column in net.columns["item"]}).detach()

    def slope(vector: NDArray[np.float32]) -> float:
        ids = torch.from_numpy(vector).requires_grad_()
        row = {column.key: values[column.key][-1:] for column in net.columns["user"]}
        vectors = torch.cat([ids[:, None], net.vectors(net.columns["user"][1:], row)], dim=1)
        layers = net.layers_of("user")
        assert layers is not None
        end = vectors.sum(1) + layers.leave(layers.enter(net.columns["user"], vectors.flatten(1)))
        chances = torch.log_softmax(items @ end[0], dim=0)
        (-chances[version.ids("item").rows(had)].sum() + 4 * trainer.fold_l2 / 2 * (ids * ids).sum()).backward()
        assert ids.grad is not None
        return ids.grad.norm().item()

    assert slope(table.get([200])) < 0.02 * slope(table.initial([200]))


def test_items_cannot_be_folded_in(base: Store) -> None:
    """Only users can; the message says what to do."""
    with pytest.raises(InvalidInputError, match="folds in users only"):
        embstore.fold_in(base, WIDER, Interactions([1], ["new"]), message="fold", entity="item")


def test_growth_and_a_new_column() -> None:
    """New users, items and categories, and a column that joins later: rows without a pair in the second part keep every bit."""
    store = new_store()
    before = fitted(store)
    later = Interactions(
        [3, 99],
        ["item 02", "item 50"],
        user_features=user_frame([99]).assign(gender="x", city="rome"),
        item_features=item_frame(["item 50", "item 51"]),
    )
    wider = replace(FEATURED, user_sparse=("gender", "city"), rehearsal=0.0)
    after = fitted(store, wider, later)
    diff = store.diff(before.id, after.id)
    assert diff.tables["two_tower.user"].changed_ids.tolist() == [3]
    assert diff.tables["two_tower.item"].changed_ids.tolist() == ["item 02"]
    assert diff.ids["item"].appended.tolist() == ["item 50", "item 51"]
    assert after.table("user.city").values().tolist() == [-1] * len(before.ids("user")) + [0]
    assert np.isfinite(wider.scores(after, np.arange(-1, len(after.ids("user"))))).all()


def test_one_thread_inside_and_as_many_as_before_outside() -> None:
    """The number of torch's threads is put back before every yield, in scores and in folding in."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        store, seen = new_store(), []
        version = embstore.fit(store, SMALL, PAIRS, message="fit", progress=lambda *_: seen.append(torch.get_num_threads()))
        SMALL.scores(version, np.array([0]))
        embstore.fold_in(store, SMALL, Interactions([700], ["item 01"]), message="fold")
        assert [*seen, torch.get_num_threads()] == [3, 3, 3]
    finally:
        torch.set_num_threads(before)


def test_movielens_in_two_parts(data_dir: Path) -> None:
    """New users of the second stretch of MovieLens-100k are served well, folded in as after an increment."""
    parts, features = load_parts(DATA_SETS["ml-100k"], data_dir), frames(data_dir)
    store, trainer = new_store(), TwoTower(seed=1, **MOVIELENS)
    fitted(store, trainer, with_features(parts.train1, features))
    store.branch("folded")
    newcomers = with_features(parts.newcomers, features)
    version = embstore.fold_in(store, trainer, newcomers, message="newcomers", branch="folded")
    assert embstore.evaluate(version, parts.new_users)["recall@20"] >= 0.2
    version = fitted(store, replace(trainer, epochs=3), with_features(parts.train2, features))
    assert embstore.evaluate(version, parts.new_users)["recall@20"] >= 0.2
