"""An autoencoder of what users have had, whose item rows grow (Recoder's DynamicAutoencoder)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embstore import Batch, Checkout, InvalidInputError, Schema, View
from trainers.autoencoder_nets import AutoencoderNet, SparseInput, find_activation
from trainers.histories import normalized
from trainers.loop import scoring
from trainers.reconstruction import Reconstruction
from trainers.settings import check_not_negative, check_share, check_sizes

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True)
class DynamicAutoencoder(Reconstruction):
    """From what a user has had through hidden layers to a score of every item.

    Users have no rows: whoever has had something is encoded from that, without any training.

    Parameters
    ----------
    hidden
        Sizes of the layers down to the bottleneck; decoding goes through the same sizes backwards.
    activation
        After every layer: ``"tanh"``, ``"sigmoid"``, ``"relu"``, ``"selu"`` or ``"none"``.
    noise
        Share of what a user has had that is left out of the input, drawn anew in every step.
    dropout
        Share of the bottleneck's numbers that is dropped in a step.
    tied
        Decode with the weights of the encoder.
    loss
        ``"logistic"``, of each item by itself, had or not; ``"mse"``, of 1 for what a user has had and 0 for all else;
        ``"softmax"`` (or ``"logloss"``), of a user's items among all. A sum over items, a mean over the users of a batch.
    confidence
        Of ``"mse"``: what a user has had counts ``1 + confidence`` times.
    target
        What a user's scores are to give back: all that the user has had, ``"had"``, or the pairs of the fit, ``"new"``.
    negative_sampling, num_sampling_users
        Score in a step what any of its users has had, in place of all items; or any of so many users, a multiple of
        ``batch_size``, whose batches then share these items.
    sparse
        Row-lazy Adam for rows of items, which leaves those without a gradient alone. False: Adam moves every row at every step.
    epochs
        Passes over the users of one fit.
    lr, l2
        Learning rate of Adam; L2 of all but biases, once for each step, of rows of items once for each step that they take.
    lr_milestones
        After so many epochs, those of earlier fits too, all learning rates fall to a tenth, each time.
    batch_size
        Users in a step.
    init_std
        Of new rows of items.
    seed
        Of initial rows and weights, the order of users, noise and dropout.

    Raises
    ------
    InvalidInputError
        For settings out of range.
    """

    hidden: tuple[int, ...] = (200,)
    activation: str = "tanh"
    noise: float = 0.5
    dropout: float = 0.0
    tied: bool = False
    loss: str = "softmax"
    confidence: float = 0.0
    target: str = "new"
    negative_sampling: bool = False
    num_sampling_users: int = 0
    sparse: bool = True
    epochs: int = 30
    lr: float = 5e-3
    l2: float = 2e-5
    lr_milestones: tuple[int, ...] = ()
    batch_size: int = 128
    init_std: float = 0.03
    seed: int = 0
    name: ClassVar[str] = "dynamic_autoencoder"

    def __post_init__(self) -> None:
        check_sizes(self.hidden, "hidden")
        find_activation(self.activation)
        for what in ("noise", "dropout"):
            check_share(getattr(self, what), what)
        check_not_negative(self.init_std, "init_std")
        if not self.hidden or not isinstance(self.tied, bool):
            msg = f"hidden {self.hidden!r}, tied {self.tied!r}: give one size or more, and True or False"
            raise InvalidInputError(msg)
        self.check()

    def schema(self) -> Schema:
        """Return tables of items: ``<name>.encoder``, unless tied ``.decoder``, ``[N, hidden[0]]``, and ``.bias`` ``[N]``."""
        widths = {"encoder": self.hidden[0], "decoder": self.hidden[0], "bias": None}
        if self.tied:
            del widths["decoder"]
        stds = {"bias": 0.0}
        tables = (self.table(f"{self.name}.{w}", "item", n, init_std=stds.get(w, self.init_std)) for w, n in widths.items())
        return Schema(tuple(tables))

    def net(self, view: View) -> AutoencoderNet:
        """Return the net for the items of a view."""
        return AutoencoderNet(
            len(view.ids("item")),
            self.hidden,
            activation=self.activation,
            noise=self.noise,
            dropout=self.dropout,
            tied=self.tied,
            sparse=self.sparse,
        )

    def bindings(self) -> Mapping[str, str]:
        """Return the tables of the rows of items."""
        tables = {"encoder.rows": "encoder", "decoder.rows": "decoder", "decoder.bias": "bias"}
        return {parameter: f"{self.name}.{table}" for parameter, table in tables.items() if not self.tied or table != "decoder"}

    def fold_in(self, work: Checkout, rows: NDArray[np.int64], batch: Batch) -> dict[str, float]:
        """Do nothing: new users are encoded from what they have had, and have no rows of their own."""
        return {}

    def scores_from(self, view: View, had: csr_array) -> NDArray[Any]:
        """Return scores of items for whoever has had some, ``[n, n_items]`` of ones; they need not be users of the view.

        `trainers.held_out_users.HeldOutUsers` judges epochs with it.
        """
        with scoring():
            net = self.loaded(view)
            users = torch.full((had.shape[0],), -1)
            found: NDArray[Any] = net(SparseInput(normalized(had)), users, torch.arange(had.shape[1])).numpy()
            return found

    def nobody(self, net: nn.Module, view: View) -> NDArray[Any]:
        """Return the scores of a user who has had nothing, ``[n_items]``."""
        found: NDArray[Any] = self._scores(net, view, np.array([-1]))[0]
        return found
