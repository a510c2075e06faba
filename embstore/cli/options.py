"""Arguments and options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from embstore.errors import InvalidInputError

if TYPE_CHECKING:
    from embstore.store import Store

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_QUIET = "embstore.quiet"


def _be_quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[_QUIET] = value or context.meta.get(_QUIET, False)


def is_quiet() -> bool:
    """Return whether the running verb was asked to be quiet."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(_QUIET))


quiet = click.option(
    "-q", "--quiet", is_flag=True, expose_value=False, callback=_be_quiet, help="No progress, and no word about what was done."
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
store = click.argument("store", metavar="STORE")
ref = click.option("--ref", default="main", show_default=True, metavar="REF", help="The version to read.")
branch = click.option("--branch", default="main", show_default=True, metavar="B", help="The branch to commit to.")
message = click.option("-m", "--message", required=True, metavar="MSG", help="What this version is.")
trainer = click.option("--trainer", metavar="T", help="A name that the verb trainers lists.")
settings = click.option("--set", "settings", multiple=True, metavar="K=V", help="A setting of the trainer; may be repeated.")
columns = click.option(
    "--columns",
    multiple=True,
    metavar="ROLE=NAME,…",
    help="How columns of FILE are called: user, item, rating or time, as in user=customer_id.",
)


def open_store(url: str) -> Store:
    """Return the store at ``url``."""
    from embstore.store import open as open_

    return open_(url)


def parse_columns(given: tuple[str, ...]) -> dict[str, str]:
    """Return role -> column of all that ``--columns`` was given.

    Raises
    ------
    InvalidInputError
        For anything but ``role=name`` with commas between.
    """
    return parse_pairs([pair for text in given for pair in text.split(",")], "--columns")


def parse_pairs(given: list[str], option: str) -> dict[str, str]:
    """Return left -> right of texts such as ``left=right``.

    Raises
    ------
    InvalidInputError
        For a text of another form, and for a left side that is there twice.
    """
    pairs: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not name or not equals:
            msg = f"{option} {text!r}: give name=value"
            raise InvalidInputError(msg)
        if name in pairs:
            msg = f"{option} {text!r}: {name} is there twice; give it once"
            raise InvalidInputError(msg)
        pairs[name] = value
    return pairs


def features(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--user-features`` and ``--item-features``."""
    for entity in ("item", "user"):
        verb = click.option(f"--{entity}-features", metavar="FILE", help=f"What is known of each {entity}, one line each.")(verb)
    return verb
