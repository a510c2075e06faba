"""What goes wrong with object stores: answers that are lost, servers that ignore or refuse, writers that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import embstore
from embstore import Store
from embstore.doctor import examine
from embstore.errors import EmbstoreError, StorageError, StoreNotFoundError
from tests.store.s3_server import BUCKET, READER, READERS_SECRET, SECRET, S3Server, spoiled
from tests.store.users import SCHEMA, append, messages

CLOSED_PORT = 9


def test_a_lost_answer_is_no_lost_commit(s3: S3Server, s3_url: str) -> None:
    """Where a move of a branch is done but its answer is lost, the version is there once, and nobody is told otherwise."""
    sound = embstore.create(s3_url, schema=SCHEMA, storage_options=s3.options())
    made = [append(sound, [n]) for n in range(3)]
    acts: list[tuple[str, Callable[[Store], object]]] = [
        ("branch.main", lambda store: append(store, [3])),
        ("branch.b", lambda store: store.branch("b", at=made[0].id)),
        ("branch.b", lambda store: store.branch("b", at=made[1].id, move=True)),
        ("branch.b", lambda store: append(store, [4], branch="b")),
        ("tag.t", lambda store: store.tag("t", at=made[1].id)),
        ("tag.t", lambda store: store.delete_tag("t")),
    ]
    for ref, act in acts:
        with spoiled(s3, what="lose", path=f"refs/{ref}/") as endpoint:
            act(embstore.open(s3_url, storage_options=s3.options(endpoint_url=endpoint)))
    assert messages(sound) == ["users [3]", "users [2]", "users [1]", "users [0]", "create the store"]
    assert (messages(sound, "b"), sound.tags()) == (["users [4]", "users [1]", "users [0]", "create the store"], {})


def test_an_answer_that_never_comes(s3: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit whose answer never comes is looked for in the branch; a server that never says a word is given up."""
    embstore.create(s3_url, schema=SCHEMA, storage_options=s3.options())
    monkeypatch.setattr("embstore.storage.object_store._SECONDS_BEFORE_LOOKING", 0.5)
    monkeypatch.setattr("embstore.storage.object_store._SECONDS_TO_ANSWER", 1.5)
    with spoiled(s3, what="silence", path="refs/branch.main") as endpoint:
        store = embstore.open(s3_url, storage_options=s3.options(endpoint_url=endpoint))
        assert append(store, [1]) == store.at()
    assert messages(embstore.open(s3_url, storage_options=s3.options())) == ["users [1]", "create the store"]
    with spoiled(s3, what="mute") as endpoint, pytest.raises(StorageError, match="no answer from the server"):
        embstore.open(s3_url, storage_options=s3.options(endpoint_url=endpoint))


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_a_server_that_ignores_conditions(s3: S3Server, s3_url: str, header: str) -> None:
    """No store is made with a server that would lose commits; what was begun there does not stand in the way of a better one."""
    with spoiled(s3, what=header, times=1000) as endpoint:
        with pytest.raises(StorageError, match=f"ignores {header}, so it would lose commits"):
            embstore.create(s3_url, schema=SCHEMA, storage_options=s3.options(endpoint_url=endpoint))
        with pytest.raises(EmbstoreError):
            embstore.open(s3_url, storage_options=s3.options(endpoint_url=endpoint))
    assert messages(embstore.create(s3_url, schema=SCHEMA, storage_options=s3.options())) == ["create the store"]


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_the_doctor_of_a_server_that_ignores_conditions(s3: S3Server, s3_url: str, header: str) -> None:
    """A store that was made with a good server and is now behind a bad one is found out; who may only read is told less."""
    embstore.create(s3_url, schema=SCHEMA, storage_options=s3.options())
    assert examine(s3_url, storage_options=s3.options()).ok
    with spoiled(s3, what=header, times=1000) as endpoint:
        found = examine(s3_url, storage_options=s3.options(endpoint_url=endpoint))
    assert (found.wrong, found.is_damaged, f"ignores {header}" in found.findings[0].says) == (["conditional writes"], False, True)
    read = examine(s3_url, storage_options=s3.options(key=READER, secret=READERS_SECRET))
    assert (read.ok, read.findings[0].state, "may only read" in read.findings[0].says) == (True, "note", True)


