"""The nets of Mult-VAE and Mult-DAE and the parts of their loss are the formulas of Liang et al. (2018)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, random_array
from torch import Tensor, nn

from trainers.autoencoder_nets import SparseInput
from trainers.histories import normalized
from trainers.mult_nets import MultNet, kl_divergence, multinomial_loss, sampled, thinned

N_USERS, N_ITEMS = 6, 11


def _had(density: float = 0.4) -> csr_array:
    """Return what some users had; the last of them nothing."""
    found = random_array((N_USERS, N_ITEMS), density=density, rng=np.random.default_rng(1), dtype=np.float32).toarray() > 0
    found[-1] = False
    return csr_array(found.astype(np.float32))


def _net(hidden: tuple[int, ...], *, has_variance: bool) -> MultNet:
    """Return a net with numbers in all places."""
    net, generator = MultNet(N_ITEMS, hidden, 3, has_variance=has_variance), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(generator=generator)
    return net


def _dense_net(net: MultNet, given: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores and the last layer of the encoder, written with whole matrices."""
    out = given @ net.encoder.rows + net.encoder.bias
    for layer in net.inner:
        out = torch.tanh(out) @ layer.weight.T + layer.bias
    code = out[:, :3] if net.has_variance else torch.tanh(out)
    for layer in net.outer:
        code = torch.tanh(code @ layer.weight.T + layer.bias)
    return code @ net.decoder.rows.T + net.decoder.bias, out


@pytest.mark.parametrize("hidden", [(), (5,), (5, 4)])
@pytest.mark.parametrize("has_variance", [True, False])
def test_scores_and_gradients_are_those_of_whole_matrices(hidden: tuple[int, ...], has_variance: bool) -> None:
    """Sparse input and rows of gradients change nothing: scores and all gradients equal those of the written-out net."""
    had, net = _had(), _net(hidden, has_variance=has_variance)
    found, divergence = net(SparseInput(normalized(had)), torch.arange(N_ITEMS))
    dense = nn.functional.normalize(torch.from_numpy(had.toarray()))
    expected, last = _dense_net(net, dense)
    torch.testing.assert_close(found, expected)
    wanted = kl_divergence(last[:, :3], last[:, 3:]) if has_variance else torch.zeros(N_USERS)
    torch.testing.assert_close(divergence, wanted)
    targets = torch.from_numpy(had.toarray())
    of_dense = torch.autograd.grad(
        -(torch.log_softmax(expected, 1) * targets).sum(1).mean() + wanted.mean(), list(net.parameters()), allow_unused=True
    )
    (multinomial_loss(found, had) + divergence.mean()).backward()
    for parameter, slope in zip(net.parameters(), of_dense, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.to_dense(), slope)


def test_only_items_that_somebody_had_have_a_gradient_at_the_input() -> None:
    """Rows of others are left alone; at the output every item takes part."""
    had, net = _had(0.1), _net((4,), has_variance=True)
    multinomial_loss(net(SparseInput(normalized(had)), torch.arange(N_ITEMS))[0], had).backward()
    rows = [part.rows.grad.coalesce().indices()[0].tolist() for part in (net.encoder, net.decoder)]
    assert rows == [np.unique(had.indices).tolist(), list(range(N_ITEMS))]
    assert 0 < len(rows[0]) < N_ITEMS


def test_kl_divergence_is_that_of_normals() -> None:
    """Against torch's own, of every user."""
    mean, log_variance = (torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    normal = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    standard = torch.distributions.Normal(torch.zeros(4), torch.ones(4))
    torch.testing.assert_close(kl_divergence(mean, log_variance), torch.distributions.kl_divergence(normal, standard).sum(1))


def test_loss_is_the_log_likelihood_of_what_was_had() -> None:
    """The mean over users of the sum over their items; one without any adds nothing."""
    had, scores = _had(), torch.randn(N_USERS, N_ITEMS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    by_hand = [
        -sum(float(torch.log(torch.exp(row[item]) / torch.exp(row).sum())) for item in np.flatnonzero(mine))
        for row, mine in zip(scores, had.toarray(), strict=True)
    ]
    assert by_hand[-1] == 0
    assert multinomial_loss(scores, had).item() == pytest.approx(np.mean(by_hand), rel=1e-12)
    assert torch.autograd.gradcheck(lambda given: multinomial_loss(given, had), scores.requires_grad_())


def test_samples_have_the_deviation_that_is_asked_for() -> None:
    """The draw is ``mean + noise * exp(log variance / 2) * normal``; with no noise it is the mean."""
    mean, log_variance = torch.full((400, 50), 3.0), torch.full((400, 50), 2 * np.log(2.0))
    generator = torch.Generator().manual_seed(0)
    for noise in (1.0, 0.25):
        drawn = sampled(mean, log_variance, noise=noise, generator=generator)
        assert drawn.mean().item() == pytest.approx(3, abs=0.05)
        assert drawn.std().item() == pytest.approx(2 * noise, rel=0.02)
    assert torch.equal(sampled(mean, log_variance, noise=0.0, generator=generator), mean)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_dropout_keeps_its_share_and_the_mean(share: float) -> None:
    """What is kept is larger by 1 / (1 - share), rows keep their places, and the same generator draws the same."""
    had = csr_array(np.ones((200, 50), np.float32))
    found, again = (thinned(had, share, torch.Generator().manual_seed(5)) for _ in range(2))
    for mine, other in ((found.indptr, again.indptr), (found.indices, again.indices), (found.data, again.data)):
        np.testing.assert_array_equal(mine, other)
    assert len(found.data) / had.nnz == pytest.approx(1 - share, abs=0.02)
    assert set(found.data.tolist()) == {np.float32(1 / (1 - share))}
    assert len(found.indptr) == len(had.indptr)
    assert (np.diff(found.indptr).std() > 0) == (share > 0)
