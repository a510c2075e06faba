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
        Pairs of test2 whose item is in neither train1 nor train2; they are left out.
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

    ``test1`` is without items that are not in train1, so that it has the same targets before and after the increment; ``test2``
    without those that are in neither train1 nor train2. ``sizes`` counts pairs before that, ``n_unknown`` those that left test2.
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
    sizes = (len(train1), len(test1), len(train2), len(test2))
    earlier_test = test1.take(_among(test1.item_ids, train1.item_ids))
    later_test = test2.take(_among(test2.item_ids, np.concatenate([train1.item_ids, train2.item_ids])))
    return Parts(train1, earlier_test, train2, later_test, sizes, len(test2) - len(later_test))


def _pairs(data: DataSet, folder: Path) -> Interactions:
    return _first_of_each(Interactions.from_file(folder / data.file))


def _first_of_each(pairs: Interactions) -> Interactions:
    """Return the earliest pair of each user and item, in the order of time, equal times as they came."""
    ordered = pairs.take(np.argsort(np.asarray(pairs.times), kind="stable"))
    first: dict[tuple[object, object], int] = {}
    for place, pair in enumerate(zip(ordered.user_ids.tolist(), ordered.item_ids.tolist(), strict=True)):
        first.setdefault(pair, place)
    return ordered.take(list(first.values()))


def _among(ids: NDArray[np.generic], known: NDArray[np.generic]) -> NDArray[np.bool_]:
    wanted = set(known.tolist())
    return np.array([id_ in wanted for id_ in ids.tolist()], bool)
