"""The parts that quality is measured on: two stretches of time, and of each user's pairs in both the last are held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embstore import Interactions

LATER_SHARE = 0.2
HELD_OUT_SHARE = 0.2


@dataclass(frozen=True)
class DataSet:
    """A file of pairs and what its parts must come to.

    Parameters
    ----------
    name, file
        The file is below the folder with the data.
    sizes
        Pairs of train1, test1, train2 and test2.
    n_unknown
        Held-out pairs whose item is in neither train1 nor train2; they are left out.
    """

    name: str
    file: str
    sizes: tuple[int, int, int, int]
    n_unknown: int


DATA_SETS = {
    data.name: data
    for data in (
        DataSet("ml-100k", "ml-100k/ml-100k.inter", (64_285, 15_715, 16_122, 3_878), 27),
        DataSet("online-retail", "online-retail/online_retail.csv.gz", (171_941, 41_039, 43_365, 9_881), 7),
    )
}


@dataclass(frozen=True)
class Parts:
    """Pairs in the order of time: train1 and test1 are of the first stretch, train2 and test2 of the second.

    The targets in ``test1`` and ``test2`` are without items that are in neither train1 nor train2.
    """

    train1: Interactions
    test1: Interactions
    train2: Interactions
    test2: Interactions
    sizes: tuple[int, int, int, int]
    n_unknown: int

    def is_new(self, pairs: Interactions) -> NDArray[np.bool_]:
        """Return of which pairs the user is not in train1."""
        return ~_among(pairs.user_ids, self.train1.user_ids)

    @property
    def old_users(self) -> Interactions:
        """Return the targets of test2 whose users are in train1."""
        return self.test2.take(~self.is_new(self.test2))

    @property
    def new_users(self) -> Interactions:
        """Return the targets of test2 whose users are not in train1."""
        return self.test2.take(self.is_new(self.test2))

    @property
    def newcomers(self) -> Interactions:
        """Return the pairs of train2 whose users are not in train1."""
        return self.train2.take(self.is_new(self.train2))


def load(data: DataSet, folder: Path) -> Parts:
    """Return the parts of a data set.

    Raises
    ------
    RuntimeError
        If their sizes are not those that are known: the figures could not be compared with others then.
    """
    found = parts(_pairs(data, folder))
    if (found.sizes, found.n_unknown) != (data.sizes, data.n_unknown):
        msg = f"{data.name}: parts of {found.sizes} pairs and {found.n_unknown} unknown; expected {data.sizes}, {data.n_unknown}"
        raise RuntimeError(msg)
    return found


def load_inner(data: DataSet, folder: Path) -> Parts:
    """Return the same parts made of the first stretch alone, to choose settings on: nothing of the second is in them."""
    return parts(_pairs(data, folder).split("time", LATER_SHARE)[0])


def parts(pairs: Interactions) -> Parts:
    """Return the parts of pairs that have times; of several pairs of one user and item the first counts."""
    earlier, later = _first_of_each(pairs).split("time", LATER_SHARE)
    (train1, test1), (train2, test2) = (part.split("within", HELD_OUT_SHARE) for part in (earlier, later))
    items = np.concatenate([train1.item_ids, train2.item_ids])
    known1, known2 = (_among(test.item_ids, items) for test in (test1, test2))
    sizes = (len(train1), len(test1), len(train2), len(test2))
    n_unknown = int((~known1).sum() + (~known2).sum())
    return Parts(train1, test1.take(known1), train2, test2.take(known2), sizes, n_unknown)


def _pairs(data: DataSet, folder: Path) -> Interactions:
    return _first_of_each(Interactions.from_file(folder / data.file))


def _first_of_each(pairs: Interactions) -> Interactions:
    """Return the earliest pair of each user and item, in the order of time, equal times as they came."""
    ordered = pairs.take(np.argsort(pairs.times, kind="stable"))
    first: dict[tuple[object, object], int] = {}
    for place, pair in enumerate(zip(ordered.user_ids.tolist(), ordered.item_ids.tolist(), strict=True)):
        first.setdefault(pair, place)
    return ordered.take(list(first.values()))


def _among(ids: NDArray[np.generic], known: NDArray[np.generic]) -> NDArray[np.bool_]:
    wanted = set(known.tolist())
    return np.array([id_ in wanted for id_ in ids.tolist()], bool)
