"""Branches of our own beside those of the callers: what the engine must keep, and what it must tell everybody."""

from __future__ import annotations

import re

from embstore.errors import InvalidInputError

LEASE = "lease."
KEPT = "kept."
EXPIRED = "expired."
WAITING = "waiting.turn"
_HIDDEN = re.compile(r"lease\.[0-9a-f]{32}\..*|kept\.[0-9A-Z]{20}|expired\.[0-9]{20}|waiting\.turn")


def is_hidden(branch: str) -> bool:
    """Return whether a branch is ours, not one of the callers."""
    return _HIDDEN.fullmatch(branch) is not None


def check_visible(branch: str) -> None:
    """Raise InvalidInputError for a name that only branches of our own have."""
    if is_hidden(branch):
        msg = f"branch name {branch!r}: such names are the store's own; take another"
        raise InvalidInputError(msg)
