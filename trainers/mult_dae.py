"""A denoising autoencoder with a multinomial likelihood over the items of a user (Liang et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainers.mult_trainer import MultTrainer


@dataclass(frozen=True)
class MultDAE(MultTrainer):
    """Mult-DAE: what a user has had, some of it left out, becomes a code, and the code a distribution over items.

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
    plateau, plateau_patience
        Multiply the learning rate by ``plateau`` when so many validations in a row were no better; None: it stays.
    init_std
        Of new rows of items.
    seed
        Of initial rows and weights, order and dropout.

    Raises
    ------
    InvalidInputError
        For settings out of range.
    """

    hidden: tuple[int, ...] = (600,)
    dim: int = 200
    epochs: int = 100
    lr: float = 1e-3
    l2: float = 0.0
    batch_size: int = 500
    dropout: float = 0.5
    plateau: float | None = None
    plateau_patience: int = 10
    init_std: float = 0.03
    seed: int = 0
    name: ClassVar[str] = "mult_dae"
    has_variance: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.check()
