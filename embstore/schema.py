"""What a store holds: entities with typed ids, their tables, and the slots of these.

Everything here is a frozen dataclass that survives JSON in both directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from embstore.dtypes import check_fits, check_shape
from embstore.errors import InvalidInputError, SchemaMismatchError, UnknownNameError
from embstore.initializers import (
    Constant,
    Initializer,
    Normal,
    Uniform,
    Zeros,
    check_number,
    initializer_from_json,
    initializer_to_json,
)
from embstore.names import IdType, check_id_type, check_name


@dataclass(frozen=True)
class SlotSpec:
    """Optimizer state that goes with the rows of a table.

    Parameters
    ----------
    name
        As its optimizer names it (``exp_avg``, ``step``, ``sum``).
    dim
        Numbers a row; ``None`` makes the slot ``[N]`` instead of ``[N, dim]``.
    dtype
        A numpy dtype name.
    fill
        What every new row starts with.

    Raises
    ------
    InvalidInputError
        For a name, dim, dtype or fill that cannot be stored.
    """

    name: str
    dim: int | None
    dtype: str = "float32"
    fill: float = 0.0

    def __post_init__(self) -> None:
        check_name(self.name, "slot")
        check_shape(self.dim, self.dtype, f"slot {self.name!r}")
        check_fits(check_number(self.fill, f"slot {self.name!r}: fill"), self.dtype, f"slot {self.name!r}: fill")

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON data."""
        return {"name": self.name, "dim": self.dim, "dtype": self.dtype, "fill": self.fill}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SlotSpec:
        """Return the spec that ``to_json`` gave."""
        return cls(data["name"], data["dim"], data["dtype"], data["fill"])


