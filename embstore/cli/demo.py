"""``embstore demo``."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embstore.cli import options

if TYPE_CHECKING:
    from embstore.demo import Month, Quality
    from embstore.interactions import Interactions
    from embstore.store import Store
    from embstore.version import Version

_WIDE_ENOUGH = 112
_COST = ("month", "users", "items", "changed", "version", "full", "s")
_RANKING = ("returning", "popularity", "new", "popularity ")


@click.command()
@click.argument("store", metavar="DIR")
@click.option("--data", "file", required=True, metavar="FILE", help="Pairs with times: .csv, .tsv, .parquet or .inter.")
@click.option("--titles", metavar="FILE", help="What items are called: columns item (or item_id) and title.")
@options.columns
@options.quiet
def demo(store: str, file: str, *, titles: str | None, columns: tuple[str, ...]) -> None:
    """Retrain a recommender month after month on a file, into a new store at DIR.

    Each month's pairs append new users and items, go on from the optimizer state of the month before, and make a version. The
    last fifth of each user's pairs of the month is held out and ranked.
    """
    import embstore
    from embstore.cli.output import show
    from embstore.demo import months

    pairs = embstore.Interactions.from_file(file, columns=options.parse_columns(columns))
    names = _titles(titles) if titles else {}
    # What cannot be used is refused before there is a store.
    n_months = sum(1 for _ in months(pairs))
    opened = embstore.create(store)
    done = _run(opened, pairs, "retraining", n_months=n_months)
    show(*_tables(done))
    show(*_summary(done, _dense_bytes(pairs, n_months=n_months)))
    _tour(opened, names)


def _run(store: Store, pairs: Interactions, what: str, *, n_months: int, **settings: Any) -> list[Month]:
    import embstore
    from embstore.demo import Retraining
    from embstore.progress import progress

    trainer = embstore.find_trainer("bpr")(**settings)
    with tempfile.TemporaryDirectory() as folder:
        baseline = embstore.create(Path(folder) / "popularity", durability="none")
        work = Retraining(store, trainer, baseline, embstore.find_trainer("popularity")())
        done = []
        with progress(what, total=n_months, shown=not options.is_quiet()) as step:
            for month in work.run(pairs):
                done.append(month)
                step(len(done), month.name)
    return done


def _dense_bytes(pairs: Interactions, *, n_months: int) -> int:
    """Return what the versions take where the optimizer moves every row at every step."""
    import embstore

    with tempfile.TemporaryDirectory() as folder:
        dense = embstore.create(Path(folder) / "dense", durability="none")
        months = _run(dense, pairs, "with a dense optimizer", n_months=n_months, lazy=False)
    return sum(month.version_bytes for month in months)


def _tables(months: Sequence[Month]) -> list[Any]:
    """Return one wide table, or two where the terminal is narrow."""
    from embstore.cli.output import table, titled

    cost, ranking = [_cost(month) for month in months], [_ranking(month) for month in months]
    legend = "recall@20 and NDCG@100 of pairs held out; popularity is of the same pairs and users"
    if shutil.get_terminal_size((_WIDE_ENOUGH, 24)).columns >= _WIDE_ENOUGH:
        rows = [(*left, *right) for left, right in zip(cost, ranking, strict=True)]
        return [titled(f"Month by month ({legend})", table((*_COST, *_RANKING), rows, right=(*_COST[1:], *_RANKING)))]
    by_month = [(month.name, *right) for month, right in zip(months, ranking, strict=True)]
    return [
        titled("What each month came to", table(_COST, cost, right=_COST[1:])),
        titled(legend, table(("month", *_RANKING), by_month, right=_RANKING)),
    ]


def _cost(month: Month) -> tuple[str, ...]:
    from embstore.cli.output import size

    grown = [f"{total:,} (+{new:,})" for total, new in (month.users, month.items)]
    sizes = [size(month.version_bytes), size(month.full_bytes)]
    return month.name, *grown, f"{month.rows_changed:,}", *sizes, f"{month.seconds:.1f}"


def _ranking(month: Month) -> tuple[str, ...]:
    return (
        *_figures(month.returning, "metrics"),
        *_figures(month.returning, "popularity"),
        *_figures(month.new, "metrics"),
        *_figures(month.new, "popularity"),
    )


def _figures(quality: Quality, which: str) -> Iterable[str]:
    found = getattr(quality, which)
    return ["–" if found is None else f"{found['recall@20']:.3f} {found['ndcg@100']:.3f}"]


def _summary(months: Sequence[Month], dense_bytes: int) -> list[Any]:
    from embstore.cli.output import pairs, size

    full = sum(month.full_bytes for month in months)
    taken = sum(month.version_bytes for month in months)
    return [
        pairs(
            [
                (f"{len(months)} versions", f"{size(taken)}, with state by row: {taken / full:.2f} x full checkpoints"),
                ("a dense optimizer", f"{size(dense_bytes)}, which moves every row: {dense_bytes / full:.2f} x"),
                ("full checkpoints", f"{size(full)}: all vectors, optimizer state and ids, {len(months)} times"),
            ]
        )
    ]


def _tour(store: Store, titles: dict[str, str]) -> None:
    """Show the log, what the last month changed, and what a user who came in it is recommended."""
    from embstore.cli.diff import diff
    from embstore.cli.log import log
    from embstore.cli.output import note

    context = click.get_current_context()
    note(f"\n$ embstore log {store.url}")
    context.invoke(log, store=store.url, ref="main", n_most=None, graph=False, as_json=False)
    note(f"\n$ embstore diff {store.url} main~1 main")
    context.invoke(diff, store=store.url, base="main~1", target="main", as_json=False)
    last = store.at()
    newcomer = _newcomer(store, last)
    if newcomer is not None:
        _recommend(last, newcomer, titles)


def _newcomer(store: Store, last: Version) -> Any:
    """Return the user with most pairs among those who were new in the last version; None if there were none."""
    new = store.diff("main~1").ids["user"].appended
    if not len(new):
        return None
    had = last.consumed.of("user", new)
    return new[max(range(len(new)), key=lambda i: len(had[i]))]


def _recommend(version: Version, user: Any, titles: dict[str, str]) -> None:
    import embstore
    from embstore.cli.output import show, table, titled

    had = version.consumed.of("user", [user], distinct=True)[0].tolist()
    frame = embstore.recommend(version, [user], k=5)
    rows = [
        (str(rank), str(item), f"{score:.3f}", titles.get(str(item), ""))
        for rank, item, score in zip(frame["rank"], frame["item"], frame["score"], strict=True)
    ]
    some = ", ".join(titles.get(str(item), str(item)) for item in had[-4:])
    heading = f"For user {user}, new in the last month, who has had {len(had)} items (lately {some})"
    show("", titled(heading, table(("rank", "item", "score", "title"), rows, right=("rank", "score"))))


def _titles(path: str) -> dict[str, str]:
    """Return what items are called.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, or has no columns of items and titles.
    """
    from embstore import readers
    from embstore.errors import InvalidInputError

    form = readers.INTER if path.lower().endswith(".item") else readers.format_of(path)
    header = form.header(readers.existing(path))
    item = next((name for name in ("item", "item_id") if name in header), None)
    title = "title" if "title" in header else next((name for name in header if name.endswith("title")), None)
    if item is None or title is None:
        msg = f"titles {path!r}: it has the columns {', '.join(header)}; give item (or item_id) and title"
        raise InvalidInputError(msg)
    frame = form.frame(Path(path))
    items, names = (frame.iloc[:, header.index(name)] for name in (item, title))
    return dict(zip(map(str, items), map(str, names), strict=True))
