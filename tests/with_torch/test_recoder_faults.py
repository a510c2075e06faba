"""Faults that Recoder had: none of them is in the autoencoder here, nor in a model of one's own."""

from __future__ import annotations

from tests.recoder_faults import RecoderFaults
from tests.with_torch.user_item import UserItem
from trainers.dynamic_autoencoder import DynamicAutoencoder


class TestDynamicAutoencoder(RecoderFaults):
    """With sampled negatives and sparse gradients, as Recoder's tutorial trains it."""

    trainer = DynamicAutoencoder(hidden=(6, 4), epochs=2, batch_size=7, lr=0.02, negative_sampling=True, init_std=0.3)
    table = "dynamic_autoencoder.decoder"
    array = "model.dynamic_autoencoder.inner.weights.0"


class TestUserItem(RecoderFaults):
    """A model of one's own."""

    trainer = UserItem(negative_sampling=True)
    table = "user_item.item"