@dataclass(frozen=True)
class TableSpec:
    """A matrix with one row for every id of an entity.

    Parameters
    ----------
    name
        Of the table, unique in the store.
    entity
        Whose ids its rows are.
    dim
        Numbers a row; ``None`` makes the table ``[N]`` instead of ``[N, dim]``.
    dtype
        A numpy dtype name.
    slots
        Optimizer state in the same row order.
    init
        Where new rows start: a pure function of (table name, ``seed``, id).
    seed
        Tables of one seed still differ, since their names do.
    rows_of
        For a sparse feature: the entity whose rows the values are.

    Raises
    ------
    InvalidInputError
        For a name, dim, dtype or initializer that cannot be stored.
    """

    name: str
    entity: str
    dim: int | None
    dtype: str = "float32"
    slots: tuple[SlotSpec, ...] = ()
    init: Initializer = field(default_factory=Normal)
    seed: int = 0
    rows_of: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "table")
        check_name(self.entity, "entity")
        check_shape(self.dim, self.dtype, f"table {self.name!r}")
        if not isinstance(self.init, (Zeros, Constant, Uniform, Normal)):
            msg = f"table {self.name!r}: init {self.init!r}: use Normal, Uniform, Zeros or Constant"
            raise InvalidInputError(msg)
        if isinstance(self.init, Constant):
            check_fits(self.init.value, self.dtype, f"table {self.name!r}: init")
        elif not isinstance(self.init, Zeros) and "int" in self.dtype:
            msg = f"table {self.name!r}: {self.dtype} rows start at no random numbers; give init=Zeros() or Constant(-1)"
            raise InvalidInputError(msg)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not -(2**63) <= self.seed < 2**63:
            msg = f"table {self.name!r}: seed {self.seed!r}: give a whole number within 64 bits"
            raise InvalidInputError(msg)
        if self.rows_of is not None:
            check_name(self.rows_of, "entity")
            if not self.dtype.startswith("int"):
                msg = f"table {self.name!r}: rows_of={self.rows_of!r} needs a signed integer dtype, not {self.dtype}"
                raise InvalidInputError(msg)
        object.__setattr__(self, "slots", _all_of(SlotSpec, self.slots, f"table {self.name!r}: slots"))
        names = [slot.name for slot in self.slots]
        if len(set(names)) < len(names):
            msg = f"table {self.name!r}: slots {names}: each name once"
            raise InvalidInputError(msg)

    def slot(self, name: str) -> SlotSpec:
        """Return the slot called ``name``.

        Raises
        ------
        UnknownNameError
            If the table has no such slot.
        """
        for slot in self.slots:
            if slot.name == name:
                return slot
        known = ", ".join(s.name for s in self.slots) or "none"
        msg = f"slot {name!r}: table {self.name!r} has {known}"
        raise UnknownNameError(msg)

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON data."""
        return {
            "name": self.name,
            "entity": self.entity,
            "dim": self.dim,
            "dtype": self.dtype,
            "slots": [slot.to_json() for slot in self.slots],
            "init": initializer_to_json(self.init),
            "seed": self.seed,
            "rows_of": self.rows_of,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableSpec:
        """Return the spec that ``to_json`` gave."""
        given = dict(data)
        given["slots"] = tuple(SlotSpec.from_json(s) for s in data["slots"])
        given["init"] = initializer_from_json(data["init"])
        return cls(**given)


@dataclass(frozen=True)
class Schema:
    """The tables of a store and the id types of its entities.

    Parameters
    ----------
    tables
        Their names must differ.
    entities
        ``{"user": "str", "item": "int64"}``; an entity not typed here takes the type of its first ids.

    Raises
    ------
    InvalidInputError
        For two tables of one name, or a name or id type that cannot be stored.
    """

    tables: tuple[TableSpec, ...] = ()
    entities: Mapping[str, IdType | None] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tables", _all_of(TableSpec, self.tables, "tables"))
        if not isinstance(self.entities, Mapping | None):
            msg = f"entities {self.entities!r}: give a mapping such as {{'user': 'str', 'item': None}}"
            raise InvalidInputError(msg)
        entities: dict[str, IdType | None] = {}
        for name, id_type in (self.entities or {}).items():
            entities[check_name(name, "entity")] = None if id_type is None else check_id_type(id_type)
        for table in self.tables:
            entities.setdefault(table.entity, None)
            if table.rows_of is not None:
                entities.setdefault(table.rows_of, None)
        object.__setattr__(self, "entities", entities)
        names = [table.name for table in self.tables]
        if len(set(names)) < len(names):
            msg = f"tables {names}: each name once"
            raise InvalidInputError(msg)

    def table(self, name: str) -> TableSpec:
        """Return the table called ``name``.

        Raises
        ------
        UnknownNameError
            If there is none.
        """
        for table in self.tables:
            if table.name == name:
                return table
        msg = f"table {name!r}: the store has {', '.join(t.name for t in self.tables) or 'none'}"
        raise UnknownNameError(msg)

    def missing(self, wanted: Schema) -> tuple[dict[str, IdType | None], list[TableSpec], list[tuple[str, SlotSpec]]]:
        """Return the entities, tables and slots (with their table's name) of ``wanted`` that this schema lacks.

        Raises
        ------
        SchemaMismatchError
            Where both have a table, slot or entity of one name but of another shape or type.
        """
        mine = {table.name: table for table in self.tables}
        entities = {e: t for e, t in (wanted.entities or {}).items() if e not in (self.entities or {})}
        for name, id_type in (wanted.entities or {}).items():
            have = (self.entities or {}).get(name)
            if id_type and have and id_type != have:
                msg = f"entity {name!r}: the store's ids are {have}, {id_type} was asked for"
                raise SchemaMismatchError(msg)
        tables = [table for table in wanted.tables if table.name not in mine]
        slots = [
            (table.name, slot)
            for table in wanted.tables
            if table.name in mine
            for slot in _missing_slots(mine[table.name], table)
        ]
        return entities, tables, slots

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON data."""
        return {"entities": dict(self.entities or {}), "tables": [table.to_json() for table in self.tables]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """Return the schema that ``to_json`` gave."""
        return cls(tuple(TableSpec.from_json(t) for t in data["tables"]), data["entities"])


def _all_of(kind: type, given: object, what: str) -> tuple[Any, ...]:
    """Return specs as a tuple; raise InvalidInputError if they are no list of this kind."""
    specs = tuple(given) if isinstance(given, Iterable) else (None,)
    if all(isinstance(spec, kind) for spec in specs):
        return specs
    msg = f"{what} {given!r}: give a list of {kind.__name__}"
    raise InvalidInputError(msg)


def with_slot(table: TableSpec, slot: SlotSpec) -> TableSpec:
    """Return ``table`` with one more slot.

    Raises
    ------
    SchemaMismatchError
        If it has one of that name with another shape or type.
    """
    if not _missing_slots(table, replace(table, slots=(slot,))):
        return table
    return replace(table, slots=(*table.slots, slot))


def _missing_slots(have: TableSpec, wanted: TableSpec) -> list[SlotSpec]:
    for what in ("entity", "dim", "dtype", "rows_of"):
        mine, other = getattr(have, what), getattr(wanted, what)
        if mine != other:
            msg = f"table {have.name!r}: {what} is {mine!r} in the store, {other!r} was asked for; take another table name"
            raise SchemaMismatchError(msg)
    slots = {slot.name: slot for slot in have.slots}
    for slot in wanted.slots:
        mine = slots.get(slot.name)
        if mine is not None and (mine.dim, mine.dtype) != (slot.dim, slot.dtype):
            stored, asked = f"{mine.dtype}[{mine.dim}]", f"{slot.dtype}[{slot.dim}]"
            msg = f"slot {slot.name!r} of table {have.name!r}: {stored} in the store, {asked} was asked for"
            raise SchemaMismatchError(msg)
    return [slot for slot in wanted.slots if slot.name not in slots]


def is_another(have: TableSpec, wanted: TableSpec) -> bool:
    """Return whether two tables of one name hold different things: another entity, dim or dtype."""
    return (have.entity, have.dim, have.dtype) != (wanted.entity, wanted.dim, wanted.dtype)


def other_slots(have: TableSpec, wanted: TableSpec) -> list[SlotSpec]:
    """Return the slots of ``have`` that ``wanted`` lacks, or has under their names with another shape, dtype or fill."""
    return [slot for slot in have.slots if slot not in wanted.slots]
