"""Activations in numpy, each with its slope; `trainers.autoencoder_nets` has those of the same names in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore import InvalidInputError

Floats = NDArray[Any]
# Klambauer et al. (2017).
_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772


@dataclass(frozen=True)
class Activation:
    """A function of each number by itself.

    Parameters
    ----------
    function
        Of the input.
    slope
        Of what the function gave: its derivative there.
    """

    function: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]


def _sigmoid(given: Floats) -> Floats:
    falling = np.exp(-np.abs(given))
    return np.asarray(np.where(given >= 0, 1, falling) / (1 + falling))


def _selu(given: Floats) -> Floats:
    found = np.where(given > 0, given, _ALPHA * np.expm1(np.minimum(given, 0))) * _SCALE
    return np.asarray(found.astype(given.dtype))


def _selu_slope(found: Floats) -> Floats:
    return np.asarray((np.where(found > 0, 0, found + _SCALE * _ALPHA) + np.where(found > 0, _SCALE, 0)).astype(found.dtype))


ACTIVATIONS = {
    "none": Activation(lambda given: given, np.ones_like),
    "relu": Activation(lambda given: np.maximum(given, 0), lambda found: (found > 0).astype(found.dtype)),
    "selu": Activation(_selu, _selu_slope),
    "sigmoid": Activation(_sigmoid, lambda found: found * (1 - found)),
    "tanh": Activation(np.tanh, lambda found: 1 - found * found),
}


def find_activation(name: object) -> Activation:
    """Return the activation of that name.

    Raises
    ------
    InvalidInputError
        If there is none.
    """
    if not isinstance(name, str) or name not in ACTIVATIONS:
        msg = f"activation {name!r}: use one of {', '.join(ACTIVATIONS)}"
        raise InvalidInputError(msg)
    return ACTIVATIONS[name]
