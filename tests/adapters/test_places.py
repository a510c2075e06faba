"""Which axis of a parameter has the rows of an entity: found, said, or asked for; and ids that do not fit them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import embstore
from embstore import InvalidInputError, Rows, SchemaMismatchError, Store
from tests.examples import new_store
from trainers.adapters.loop import Kept


def numbered(n_items: int, n_hidden: int) -> nn.Module:
    """Return a net with an input for each item, whose weights are all different."""
    net = nn.Module()
    net.enc = nn.Linear(n_items, n_hidden, bias=False)
    net.enc.weight.data = torch.arange(float(n_items * n_hidden)).view(n_hidden, n_items)
    return net


def kept(store: Store, net: nn.Module, rows: Any, ids: Any, **options: Any) -> Kept:
    """Return a net that is kept without an optimizer."""
    return Kept(store, net, None, rows, ids, **options)


@pytest.mark.parametrize("axis", [1, -1])
def test_the_axis_that_is_said_counts(axis: int) -> None:
    """A net as wide as there are items keeps each item's weights when it grows."""
    store, net, grown = new_store(), numbered(4, 4), numbered(5, 4)
    kept(store, net, {"enc.weight": Rows("item", axis=axis)}, {"item": [1, 2, 3, 4]}).after_epoch()
    kept(store, grown, {"enc.weight": "item"}, {"item": [5, 4, 3, 2, 1]})
    assert torch.equal(grown.enc.weight[:, 1:], net.enc.weight.flip(1))


def test_two_axes_as_long_are_asked_about() -> None:
    """Nothing is guessed, and the message says how to say it; nor where a hidden layer is as wide as there are items today."""
    store, rows = new_store(), {"enc.weight": "item"}
    kept(store, numbered(3, 4), rows, {"item": [1, 2, 3]}).after_epoch()
    message = (
        r"'enc.weight' of shape \(4, 4\): the rows of 4 ids and 0 leading ones can lie on axis 0 or 1; "
        r"say on which: Rows\('item', axis=0\) or Rows\('item', axis=1\) in place of 'item'"
    )
    for place in (store, new_store()):
        with pytest.raises(InvalidInputError, match=message):
            kept(place, numbered(4, 4), rows, {"item": [1, 2, 3, 4]})
    with pytest.raises(SchemaMismatchError, match="dim is 4 in the store, 3 was asked for"):
        kept(store, numbered(3, 4), {"enc.weight": Rows("item", axis=0)}, {"item": [1, 2, 3, 4]})


def test_an_embedding_has_its_rows_on_the_first_axis() -> None:
    """It may be square, and as many ids as it has numbers in a row are a wrong number of ids."""
    store, net = new_store(), nn.ModuleDict({"users": nn.Embedding(3, 3), "tags": nn.EmbeddingBag(3, 3)})
    kept(store, net, {"users.weight": "user", "tags.weight": "user"}, {"user": ["a", "b", "c"]}).after_epoch()
    found = store.at().table("kept.users.weight").get(["c"])[0]
    assert torch.equal(net["users"].weight[2], torch.from_numpy(found))
    with pytest.raises(InvalidInputError, match=r"'users.weight' of shape \(9, 3\): give one with 3 rows on axis 0, for 3 ids"):
        kept(new_store(), nn.ModuleDict({"users": nn.Embedding(9, 3)}), {"users.weight": "user"}, {"user": [1, 2, 3]})


def test_leading_rows_of_one_parameter() -> None:
    """Those that are said for it count in place of those of all."""
    net = nn.ModuleDict({"users": nn.Embedding(3, 2), "padded": nn.Embedding(4, 2)})
    store = new_store()
    kept(store, net, {"users.weight": "user", "padded.weight": Rows("user", first=1)}, {"user": [1, 2, 3]}).after_epoch()
    assert torch.equal(net["padded"].weight[1:], torch.from_numpy(store.at().table("kept.padded.weight").values()))


ENC, IDS = {"enc.weight": "item"}, {"item": [1, 2, 3]}


@pytest.mark.parametrize(
    ("rows", "ids", "options", "message"),
    [
        ({"enc.weight": Rows("item")}, IDS, {}, "give one with 3 rows on axis 0, for 3 ids and 0 leading rows"),
        ({"enc.weight": Rows("item", axis=2)}, IDS, {}, "give one with 3 rows on axis 2"),
        ({"enc.weight": 1}, IDS, {}, "parameter 'enc.weight': 1; give the entity that it has rows of, or Rows"),
        ({"enc.weight": "user"}, IDS, {}, "'enc.weight' has rows of 'user': ids has item; give those of 'user' too"),
        (ENC, {"item": (i for i in (1, 2, 3))}, {}, "ids of 'item' as generator: give a list, in the order of the net's rows"),
        (ENC, {"item": [1, 2, 1]}, {}, "ids of 'item': 1 at position 2 is there more than once; give each once"),
        (ENC, {"item": {1, 2, 3}}, {}, "items as set: pass a list"),
        (ENC, IDS, {"first": 1.5}, "first 1.5: give a whole number from 0"),
        (ENC, IDS, {"name": "my.net"}, "name 'my.net': module name can't contain .*; take another"),
        (ENC, IDS, {"name": "items"}, "name 'items': attribute 'items' already exists; take another"),
    ],
)
def test_arguments_that_cannot_be_used(tmp_path: Path, rows: Any, ids: Any, options: dict[str, Any], message: str) -> None:
    """Each has its one clear error, and nothing is checked out any more."""
    store = embstore.create(tmp_path / "store", durability="none")
    with pytest.raises(InvalidInputError, match=message) as refused:
        kept(store, numbered(3, 4), rows, ids, **options)
    assert refused.traceback  # which would hold a checkout
    assert list((tmp_path / "store" / "leases").glob("*")) == []
