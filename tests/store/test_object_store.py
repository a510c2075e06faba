"""Stores in an object store: a real S3 server in a process of its own, started and ended by the tests."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import embstore
from embstore.errors import ConflictError, EmbstoreError, NameExistsError, NameSpentError, StoreExistsError, StoreNotFoundError
from tests.cli_running import json_of, text_of
from tests.store.s3_server import BUCKET, SECRET, S3Server
from tests.store.users import SCHEMA, append, messages
from tools import writers


def test_the_life_of_a_store(s3: S3Server, s3_url: str) -> None:
    """Versions, conflicts, branches, tags, diffs, reverting, compacting and verifying are as they are in a folder."""
    store = embstore.create(s3_url, schema=SCHEMA, storage_options=s3.options())
    first = append(store, [1, 2, 3])
    store.tag("v1")
    with store.checkout() as work:
        users, items = work.ids("user").rows([1, 3]), work.append("item", ["a", "b"])
        work.consumed.append(users, items)
        work.table("user").scatter(users, np.full((2, 4), 9.0))
        work.dense["w"] = [1.5, 2.5]
        work.commit("second", metadata={"by": "ann"})
    again = embstore.open(s3_url, storage_options=s3.options())
    tip = again.at()
    assert (tip.entities, tip.table("user").get([3, 2])[:, 0].tolist(), tip.metadata) == (
        {"item": 2, "user": 3},
        [9.0, 2.0],
        {"by": "ann"},
    )
    assert [ids.tolist() for ids in tip.consumed.of("user", [1, 2, 3])] == [["a"], [], ["b"]]
    assert (again.tags(), again.diff("v1").tables["user"].changed_ids.tolist()) == ({"v1": first.id}, [1, 3])
    again.branch("exp", at="v1")
    append(again, [7], branch="exp")
    assert messages(store, "exp") == ["users [7]", "users [1, 2, 3]", "create the store"]
    store.branch("exp", at="v1", move=True)
    assert store.branches() == {"exp": first.id, "main": tip.id}
    assert store.revert("v1").ids("user").ids().tolist() == [1, 2, 3]
    assert store.at().table("user").get([1, 3])[:, 0].tolist() == [1.0, 3.0]
    tip = store.at()
    assert not store.diff(tip.id, store.compact().id).tables["user"].changed_ids.size
    assert {problem for version in store.log() for problem in store.verify(version.id, deep=True).problems} == set()
    store.delete_branch("exp")
    store.expire("1d", dry_run=False)
    assert store.gc("1d", dry_run=False).problems == []
    assert (messages(again)[-1], store.verify().problems) == ("create the store", [])
    store.delete_tag("v1")
    with pytest.raises(NameSpentError):
        store.tag("v1")
    assert (list(again.branches()), again.tags()) == (["main"], {})


def test_two_that_change_the_same(s3: S3Server, s3_url: str) -> None:
    """Who commits second is told, loses nothing, and may say how it is to be settled."""
    store = embstore.create(s3_url, schema=SCHEMA, storage_options=s3.options())
    append(store, [1, 2])
    one, other, third = (store.checkout() for _ in range(3))
    for value, work in enumerate((one, other, third), 5):
        work.table("user").scatter([0], np.full((1, 4), value))
        work.append("user", [10 * value])
    one.commit("one")
    with pytest.raises(ConflictError, match="user"):
        other.commit("other")
    other.commit("other", branch="kept")
    assert store.at("kept").table("user").get([1])[0, 0] == 6.0
    third.commit("third", on_conflict="ours")
    assert messages(store) == ["third", "one", "users [1, 2]", "create the store"]
    assert (store.at().table("user").get([1])[0, 0], store.at().ids("user").ids().tolist()) == (7.0, [1, 2, 50, 70])


def test_many_commits_of_two_processes(s3_environment: S3Server, s3_url: str) -> None:
    """Two processes commit without any lock, and nothing is lost."""
    store = embstore.create(s3_url, schema=writers.SCHEMA)
    assert writers.problems(store, writers.run(s3_url, writers=2, commits=4)) == []


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_two_hundred_commits_of_two_processes(s3_environment: S3Server, s3_url: str) -> None:
    """The same for long, and once with somebody who makes tags and somebody who compacts."""
    for busy, commits in ((False, 100), (True, 40)):
        url = f"{s3_url}/{busy}"
        store = embstore.create(url, schema=writers.SCHEMA)
        assert writers.problems(store, writers.run(url, writers=2, commits=commits, busy=busy)) == []


def test_one_of_many_makes_it(s3: S3Server, s3_url: str) -> None:
    """Of several who make the same store, branch or tag at the same moment, one does, and the others are told."""
    handles = [embstore.create(f"{s3_url}/made", schema=SCHEMA, storage_options=s3.options())]
    handles += [embstore.open(f"{s3_url}/made", storage_options=s3.options()) for _ in range(3)]
    for number, store in enumerate(handles):
        append(store, [number])

    def outcomes(act: Callable[[int], object]) -> list[type[EmbstoreError] | None]:
        def outcome(number: int) -> type[EmbstoreError] | None:
            try:
                act(number)
            except EmbstoreError as error:
                return type(error)
            return None

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(outcome, range(4)))

    def create(_: int) -> None:
        embstore.create(f"{s3_url}/new", schema=SCHEMA, storage_options=s3.options())

    made = outcomes(create)
    assert (made.count(None), made.count(StoreExistsError)) == (1, 3)
    for kind in ("branch", "tag"):
        made = outcomes(lambda number, kind=kind: getattr(handles[number], kind)(f"the-{kind}", at=f"main~{number}"))
        assert (made.count(None), made.count(NameExistsError)) == (1, 3)
    assert outcomes(lambda number: handles[number].branch("the-branch", at=f"main~{number}", move=True)) == [None] * 4
    assert set(handles[0].branches()) == {"main", "the-branch"}
    assert messages(embstore.open(f"{s3_url}/new", storage_options=s3.options())) == ["create the store"]


def test_what_is_there_already(s3: S3Server, s3_url: str) -> None:
    """A prefix with anything below it is taken, one that only begins alike is not."""
    options = s3.options()
    path = s3_url.removeprefix(f"s3://{BUCKET}/")
    with pytest.raises(StoreNotFoundError, match="create"):
        embstore.open(s3_url, storage_options=options)
    s3.put(f"{path}/notes.txt", b"notes")
    s3.put(f"{path}-notes.txt", b"notes")
    with pytest.raises(StoreExistsError, match="prefix"):
        embstore.create(s3_url, storage_options=options)
    embstore.create(f"{s3_url}-notes", storage_options=options)
    for url in (f"{s3_url}-notes", f"{s3_url}-notes/"):
        with pytest.raises(StoreExistsError):
            embstore.create(url, storage_options=options)
    assert (s3.listing(path), embstore.open(f"{s3_url}-notes/", storage_options=options).url) == (
        ["notes.txt"],
        f"{s3_url}-notes",
    )


READ_A_PICKLED_VERSION = """
import pickle, sys
version = pickle.load(open(sys.argv[1], "rb"))
print(version.id, version.table("user").get([1])[0, 0])
"""


def test_a_version_goes_to_another_process_without_secrets(s3: S3Server, s3_url: str, tmp_path: Path) -> None:
    """A pickled version holds no secret, and is read where the environment has the credentials."""
    version = append(embstore.create(s3_url, schema=SCHEMA, storage_options=s3.options()), [1])
    (tmp_path / "version").write_bytes(pickle.dumps(version))
    for secret in (SECRET, "the-writer"):
        assert secret.encode() not in (tmp_path / "version").read_bytes()
        assert secret not in repr((version, embstore.open(s3_url, storage_options=s3.options())))
        assert secret not in str((version.lineage, version.metadata))
    program = [sys.executable, "-c", READ_A_PICKLED_VERSION, str(tmp_path / "version")]
    done = subprocess.run(program, env=s3.environment(), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{version.id} 1.0\n", "")


def test_the_command_line(s3_environment: S3Server, s3_url: str, tmp_path: Path) -> None:
    """Verbs take a URL where they take a folder; what is no secret may be given by option."""
    option = ("--storage-option", f"endpoint_url={s3_environment.endpoint}")
    assert "version" in text_of("init", s3_url, "--entity", "user=str", *option)
    (tmp_path / "users.csv").write_text("user\nann\nben\n")
    text_of("append", s3_url, "user", tmp_path / "users.csv", "-m", "two users", *option)
    assert json_of("ids", s3_url, "user", *option) == json_of("ids", s3_url, "user") == ["ann", "ben"]
    text_of("export", s3_url, f"{s3_url}-copy", *option)
    told = json_of("doctor", f"{s3_url}-copy", *option)
    assert [(finding["what"], finding["state"]) for finding in told["findings"]] == [
        ("conditional writes", "ok"),
        ("store", "ok"),
        ("leases", "ok"),
        ("leftovers", "ok"),
        ("libraries", "ok"),
    ]


def test_exports_between_places(s3: S3Server, s3_url: str, tmp_path: Path) -> None:
    """A version goes from a folder to an object store, within one, and back; equal by id each time."""
    store = embstore.create(tmp_path / "here", schema=SCHEMA)
    append(store, [1, 2, 3])
    there = store.export(f"{s3_url}/a", storage_options=s3.options())
    other = there.export(f"{s3_url}/b")
    back = other.export(tmp_path / "back")
    for made in (there, other, back):
        assert (made.at().ids("user").ids().tolist(), made.verify().ok) == ([1, 2, 3], True)
        assert made.at().table("user").get([3]).tolist() == store.at().table("user").get([3]).tolist()
    with pytest.raises(StoreExistsError):
        store.export(f"{s3_url}/a", storage_options=s3.options())
