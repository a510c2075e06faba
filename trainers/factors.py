"""Factor models: user and item biases, and matrix factorization of ratings or of what users have had, in numpy.

Both train by batches of users, each with all of its pairs, so training with items frozen is what ``fold_in`` does. They take
the place of the models of a recommender written in Julia (Fro116/RecommenderSystem), which retrains user embeddings the way it
will serve them, and of the matrix factorization of Recoder (Moussawi 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainers.factor_model import FactorModel
from trainers.settings import check_count, check_not_negative


@dataclass(frozen=True)
class Biases(FactorModel):
    """A bias for each user and item, from zero, over the mean rating.

    Parameters
    ----------
    epochs
        Passes over the pairs that are given to one fit.
    loss
        ``"squared"``, of ratings; ``"softmax"``, of a user's items among all, where only items have a bias.
    lr, l2
        Learning rate of Adam; each pair adds ``l2`` times its rows to their gradients, as much as it weighs.
    weight_power
        A pair weighs the number of its user's pairs to this power: 0, every pair the same; -1, every user.
    batch_size
        Users in a step.
    fold_steps, fold_lr, fold_l2
        Of ``fold_in``: Adam steps with everything else standing still.
    seed
        Of the order of users.

    Raises
    ------
    InvalidInputError
        For settings out of range.
    """

    epochs: int = 20
    loss: str = "squared"
    lr: float = 0.02
    l2: float = 0.1
    weight_power: float = 0.0
    batch_size: int = 32
    fold_steps: int = 30
    fold_lr: float = 0.1
    fold_l2: float = 0.1
    seed: int = 0
    name: ClassVar[str] = "biases"

    def __post_init__(self) -> None:
        self.check()


@dataclass(frozen=True)
class MatrixFactorization(FactorModel):
    """A vector for each user and item, and biases.

    Parameters
    ----------
    dim
        Length of the vectors.
    epochs
        Passes over the pairs that are given to one fit.
    loss
        ``"softmax"`` (or ``"logloss"``), of a user's items among all; ``"logistic"``, of each item by itself, had or not;
        ``"mse"``, of 1 for what a user has had and 0 for all else; ``"squared"``, of ratings.
    lr, l2
        Learning rate of Adam; each pair adds ``l2`` times its rows to their gradients, as much as it weighs.
    weight_power
        A pair weighs the number of its user's pairs to this power: 0, every pair the same; -1, every user.
    batch_size
        Users in a step.
    init_std
        Of new vectors.
    fold_steps, fold_lr, fold_l2
        Of ``fold_in``: Adam steps with everything else standing still.
    seed
        Of initial vectors, the order of users and dropout.
    confidence
        Of ``"mse"``: what a user has had counts ``1 + confidence`` times.
    activation
        Of users' vectors before they meet items: ``"none"``, ``"tanh"``, ``"sigmoid"``, ``"relu"`` or ``"selu"``.
    dropout
        Share of the numbers of users' vectors that is dropped in a step.
    negative_sampling, num_sampling_users
        Score in a step what any of its users has had, in place of all items; or any of so many users, a multiple of
        ``batch_size``, whose batches then share these items.
    lr_milestones
        After so many epochs, those of earlier fits too, the learning rate falls to a tenth, each time.

    Raises
    ------
    InvalidInputError
        For settings out of range.
    """

    dim: int = 64
    epochs: int = 30
    loss: str = "softmax"
    lr: float = 0.01
    l2: float = 0.02
    weight_power: float = 0.0
    batch_size: int = 32
    init_std: float = 0.05
    fold_steps: int = 30
    fold_lr: float = 0.1
    fold_l2: float = 0.1
    seed: int = 0
    confidence: float = 0.0
    activation: str = "none"
    dropout: float = 0.0
    negative_sampling: bool = False
    num_sampling_users: int = 0
    lr_milestones: tuple[int, ...] = ()
    name: ClassVar[str] = "matrix_factorization"

    def __post_init__(self) -> None:
        check_count(self.dim, "dim")
        check_not_negative(self.init_std, "init_std")
        self.check()

    @property
    def _vectors(self) -> tuple[int, float]:
        return self.dim, self.init_std
