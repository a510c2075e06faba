"""What cannot be bound, stored or laid into a module is refused, with what to do about it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import embstore
from embstore import Checkout, Rows, TableSpec
from embstore.errors import EmbstoreError, InvalidInputError, SchemaMismatchError, UnknownIdError, UnknownNameError
from tests.with_torch.test_binding_cases import DIM, ITEMS, USERS, Net, Run, new_store

N = len(ITEMS)


@pytest.fixture
def work() -> Iterator[Checkout]:
    """Return a checkout that the test may leave as it likes."""
    checkout = new_store(f"memory://{uuid.uuid4()}").checkout()
    checkout.add_table(TableSpec("bias", "item", None))
    checkout.add_table(TableSpec("wide", "item", 2 * DIM))
    yield checkout
    checkout.discard()


@pytest.mark.parametrize(
    ("tables", "error", "text"),
    [
        ({"items.weight": "item"}, UnknownNameError, "parameter 'items.weight': the module has user.weight, item.weight"),
        ({"item.weight": "items"}, UnknownNameError, r"table 'items'.*work\.add_table"),
        ({"item.weight": 3}, InvalidInputError, "embstore.Rows"),
        ({"item.weight": "wide"}, SchemaMismatchError, r"'item.weight' of shape \(20, 8\).*'wide' of shape \[n, 16\]"),
        ({"item.weight": "bias"}, SchemaMismatchError, r"\(20, 8\).*8 numbers"),
        ({"item.weight": Rows("item", axis=1)}, SchemaMismatchError, r"20 numbers of float32 a row on axis 1"),
        ({"item.weight": Rows("item", axis=2)}, SchemaMismatchError, "no axis 2"),
        ({"user.weight": "item"}, SchemaMismatchError, r"has 30 rows on axis 0, table 'item' needs 20 \(20 ids\)"),
        (
            {"item.weight": "item", "user.weight": "item"},
            InvalidInputError,
            "table 'item': bound to 'item.weight' and 'user.weight'",
        ),
    ],
)
def test_wrong_tables(work: Checkout, tables: dict[str, Any], error: type[EmbstoreError], text: str) -> None:
    """Names, shapes and numbers of rows are checked when the module is bound."""
    before = str(work.changes)
    with pytest.raises(error, match=text):
        embstore.bind(work, Net(len(USERS), N), None, tables)
    assert str(work.changes) == before


@pytest.mark.parametrize("make", [lambda: Rows(3), lambda: Rows("item", first=-1), lambda: Rows("item", axis=True)])
def test_wrong_rows(make: Callable[[], Rows]) -> None:
    """Rows says what its parts may be."""
    with pytest.raises(InvalidInputError, match="give the name of a table, an axis"):
        make()


def test_a_parameter_bound_twice(work: Checkout) -> None:
    """Two names of one tied parameter cannot have two tables, nor one table twice."""
    model = nn.ModuleDict({"encoder": nn.Embedding(N, DIM), "decoder": nn.Linear(DIM, N)})
    model["decoder"].weight = model["encoder"].weight
    work.add_table(TableSpec("other", "item", DIM))
    for table in ("other", "item"):
        with pytest.raises(InvalidInputError, match="'decoder.weight' is the same as 'encoder.weight'"):
            embstore.bind(work, model, None, {"encoder.weight": "item", "decoder.weight": table})


def test_too_few_rows(work: Checkout) -> None:
    """A module that is too small says so when its rows are asked for: till then it may be for a working set."""
    for first, needed in ((0, 20), (1, 21)):
        binding = embstore.bind(work, nn.Embedding(5, DIM), None, {"weight": Rows("item", first=first)})
        for call in (binding.restore, binding.stage, lambda b=binding: b.positions("item", [1000])):
            with pytest.raises(SchemaMismatchError, match=f"has 5 rows on axis 0, table 'item' needs {needed}"):
                call()


def test_another_dtype(work: Checkout) -> None:
    """A float16 parameter does not fit a float32 table; the message has both."""
    with pytest.raises(SchemaMismatchError, match=r"torch.float16.*float16 a row.*of float32"):
        embstore.bind(work, nn.Embedding(N, DIM, dtype=torch.float16), None, {"weight": "item"})
    with pytest.raises(InvalidInputError, match="complex64 cannot be stored"):
        embstore.bind(work, nn.Embedding(N, DIM, dtype=torch.complex64), None, {"weight": "item"})


def test_not_a_checkout(work: Checkout) -> None:
    """A version cannot be bound, nor can a list of layers."""
    with pytest.raises(InvalidInputError, match=r"bind\(Version, Embedding\)"):
        embstore.bind(work.version, nn.Embedding(N, DIM), None, {})  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"bind\(Checkout, list\)"):
        embstore.bind(work, [], None, {})  # type: ignore[arg-type]


def test_what_has_no_names(work: Checkout) -> None:
    """Parameters, extras and working sets go by names; the message has an example."""
    model: nn.Module = nn.Embedding(N, DIM)
    with pytest.raises(InvalidInputError, match="parameters list: give a mapping, such as {'user.weight': 'user'}"):
        embstore.bind(work, model, None, ["weight"])  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="extra list: give a mapping, such as {'scheduler': scheduler}"):
        embstore.bind(work, model, None, {}, extra=[1])  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"ids list: give a mapping, such as {'user': \[3, 1\]}"):
        embstore.bind(work, model, None, {"weight": "item"}).restore([1, 2])  # type: ignore[arg-type]


def test_wrong_optimizers(work: Checkout) -> None:
    """What is no optimizer, a name that cannot be one, and parameters of another module."""
    model = Net(len(USERS), N)
    adam = torch.optim.Adam(model.parameters())
    with pytest.raises(InvalidInputError, match="optimizer str"):
        embstore.bind(work, model, "adam", {})  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="optimizer list"):
        embstore.bind(work, model, {"a": [adam]}, {})  # type: ignore[dict-item]
    with pytest.raises(InvalidInputError, match="optimizer name 'a b'"):
        embstore.bind(work, model, {"a b": adam}, {})
    stranger = torch.optim.Adam([*model.parameters(), nn.Parameter(torch.zeros(3))])
    with pytest.raises(InvalidInputError, match=r"parameter of shape \(3,\) that is not in the module"):
        embstore.bind(work, model, stranger, {})


class Lists(torch.optim.SGD):
    """An optimizer with state that is no tensor."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Remember in a list."""
        for param in self.param_groups[0]["params"]:
            self.state[param]["past"] = [1, 2]


