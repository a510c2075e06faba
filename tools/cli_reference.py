"""Write docs/cli.md from what ``--help`` says: python -m tools.cli_reference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from embstore.cli import main
from embstore.cli.group import SECTIONS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
_WIDTH = 80
_HEAD = """\
# The command line

This page is made from `embstore --help` and from the help of every verb by `python -m tools.cli_reference`.

- `STORE` is a folder or a URL. `REF` is a branch, a tag or the beginning of a version id (4 characters or more); then perhaps
  `~2`, two versions earlier, or `@2026-11-01`, the newest at or before that day (UTC). Without one, verbs speak of `main`.
- `FILE` is .csv, .csv.gz, .tsv, .parquet, .inter or .npz by its ending. Its columns are `user` and `item`, and `rating` and
  `time` if there are any; others are named by `--columns user=customer_id,time=when`.
- `--json` gives one document on standard output (`log`, `blame`, `branch`, `tag`, `ids`, `recommend` and `trainers` a list),
  complete where the text for people is cut. What JSON has no number for, such as NaN, is `null`.
- Standard output has what was asked for. Errors, one line each, and progress go to standard error; progress only on a
  terminal, and only for work of more than two seconds.
- Ids are taken as their entity has them: where these are int64, `5` is a number and `x` is refused. Where an entity has none
  yet, they are int64 if all are plain whole numbers, else str; `init --entity user=str` says it beforehand.

| exit code | meaning |
|---|---|
| 0 | done |
| 2 | input that cannot be used: an option, a file, a column, an id of another type, a trainer or setting that there is not |
| 3 | not found: store, ref, entity, table, id |
| 4 | conflict: others changed the same meanwhile; nothing is lost, the message says how to go on |
| 5 | refused, and the store is as it was: what exists already, a spent name, NaN, a full disk |
| 6 | the store is damaged |
| 130, 141 | interrupted; nobody reads the output any more |

Anything else is a fault of embstore, with a traceback.
"""


def reference() -> str:
    """Return the text of the page."""
    return "\n".join([_HEAD, *_parts()])


def _parts() -> Iterator[str]:
    context = click.Context(main, info_name="embstore", terminal_width=_WIDTH, help_option_names=["-h", "--help"])
    yield _block(main, context)
    for title, verbs in SECTIONS.items():
        yield f"## {title}\n"
        for name in verbs:
            verb = main.get_command(context, name)
            assert verb is not None
            yield f"### embstore {name}\n"
            yield _block(verb, click.Context(verb, info_name=name, parent=context))


def _block(command: click.Command, context: click.Context) -> str:
    return f"```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
