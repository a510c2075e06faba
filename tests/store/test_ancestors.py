"""What two versions both come from, in graphs of any shape and with clocks that are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings, strategies as st

from embstore.errors import UnknownRefError
from embstore.history import ancestors, common_ancestors


@dataclass(frozen=True)
class Node:
    """As much of a version as its ancestry needs."""

    id: str
    time: int
    parents: tuple[str, ...]

    @property
    def kept_parents(self) -> tuple[str, ...]:
        """Return the parents; here it is found out later which of them are gone."""
        return self.parents


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Node]:
    """Return nodes with up to two parents each, among them some that are expired; times need not follow the order."""
    nodes: dict[str, Node] = {}
    for n in range(draw(st.integers(2, 12))):
        parents = draw(st.lists(st.integers(max(0, n - 4), n - 1), max_size=2, unique=True)) if n else []
        nodes[str(n)] = Node(str(n), n + draw(st.sampled_from([0, 0, 0, 5, -5])), tuple(map(str, parents)))
    return nodes


@settings(max_examples=settings().max_examples * 8)
@given(graphs(), st.data())
def test_common_ancestors(nodes: dict[str, Node], data: st.DataObject) -> None:
    """They are all that both come from, but for those that another of them comes from; each ancestor is walked once."""
    gone = data.draw(st.sets(st.sampled_from(sorted(nodes)), max_size=1))
    one, other = (data.draw(st.sampled_from([node for node in nodes.values() if node.id not in gone])) for _ in range(2))

    def find(version_id: str) -> Any:
        if version_id in gone:
            raise UnknownRefError(version_id)
        return nodes[version_id]

    def known(node: Node) -> set[str]:
        found = {node.id}
        for parent in set(node.parents) - gone:
            found |= known(nodes[parent])
        return found

    both = known(one) & known(other)
    expected = {id_ for id_ in both if not any(id_ in known(nodes[later]) for later in both - {id_})}
    found = [version.id for version in common_ancestors(one, other, find)]  # type: ignore[arg-type]
    assert (set(found), len(found)) == (expected, len(expected))
    walked = [version.id for version in ancestors(one, find)]  # type: ignore[arg-type]
    assert (set(walked), len(walked)) == (known(one), len(known(one)))
