"""Trainers by name: built-ins and those of others come in by the same door, the entry points ``embstore.trainers``."""

from __future__ import annotations

import importlib.util
from dataclasses import is_dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from embstore.checkout import Checkout
from embstore.errors import InvalidInputError, UnknownTrainerError
from embstore.lineage import trained_by
from embstore.torchless import NEEDS_TORCH
from embstore.trainer import Trainer, with_settings
from embstore.version import Version

GROUP = "embstore.trainers"
_BUILT_IN = "trainers"
_ROOT = Path(__file__).resolve().parent.parent


def find_trainer(name: str) -> type[Any]:
    """Return the class of the trainer called ``name``.

    Raises
    ------
    UnknownTrainerError
        If none of that name is installed, or it cannot be imported, is hidden by a folder of the same name, or is no trainer.
    """
    found = {(entry.value, _origin(entry)): entry for entry in entry_points(group=GROUP) if entry.name == name}
    if not found:
        msg = f"trainer {name!r}: there is {', '.join(installed_trainers()) or 'none'}; install the package that has it"
        raise UnknownTrainerError(msg)
    if len(found) > 1:
        msg = (
            f"trainer {name!r}: {' and '.join(sorted(_origin(e) for e in found.values()))} both bring one; uninstall one of them"
        )
        raise UnknownTrainerError(msg)
    return _load(*found.values())


def installed_trainers() -> dict[str, str]:
    """Return the names of all installed trainers, sorted, and where each is from; nothing of them is imported."""
    return {entry.name: _origin(entry) for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def trainer_of(view: Version | Checkout) -> Trainer:
    """Return the trainer, with its settings, that the newest lineage of ``view`` names; a revert counts as what it reverted to.

    Raises
    ------
    InvalidInputError
        If no lineage names one.
    UnknownTrainerError
        If it is not installed, or no longer has such a setting.
    """
    found = trained_by(view.version.id if isinstance(view, Checkout) else view.id, view.repo.ancestry)
    if found:
        return with_settings(find_trainer(found["trainer"]), found["settings"])
    msg = "no version up to here records a trainer; pass trainer="
    raise InvalidInputError(msg)


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _load(entry: EntryPoint) -> type[Any]:
    _check_not_hidden(entry)
    try:
        kind = entry.load()
    except Exception as error:  # whatever a stranger's module raises while it is imported
        lacks_torch = isinstance(error, ModuleNotFoundError) and error.name == "torch"
        reason = f"it {NEEDS_TORCH}" if lacks_torch else f"{error}; install what it needs, or mend it"
        msg = f"trainer {entry.name!r} of {_origin(entry)} cannot be imported: {reason}"
        raise UnknownTrainerError(msg) from error
    if not isinstance(kind, type) or not is_dataclass(kind) or getattr(kind, "name", None) != entry.name:
        msg = f"trainer {entry.name!r} of {_origin(entry)}: {entry.value} is no dataclass with name = {entry.name!r}; mend it"
        raise UnknownTrainerError(msg)
    return kind


def _check_not_hidden(entry: EntryPoint) -> None:
    """Refuse a folder or module ``trainers`` that comes before ours on the path, without importing it."""
    if entry.module.partition(".")[0] != _BUILT_IN or entry.dist is None or entry.dist.name != "embstore":
        return
    spec = importlib.util.find_spec(_BUILT_IN)
    places = [] if spec is None else [*(spec.submodule_search_locations or []), *([spec.origin] if spec.origin else [])]
    ours = _ROOT / _BUILT_IN
    if places and not any(Path(place).resolve() in (ours, ours / "__init__.py") for place in places):
        msg = f"{places[0]} hides the built-in trainers; run from another folder, or rename it"
        raise UnknownTrainerError(msg)
