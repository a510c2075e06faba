"""``embstore evaluate``."""

from __future__ import annotations

import click

from embstore.cli import options


@click.command()
@options.store
@click.argument("file")
@options.ref
@options.columns
@click.option("--given", metavar="FILE", help="Pairs of users that the store does not know, to rank items by.")
@click.option(
    "--metrics",
    default="recall@20,ndcg@100",
    show_default=True,
    metavar="M,…",
    help="Names with the number of places: recall, capped_recall, ndcg, ap, hit, mrr.",
)
@click.option("--consumed/--no-consumed", default=False, show_default=True, help="Also rank items that a user has had.")
@options.as_json
@options.quiet
def evaluate(
    store: str,
    file: str,
    *,
    ref: str,
    columns: tuple[str, ...],
    given: str | None,
    metrics: str,
    consumed: bool,
    as_json: bool,
) -> None:
    """Measure how well held-out pairs are ranked.

    FILE is as for train; items are ranked by the trainer in the newest lineage. Users and items that the store does not know are
    left out and counted.
    """
    import embstore
    from embstore.cli.output import number, pairs, show, write_json
    from embstore.cli.train import read_pairs
    from embstore.cli.versions import short_id
    from embstore.progress import progress

    version = options.open_store(store).at(ref)
    targets = read_pairs(file, version, columns)
    known = read_pairs(given, version, columns) if given else None
    with progress(f"evaluating {ref}", shown=not options.is_quiet()):
        found = embstore.evaluate(version, targets, given=known, metrics=tuple(metrics.split(",")), exclude_consumed=not consumed)
    if as_json:
        write_json({"version": version.id, **found})
        return
    show(pairs([("version", short_id(version.id)), *((name.replace("_", " "), number(n)) for name, n in found.items())]))
