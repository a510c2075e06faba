"""Pairs grouped by the rows of one side: what a factor model learns from, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


def last_of_each(rows: I64, columns: I64) -> I64:
    """Return the positions of distinct pairs, by row and then column; of one that is there twice the last.

    Parameters
    ----------
    rows, columns
        int64[n] each.
    """
    order = np.lexsort((columns, rows))  # stable: equal pairs stay in their order
    is_last = np.ones(len(order), bool)
    is_last[:-1] = (np.diff(rows[order]) != 0) | (np.diff(columns[order]) != 0)
    return order[is_last]


@dataclass(frozen=True)
class Pairs:
    """Distinct pairs of n groups; those of group g are between ``ends[g]`` and ``ends[g + 1]``, by ascending column.

    Parameters
    ----------
    ends
        int64[n + 1].
    columns
        int64[n_pairs], rows of the other side.
    values
        float64[n_pairs], what a loss is to come near to, such as ratings.
    weights
        float64[n_pairs], how much each pair counts.
    """

    ends: I64
    columns: I64
    values: F64
    weights: F64

    @classmethod
    def of(cls, owners: I64, columns: I64, values: F64 | None, *, n_groups: int, power: float = 0.0) -> Pairs:
        """Return pairs in any order, grouped.

        Parameters
        ----------
        owners, columns
            int64[n], the group of each pair and its row of the other side; of a pair that is there twice the last counts.
        values
            float64[n]; None: all 1.
        n_groups
            Groups may be empty.
        power
            A pair's weight is the number of its group's pairs to this power.
        """
        order = last_of_each(owners, columns)
        sizes = np.bincount(owners[order], minlength=n_groups)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        ones = np.ones(len(order))
        weights = np.repeat(np.maximum(sizes, 1) ** float(power), sizes) if power else ones
        return cls(ends, columns[order], ones if values is None else values[order], weights)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def n_groups(self) -> int:
        """Return the number of groups, empty ones too."""
        return len(self.ends) - 1

    @property
    def owners(self) -> I64:
        """Return the group of each pair, int64[n_pairs]."""
        return np.repeat(np.arange(self.n_groups), np.diff(self.ends))

    def take(self, groups: I64) -> Pairs:
        """Return the pairs of some groups, in the order of ``groups``, int64[m]."""
        sizes = np.diff(self.ends)[groups]
        ends = np.concatenate([[0], np.cumsum(sizes)])
        places = np.arange(ends[-1]) + np.repeat(self.ends[groups] - ends[:-1], sizes)
        return Pairs(ends, self.columns[places], self.values[places], self.weights[places])

    def among(self, columns: I64) -> Pairs:
        """Return the same pairs with columns as places in ``columns``, ascending, which has all of them."""
        return Pairs(self.ends, np.searchsorted(columns, self.columns), self.values, self.weights)

    def sums(self, numbers: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the sum of one number for each pair over each group, added in order."""
        padded = np.append(numbers, numbers.dtype.type(0))
        found: NDArray[np.floating] = np.add.reduceat(padded, self.ends[:-1])
        found[np.diff(self.ends) == 0] = 0
        return found