def test_state_that_cannot_be_stored(work: Checkout) -> None:
    """An optimizer with lists in its state is refused before anything is staged."""
    model = nn.Embedding(N, DIM)
    optimizer = Lists(model.parameters())
    binding = embstore.bind(work, model, optimizer, {"weight": "item"})
    binding.restore()
    with torch.no_grad():
        model.weight += 1
    optimizer.step()
    with pytest.raises(InvalidInputError, match="optimizer state 'past' of 'weight': list cannot be stored"):
        binding.stage()
    assert work.table("item").values().tobytes() == work.table("item").initial(ITEMS).tobytes()


def test_slots_of_another_parameter(work: Checkout) -> None:
    """Where the module's names have changed, the slots' other half (the step) would be missed: it is refused."""
    run = Run("adam", USERS, ITEMS)
    binding = run.bind(work)
    run.epoch(0)
    binding.stage()
    renamed = nn.ModuleDict({"people": nn.Embedding(len(USERS), DIM)})
    other = embstore.bind(work, renamed, torch.optim.Adam(renamed.parameters()), {"people.weight": "user"})
    with pytest.raises(SchemaMismatchError, match=r"the slots of table 'user' belong to 'optim\.user\.weight'"):
        other.restore()


def test_another_shape_of_a_dense_parameter(work: Checkout) -> None:
    """A layer that is wider than the stored one is refused, and nothing is loaded by halves."""
    small, large = (nn.ModuleDict({"item": nn.Embedding(N, DIM), "mlp": nn.Linear(DIM, width)}) for width in (2, 3))
    embstore.bind(work, small, None, {"item.weight": "item"}).stage()
    before = large["item"].weight.detach().clone()
    with pytest.raises(SchemaMismatchError, match=r"'mlp.weight' is stored as float32 of shape \(2, 8\).*\(3, 8\)"):
        embstore.bind(work, large, None, {"item.weight": "item"}).restore()
    assert torch.equal(large["item"].weight, before)