def test_who_may_only_read(s3: S3Server, s3_url: str) -> None:
    """Credentials that may read are enough to read; nothing can be committed with them, and nothing changes."""
    store = embstore.create(s3_url, schema=SCHEMA, storage_options=s3.options())
    append(store, [1])
    reader = embstore.open(s3_url, storage_options=s3.options(key=READER, secret=READERS_SECRET))
    assert (reader.at().table("user").get([1])[0, 0], reader.verify().ok) == (1.0, True)
    for act in (lambda: append(reader, [2]), lambda: reader.tag("t"), lambda: reader.branch("b")):
        with pytest.raises(StorageError, match="does not allow it"):
            act()
    assert (messages(store), store.tags(), list(store.branches())) == (["users [1]", "create the store"], {}, ["main"])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "secret": ({"secret": "another-secret"}, "does not accept these credentials .SignatureDoesNotMatch"),
    "key": ({"key": "nobody"}, "does not accept these credentials .InvalidAccessKeyId"),
    "nobody": ({"key": None, "secret": None, "anon": True}, "does not allow it .AccessDenied"),
    "port": ({"endpoint_url": f"http://127.0.0.1:{CLOSED_PORT}"}, "no answer from the server .Connection refused"),
    "host": ({"endpoint_url": "http://no-such-host.invalid"}, "no answer from the server"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_leads_nowhere(s3: S3Server, s3_url: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong credentials and servers that cannot be reached are told for what they are, soon, and without the secret."""
    monkeypatch.setattr("embstore.storage.object_store._SECONDS_BEFORE_LOOKING", 0.5)
    other, says = WRONG[what]
    options = s3.options(**other)
    for act in (embstore.open, embstore.create):
        begun = time.monotonic()
        with pytest.raises(StorageError, match=says) as caught:
            act(s3_url, storage_options=options)
        told = "".join(traceback.format_exception(caught.value))
        assert (SECRET in told, "another-secret" in told, caught.value.exit_code) == (False, False, 5)
        assert time.monotonic() - begun < 30


def test_a_bucket_that_is_not_there(s3: S3Server) -> None:
    """A store can neither be made nor found in it."""
    with pytest.raises(StorageError, match="the bucket does not exist"):
        embstore.create("s3://no-such-bucket/x", storage_options=s3.options())
    with pytest.raises((StorageError, StoreNotFoundError), match="bucket"):
        embstore.open("s3://no-such-bucket/x", storage_options=s3.options())


OF_OTHER_CLOUDS: list[tuple[str, dict[str, Any]]] = [
    ("gs", {"token": "anon"}),
    ("gs", {"token": {"type": "service_account", "client_email": "x", "private_key_id": "k", "disable_oauth": True}}),
    ("az", {"account_name": "me", "account_key": "c2VjcmV0"}),
    ("az", {"account_name": "me", "sas_token": "sv=2020&sig=c2VjcmV0"}),
    ("az", {"account_name": "me", "anon": True}),
]


@pytest.mark.parametrize(("scheme", "options"), OF_OTHER_CLOUDS)
def test_a_server_of_another_kind(s3: S3Server, scheme: str, options: dict[str, Any]) -> None:
    """Requests of the other clouds go where they are sent; a server that does not know them says no."""
    if isinstance(options.get("token"), dict):
        options = {"token": {**options["token"], "private_key": "", "gcs_base_url": s3.endpoint}}
    with pytest.raises(StorageError, match="the server does not (allow|accept)"):
        embstore.create(f"{scheme}://{BUCKET}/x", storage_options={**options, "endpoint_url": s3.endpoint})


def test_no_credentials_anywhere(s3: S3Server, s3_url: str) -> None:
    """Where neither options nor environment have any, that is what is said."""
    program = f"import embstore; embstore.open({s3_url!r}, storage_options={s3.options(key=None, secret=None)!r})"
    environment = {name: value for name, value in s3.environment().items() if name not in ("AWS_ACCESS_KEY_ID",)}
    environment |= {"HOME": "/nowhere", "AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "StorageError: storage: no credentials were found" in done.stderr


KILLED_AT_WORK = """
import sys
import numpy as np, embstore
store = embstore.open(sys.argv[1])
while True:
    work = store.checkout()
    n = int(work.dense["n"]) + 1
    rows = work.append("user", range(3 * n, 3 * n + 3))
    work.table("user").scatter(rows, np.full((3, 4), n))
    work.dense["n"] = n
    print("try", n, flush=True)
    print("done", work.commit(str(n)).id, flush=True)
"""


def _kill_writers(url: str, *, kills: int) -> None:
    """Kill a writer again and again, somewhere in its work; what it was told is done must be there, whole."""
    store = embstore.create(url, schema=SCHEMA)
    with store.checkout() as work:
        work.dense["n"] = 0
        work.commit("0")
    acknowledged: list[str] = []
    for number in range(kills):
        writer = subprocess.Popen([sys.executable, "-c", KILLED_AT_WORK, url], stdout=subprocess.PIPE, text=True)
        with writer:
            assert writer.stdout is not None
            assert writer.stdout.readline().startswith("try")
            time.sleep(0.3 * number / kills)
            os.kill(writer.pid, signal.SIGKILL)
            acknowledged += [line.split()[1] for line in writer.stdout if line.startswith("done") and line.endswith("\n")]
    log = list(store.log())
    assert set(acknowledged) <= {version.id for version in log}
    assert [int(version.message) for version in log[:-1]] == list(range(len(log) - 2, -1, -1))
    tip, n = store.at(), len(log) - 2
    assert (tip.entities["user"], int(tip.dense["n"])) == (3 * n, n)
    if n:
        assert tip.table("user").get(range(3, 3 * n + 3))[:, 0].tolist() == np.repeat(np.arange(1, n + 1), 3).tolist()
    assert (store.verify().problems, append(store, [0]).parent) == ([], tip.id)


def test_killed_writers(s3_environment: S3Server, s3_url: str) -> None:
    """Writers killed in the middle of a commit."""
    _kill_writers(s3_url, kills=3)


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_many_killed_writers(s3_environment: S3Server, s3_url: str) -> None:
    """The same at fifty moments."""
    _kill_writers(s3_url, kills=50)
