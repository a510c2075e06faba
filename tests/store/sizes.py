"""How much the random tests try: the Hypothesis profile (HYPOTHESIS_PROFILE) says it, for those without Hypothesis too."""

from __future__ import annotations

from hypothesis import settings

_USUAL_EXAMPLES = 25


def at_most(number: int) -> int:
    """Return ``number``, or less where the profile has fewer examples than the usual one."""
    return max(1, min(number, number * settings().max_examples // _USUAL_EXAMPLES))
