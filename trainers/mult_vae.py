"""A variational autoencoder with a multinomial likelihood over the items of a user (Liang et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainers.annealing import annealed, check_annealing, total_of
from trainers.mult_trainer import MultTrainer


@dataclass(frozen=True)
class MultVAE(MultTrainer):
    """Mult-VAE: what a user has had becomes a normal code, and the code a distribution over items.

    Users have no rows: they are encoded from all that they have had, new ones as well. A fit trains on the users of its pairs,
    and these pairs are what is to be found.

    Parameters
    ----------
    hidden, dim
        Sizes of the layers between the items and the code, outermost first, and of the code.
    epochs
        Passes over the users of the pairs that are given to one fit.
    lr, l2
        Learning rate of Adam, row-lazy for items; L2 of rows of items, once for each step that a row takes.
    batch_size
        Users in a step.
    dropout
        Share of what users have had that is left out of the input, drawn anew in each step.
    cap, anneal_steps, anneal_epochs
        The KL divergence counts ``min(cap, steps so far / anneal_steps)``; the steps of earlier fits count too. In place of
        ``anneal_steps`` one may say after how many epochs the cap is reached. 0 or none of both: it counts ``cap`` all along.
    noise
        How many of the code's standard deviations it is sampled with in training.
    plateau, plateau_patience
        Multiply the learning rate by ``plateau`` when so many validations in a row were no better; None: it stays.
    init_std
        Of new rows of items.
    seed
        Of initial rows and weights, order, dropout and codes.

    Raises
    ------
    InvalidInputError
        For settings out of range.
    """

    hidden: tuple[int, ...] = (600,)
    dim: int = 100
    epochs: int = 100
    lr: float = 1e-3
    l2: float = 0.0
    batch_size: int = 500
    dropout: float = 0.5
    cap: float = 0.2
    anneal_steps: int | None = 200_000
    anneal_epochs: int | None = None
    noise: float = 1.0
    plateau: float | None = None
    plateau_patience: int = 10
    init_std: float = 0.03
    seed: int = 0
    name: ClassVar[str] = "mult_vae"
    has_variance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_annealing(cap=self.cap, total=self.anneal_steps, epochs=self.anneal_epochs)
        self.check()

    def kl_weight(self, step: int, *, n_steps: int) -> float:
        """Return how much the KL divergence counts in a step; ``n_steps`` are in an epoch."""
        if self.anneal_epochs is None:
            return annealed(step, cap=self.cap, total=self.anneal_steps or 0)
        return annealed(step, cap=self.cap, total=total_of(self.anneal_epochs, n_steps=n_steps, cap=self.cap))
