"""What branches and tags lead to, found without reading a line once for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from embstore import Store
from embstore.reaching import EVER, reach
from embstore.storage.retention import Retention
from embstore.storage.walking import Snapshot

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Counting(Retention):
    """Counts the states that it reads."""

    n_read = 0

    def line(self, snapshot_id: str) -> Iterator[Snapshot]:
        """Yield the state and those before it, newest first."""
        for snapshot in super().line(snapshot_id):
            self.n_read += 1
            yield snapshot


@pytest.mark.parametrize("kept", [None, 0, 6, 11, 12])
def test_a_line_is_read_once(store: Store, kept: int | None) -> None:
    """However many tags are on it; what is older than asked for is cut, wherever tags stand, in whatever order they are named."""
    work = store.checkout()
    versions = []
    for day in range(12):
        work.append("user", [day])
        versions.append(work.commit(f"day {day}"))
        store.tag(f"day-{day}")
    repo = work.repo
    written = [repo.snapshot(version.id).written for version in versions]
    since = EVER if kept is None else [*written, datetime.now(UTC)][kept]
    tips = [version.id for version in versions]
    for named in (tips, tips[::-1], tips[1::2] + tips[::2]):
        keeper = Counting(repo.reopened(), repo.location)
        found = reach(keeper, named, merged_since=LONG_AGO, kept_since=since)
        assert keeper.n_read <= 13 + len(tips)
        first = store.at("main~12").id
        parents = {id_: snapshot.parent for id_, snapshot in found.snapshots.items()}
        whole = dict(zip(tips, [first, *tips[:-1]], strict=True))
        if kept is None:
            assert parents == {first: None, **whole}
        else:
            assert parents == {id_: parent if day > kept else None for day, (id_, parent) in enumerate(whole.items())}
