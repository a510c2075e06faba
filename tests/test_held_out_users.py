"""Held-out users whose targets nobody knows judge nothing, and say so."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

import embstore
from embstore import Interactions, InvalidInputError, Validation, View
from tests.examples import DAY_1, Scripted, new_store
from trainers.held_out_users import HeldOutUsers


def equal_scores(view: View, given: csr_array) -> NDArray[np.float32]:
    """Return one number for everything."""
    return np.zeros(given.shape, np.float32)


@pytest.mark.parametrize("targets", [Interactions([8], ["z"]), Interactions([], [])])
def test_targets_that_nobody_knows_are_refused(targets: Interactions) -> None:
    """It is the data, not the learning rate, that leaves no figure; nothing is committed."""
    store = new_store()
    judges = Validation(HeldOutUsers(equal_scores, Interactions([8], ["a"]), targets))
    with pytest.raises(InvalidInputError, match=f"held-out users: of {len(targets)} targets none has a known item; give targets"):
        embstore.fit(store, Scripted(), DAY_1, message="fit", validation=judges)
    assert len(list(store.log())) == 1
