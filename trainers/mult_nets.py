"""Nets of Mult-VAE and Mult-DAE (Liang et al. 2018) in numpy, with their gradients: pure, they know no store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from trainers.histories import SparseRows

I64 = NDArray[np.int64]
Floats = NDArray[Any]
Layer = tuple[Floats, Floats]


@dataclass(frozen=True)
class Shape:
    """Of a net: from what users have had through layers to a code, and from the code through the same sizes to every item.

    Parameters
    ----------
    hidden
        Sizes of the layers between the items and the code, outermost first; there may be none.
    dim
        Length of the code.
    has_variance
        Whether the encoder gives a mean and a log variance of the code, as Mult-VAE's does. If not, the code goes through tanh,
        as all hidden layers do.
    """

    hidden: tuple[int, ...]
    dim: int
    has_variance: bool

    @property
    def inner(self) -> tuple[int, ...]:
        """Return the sizes from the rows of items that go in to what the encoder gives."""
        return (*self.hidden, 2 * self.dim if self.has_variance else self.dim)

    @property
    def outer(self) -> tuple[int, ...]:
        """Return the sizes from the code to the rows of items that come out."""
        return (self.dim, *reversed(self.hidden))

    @property
    def arrays(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all that has no rows of items, by name."""
        found: dict[str, tuple[int, ...]] = {"encoder.bias": (self.inner[0],)}
        for side, sizes in {"inner": self.inner, "outer": self.outer}.items():
            for i, (n_in, n_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
                found |= {f"{side}.{i}.weight": (n_out, n_in), f"{side}.{i}.bias": (n_out,)}
        return found


@dataclass(frozen=True)
class Codes:
    """What an encoder made of some users.

    Parameters
    ----------
    seen
        Of each inner layer what went in, the first's first.
    mean, log_variance
        Of the code, ``[n, dim]``; a net without variance has ``log_variance`` None, and its mean is the code.
    """

    seen: Sequence[Floats]
    mean: Floats
    log_variance: Floats | None

    @property
    def divergence(self) -> Floats:
        """Return the KL divergence of each user's code from the standard normal, ``[n]``."""
        if self.log_variance is None:
            return np.zeros(len(self.mean), self.mean.dtype)
        found: Floats = 0.5 * (np.exp(self.log_variance) + self.mean**2 - 1 - self.log_variance).sum(axis=1)
        return found


@dataclass(frozen=True)
class Decoded:
    """What a decoder made of codes: of each outer layer what went in and, last, what the rows of items are multiplied by."""

    seen: Sequence[Floats]
    scores: Floats


@dataclass(frozen=True)
class MultNet:
    """A net.

    Parameters
    ----------
    shape
        Of it.
    rows_in, rows_out, bias
        Of items: ``[n_items, inner[0]]``, ``[n_items, outer[-1]]`` and ``[n_items]``.
    arrays
        The others, as ``shape.arrays`` has them.
    """

    shape: Shape
    rows_in: Floats
    rows_out: Floats
    bias: Floats
    arrays: Mapping[str, Floats]

    def encode(self, given: csr_array) -> Codes:
        """Return the codes of users for what they have had, ``[n, n_items]``."""
        out, seen = given @ self.rows_in + self.arrays["encoder.bias"], []
        for weight, bias in self._layers("inner"):
            seen.append(np.tanh(out, out=out))
            out = out @ weight.T + bias
        if not self.shape.has_variance:
            return Codes(seen, np.tanh(out, out=out), None)
        return Codes(seen, out[:, : self.shape.dim], out[:, self.shape.dim :])

    def decode(self, code: Floats, items: I64 | None = None) -> Decoded:
        """Return scores ``[n, m]`` of some items, distinct and ascending; None: of all."""
        seen = [code]
        for weight, bias in self._layers("outer"):
            code = code @ weight.T
            code += bias
            seen.append(np.tanh(code, out=code))
        rows, biases = (self.rows_out, self.bias) if items is None else (self.rows_out[items], self.bias[items])
        scores = code @ rows.T
        scores += biases
        return Decoded(seen, scores)

    def scores(self, given: csr_array) -> Floats:
        """Return a score of every item, of the mean codes."""
        return self.decode(self.encode(given).mean).scores

    def _layers(self, side: str) -> list[Layer]:
        n_layers = len(self.shape.hidden)
        return [(self.arrays[f"{side}.{i}.weight"], self.arrays[f"{side}.{i}.bias"]) for i in range(n_layers)]

    def back_to_code(self, decoded: Decoded, slopes: Floats, rows: Floats) -> tuple[dict[str, Floats], Floats]:
        """Return the gradients of the decoder, by name, and of the code.

        Parameters
        ----------
        slopes
            By scores, ``[n, m]``.
        rows
            Of the items that are scored, ``[m, outer[-1]]``.

        Returns
        -------
        Gradients; those of ``rows_out`` and ``bias`` have the m items.
        """
        found, slope = {"rows_out": slopes.T @ decoded.seen[-1], "bias": slopes.sum(axis=0)}, slopes @ rows
        for i, (weight, _) in reversed(list(enumerate(self._layers("outer")))):
            slope *= _tanh_slope(decoded.seen[i + 1])
            found |= {f"outer.{i}.weight": slope.T @ decoded.seen[i], f"outer.{i}.bias": slope.sum(axis=0)}
            slope = slope @ weight
        return found, slope

    def back_to_input(self, codes: Codes, slope: Floats) -> tuple[dict[str, Floats], Floats]:
        """Return the gradients of the encoder's arrays, by name, and by what goes into it, ``[n, inner[0]]``.

        Parameters
        ----------
        slope
            By what the encoder gives, before the tanh of a code without variance.
        """
        found: dict[str, Floats] = {}
        for i, (weight, _) in reversed(list(enumerate(self._layers("inner")))):
            found |= {f"inner.{i}.weight": slope.T @ codes.seen[i], f"inner.{i}.bias": slope.sum(axis=0)}
            slope = slope @ weight
            slope *= _tanh_slope(codes.seen[i])
        return found | {"encoder.bias": slope.sum(axis=0)}, slope


def _tanh_slope(found: Floats) -> Floats:
    return 1 - found * found


def slope_of_code(codes: Codes, slope: Floats, *, spread: Floats | None, kl_weight: float) -> Floats:
    """Return the slope by what an encoder gave, for that by the code, and for the mean divergence times its weight.

    Parameters
    ----------
    spread
        What was added to the mean, as `spread_of` gives it; None: nothing was.
    kl_weight
        How much the mean of the users' divergences counts.
    """
    if codes.log_variance is None:
        return slope * _tanh_slope(codes.mean)
    share = slope.dtype.type(kl_weight / len(slope))
    by_variance = 0.5 * share * (np.exp(codes.log_variance) - 1)
    if spread is not None:
        by_variance += 0.5 * slope * spread
    return np.concatenate([slope + share * codes.mean, by_variance], axis=1)


def spread_of(codes: Codes, drawn: Floats, *, noise: float) -> Floats | None:
    """Return what is added to the mean codes to sample them: ``noise`` of their deviations times ``drawn``, standard normal."""
    if codes.log_variance is None:
        return None
    return np.asarray(drawn.dtype.type(noise) * np.exp(0.5 * codes.log_variance) * drawn)


def start_of(shape: tuple[int, ...], drawn: Floats) -> Floats:
    """Return where an array begins for standard normal numbers of its shape: weights as in Glorot and Bengio (2010), biases 0."""
    return drawn * drawn.dtype.type(math.sqrt(2 / sum(shape))) if len(shape) == 2 else np.zeros_like(drawn)


def as_matrix(rows: SparseRows, n_items: int) -> csr_array:
    """Return sparse rows for `MultNet.encode`."""
    return csr_array((rows.data, rows.indices, rows.indptr), shape=(len(rows), n_items))


def back_to_rows(given: csr_array, slope: Floats) -> tuple[I64, Floats]:
    """Return the items that somebody has had, ascending, and the gradient of their rows.

    Parameters
    ----------
    given
        What went into the encoder.
    slope
        By what it made of it, ``[n, inner[0]]``.
    """
    items, places = np.unique(given.indices, return_inverse=True)
    taken = csr_array((given.data, places, given.indptr), shape=(given.shape[0], len(items)))
    return items.astype(np.int64), taken.T @ slope


def thinned(rows: SparseRows, factors: Floats) -> SparseRows:
    """Return sparse rows times ``factors``, one for each number, without those whose factor is 0."""
    kept = factors > 0
    ends = np.concatenate([[0], np.cumsum(kept)])[rows.indptr]
    return SparseRows(ends, rows.indices[kept], rows.data[kept] * factors[kept])
