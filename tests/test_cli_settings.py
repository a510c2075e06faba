"""``--set``: texts become values of the types that the fields of a trainer have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Optional, Union

import pytest
from hypothesis import given, strategies as st

import embstore
from embstore import Checkout, InvalidInputError, Schema, UnknownTrainerError
from embstore.cli.settings import choose_trainer, describe, parse_settings, parse_value
from tests.cli_running import MONDAY
from trainers.popularity import Popularity

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@dataclass(frozen=True)
class Varied:
    """A trainer with settings of every kind."""

    dim: int
    lr: float = 0.1
    loss: Literal["bpr", "softmax"] = "bpr"
    device: str | None = None
    lazy: bool = True
    layers: tuple[int, ...] = (64, 32)
    betas: tuple[float, float] = (0.9, 0.999)
    limit: Optional[int] = None  # noqa: UP045
    share: Union[int, float] = 1  # noqa: UP007
    made: int = field(default=3, init=False)
    anything: Any = None
    name: ClassVar[str] = "varied"

    def schema(self) -> Schema:
        """Return nothing."""
        return Schema()

    def train(self, work: Checkout, batch: Any) -> Any:
        """Do nothing."""
        return iter(())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("dim=16", 16),
        ("dim=-1", -1),
        ("lr=1e-3", 0.001),
        ("lr=1", 1.0),
        ("loss=softmax", "softmax"),
        ("device=cuda:0", "cuda:0"),
        ("device=none", None),
        ("device=a=b", "a=b"),
        ("device=", ""),
        ("lazy=false", False),
        ("lazy=True", True),
        ("layers=128,64", (128, 64)),
        ("layers=(128, 64)", (128, 64)),
        ("layers=128", (128,)),
        ("layers=(128,)", (128,)),
        ("layers=", ()),
        ("layers=()", ()),
        ("betas=0.5,1", (0.5, 1.0)),
        ("limit=none", None),
        ("limit=7", 7),
        ("share=2", 2),
        ("share=2.5", 2.5),
    ],
)
def test_setting(text: str, value: object) -> None:
    """A text becomes a value of the field's type, and not only one that is equal to it."""
    (parsed,) = parse_settings(Varied, [text]).values()
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("dim=1.5", "give a whole number"),
        ("dim=", "give a whole number"),
        ("lr=fast", "give a number"),
        ("lr=inf", "give a number"),
        ("lazy=1", "give true or false"),
        ("loss=hinge", "give bpr or softmax"),
        ("layers=1,x", "give values with commas between, each a whole number"),
        ("betas=1", "give values with commas between, each a number"),
        ("limit=x", "give a whole number or none"),
        ("anything=1", "give nothing here: it can only be set in Python"),
    ],
)
def test_value_of_another_type(text: str, asked: str) -> None:
    """A value of another type is refused with what is asked for."""
    with pytest.raises(InvalidInputError, match=rf"^setting {text.partition('=')[0]}='.*' of trainer 'varied': {asked}$"):
        parse_settings(Varied, [text])


@pytest.mark.parametrize("key", ["depth", "made", "name"])
def test_unknown_setting_is_told_with_the_known(key: str) -> None:
    """What is no setting is refused with those that are; so is a field that cannot be set."""
    known = "dim, lr, loss, device, lazy, layers, betas, limit, share, anything"
    with pytest.raises(UnknownTrainerError, match=f"^setting {key} of trainer 'varied': it has {known}$"):
        parse_settings(Varied, [f"{key}=1"])


@given(
    st.one_of(
        st.tuples(st.just(int), st.integers()),
        st.tuples(st.just(float), FINITE),
        st.tuples(st.just(bool), st.booleans()),
        st.tuples(st.just(str), st.text()),
        st.tuples(st.just(int | float | None), st.one_of(st.none(), st.integers(), FINITE)),
        st.tuples(st.just(tuple[int, ...]), st.lists(st.integers()).map(tuple)),
    )
)
def test_what_python_writes_is_read_back(typed: tuple[Any, Any]) -> None:
    """The text that Python writes for a value is read as that value."""
    kind, value = typed
    parsed = parse_value(str(value), kind)
    assert (parsed, type(parsed)) == (value, type(value))


@given(st.sampled_from([int, float, bool, Literal["a"], tuple[int, ...], tuple[str, int], int | None, Any]), st.text(max_size=6))
def test_any_text_is_read_or_refused(kind: Any, text: str) -> None:
    """Whatever the text, it is a value or a ValueError, and the type has a description."""
    try:
        parse_value(text, kind)
    except ValueError:
        assert describe(kind)


def test_trainer_of_the_newest_version_is_the_default() -> None:
    """Named or not, the trainer of the newest lineage keeps its settings but for those given; another begins anew."""
    store = embstore.create("memory://cli-settings")
    version = embstore.fit(store, Popularity(decay=0.5), MONDAY, message="count")
    assert choose_trainer(version, None, []) == Popularity(decay=0.5)
    assert choose_trainer(version, "popularity", []) == Popularity(decay=0.5)
    assert choose_trainer(version, None, ["decay=0.25"]) == Popularity(decay=0.25)
    assert choose_trainer(version, "bpr", ["dim=3"]) == embstore.find_trainer("bpr")(dim=3)


def test_trainer_that_is_gone_can_be_replaced() -> None:
    """Where the newest lineage names a trainer that is not installed, another can be named."""
    store = embstore.create("memory://cli-settings-gone")
    version = embstore.fit(store, Varied(dim=1), MONDAY, message="by a plug-in")
    with pytest.raises(UnknownTrainerError, match="trainer 'varied': there is "):
        choose_trainer(version, None, [])
    assert choose_trainer(version, "popularity", []) == Popularity()
