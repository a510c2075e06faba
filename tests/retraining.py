"""Users trained again over small stores of each factor model, for the tests of that."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import embstore
from embstore import Batch, Checkout, Interactions, Store, Version
from embstore.testing import example_interactions
from tests.examples import new_store
from trainers.bpr import BPR
from trainers.factors import Biases, MatrixFactorization
from trainers.retrained import Retrained

PAIRS = example_interactions()
RATED = Interactions(PAIRS.user_ids, PAIRS.item_ids, np.random.default_rng(5).integers(1, 6, len(PAIRS)), PAIRS.times)
SETTINGS: dict[str, dict[str, Any]] = {
    "softmax": {"dim": 6},
    "squared": {"dim": 6, "loss": "squared", "fold_l2": 0.3},
    "biases": {},
    "bpr": {"dim": 6, "epochs": 4},
}
BASES = {
    "softmax": MatrixFactorization(**SETTINGS["softmax"]),
    "squared": MatrixFactorization(**SETTINGS["squared"]),
    "biases": Biases(),
    "bpr": BPR(**SETTINGS["bpr"]),
}
_branches = itertools.count()


@dataclass(frozen=True)
class Founded(Retrained):
    """Trains its base first where nobody has retrained users yet, for tests that begin with an empty store."""

    def train(self, work: Checkout, batch: Batch) -> Iterator[dict[str, float]]:
        """Train."""
        if "retrained.user.epochs" not in work.dense:
            list(self.model.train(work, batch))
        yield from super().train(work, batch)


def retrained(base: str, **settings: Any) -> Retrained:
    """Return a trainer over one of BASES, quick to tune unless told otherwise."""
    few = {"evaluations": 4, "max_epochs": 30, "patience": 2}
    return Retrained(BASES[base].name, **({"base_settings": json.dumps(SETTINGS[base])} | few | settings))


def founded(base: str, **settings: Any) -> Founded:
    """Return the same, for a store that is still empty."""
    return Founded(**asdict(retrained(base, **settings)))


@functools.cache
def trained(base: str) -> Store:
    """Return a store whose main branch has one version, made by a base; no test changes that branch."""
    store = new_store()
    embstore.fit(store, BASES[base], RATED, message="base")
    return store


def new_branch(store: Store, at: str) -> str:
    """Return the name of a new branch."""
    name = f"branch-{next(_branches)}"
    store.branch(name, at=at)
    return name


def retrain(store: Store, trainer: Retrained, pairs: Interactions = RATED, *, at: str = "main") -> Version:
    """Return a version with vectors found again, on a branch of its own."""
    branch = new_branch(store, at)
    return embstore.fit(store, trainer, pairs, message="again", branch=branch, consumed="replace")


def vectors(version: Version, ids: Any, entity: str = "user") -> NDArray[Any]:
    """Return all that is learned of some ids side by side."""
    names = [name for name, spec in version.tables.items() if spec.entity == entity]
    return np.concatenate([version.table(name).get(ids).reshape(len(ids), -1) for name in names], axis=1)


def forgotten(store: Store, version: Version, users: Any) -> str:
    """Return a branch of a version that has forgotten some users."""
    branch = new_branch(store, version.id)
    with store.checkout(branch) as work:
        work.remove("user", users)
        work.commit("forget")
    return branch


def of_users(pairs: Interactions, users: Any) -> Interactions:
    """Return the pairs of some users."""
    return pairs.take(np.flatnonzero(np.isin(pairs.user_ids, users)))


def found(version: Version) -> dict[str, float]:
    """Return the learning rate and L2 of a version as settings of its base."""
    return {f"fold_{what}": version.dense[f"retrained.user.{what}"].item() for what in ("lr", "l2")}
