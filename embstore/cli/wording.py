"""What the library advises in Python, told in verbs and options."""

from __future__ import annotations

import re

_SEE_IDS = "the verb ids lists what is there"
# The library's words, a verb (empty: any) and what is said there in their place; the first that fits counts.
_WORDS: tuple[tuple[str, str, str], ...] = (
    (r"append first, or pass missing=$", "recommend", f"{_SEE_IDS}, and --unknown popular or mean ranks for others too"),
    (r"append first, or pass missing=$", "", _SEE_IDS),
    (r"make it with store\.branch\('.*'\)$", "", "the verb branch makes one"),
    (r"move it with branch\('main', at=…, move=True\)$", "", "move it with --at REF --move"),
    (r"your changes are still here: commit\(branch='another-name'\) keeps them$", "", "nothing is committed; run it again"),
    (r"merge it or train again$", "", "take it with the verb branch (--at and --move), or train again"),
    (r"mend them, or pass allow_nonfinite=True$", "", "nothing is committed; mend the data, or take other settings"),
    (r"records a trainer; pass trainer=$", "", "was trained; use the verb train first"),
    (r"; fit first$", "", "; use the verb train first"),
    (r": its fold_in takes no entity; use fit for new (\w+)$", "", r"; use the verb train for new \1"),
    (r": it has no fold_in\(work, rows, batch\); use fit, or another trainer$", "", "; use the verb train, or another trainer"),
    (r": it has no scores\(view, user_rows\); use another trainer$", "", "; train with another one"),
    (r"^on_conflict=('.*'): ", "", r"--on-conflict \1: "),
    (r"^patience=(\d+) without validation: ", "", r"--patience \1 without --validation: "),
    (r"\(7, not 07\); use id_type='str'$", "", "(7, not 07), as the store's ids are"),
    (r"take another table name$", "", "take another trainer or other settings, or another store"),
    (r"rename the function, or ask once$", "", "name it once"),
)


def told(message: str, verb: str | None) -> str:
    """Return an error's message as somebody can act on it who runs ``verb``."""
    for words, where, instead in _WORDS:
        if where in ("", verb) and re.search(words, message):
            return re.sub(words, instead, message)
    return message
