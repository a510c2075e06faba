"""Losses of factor models: functions of two matrices of factors and of each row's own pairs, with their slopes.

A score is ``left[row] @ right[column] + offset[column]``. A loss returns for each row of ``left`` a sum over that row's own
pairs, with no part of other rows, and its slope by every score; from slopes come the gradients of both sides,
``slopes @ right`` and ``slopes.T @ left``. A loss that looks at a row's own pairs alone gives sparse slopes, one that looks at
all columns dense ones.

Another loss joins by an entry in ``LOSSES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from embstore import InvalidInputError
from trainers.pairs import Pairs

Floats = NDArray[Any]
Slopes = Floats | csr_array
Function = Callable[[Floats, Floats, Floats, Pairs], tuple[Floats, Slopes]]


def squared(left: Floats, right: Floats, offset: Floats, pairs: Pairs) -> tuple[Floats, csr_array]:
    """Return the weighted squared error of each row's own pairs, and slopes.

    Parameters
    ----------
    left, right
        Floating ``[n, k]`` and ``[n_columns, k]``, of one dtype.
    offset
        ``[n_columns]``.
    pairs
        Of n groups.

    Returns
    -------
    loss ``[n]``, slopes ``[n, n_columns]`` with an entry for each pair.
    """
    weights = pairs.weights.astype(left.dtype)
    found = np.einsum("nk,nk->n", left[pairs.owners], right[pairs.columns]) + offset[pairs.columns]
    errors = found - pairs.values.astype(left.dtype)
    slopes = csr_array((2 * weights * errors, pairs.columns, pairs.ends), shape=(len(left), len(right)))
    return pairs.sums(weights * errors * errors), slopes


def softmax(left: Floats, right: Floats, offset: Floats, pairs: Pairs) -> tuple[Floats, Floats]:
    """Return for each row the weighted sum of ``-log softmax`` over all columns at its own pairs, and slopes; shapes as above.

    Matrix products choose their order of adding by shape: for equal bits call this with one shape.
    """
    weights, owners = pairs.weights.astype(left.dtype), pairs.owners
    scores = left @ right.T
    scores += offset
    scores -= scores.max(axis=1, keepdims=True)
    own = scores[owners, pairs.columns]
    slopes = np.exp(scores, out=scores)
    total = slopes.sum(axis=1)
    slopes *= (pairs.sums(weights) / total)[:, None]
    slopes[owners, pairs.columns] -= weights
    return pairs.sums(weights * (np.log(total)[owners] - own)), slopes


@dataclass(frozen=True)
class Loss:
    """A loss and what it looks at.

    Parameters
    ----------
    function
        Of (left, right, offset, pairs), as `squared` and `softmax` are.
    rated
        Learns from ratings; else from pairs alone.
    all_items
        Compares a user's items with all others: every item has a slope, and a constant for each user changes nothing.
    """

    function: Function
    rated: bool
    all_items: bool


LOSSES = {
    "softmax": Loss(softmax, rated=False, all_items=True),
    "squared": Loss(squared, rated=True, all_items=False),
}


def find_loss(name: object) -> Loss:
    """Return the loss of that name.

    Raises
    ------
    InvalidInputError
        If there is none.
    """
    if not isinstance(name, str) or name not in LOSSES:
        msg = f"loss {name!r}: use one of {', '.join(LOSSES)}"
        raise InvalidInputError(msg)
    return LOSSES[name]
