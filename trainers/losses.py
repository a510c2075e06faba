"""Losses and their gradients, written out: no autograd, numpy in and numpy out.

A batch of BPR is a sparse matrix of slopes times a table, so its gradients come as one row for each row of a table that occurs.
Rows are added up in the order in which they occur: equal input gives equal bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
I64 = NDArray[np.int64]
# exp() of more overflows float32.
_STEEP = 80.0


@dataclass(frozen=True)
class Groups:
    """Equal rows put together: ``order`` sorts them stably; the group of ``rows[g]`` begins at ``starts[g]`` of the order."""

    order: I64
    rows: I64
    starts: I64

    @property
    def sizes(self) -> I64:
        """Return how often each row occurs."""
        return np.diff(self.starts, append=len(self.order))


def group(rows: I64) -> Groups:
    """Return the groups of equal ``rows``.

    Parameters
    ----------
    rows
        int64[n], not negative.
    """
    # numpy sorts 16-bit integers by radix, seven times faster.
    narrow = rows.astype(np.uint16) if len(rows) and rows.max() < 1 << 16 else rows
    order = np.argsort(narrow, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    return Groups(order, ordered[starts], starts)


def bpr_loss(scores: Floats) -> tuple[Floats, Floats]:
    """Return the BPR loss of each pair and its slope by every score (Rendle et al. 2009).

    Loss of a pair: the sum over its negatives of ``-log sigmoid(score of the positive - score of the negative)``.

    Parameters
    ----------
    scores
        Floating ``[n, 1 + n_negatives]``, the positive item first.

    Returns
    -------
    loss ``[n]``, slopes shaped as ``scores``.
    """
    margins = scores[:, :1] - scores[:, 1:]
    loss = (np.log1p(np.exp(-np.abs(margins))) - np.minimum(margins, 0)).sum(axis=1)
    slopes = np.empty_like(scores)
    slopes[:, 1:] = 1 / (1 + np.exp(np.minimum(margins, _STEEP)))
    slopes[:, 0] = -slopes[:, 1:].sum(axis=1)
    return loss, slopes


@dataclass(frozen=True)
class BPRGradients:
    """Summed loss of a batch and its gradient by every row that occurs in it, each row once and in ascending order."""

    loss: float
    user_rows: I64
    users: Floats
    item_rows: I64
    items: Floats
    biases: Floats


def bpr_gradients(
    users: I64, items: I64, *, user_table: Floats, item_table: Floats, item_bias: Floats, l2: float
) -> BPRGradients:
    """Return the gradients of the BPR loss, summed over a batch, with L2.

    Parameters
    ----------
    users
        int64[n] rows of ``user_table``, each with its pair.
    items
        int64[n, 1 + n_negatives] rows of ``item_table``: the pair's item and what it is to be ranked above.
    user_table, item_table
        Floating ``[n_users, dim]`` and ``[n_items, dim]``, of one dtype.
    item_bias
        ``[n_items]``.
    l2
        Every occurrence of a row (or bias) in the batch adds ``l2`` times it to its gradient: a user once for a pair, however
        many negatives. The loss that is returned is without this part.

    Returns
    -------
    BPRGradients
        In the dtype of the tables.
    """
    n, width = items.shape
    flat = items.ravel()
    vectors = item_table.take(flat, axis=0).reshape(n, width, -1)
    scores = np.einsum("nwd,nd->nw", vectors, user_table.take(users, axis=0)) + item_bias[items]
    loss, slopes = bpr_loss(scores)
    by_user, by_item = group(users), group(flat)
    occurrences = (by_user.order[:, None] * width + np.arange(width)).ravel()
    user_grad = _sums(slopes.ravel()[occurrences], flat[occurrences], starts=by_user.starts * width, table=item_table)
    item_slopes = slopes.ravel()[by_item.order]
    item_grad = _sums(item_slopes, users[by_item.order // width], starts=by_item.starts, table=user_table)
    bias_grad = np.add.reduceat(item_slopes, by_item.starts)
    user_grad += _shrink(user_table, by_user, l2=l2)
    item_grad += _shrink(item_table, by_item, l2=l2)
    bias_grad += _shrink(item_bias, by_item, l2=l2)
    total = float(loss.sum(dtype=np.float64))
    return BPRGradients(total, by_user.rows, user_grad, by_item.rows, item_grad, bias_grad)


def _sums(weights: Floats, columns: I64, *, starts: I64, table: Floats) -> Floats:
    """Return for each group the sum of ``weights`` times rows ``columns`` of ``table``, added in order."""
    from scipy.sparse import csr_array

    ends = np.append(starts, len(columns))
    sums: Floats = csr_array((weights, columns, ends), shape=(len(starts), len(table))) @ table
    return sums


def _shrink(table: Floats, groups: Groups, *, l2: float) -> Floats:
    values = table.take(groups.rows, axis=0)
    values *= (groups.sizes * l2).astype(table.dtype).reshape(-1, *[1] * (table.ndim - 1))
    return values


def softmax_loss(
    vectors: Floats, items: Floats, *, bias: Floats, sums: Floats, bias_sums: Floats, counts: Floats
) -> tuple[Floats, Floats]:
    """Return each user's softmax loss over all items, and its gradient by the user's vector; items and biases stand still.

    Loss of a user: the sum over the user's own items of ``-log softmax(items @ vector + bias)`` at the item. It is a sum and not
    a mean, and has no part of other users, so it does not matter who else is in ``vectors``. Matrix products choose their order
    of adding by shape: for equal bits call this with one shape.

    Parameters
    ----------
    vectors
        Floating ``[n, dim]``; float64 where 1e-6 matters.
    items
        ``[n_items, dim]``.
    bias
        ``[n_items]``.
    sums
        ``[n, dim]``: for each user the sum of the vectors of the user's own items.
    bias_sums
        ``[n]``: of their biases.
    counts
        ``[n]``: their number.

    Returns
    -------
    loss ``[n]``, gradient ``[n, dim]``.
    """
    scores = vectors @ items.T
    scores += bias
    top = scores.max(axis=1, keepdims=True)
    scores -= top
    weights = np.exp(scores, out=scores)
    total = weights.sum(axis=1)
    own = (vectors * sums).sum(axis=1) + bias_sums
    loss = counts * (np.log(total) + top[:, 0]) - own
    gradient = weights @ items
    gradient *= (counts / total)[:, None]
    gradient -= sums
    return loss, gradient
