"""Weighted least squares for many rows at once, as alternating least squares needs them: numpy in, numpy out.

A row with vector ``x``, paired with some rows ``y`` of the other side, each with a weight ``w``, is to have

    sum over its pairs of (1 + w) (1 - x.y)^2  +  sum over all other rows of (x.y)^2  +  l2 x.x

as small as it can be (Hu, Koren and Volinsky 2008). Its equations are ``Y'Y + l2``, which all rows share, and ``w y y'`` for each
of its own pairs. In coordinates in which the shared part is the identity, eigenvalues lie between 1 and 1 + the largest weight:
float32 is enough, and two or three steps of conjugate gradients, from where the row was, come near (Takacs, Pilaszy and Tikk 2011
take such steps in the vectors' own coordinates, where there are more to take).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import sposv
from scipy.sparse import csr_array

from embstore import InvalidInputError

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
# Numbers gathered at a time: they should stay in a cache while the steps pass over them.
_BLOCK_NUMBERS = 1 << 17
# Keeps 0 / 0 of a row that is solved already at 0.
_TINY = np.float32(1e-30)


@dataclass(frozen=True)
class Block:
    """Rows with about equally many pairs: ``others`` and ``weights`` are padded to one width.

    Parameters
    ----------
    rows
        int64[n].
    others
        int64[n, width], rows of the other side; in the padding one behind its last.
    weights
        float32[n, width, 1], above zero; zero in the padding.
    """

    rows: I64
    others: I64
    weights: F32


def pair_counts(users: I64, items: I64, *, shape: tuple[int, int]) -> csr_array[Any]:
    """Return how often each pair occurs: float32 ``shape``, sorted, whatever the order of the pairs."""
    counts = csr_array((np.ones(len(users), np.float32), (users, items)), shape=shape)
    counts.sum_duplicates()
    return counts


def blocks(counts: csr_array[Any], rows: I64, *, alpha: float, dim: int) -> list[Block]:
    """Return ``rows`` in blocks, but for those without pairs; a weight is ``alpha`` times the count.

    The width of a row's block depends on its own number of pairs alone.
    """
    ends = counts.indptr.astype(np.int64)
    sizes = np.diff(ends)[rows]
    widths = _width(sizes)
    order = np.argsort(widths, kind="stable")
    order = order[sizes[order] > 0]
    found = []
    for same in np.split(order, np.flatnonzero(np.diff(widths[order])) + 1):
        height = max(1, _BLOCK_NUMBERS // (int(widths[same[0]]) * dim)) if len(same) else 1
        for start in range(0, len(same), height):
            some = same[start : start + height]
            found.append(
                _block(counts, rows[some], first=ends[rows[some]], sizes=sizes[some], width=int(widths[some[0]]), alpha=alpha)
            )
    return found


def _width(sizes: I64) -> I64:
    """Return the next multiple of 4, or of an eighth of the next power of two: few widths, and little padding."""
    step: I64 = np.maximum(4, 1 << np.maximum(np.frexp(sizes)[1].astype(np.int64) - 3, 0))
    return -(-sizes // step) * step


def _block(counts: csr_array[Any], rows: I64, *, first: I64, sizes: I64, width: int, alpha: float) -> Block:
    is_pair = np.arange(width) < sizes[:, None]
    places = np.where(is_pair, first[:, None] + np.arange(width), 0)
    others = np.where(is_pair, counts.indices[places], counts.shape[1])
    weights = np.where(is_pair, counts.data[places] * np.float32(alpha), np.float32(0))
    return Block(rows, others.astype(np.int64), weights[:, :, None])


class Whitened:
    """Vectors of one side in coordinates in which ``Y'Y + l2`` is the identity.

    Parameters
    ----------
    vectors
        float32[n, dim].
    l2
        Above zero.

    Raises
    ------
    InvalidInputError
        If ``l2`` is lost beside the vectors.
    """

    def __init__(self, vectors: F32, l2: float) -> None:
        wide = vectors.astype(np.float64)
        gram = wide.T @ wide
        gram[np.diag_indices(len(gram))] += l2
        try:
            lower = np.linalg.cholesky(gram)
        except np.linalg.LinAlgError as error:
            msg = f"l2 {l2}: too small beside vectors whose squares sum up to {gram.diagonal().sum():.3g}; give more"
            raise InvalidInputError(msg) from error
        self._there = lower.astype(np.float32)
        self._back = np.linalg.inv(lower).astype(np.float32)
        self._vectors = np.zeros((len(vectors) + 1, vectors.shape[1]), np.float32)
        np.matmul(vectors, self._back.T, out=self._vectors[:-1])

    def improve(self, solved: F32, some: Sequence[Block], *, steps: int) -> float:
        """Take steps of conjugate gradients for the rows of some blocks, in ``solved`` ``[N, dim]``, and return their loss."""
        loss = 0.0
        for block in some:
            z = self._vectors.take(block.others, axis=0)
            x, fitted = _conjugate_gradients(z, block.weights, (solved[block.rows] @ self._there)[:, :, None], steps=steps)
            solved[block.rows] = x[:, :, 0] @ self._back
            loss += _loss(x, fitted, block.weights)
        return loss

    def solve(self, solved: F32, some: Sequence[Block]) -> float:
        """Solve for the rows of some blocks, in ``solved`` ``[N, dim]``, and return their loss.

        Every product is one of a single row, of a shape that its own number of pairs decides: a row's bits are the same in any
        company.

        Raises
        ------
        InvalidInputError
            If weights are so large that ones beside them are lost.
        """
        loss = 0.0
        for block in some:
            z = self._vectors.take(block.others, axis=0)
            x = _solution(z, block.weights)
            solved[block.rows] = np.matmul(x.transpose(0, 2, 1), self._back)[:, 0]
            loss += _loss(x, z @ x, block.weights)
        return loss


def _conjugate_gradients(z: F32, weights: F32, x: F32, *, steps: int) -> tuple[F32, F32]:
    """Improve ``x`` ``[n, dim, 1]`` in place, and return it with ``z @ x``."""
    zt = z.transpose(0, 2, 1)
    fitted = z @ x
    residual = zt @ ((weights > 0) + weights - weights * fitted)
    residual -= x
    direction, squares = residual.copy(), _squares(residual)
    for step in range(steps):
        if step:
            before, squares = squares, _squares(residual)
            direction *= squares / np.maximum(before, _TINY)
            direction += residual
        along = z @ direction
        bent = zt @ (weights * along)
        bent += direction
        length = squares / np.maximum(direction.transpose(0, 2, 1) @ bent, _TINY)
        x += length * direction
        fitted += length * along
        residual -= length * bent
    return x, fitted


def _squares(x: F32) -> F32:
    found: F32 = x.transpose(0, 2, 1) @ x
    return found


def _solution(z: F32, weights: F32) -> F32:
    """Return the solution ``[n, dim, 1]`` of each row's equations; a row with fewer pairs than ``dim`` has one for each pair."""
    root = np.sqrt(weights)
    target = np.divide(1 + weights, root, out=np.zeros_like(root), where=weights > 0)
    scaled = z * root
    transposed = scaled.transpose(0, 2, 1)
    if z.shape[1] < z.shape[2]:
        found: F32 = transposed @ solve_shifted(scaled @ transposed, target, largest=weights.max())
        return found
    return solve_shifted(transposed @ scaled, transposed @ target, largest=weights.max())