def test_a_slot_of_another_shape(work: Checkout) -> None:
    """A slot that is there with another dim is not written over."""
    work.table("item").add_slot(embstore.SlotSpec("exp_avg", None))
    model = nn.Embedding(N, DIM)
    adam = torch.optim.Adam(model.parameters())
    binding = embstore.bind(work, model, adam, {"weight": "item"})
    binding.restore()
    model(torch.arange(3)).sum().backward()
    adam.step()
    with pytest.raises(SchemaMismatchError, match="slot 'exp_avg' of table 'item'"):
        binding.stage()


def test_a_parameter_that_was_replaced(work: Checkout) -> None:
    """A new object under the same name is not the one that was bound."""
    model = nn.Embedding(N, DIM)
    binding = embstore.bind(work, model, None, {"weight": "item"})
    model.weight = nn.Parameter(torch.zeros(N, DIM))
    with pytest.raises(InvalidInputError, match="'weight' was replaced since the module was bound"):
        binding.stage()


def test_a_module_that_was_converted(work: Checkout) -> None:
    """A module that was bound as float32 is not staged as float64: rows would be narrowed, and other arrays not."""
    model = Net(len(USERS), N)
    binding = embstore.bind(work, model, None, {"item.weight": "item"})
    binding.restore()
    model.double()
    with pytest.raises(
        SchemaMismatchError, match=r"'item.weight' has become torch.float64 since it was bound, table 'item' has fl"
    ):
        binding.stage()
    assert "model.head.weight" not in work.dense


def test_positions_outside_the_working_set(work: Checkout) -> None:
    """The message has the id as it was given."""
    binding = embstore.bind(work, nn.Embedding(2, DIM), None, {"weight": "item"})
    binding.restore({"item": [1003, 1001]})
    with pytest.raises(UnknownIdError, match="item id 1002: 1 not in the working set; restore with them"):
        binding.positions("item", [1001, 1002])


def test_positions_where_leading_rows_differ(work: Checkout) -> None:
    """With a padding row in one parameter and none in another there is no one place for an id."""
    model = nn.ModuleDict({"emb": nn.Embedding(N + 1, DIM), "bias": nn.Embedding(N, 1)})
    binding = embstore.bind(work, model, None, {"emb.weight": Rows("item", first=1), "bias.weight": "bias"})
    with pytest.raises(InvalidInputError, match=r"leading rows differ \(\{'emb.weight': 1, 'bias.weight': 0\}\)"):
        binding.positions("item", ITEMS)
    with pytest.raises(InvalidInputError, match="no bound parameter has its rows"):
        binding.positions("user", USERS)
    with pytest.raises(UnknownNameError, match="entity 'genre'"):
        binding.positions("genre", [1])


def test_non_finite_rows_refuse_the_commit(work: Checkout) -> None:
    """What diverged is staged, and the commit says which ids."""
    model = nn.Embedding(N, DIM)
    binding = embstore.bind(work, model, None, {"weight": "item"})
    binding.restore()
    with torch.no_grad():
        model.weight[3, 1] = np.nan
    binding.stage()
    with pytest.raises(embstore.NonFiniteError, match="1003"):
        work.commit("diverged")
