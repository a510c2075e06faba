"""``embstore train`` and ``embstore fold-in``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from embstore.cli import options

if TYPE_CHECKING:
    from embstore.interactions import Interactions
    from embstore.store import Store
    from embstore.trainer import Trainer
    from embstore.version import Version


@click.command()
@options.store
@click.argument("file")
@options.message
@options.trainer
@options.settings
@options.branch
@options.columns
@options.features
@click.option("--validation", metavar="FILE", help="Held-out pairs: the epoch that ranks them best is committed.")
@click.option("--patience", type=click.IntRange(min=1), metavar="N", help="Stop after N epochs that rank these no better.")
@click.option("--slots", type=click.Choice(["keep", "reset"]), default="keep", show_default=True, help="Optimizer state.")
@click.option(
    "--consumed",
    type=click.Choice(["merge", "replace"]),
    default="merge",
    show_default=True,
    help="Add to what these users have had, or replace it.",
)
@click.option("--commit-every", type=click.IntRange(min=1), metavar="N", help="Commit every N epochs too.")
@options.on_conflict
@options.run
@options.as_json
@options.quiet
def train(
    store: str,
    file: str,
    *,
    message: str,
    trainer: str | None,
    settings: tuple[str, ...],
    branch: str,
    columns: tuple[str, ...],
    user_features: str | None,
    item_features: str | None,
    validation: str | None,
    patience: int | None,
    slots: str,
    consumed: str,
    commit_every: int | None,
    on_conflict: str,
    run: str | None,
    as_json: bool,
) -> None:
    """Train on a file of pairs and commit what came of it.

    FILE is .csv, .tsv, .parquet or .inter, with columns user and item, and rating and time if there are any, or a matrix with its
    ids, .npz. Trainer and settings are those of the newest version that has some, but for what --trainer and --set say. Files of
    features are .csv, .tsv or .parquet with a column user (item), or RecBole's .user and .item; the trainer's settings name the
    columns that count.

    What others commit meanwhile stands too. Where they changed the same, --on-conflict decides (ours is this training); if it is
    fail, the work goes to a branch of its own, from where the verb merge or another train of the same --run brings it home.
    """
    from embstore.cli.settings import choose_trainer
    from embstore.progress import progress
    from embstore.training import fit

    policy = options.parse_policy(on_conflict)
    opened = options.open_store(store)
    version = opened.at(branch)
    learner = choose_trainer(version, trainer, settings)
    pairs = with_features(read_pairs(file, version, columns), version, learner, user=user_features, item=item_features)
    held_out = read_pairs(validation, version, columns) if validation else None
    with progress(f"training {learner.name}", total=getattr(learner, "epochs", None), shown=not options.is_quiet()) as step:
        made = fit(
            opened,
            learner,
            pairs,
            message=message,
            validation=held_out,
            patience=patience,
            branch=branch,
            slots=slots,  # type: ignore[arg-type]
            consumed=consumed,  # type: ignore[arg-type]
            commit_every=commit_every,
            on_conflict=policy,
            run=run,
            progress=lambda epoch, metrics: step(epoch, _figures(metrics)),
        )
    _report(made, opened, version, branch=branch, run=run, as_json=as_json)


@click.command()
@options.store
@click.argument("file")
@options.message
@options.trainer
@options.settings
@options.branch
@options.columns
@options.features
@click.option("--entity", type=click.Choice(["user", "item"]), default="user", show_default=True, help="Whose ids are new.")
@options.on_conflict
@options.run
@options.as_json
@options.quiet
def fold_in(
    store: str,
    file: str,
    *,
    message: str,
    trainer: str | None,
    settings: tuple[str, ...],
    branch: str,
    columns: tuple[str, ...],
    user_features: str | None,
    item_features: str | None,
    entity: str,
    on_conflict: str,
    run: str | None,
    as_json: bool,
) -> None:
    """Give new ids vectors and leave all others as they are.

    FILE is as for train. Pairs whose other side is unknown are dropped and counted; all others become consumed.
    """
    import embstore
    from embstore.cli.settings import choose_trainer
    from embstore.progress import progress

    policy = options.parse_policy(on_conflict)
    opened = options.open_store(store)
    version = opened.at(branch)
    learner = choose_trainer(version, trainer, settings)
    pairs = with_features(read_pairs(file, version, columns), version, learner, user=user_features, item=item_features)
    with progress(f"folding in with {learner.name}", shown=not options.is_quiet()):
        made = embstore.fold_in(
            opened,
            learner,
            pairs,
            message=message,
            entity=entity,  # type: ignore[arg-type]
            branch=branch,
            on_conflict=policy,
            run=run,
        )
    _report(made, opened, version, branch=branch, run=run, as_json=as_json)


def _report(made: Version, store: Store, before: Version, *, branch: str, run: str | None, as_json: bool) -> None:
    """Say what was made; where the branch is at what it was ``before``, that an earlier call of this run has made it."""
    from embstore.cli.versions import report_made, report_unchanged

    if store.branches().get(branch) == before.id:
        report_unchanged(made, store, branch=branch, why=f"as it was: the run {run} is done already", as_json=as_json)
    else:
        report_made(made, store, branch=branch, as_json=as_json)


def read_pairs(path: str, version: Version, columns: tuple[str, ...]) -> Interactions:
    """Return the pairs of a file, with ids of the types that they have in the store."""
    from embstore.cli.idinput import id_types
    from embstore.interactions import Interactions

    return Interactions.from_file(path, columns=options.parse_columns(columns), id_type=id_types(version))


def with_features(pairs: Interactions, version: Version, trainer: Trainer, *, user: str | None, item: str | None) -> Interactions:
    """Return ``pairs`` with the features in these files."""
    from dataclasses import replace

    users, items = _features(user, "user", version, trainer), _features(item, "item", version, trainer)
    return replace(pairs, user_features=users, item_features=items)


def _features(path: str | None, entity: str, version: Version, trainer: Trainer) -> Any:
    """Return a frame of features, of the types that they have in the store and in the trainer's tables; None without a file."""
    if path is None:
        return None
    from embstore.feature_files import read_features
    from embstore.features import feature_column

    there = version.schema.entities or {}
    tables = {column: spec for spec in trainer.schema().tables if spec.entity == entity and (column := feature_column(spec))}
    categories = {column: spec.rows_of for column, spec in tables.items() if spec.rows_of in there}
    types = {column: version.ids(of).id_type or "str" for column, of in categories.items() if of}
    own = {entity: version.ids(entity).id_type} if entity in there else {}
    numbers = [column for column, spec in tables.items() if not spec.rows_of]
    return read_features(path, entity, numbers=numbers, id_types=own | types)


def _figures(metrics: Mapping[str, float]) -> str:
    """Return an epoch's metrics on one line, without the numbers of users and targets, which stay the same."""
    shown = {name: value for name, value in metrics.items() if name not in ("users", "dropped_users", "dropped_targets")}
    return "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