def solve_shifted(equations: F32, right: F32, *, largest: float) -> F32:
    """Return what solves ``(equations + identity) x = right`` for each row, in place of ``right``.

    Parameters
    ----------
    equations
        float32[n, k, k], symmetric with no eigenvalue below zero; overwritten.
    right
        float32[n, k, 1].
    largest
        The largest weight in them, for the message.

    Raises
    ------
    InvalidInputError
        If the identity is lost beside the weights.
    """
    diagonal = np.arange(equations.shape[1])
    equations[:, diagonal, diagonal] += 1
    # By Cholesky in a loop: half the time of numpy's solve, which takes an LU of all rows.
    for matrix, x in zip(equations, right, strict=True):
        _, x[:, 0], failed = sposv(matrix.T, x[:, 0], overwrite_a=True)
        if failed:
            msg = f"weights up to {largest:.3g}: ones are lost beside them in float32; give a smaller alpha"
            raise InvalidInputError(msg)
    return right


def _loss(x: F32, fitted: F32, weights: F32) -> float:
    """Return what the rows' sum of squares comes to: in these coordinates ``x.x`` is its part of all pairs, and ``l2``."""
    own = np.where(weights > 0, (1 + weights) * (1 - fitted) ** 2 - fitted**2, 0)
    return float(own.sum(dtype=np.float64) + np.square(x).sum(dtype=np.float64))
