"""What LibRecommender's variables are as tables: one for each column of categories, with the optimizer's state as slots.

It keeps all columns' vectors in one variable: column after column by an offset, and behind each a row for what is unknown. Users
and items have such a last row too, where the network has features. Here a column is an entity whose ids are the categories, and
the rows for what is unknown are dense arrays ``default.<table>``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embstore.consumed import ITEM, USER
from embstore.formats.librecommender_files import Saved
from embstore.initializers import Uniform
from embstore.schema import SlotSpec, TableSpec

Array = NDArray[Any]
DENSE = "librecommender"
# Variable -> entity and table. No network has two variables of one table.
TABLES = {
    "embedding/user_embeds_var": (USER, "user"),
    "embedding/user_deep_var": (USER, "user"),
    "embedding/pu_var": (USER, "user"),
    "embedding/user_linear_var": (USER, "user_linear"),
    "embedding/user_wide_var": (USER, "user_wide"),
    "embedding/bu_var": (USER, "user_bias"),
    "embedding/item_embeds_var": (ITEM, "item"),
    "embedding/item_deep_var": (ITEM, "item"),
    "embedding/qi_var": (ITEM, "item"),
    "embedding/item_linear_var": (ITEM, "item_linear"),
    "embedding/item_wide_var": (ITEM, "item_wide"),
    "embedding/item_bias_var": (ITEM, "item_bias"),
    "embedding/bi_var": (ITEM, "item_bias"),
    "embedding/seq_embeds_var": (ITEM, "item_sequence"),
    "embedding/yj_var": (ITEM, "item_implicit"),
    "user_embed": (USER, "user"),
    "item_embed": (ITEM, "item"),
    "item_embed, last number": (ITEM, "item_bias"),
}
# TensorFlow's endings for an optimizer's state: Adam's moments, and Ftrl's, of which the first starts at 0.1.
ENDINGS = {"exp_avg": "/Adam", "exp_avg_sq": "/Adam_1", "accum": "/Ftrl", "linear": "/Ftrl_1"}
_FILLS = {"accum": 0.1}
_NARROW = ("_linear", "_wide", "_bias")  # tables of one number a row, also where the variable has [N, 1]
_BETAS = {"beta1_power": 0.9, "beta2_power": 0.999}
_MOST_STEPS = 120_000  # by then both powers are nothing in float32, and correct nothing


@dataclass(frozen=True)
class Part:
    """A table with its rows, in the order of the ids of its entity; ``rows_of`` values are places among the other's ids."""

    spec: TableSpec
    values: Array
    slots: Mapping[str, Array] = field(default_factory=dict)


@dataclass
class Contents:
    """A saved model in embstore's terms.

    Parameters
    ----------
    entities
        Ids in the order of the rows of their parts.
    parts
        Tables.
    dense
        Everything else that is numbers.
    sources
        Table -> the variable, or columns, that it is of.
    steps
        That Adam has taken; None where it has not saved them.
    """

    entities: dict[str, Array]
    parts: list[Part] = field(default_factory=list)
    dense: dict[str, Array] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    steps: int | None = None


def adam_steps(variables: Mapping[str, Array]) -> int | None:
    """Return how many steps TensorFlow's Adam has taken, by its powers of beta; None where it has not saved them.

    After t steps a power is beta multiplied t times by itself, in float32: the one that has not run out says t exactly.
    """
    steps = None
    for name, beta in _BETAS.items():
        if name in variables and variables[name].size == 1:
            powers = np.multiply.accumulate(np.full(_MOST_STEPS, beta, np.float32))
            power, least = np.float32(variables[name].reshape(())), np.finfo(np.float32).tiny
            steps = int(np.searchsorted(-powers, -max(power, least)))
            if power > least:
                break
    return steps


def with_state(saved: Saved) -> dict[str, dict[str, Array]]:
    """Return each variable with the state of its optimizer, by slot; its values are under the empty name."""
    variables, found = {**saved.variables, **_vectors(saved.vectors)}, {}
    for name, array in variables.items():
        states = {slot: variables.get(name + ending) for slot, ending in ENDINGS.items()}
        found[name] = {"": array, **{slot: a for slot, a in states.items() if a is not None and a.shape == array.shape}}
    of_others = {name + ENDINGS[slot] for name, state in found.items() for slot in state if slot}
    return {name: state for name, state in found.items() if name not in of_others}


def _vectors(vectors: Mapping[str, Array]) -> dict[str, Array]:
    """Return final vectors as variables; where the users' last number is always 1, the items' is a bias."""
    users, items = vectors.get("user_embed"), vectors.get("item_embed")
    if users is None or items is None or users.ndim != 2 or items.ndim != 2 or users.shape[1] != items.shape[1]:
        return dict(vectors)
    has_bias = users.shape[1] > 1 and bool((users[:, -1] == 1.0).all())
    width = users.shape[1] - has_bias
    bias = items[:, -1] if has_bias else np.zeros(len(items), items.dtype)
    made = {"user_embed": users[:, :width], "item_embed": items[:, :width], "item_embed, last number": bias}
    return {**vectors, **made}


def has_rows(array: Array, n_ids: int) -> bool:
    """Return whether an array has a number or vector for each id, and perhaps one more for unknown ids."""
    return array.ndim in (1, 2) and array.dtype.kind == "f" and len(array) in (n_ids, n_ids + 1)


def seed_of(seed: object) -> int:
    """Return a saved seed, or 0 where no table can have it."""
    return seed if type(seed) is int and -(2**63) <= seed < 2**63 else 0


class Builder:
    """Makes tables and gathers them in ``contents``."""

    def __init__(self, contents: Contents, seed: object) -> None:
        self.contents = contents
        self._seed = seed_of(seed)

    def add(self, table: str, entity: str, state: Mapping[str, Array], *, source: str) -> None:
        """Add a table of some rows; one more than there are ids is for what is unknown."""
        n_ids, steps = len(self.contents.entities[entity]), self.contents.steps
        is_narrow = table.endswith(_NARROW) and state[""].shape[1:] == (1,)
        columns = {slot: (array[:, 0] if is_narrow else array).astype(np.float32) for slot, array in state.items()}
        dim = columns[""].shape[1] if columns[""].ndim == 2 else None
        slots = [SlotSpec(slot, dim, fill=_FILLS.get(slot, 0.0)) for slot in columns if slot]
        for slot, array in columns.items():
            if len(array) > n_ids:
                self.contents.dense[f"default.{table}{'.' if slot else ''}{slot}"] = array[n_ids]
        rows = {slot: array[:n_ids] for slot, array in columns.items()}
        if "exp_avg" in rows and steps is not None:
            slots.append(SlotSpec("step", None, "int32"))
            rows["step"] = np.full(n_ids, steps, np.int32)
        limit = math.sqrt(6 / (n_ids + (dim or 1)))  # where LibRecommender starts new rows (Glorot and Bengio 2010)
        spec = TableSpec(table, entity, dim, slots=tuple(slots), init=Uniform(-limit, limit), seed=self._seed)
        self.contents.parts.append(Part(spec, rows.pop(""), rows))
        self.contents.sources[table] = source

    def add_feature(self, spec: TableSpec, values: Array, *, source: str) -> None:
        """Add a table of what ids are."""
        self.contents.parts.append(Part(spec, values))
        self.contents.sources[spec.name] = source
