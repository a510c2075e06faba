"""implicit's ALS on the same pairs and settings, its vectors put into a store so that they are judged alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from embstore import Interactions, Store, Version
from trainers.als import ALS

IS_THERE = find_spec("implicit") is not None
Rows = NDArray[np.int64]


class Implicit:
    """implicit's `AlternatingLeastSquares` with the settings of ``trainer``, one thread, timed in CPU seconds.

    It multiplies the values of its matrix by its alpha, and has no 1 beside: it gets confidences, and 1 as alpha.
    """

    def __init__(self, trainer: ALS, *, use_cg: bool = True) -> None:
        from implicit.cpu.als import AlternatingLeastSquares

        self._alpha = trainer.alpha
        self.seconds: dict[str, float] = {}
        self._model = AlternatingLeastSquares(
            factors=trainer.dim,
            iterations=trainer.epochs,
            regularization=trainer.l2,
            alpha=1.0,
            random_state=trainer.seed,
            num_threads=1,
            use_cg=use_cg,
        )

    def fit(self, version: Version) -> None:
        """Fit what was consumed in a version."""
        pairs = self._confidences(version)
        start = time.process_time()
        self._model.fit(pairs, show_progress=False)
        self.seconds["fit"] = time.process_time() - start

    def fold_in(self, base: Version, folded: Version) -> None:
        """Solve for users who are new in ``folded``."""
        new = np.arange(len(base.ids("user")), len(folded.ids("user")))
        pairs = self._confidences(folded)[new]
        start = time.process_time()
        self._model.partial_fit_users(new, pairs)
        self.seconds["fold_in"] = time.process_time() - start

    def grow(self, base: Version, grown: Version, touched: Mapping[str, Rows], *, half_sweeps: int) -> None:
        """Solve for new users, new items and touched users, then for touched items and users in turn, as an increment does."""
        n_users, n_items = len(base.ids("user")), len(base.ids("item"))
        pairs = self._confidences(grown)
        users, items = touched["user"], touched["item"]
        new_users, new_items = np.arange(n_users, pairs.shape[0]), np.arange(n_items, pairs.shape[1])
        start = time.process_time()
        self._model.partial_fit_users(new_users, pairs[new_users][:, :n_items].tocsr())
        self._items(new_items, pairs)
        self._model.partial_fit_users(users, pairs[users])
        for half in range(half_sweeps):
            if half % 2 == 0:
                self._items(items, pairs)
            else:
                self._model.partial_fit_users(users, pairs[users])
        self.seconds["grow"] = time.process_time() - start

    def _items(self, rows: Rows, pairs: sp.csr_matrix) -> None:
        self._model.partial_fit_items(rows, pairs[:, rows].T.tocsr())

    def put(self, store: Store, version: Version, branch: str) -> Version:
        """Return a version on a new branch behind ``version`` with implicit's vectors in place of the store's."""
        store.branch(branch, at=version.id)
        with store.checkout(branch) as work:
            for entity, factors in (("user", self._model.user_factors), ("item", self._model.item_factors)):
                work.table(entity).scatter(np.arange(len(factors)), factors)
            return work.commit("implicit")

    def _confidences(self, version: Version) -> sp.csr_matrix:
        records = version.consumed.records()
        shape = (len(version.ids("user")), len(version.ids("item")))
        counts = sp.csr_matrix((np.ones(len(records), np.float32), (records.users, records.items)), shape=shape)
        counts.data = 1 + np.float32(self._alpha) * counts.data
        return counts


def peer(trainer: ALS, store: Store, versions: Mapping[str, Version], later: Interactions) -> tuple[dict[str, Version], Any]:
    """Return versions with implicit's vectors by the names of ours, and ``scratch``, fitted once on all; and its CPU seconds."""
    base, grown = versions["base"], versions["grown"]
    ids = {"user": later.user_ids.tolist(), "item": later.item_ids.tolist()}
    touched = {entity: np.unique(grown.ids(entity).rows(given)) for entity, given in ids.items()}
    model, other = Implicit(trainer), Implicit(trainer)
    found = {}
    model.fit(base)
    found["base"] = model.put(store, base, "implicit-base")
    model.fold_in(base, versions["folded"])
    found["folded"] = model.put(store, versions["folded"], "implicit-folded")
    model.grow(base, grown, touched, half_sweeps=trainer.half_sweeps)
    found["grown"] = model.put(store, grown, "implicit-grown")
    other.fit(grown)
    found["scratch"] = other.put(store, grown, "implicit-scratch")
    exact = Implicit(trainer, use_cg=False)
    exact.fit(base)
    return found, model.seconds | {"fit_exactly": exact.seconds["fit"]}
