"""Losses of factor models and autoencoders: of scores and of each row's own pairs, with their slopes.

A score is ``left[row] @ right[column] + offset[column]``. A loss returns for each row of ``left`` a sum over that row's own
pairs, with no part of other rows, and its slope by every score; from slopes come the gradients of both sides,
``slopes @ right`` and ``slopes.T @ left``. A loss that looks at a row's own pairs alone gives sparse slopes; one that looks at
all columns gives dense ones, and is a function of scores, wherever these come from.

Another loss joins by an entry in ``LOSSES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embstore import InvalidInputError
from trainers.pairs import Pairs

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Floats = NDArray[Any]
Slopes = Any  # Floats, or a csr_array of them
Function = Callable[[Floats, Floats, Floats, Pairs], tuple[Floats, Slopes]]
OfScores = Callable[[Floats, Pairs], tuple[Floats, Floats]]


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
    from scipy.sparse import csr_array

    weights = pairs.weights.astype(left.dtype)
    found = np.einsum("nk,nk->n", left[pairs.owners], right[pairs.columns]) + offset[pairs.columns]
    errors = found - pairs.values.astype(left.dtype)
    slopes = csr_array((2 * weights * errors, pairs.columns, pairs.ends), shape=(len(left), len(right)))
    return pairs.sums(weights * errors * errors), slopes


def softmax(scores: Floats, pairs: Pairs) -> tuple[Floats, Floats]:
    """Return for each row the weighted sum of ``-log softmax`` over all columns at its own pairs, and slopes.

    Parameters
    ----------
    scores
        Floating ``[n, n_columns]``; they are overwritten.
    pairs
        Of n groups.

    Returns
    -------
    loss ``[n]``, slopes ``[n, n_columns]``.
    """
    weights, owners = pairs.weights.astype(scores.dtype), pairs.owners
    scores -= scores.max(axis=1, keepdims=True)
    own = scores[owners, pairs.columns]
    slopes = np.exp(scores, out=scores)
    total = slopes.sum(axis=1)
    slopes *= (pairs.sums(weights) / total)[:, None]
    slopes[owners, pairs.columns] -= weights
    return pairs.sums(weights * (np.log(total)[owners] - own)), slopes


def logistic(scores: Floats, pairs: Pairs) -> tuple[Floats, Floats]:
    """Return for each row the cross entropy of every column by itself, 1 at its own pairs and else 0; shapes as above.

    A row counts as its pairs weigh, which is the same for all of them.
    """
    owners, columns, weights = pairs.owners, pairs.columns, _of_rows(pairs, scores.dtype)
    own = pairs.sums(scores[owners, columns] * pairs.values.astype(scores.dtype))
    falling = np.exp(-np.abs(scores))
    slopes = np.where(scores >= 0, scores.dtype.type(1), falling)
    slopes /= 1 + falling
    loss = np.maximum(scores, 0, out=scores).sum(axis=1) + np.log1p(falling, out=falling).sum(axis=1) - own
    slopes[owners, columns] -= pairs.values.astype(scores.dtype)
    slopes *= weights[:, None]
    return weights * loss, slopes


def mse(scores: Floats, pairs: Pairs, *, confidence: float = 0.0) -> tuple[Floats, Floats]:
    """Return for each row the squared error of every column, 1 wanted at its own pairs and else 0; shapes as above.

    Own pairs count ``1 + confidence`` times (Hu, Koren and Volinsky 2008). A row counts as its pairs weigh.
    """
    owners, columns, weights = pairs.owners, pairs.columns, _of_rows(pairs, scores.dtype)
    own = scores[owners, columns]
    errors, trust = own - pairs.values.astype(scores.dtype), scores.dtype.type(1 + confidence)
    loss = np.einsum("nc,nc->n", scores, scores) + pairs.sums(trust * errors * errors - own * own)
    scores[owners, columns] = trust * errors
    scores *= 2 * weights[:, None]
    return weights * loss, scores


def _of_rows(pairs: Pairs, dtype: Any) -> Floats:
    """Return the weight of each group's pairs, 0 where there are none."""
    padded = np.append(pairs.weights, 0)[pairs.ends[:-1]]
    return np.where(np.diff(pairs.ends) > 0, padded, 0).astype(dtype)


def _of_factors(of_scores: OfScores, left: Floats, right: Floats, offset: Floats, pairs: Pairs) -> tuple[Floats, Floats]:
    """Return a loss of scores, of two matrices of factors.

    Matrix products choose their order of adding by shape: for equal bits call this with one shape.
    """
    scores: Floats = left @ right.T
    scores += offset
    return of_scores(scores, pairs)


@dataclass(frozen=True)
class Loss:
    """A loss and what it looks at.

    Parameters
    ----------
    function
        Of (left, right, offset, pairs), as `squared` is.
    rated
        Learns from ratings; else from pairs alone.
    all_items
        Compares a user's items with all others: every item has a slope, and a constant for each user changes nothing.
    of_scores
        Of (scores, pairs), as `softmax` is; None if it looks at a row's own pairs alone.
    trusting
        It takes a ``confidence``, as `mse` does.
    """

    function: Function
    rated: bool
    all_items: bool
    of_scores: OfScores | None = None
    trusting: bool = False

    @classmethod
    def over_all(cls, of_scores: OfScores, *, trusting: bool = False) -> Loss:
        """Return a loss that looks at all columns."""
        return cls(partial(_of_factors, of_scores), rated=False, all_items=True, of_scores=of_scores, trusting=trusting)

    def trusted(self, confidence: float) -> Loss:
        """Return the loss with that confidence.

        Raises
        ------
        InvalidInputError
            If it takes none.
        """
        if not confidence:
            return self
        if not self.trusting or self.of_scores is None:
            takers = ", ".join(name for name, loss in LOSSES.items() if loss.trusting)
            msg = f"confidence {confidence!r}: only the loss {takers} takes one"
            raise InvalidInputError(msg)
        return replace(Loss.over_all(partial(self.of_scores, confidence=confidence)), trusting=True)  # type: ignore[call-arg]


LOSSES = {
    "softmax": Loss.over_all(softmax),
    "logloss": Loss.over_all(softmax),  # what Recoder calls it
    "logistic": Loss.over_all(logistic),
    "mse": Loss.over_all(mse, trusting=True),
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
