"""``embstore recommend``."""

from __future__ import annotations

import click

from embstore.cli import options


@click.command()
@options.store
@click.argument("users", metavar="USER…", nargs=-1, required=True)
@click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="Items for each user.")
@options.ref
@click.option(
    "--unknown",
    type=click.Choice(["raise", "popular", "mean"]),
    default="raise",
    show_default=True,
    help="Unknown users: an error, what most users have had, or what a mean user would get.",
)
@click.option("--consumed/--no-consumed", default=False, show_default=True, help="Also items that the user has had.")
@options.as_json
@options.quiet
def recommend(store: str, users: tuple[str, ...], *, k: int, ref: str, unknown: str, consumed: bool, as_json: bool) -> None:
    """Show the best items for users.

    They are ranked by the trainer in the newest lineage. Put -- before ids that begin with a minus.
    """
    import embstore
    from embstore.cli.idinput import typed_ids
    from embstore.cli.output import number, show, table, write_json

    version = options.open_store(store).at(ref)
    wanted = typed_ids(users, version, "user")
    frame = embstore.recommend(version, wanted, k, exclude_consumed=not consumed, unknown=unknown)  # type: ignore[arg-type]
    ranked = frame.to_dict("records")
    if as_json:
        write_json(ranked)
        return
    rows = [(row["user"] if row["rank"] == 1 else "", row["rank"], row["item"], number(row["score"])) for row in ranked]
    show(table(["user", "rank", "item", "score"], rows, right=["rank", "score"]))
