"""What the library advises in Python, told in verbs and options."""

from __future__ import annotations

import re

_ADVICE = "--on-conflict rows=mean,dense=ours"
_SEE_IDS = "the verb ids lists what is there"
# The library's words, a verb (empty: any) and what is said there in their place; the first that fits counts.
_WORDS: tuple[tuple[str, str, str], ...] = (
    (r"append first, or pass missing=$", "recommend", f"{_SEE_IDS}, and --unknown popular or mean ranks for others too"),
    (r"append first, or pass missing=$", "", _SEE_IDS),
    (r"make it with store\.branch\('.*'\)$", "", "the verb branch makes one"),
    (r"move it with branch\('main', at=…, move=True\)$", "", "move it with --at REF --move"),
    (
        r"your changes are still here: say with on_conflict= whose stand, or commit\(branch='another-name'\) keeps them$",
        "",
        "nothing is committed; run it again",
    ),
    (
        r"store\.merge\('(.*)', into='(.*)', on_conflict=.*\) brings it home, or train again$",
        "",
        rf"the verb merge brings it home: \1 --into \2 {_ADVICE}",
    ),
    (
        r"store\.merge\('(.*)', on_conflict=.*\) brings it home, or train again$",
        "",
        rf"the verb merge brings it home: \1 {_ADVICE}",
    ),
    (r"say with on_conflict= whose stand \(ours is the branch, theirs the source\)$", "", f"say whose stand, as in {_ADVICE}"),
    (
        r"fold in again or say with on_conflict= whose vectors stand$",
        "",
        "run it again, or say whose stand, as in --on-conflict mean",
    ),
    (r"mend them, or pass allow_nonfinite=True$", "", "nothing is committed; mend the data, or take other settings"),
    (r"records a trainer; pass trainer=$", "", "was trained; use the verb train first"),
    (r"; fit first$", "", "; use the verb train first"),
    (r": its fold_in takes no entity; use fit for new (\w+)$", "", r"; use the verb train for new \1"),
    (r": it has no fold_in\(work, rows, batch\); use fit, or another trainer$", "", "; use the verb train, or another trainer"),
    (r": it has no scores\(view, user_rows\); use another trainer$", "", "; train with another one"),
    (r"^on_conflict=('.*'): ", "", r"--on-conflict \1: "),
    (r"^older_than ('.*'): give .*$", "", r"--older-than \1: give an age such as 30d or 12h"),
    (r"^patience=(\d+) without validation: ", "", r"--patience \1 without --validation: "),
    (r"\(7, not 07\); use id_type='str'$", "", "(7, not 07), as the store's ids are"),
    (r"take another table name$", "", "take another trainer or other settings, or another store"),
    (r"rename the function, or ask once$", "", "name it once"),
    (r"give them in storage_options or set them up where", "", "set them up where"),
    (r"or pass anon=True if the bucket is public", "", "or give --storage-option anon=true if the bucket is public"),
    (r"give region in storage_options, or set it", "", "give --storage-option region=…, or set it"),
    (r"^storage_options", "", "--storage-option"),
)


def told(message: str, verb: str | None) -> str:
    """Return an error's message as somebody can act on it who runs ``verb``."""
    for words, where, instead in _WORDS:
        if where in ("", verb) and re.search(words, message):
            return re.sub(words, instead, message)
    return message
