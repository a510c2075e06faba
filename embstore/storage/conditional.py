"""Whether a server heeds the conditions of a write: only then can no commit to an object store be lost.

Some servers take ``If-None-Match`` and ``If-Match`` and overwrite all the same. Two writers who read the same tip then both
believe that they moved the branch. So nothing is stored with such a server. It is found out with the requests that move branches
and tags, in a repository of its own below the store's prefix.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import icechunk

from embstore.errors import StorageError
from embstore.storage.faults import writing
from embstore.storage.object_store import ObjectPlace
from embstore.storage.opening import begin, open_engine
from embstore.storage.writer import Writer

SCRATCH = "conditional-writes"
_TAG = "made-once"
_STATES = tuple(f"state-{number}" for number in range(5))
# Each round is lost by all but one, where the server heeds the condition; where it does not, most rounds have several winners.
_ROUNDS = 4
# What the engine says of a write whose condition does not hold.
_UNMET = ("already exists", "conflict", "precondition")


def check_conditional_writes(place: ObjectPlace) -> None:
    """Raise StorageError if the server ignores the conditions of a write.

    Raises
    ------
    StorageError
        If it does, or if nothing can be written there.
    """
    scratch = place.below(SCRATCH)
    with writing():
        scratch.answered(lambda: _begin(scratch))
        engine = open_engine(scratch.storage)
        _make_states(engine)
        ignored = scratch.answered(lambda: _ignored(engine))
    if ignored:
        msg = (
            f"{place.url}: the server ignores {' and '.join(ignored)}, so it would lose commits of two writers without a word; "
            "take another server, or a newer version of it"
        )
        raise StorageError(msg)


async def _begin(scratch: ObjectPlace) -> None:
    if not await icechunk.Repository.exists_async(scratch.storage):
        try:
            await begin(scratch.storage)
        except Exception:  # another has just begun it, or nobody can
            if not await icechunk.Repository.exists_async(scratch.storage):
                raise


def _make_states(engine: icechunk.Repository) -> None:
    """Make states that a branch can be moved to, each with a branch of its own; those of an earlier time serve again."""
    for name in sorted(set(_STATES) - engine.list_branches()):
        session = engine.writable_session("main")
        writer = Writer(session.store)
        writer.set_group("", {"written by": name})
        writer.settle()
        made = session.flush(name)
        if name not in engine.list_branches():
            engine.create_branch(name, made)


async def _ignored(engine: icechunk.Repository) -> list[str]:
    """Return the headers that the server ignores."""
    heeded = {"If-None-Match": await _heeds_none_match(engine), "If-Match": await _heeds_match(engine)}
    return [header for header, is_heeded in heeded.items() if not is_heeded]


async def _heeds_none_match(engine: icechunk.Repository) -> bool:
    """Return whether a tag that exists cannot be made again."""
    state = await engine.lookup_branch_async(_STATES[0])
    if _TAG not in await engine.list_tags_async():
        await _is_done(engine.create_tag_async(_TAG, state))  # or another does it at the same moment
    return not await _is_done(engine.create_tag_async(_TAG, state))


async def _heeds_match(engine: icechunk.Repository) -> bool:
    """Return whether of several who move a branch away from one state at most one does."""
    states = [await engine.lookup_branch_async(name) for name in _STATES]
    for _ in range(_ROUNDS):
        tip = await engine.lookup_branch_async("main")
        moves = [engine.reset_branch_async("main", state, from_snapshot_id=tip) for state in states if state != tip]
        if sum(await asyncio.gather(*map(_is_done, moves))) > 1:
            return False
    return True


async def _is_done(write: Awaitable[object]) -> bool:
    """Return whether a write is done; what fails for another reason than its condition is raised."""
    try:
        await write
    except Exception as error:
        if not any(sign in str(error).lower() for sign in _UNMET):
            raise
        return False
    return True
