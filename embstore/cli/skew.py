"""``embstore skew``."""

from __future__ import annotations

import click

from embstore.cli import options


@click.command()
@options.store
@click.argument("file", required=False)
@options.ref
@options.columns
@click.option(
    "--users", type=click.IntRange(min=1), default=1000, show_default=True, metavar="N", help="Compare at most so many."
)
@click.option("--entity", type=click.Choice(["user", "item"]), default="user", show_default=True, help="Whose vectors.")
@options.as_json
@options.quiet
def skew(store: str, file: str | None, *, ref: str, columns: tuple[str, ...], users: int, entity: str, as_json: bool) -> None:
    """Compare vectors as served with vectors as trained.

    Ids are folded in anew, as if they came in now, from what the store has recorded, or from the pairs of FILE, which are as for
    train: a trainer that learns from ratings needs them. Nothing is committed.
    """
    import embstore
    from embstore.cli.output import number, pairs, show, table, write_json
    from embstore.cli.train import read_pairs
    from embstore.cli.versions import short_id
    from embstore.progress import progress

    version = options.open_store(store).at(ref)
    given = read_pairs(file, version, columns) if file else None
    with progress(f"folding in {entity}s of {ref} anew", shown=not options.is_quiet()):
        found = embstore.skew(version, interactions=given, entity=entity, sample=users)  # type: ignore[arg-type]
    if as_json:
        write_json(found.to_dict())
        return
    figures = [("largest difference", found.largest), ("mean difference", found.mean), ("mean relative", found.relative)]
    head = [("version", short_id(version.id)), ("trainer", found.trainer), (f"{entity}s", number(found.n_ids))]
    farthest = [(each.id, number(each.largest), number(each.relative)) for each in found.farthest]
    show(
        pairs([*head, *((name, number(value)) for name, value in figures)]),
        table([entity, "largest", "relative"], farthest, right=("largest", "relative")) if farthest else None,
    )
