"""The verbs by name, each imported when it is asked for, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from keyword import iskeyword
from typing import Any

import click

from embstore.cli.wording import told
from embstore.errors import EmbstoreError

# Section -> verb -> what it does. A verb is the function of its name in the module of its name, or in the one of MODULES.
SECTIONS = {
    "Stores": {
        "init": "Make a store.",
        "verify": "Check that a version is whole.",
        "compact": "Fold what commits have added into one piece.",
        "expire": "Forget old versions.",
        "gc": "Delete what no version leads to any more.",
        "doctor": "Look at a store and what it stands on.",
        "export": "Write one version, without its log, to a new store.",
        "import": "Make a version of a model that another system has saved.",
    },
    "Versions": {
        "log": "List versions, newest first.",
        "show": "Show one version: parents, lineage, entities, tables.",
        "diff": "Show what turns one version into another.",
        "blame": "List the versions that changed an id's vectors.",
        "branch": "List, make, move or delete branches.",
        "tag": "List, make or delete tags.",
        "merge": "Bring what another branch has changed into a branch.",
        "revert": "Commit a version that is equal to an earlier one.",
    },
    "Ids and vectors": {
        "ids": "Print the ids of an entity, one a line.",
        "get": "Show the vectors of ids.",
        "append": "Give new ids a row in every table of their entity.",
        "remove": "Forget ids and their vectors.",
    },
    "Training": {
        "train": "Train on a file of pairs and commit what came of it.",
        "fold-in": "Give new ids vectors and leave all others as they are.",
        "recommend": "Show the best items for users.",
        "evaluate": "Measure how well held-out pairs are ranked.",
        "skew": "Compare vectors as served with vectors as trained.",
        "trainers": "List the installed trainers and their settings.",
        "demo": "Retrain a recommender month after month on a file.",
    },
}
MODULES = {"tag": "branch", "fold-in": "train", "remove": "append", "import": "import_"}
VERBS = {verb: text for verbs in SECTIONS.values() for verb, text in verbs.items()}
_INTERRUPTED = 130
_PIPE_CLOSED = 141


class Verbs(click.Group):
    """A group that knows its verbs without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb; None if there is none of that name."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"embstore.cli.{MODULES.get(cmd_name, cmd_name)}")
        verb: click.Command = getattr(module, cmd_name.replace("-", "_") + "_" * iskeyword(cmd_name))
        return verb

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb that the first argument names, and the others."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, n=1)
            ctx.fail(f"No such verb: {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs by section."""
        width = max(map(len, VERBS))
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(verb.ljust(width), text) for verb, text in verbs.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments before the verb, of which --help and --version write already."""
        with _errors_told(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; what it raises on purpose becomes one line and an exit code, anything else is a traceback."""
        with _errors_told(ctx):
            return super().invoke(ctx)


@contextmanager
def _errors_told(ctx: click.Context) -> Iterator[None]:
    try:
        try:
            yield
        except OSError as error:  # click itself has written
            if error.errno != errno.ENOSPC:
                raise
            from embstore.cli.output import incomplete

            raise incomplete(error) from error
    except EmbstoreError as error:
        _say(f"error: {told(' '.join(str(error).splitlines()), ctx.invoked_subcommand)}")
        ctx.exit(error.exit_code)
    except KeyboardInterrupt:
        _say("")
        ctx.exit(_INTERRUPTED)
    except BrokenPipeError:
        ctx.exit(_PIPE_CLOSED)


def _say(line: str) -> None:
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    with suppress(OSError):  # the exit code says it too
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=True)
