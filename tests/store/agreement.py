"""Whether a store and its model say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore import Diff, Store, View
from tests.store.model import ITEM, USER, DiffModel, EntityModel, State, StoreModel, TableModel, Vector, difference


def as_read(array: Any) -> tuple[str, tuple[int, ...], bytes]:
    """Return what must be equal of two arrays, to the last bit."""
    array = np.asarray(array)
    return array.dtype.newbyteorder("=").str, array.shape, np.ascontiguousarray(array).tobytes()


def assert_view_agrees(view: View, state: State) -> None:
    """Everything that can be read of ``view`` is what the model says."""
    assert view.entities == {name: len(entity.live()) for name, entity in state.entities.items()}
    assert {name: set(spec.slots) for name, spec in view.tables.items()} == {
        n: set(t.spec.slots) for n, t in state.tables.items()
    }
    for name, entity in state.entities.items():
        _assert_ids_agree(view, name, entity)
    for name, table in state.tables.items():
        _assert_table_agrees(view, name, table, state.entities[table.spec.entity])
    assert {name: as_read(view.dense[name]) for name in view.dense} == {n: as_read(a) for n, a in state.dense.items()}
    assert list(view.dense) == sorted(state.dense)
    _assert_records_agree(view, state)


def _assert_ids_agree(view: View, name: str, entity: EntityModel) -> None:
    idmap, live = view.ids(name), entity.live()
    assert len(idmap) == len(entity.rows)
    assert idmap.ids().tolist() == live
    expected = [entity.row_of(id_) for id_ in live]
    assert idmap.rows(live).tolist() == expected
    backwards = expected[::-1]
    assert idmap.ids(backwards).tolist() == live[::-1]


def _assert_table_agrees(view: View, name: str, table: TableModel, entity: EntityModel) -> None:
    live = entity.live()
    rows = np.array([entity.row_of(id_) for id_ in live], np.int64)
    for column, vectors in table.columns.items():
        stored = view.table(name) if column == "values" else view.table(name).slot(column)
        expected = _matrix([vectors[id_] for id_ in live], stored.gather([]))
        whole = stored.values()
        assert len(stored) == len(whole) == len(entity.rows)
        assert as_read(whole[rows]) == as_read(expected), (name, column)
        twice = np.concatenate([rows[::-1], rows])
        assert as_read(stored.gather(twice)) == as_read(np.concatenate([expected[::-1], expected])), (name, column)
        assert as_read(stored.get(live)) == as_read(expected), (name, column)
        if column == "values":
            assert not np.any(np.delete(whole, rows, axis=0)), f"{name}: removed rows are not zero"


def _matrix(vectors: list[Vector], empty: NDArray[Any]) -> NDArray[Any]:
    return np.stack(vectors) if vectors else empty


def _assert_records_agree(view: View, state: State) -> None:
    assert len(view.consumed) == len(state.records)
    if USER not in state.entities or ITEM not in state.entities:
        return
    for entity in (USER, ITEM):
        live = state.entities[entity].live()
        for distinct in (False, True):
            found = [ids.tolist() for ids in view.consumed.of(entity, live, distinct=distinct)]
            assert found == [state.had(entity, id_, distinct=distinct) for id_ in live], entity


def assert_diff_agrees(diff: Diff, base: State, target: State, *, ordered: bool = True) -> None:
    """A diff names exactly the ids that differ; without ``ordered`` only times tell the order of records."""
    found, expected = described(diff), difference(base, target)
    if not ordered and expected.is_empty:
        found.is_empty = True
    assert found == expected
    assert sorted(diff.to_dict()["ids"]) == sorted({*base.entities, *target.entities})
    assert str(diff)


def described(diff: Diff) -> DiffModel:
    """Return a diff in the model's words."""
    for ids in diff.ids.values():
        assert len(set(ids.appended.tolist())) == len(ids.appended)
        assert len(set(ids.removed.tolist())) == len(ids.removed)
    for table in diff.tables.values():
        assert len(set(table.changed_ids.tolist())) == len(table.changed_rows) == len(table.drift) == len(table.cosine)
    return DiffModel(
        {entity: set(ids.appended.tolist()) for entity, ids in diff.ids.items()},
        {entity: set(ids.removed.tolist()) for entity, ids in diff.ids.items()},
        {name: set(table.changed_ids.tolist()) for name, table in diff.tables.items()},
        {name: dict(table.slots) for name, table in diff.tables.items()},
        dict(diff.dense),
        (diff.consumed.n_before, diff.consumed.n_after),
        diff.is_empty,
    )


def assert_store_agrees(store: Store, model: StoreModel) -> None:
    """Names, the log and what each version says of itself are what the model says."""
    assert store.branches() == model.branches
    assert store.tags() == model.tags
    for name, tip in model.branches.items():
        assert [version.id for version in store.log(name)] == model.line(tip)
    for id_, expected in model.versions.items():
        version = store.at(id_)
        assert (version.id, version.parent, version.message, version.metadata) == (
            id_,
            expected.parent,
            expected.message,
            expected.metadata,
        )
