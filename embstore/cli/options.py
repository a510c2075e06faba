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
_STORAGE_OPTIONS = "embstore.storage-options"
_YES_AND_NO = {"true": True, "false": False}
_POLICIES = ("fail", "ours", "theirs", "mean")


def _be_quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.meta[_QUIET] = value or context.meta.get(_QUIET, False)


def _keep_storage_options(context: click.Context, _: click.Parameter, value: tuple[str, ...]) -> None:
    context.meta[_STORAGE_OPTIONS] = value


def store(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add STORE, and ``--storage-option`` for one in an object store."""
    verb = click.option(
        "--storage-option",
        multiple=True,
        metavar="K=V",
        expose_value=False,
        callback=_keep_storage_options,
        help="For s3://, gs:// and az://, as in endpoint_url=http://host:9000; may be repeated. Credentials: environment.",
    )(verb)
    return click.argument("store", metavar="STORE")(verb)


def is_quiet() -> bool:
    """Return whether the running verb was asked to be quiet."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(_QUIET))


quiet = click.option(
    "-q", "--quiet", is_flag=True, expose_value=False, callback=_be_quiet, help="No progress, and no word about what was done."
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
ref = click.option("--ref", default="main", show_default=True, metavar="REF", help="The version to read.")
branch = click.option("--branch", default="main", show_default=True, metavar="B", help="The branch to commit to.")
message = click.option("-m", "--message", required=True, metavar="MSG", help="What this version is.")
trainer = click.option("--trainer", metavar="T", help="A name that the verb trainers lists.")
settings = click.option("--set", "settings", multiple=True, metavar="K=V", help="A setting of the trainer; may be repeated.")
on_conflict = click.option(
    "--on-conflict",
    default="fail",
    show_default=True,
    metavar="C",
    help="Where both sides changed the same: fail, ours, theirs or mean, or rows=mean,dense=ours.",
)
older_than = click.option("--older-than", required=True, metavar="AGE", help="As in 30d, 12h, 45m or 0s.")
yes = click.option("--yes", is_flag=True, help="Do it; else it is only told what would be done.")
run = click.option("--run", metavar="NAME", help="A name of this piece of work: what is done is not done again.")
columns = click.option(
    "--columns",
    multiple=True,
    metavar="ROLE=NAME,…",
    help="How columns of FILE are called: user, item, rating or time, as in user=customer_id.",
)


def open_store(url: str) -> Store:
    """Return the store at ``url``."""
    from embstore.store import open as open_

    return open_(url, storage_options=storage_options())


def storage_options() -> dict[str, str | bool] | None:
    """Return what ``--storage-option`` was given; None if nothing.

    Raises
    ------
    InvalidInputError
        For anything but ``name=value``, and for a secret: everybody on the machine can read it on a command line.
    """
    from embstore.storage.place_options import SECRET

    context = click.get_current_context(silent=True)
    given = parse_pairs(list(context.meta.get(_STORAGE_OPTIONS, ())) if context else [], "--storage-option")
    for name in given:
        if name in SECRET:
            msg = f"--storage-option {name}: a secret is no part of a command line; set it in the environment or a profile"
            raise InvalidInputError(msg)
    return {name: _YES_AND_NO.get(value, value) for name, value in given.items()} or None


def parse_columns(given: tuple[str, ...]) -> dict[str, str]:
    """Return role -> column of all that ``--columns`` was given.

    Raises
    ------
    InvalidInputError
        For anything but ``role=name`` with commas between.
    """
    return parse_pairs([pair for text in given for pair in text.split(",")], "--columns")


def parse_policy(text: str) -> str | dict[str, str]:
    """Return what ``--on-conflict`` was given, as the library takes it.

    Raises
    ------
    InvalidInputError
        For a word that is not known, and for a mapping of anything but rows and dense.
    """
    policy = parse_pairs(text.split(","), "--on-conflict") if "=" in text else text
    given = policy if isinstance(policy, dict) else {"rows": policy}
    if not (set(given) <= {"rows", "dense"} and set(given.values()) <= set(_POLICIES)):
        words = f"{', '.join(_POLICIES[:-1])} or {_POLICIES[-1]}"
        msg = f"--on-conflict {text!r}: give {words}, or one for each, as in rows=mean,dense=ours"
        raise InvalidInputError(msg)
    return policy


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
