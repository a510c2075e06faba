"""Nets of Mult-VAE and Mult-DAE (Liang et al. 2018) in torch, and the parts of their loss: pure, they know no store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainers.autoencoder_nets import ItemsIn, ItemsOut, SparseInput
from trainers.histories import RowMatrix, SparseRows

Sampler = Callable[[Tensor, Tensor], Tensor]


class MultNet(nn.Module):
    """From what users have had through layers to a code, and from the code through the same sizes to a score of every item.

    Parameters
    ----------
    n_items
        Rows of items.
    hidden
        Sizes of the layers between the items and the code, outermost first; there may be none.
    dim
        Length of the code.
    has_variance
        Whether the encoder gives a mean and a log variance of the code, as Mult-VAE's does. If not, the code goes through tanh,
        as all hidden layers do.
    """

    def __init__(self, n_items: int, hidden: Sequence[int], dim: int, *, has_variance: bool) -> None:
        super().__init__()
        self.dim, self.has_variance = dim, has_variance
        inner = [*hidden, 2 * dim if has_variance else dim]
        outer = [dim, *reversed(hidden)]
        self.encoder = ItemsIn(n_items, inner[0])
        self.inner, self.outer = _layers(inner), _layers(outer)
        self.decoder = ItemsOut(n_items, outer[-1])

    def encode(self, given: SparseInput) -> tuple[Tensor, Tensor | None]:
        """Return the code of users ``[n, dim]``, and its log variance where there is one."""
        out = self.encoder(given)
        for layer in self.inner:
            out = layer(torch.tanh(out))
        if self.has_variance:
            return out[:, : self.dim], out[:, self.dim :]
        return torch.tanh(out), None

    def decode(self, code: Tensor, columns: Tensor) -> Tensor:
        """Return scores of some items ``[n, m]``; ``columns`` int64[m], distinct rows, ascending."""
        for layer in self.outer:
            code = torch.tanh(layer(code))
        return cast("Tensor", self.decoder(code, columns))

    def forward(self, given: SparseInput, columns: Tensor, sample: Sampler | None = None) -> tuple[Tensor, Tensor]:
        """Return scores of some items, and the KL divergence of each user's code from the standard normal, ``[n]``.

        Parameters
        ----------
        given, columns
            As for ``encode`` and ``decode``.
        sample
            Gives a code for a mean and a log variance; None: the mean.
        """
        mean, log_variance = self.encode(given)
        if log_variance is None:
            return self.decode(mean, columns), mean.new_zeros(len(mean))
        code = mean if sample is None else sample(mean, log_variance)
        return self.decode(code, columns), kl_divergence(mean, log_variance)


def _layers(sizes: Sequence[int]) -> nn.ModuleList:
    """Return linear layers between sizes, begun as Glorot and Bengio (2010) say."""
    layers = [nn.Linear(n_in, n_out) for n_in, n_out in zip(sizes, sizes[1:], strict=False)]
    for layer in layers:
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.ModuleList(layers)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return how far normals of diagonal covariance are from the standard one: ``[n]`` of two ``[n, dim]``."""
    return 0.5 * (log_variance.exp() + mean * mean - 1 - log_variance).sum(dim=1)


def sampled(mean: Tensor, log_variance: Tensor, *, noise: float, generator: torch.Generator) -> Tensor:
    """Return a draw from normals, with ``noise`` times their deviation."""
    drawn = torch.empty_like(mean).normal_(generator=generator)
    return mean + noise * torch.exp(0.5 * log_variance) * drawn


def multinomial_loss(scores: Tensor, targets: RowMatrix) -> Tensor:
    """Return the negative multinomial log-likelihood of what users had, as a mean over users.

    Of one user it is the sum of ``-log softmax(scores)`` over the user's items.

    Parameters
    ----------
    scores
        ``[n, m]``.
    targets
        ``[n, m]``: ones where the user has had the item, each once.
    """
    return cast("Tensor", _Multinomial.apply(scores, targets))  # type: ignore[no-untyped-call]


class _Multinomial(torch.autograd.Function):
    """Written out, since the gradient needs what the loss has computed, and no matrix of targets."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, targets: RowMatrix) -> Tensor:
        counts = torch.from_numpy(targets.indptr[1:] - targets.indptr[:-1]).to(scores.device, scores.dtype)
        owners = torch.repeat_interleave(torch.arange(len(scores)), torch.from_numpy(targets.indptr).long().diff())
        places = (owners * scores.shape[1] + torch.from_numpy(targets.indices).long()).to(scores.device)
        logs = torch.log_softmax(scores, dim=1)
        ctx.save_for_backward(logs, counts, places)
        return -logs.view(-1)[places].sum() / len(scores)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        logs, counts, places = ctx.saved_tensors
        found = logs.exp().mul_(counts[:, None])
        found.view(-1)[places] -= 1
        return found.mul_(slope / len(found)), None


def thinned(matrix: RowMatrix, share: float, generator: torch.Generator) -> RowMatrix:
    """Return a sparse matrix with a share of its numbers dropped and the others larger, so that the mean stays.

    Zeros would stay zero, so this is dropout on the whole matrix.
    """
    if not share:
        return matrix
    kept = (torch.rand(len(matrix.data), generator=generator) >= share).numpy()
    indptr = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr]
    values = (matrix.data[kept] / (1 - share)).astype(matrix.data.dtype)
    return SparseRows(indptr, matrix.indices[kept], values)
