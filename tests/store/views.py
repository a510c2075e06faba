"""States compared to the bit, and workers sent to another process."""

from __future__ import annotations

import pickle

import numpy as np

from embstore import View, Worker


def sent(worker: Worker) -> Worker:
    """Return what another process has of a worker."""
    return pickle.loads(pickle.dumps(worker))


def same(one: View, other: View) -> None:
    """Check that two states hold the same, to the bit."""
    assert one.entities == other.entities
    assert dict(one.tables) == dict(other.tables)
    for name, spec in one.tables.items():
        assert one.ids(spec.entity).at(np.arange(len(one.ids(spec.entity)))).tolist() == (
            other.ids(spec.entity).at(np.arange(len(other.ids(spec.entity)))).tolist()
        )
        assert one.table(name).values().tobytes() == other.table(name).values().tobytes()
        for slot in spec.slots:
            assert one.table(name).slot(slot.name).values().tobytes() == other.table(name).slot(slot.name).values().tobytes()
    assert {name: array.tolist() for name, array in one.dense.items()} == {n: a.tolist() for n, a in other.dense.items()}
    for entity in ("user", "item") if "item" in one.entities else ():
        ids = one.ids(entity).ids()
        assert [o.tolist() for o in one.consumed.of(entity, ids)] == [o.tolist() for o in other.consumed.of(entity, ids)]
