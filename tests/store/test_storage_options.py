"""URLs and options of object stores: what is taken, what is refused, and that no secret is ever told. Nothing answers here."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import embstore
from embstore.errors import InvalidInputError, StorageError

SECRET = "do-not-tell-me"
ACCOUNT_KEY = base64.b64encode(SECRET.encode()).decode()


@pytest.fixture
def closed() -> Iterator[str]:
    """Return an endpoint where nobody is."""
    with socket.socket() as taken:  # bound, so that nobody else gets it, and never listening
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


WRONG_URLS = {
    "s3://bucket": "bucket and a prefix",
    "s3://bucket/": "bucket and a prefix",
    "s3:///prefix": "bucket and a prefix",
    "gs://b u/prefix": "bucket and a prefix",
    "az://container//": "bucket and a prefix",
    "s3://bucket/a//b": "no empty part",
    "s3://bucket/a/../b": "no empty part",
    "s3://bucket/./b": "no empty part",
    "s3://bucket/a\nb": "no empty part",
    "s3://bucket/a?versionId=7": "no empty part",
    f"s3://key:{SECRET}@bucket/a": "holds no credentials",
    f"az://container/a?sv=1&sig={SECRET}": "no empty part",
    f"https://key:{SECRET}@host/a": "give a path",
    f"ftp://key:{SECRET}@[host/a": "give a path",
    "S3://bucket/prefix": "give a path",
}


@pytest.mark.parametrize("url", WRONG_URLS)
def test_urls_that_are_none(url: str) -> None:
    """A URL needs a bucket and a prefix, and has nothing else; what might be a password in it is not repeated."""
    for act in (embstore.open, embstore.create):
        with pytest.raises(InvalidInputError, match=WRONG_URLS[url]) as caught:
            act(url)
        assert SECRET not in str(caught.value)


WRONG_OPTIONS: list[tuple[str, Mapping[str, Any], str]] = [
    ("s3", {"sceret": SECRET}, r"\['sceret'\]: s3:// takes key, secret, token, anon, endpoint_url, region, addressing_style"),
    ("s3", {"profile": "x", "cert": 1}, r"\['cert', 'profile'\]"),
    ("gs", {"key": SECRET}, "gs:// takes token, anon, endpoint_url"),
    ("az", {"connection_string": SECRET}, "az:// takes account_name, account_key, sas_token, anon, endpoint_url"),
    ("s3", {"key": SECRET}, "key and secret belong together"),
    ("s3", {"secret": SECRET}, "key and secret belong together"),
    ("s3", {"token": SECRET}, "key and secret belong together"),
    ("s3", {"key": "k", "secret": SECRET, "anon": True}, "one or the other"),
    ("s3", {"key": "k", "secret": b"do-not-tell-me"}, "'secret': a value of type bytes"),
    ("s3", {"key": "", "secret": SECRET}, "'key': a value of type str"),
    ("s3", {"anon": "yes"}, "'anon': a value of type str"),
    ("s3", {"addressing_style": "best"}, "give auto, path, virtual"),
    ("s3", {"endpoint_url": "localhost:9000"}, "http://host:port"),
    ("s3", {"endpoint_url": "http://host:99999"}, "http://host:port"),
    ("s3", {"endpoint_url": f"http://me:{SECRET}@host"}, "http://host:port"),
    ("s3", {"client_kwargs": {"verify": False}}, "endpoint_url and region_name, nothing else"),
    ("s3", {"client_kwargs": {"aws_secret_access_key": SECRET}}, "endpoint_url and region_name, nothing else"),
    ("s3", {"region": "a", "client_kwargs": {"region_name": "b"}}, "there are two of it"),
    ("gs", {"token": SECRET}, "path of a JSON file"),
    ("gs", {"token": 7}, "'token': a value of type int"),
    ("az", {"account_key": ACCOUNT_KEY}, "needs account_name"),
    ("az", {"account_name": "me", "account_key": f"{SECRET}!"}, "no base64"),
    ("az", {"account_name": "me", "account_key": ACCOUNT_KEY, "sas_token": SECRET}, "give one of them"),
]


@pytest.mark.parametrize(("scheme", "options", "says"), WRONG_OPTIONS)
def test_options_that_are_none(scheme: str, options: Mapping[str, Any], says: str) -> None:
    """An option that is not known is refused with those that are; a wrong one is told without its value."""
    with pytest.raises(InvalidInputError, match=says) as caught:
        embstore.open(f"{scheme}://bucket/prefix", storage_options=options)
    assert (SECRET in str(caught.value), ACCOUNT_KEY in str(caught.value), caught.value.exit_code) == (False, False, 2)


RIGHT_OPTIONS: list[tuple[str, Mapping[str, Any]]] = [
    ("s3", {"key": "k", "secret": SECRET}),
    ("s3", {"key": "k", "secret": SECRET, "token": SECRET, "region": "eu-west-1", "addressing_style": "virtual"}),
    ("s3", {"anon": True, "requester_pays": True, "token": None}),
    ("s3", {"key": "k", "secret": SECRET, "client_kwargs": {"region_name": "eu-west-1"}}),
    ("gs", {"token": "anon"}),
    ("gs", {"anon": True}),
    ("gs", {"token": {"type": "service_account", "client_email": "x", "private_key_id": "k", "disable_oauth": True}}),
    ("az", {"account_name": "me", "account_key": ACCOUNT_KEY}),
    ("az", {"account_name": "me", "sas_token": f"sv=2020&sig={SECRET}"}),
    ("az", {"account_name": "me", "anon": True}),
]


@pytest.mark.parametrize(("scheme", "options"), RIGHT_OPTIONS)
def test_places_where_nobody_is(scheme: str, options: Mapping[str, Any], closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is right is taken, up to the request that nobody answers."""
    monkeypatch.setattr("embstore.storage.object_store._SECONDS_BEFORE_LOOKING", 0.1)
    if isinstance(options.get("token"), dict):
        options = {"token": {**options["token"], "private_key": "", "gcs_base_url": closed}}
    inner = options.get("client_kwargs")
    given = {**options, "client_kwargs": {**inner, "endpoint_url": closed}} if inner else {**options, "endpoint_url": closed}
    with pytest.raises(StorageError, match="no answer from the server .Connection refused") as caught:
        embstore.open(f"{scheme}://bucket/some/prefix", storage_options=given)
    assert (f"{scheme}://bucket/some/prefix" in str(caught.value), SECRET in str(caught.value)) == (True, False)


def test_credentials_of_google_in_a_file(tmp_path: Path, closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token may be a file of credentials; one that is there."""
    monkeypatch.setattr("embstore.storage.object_store._SECONDS_BEFORE_LOOKING", 0.1)
    file = tmp_path / "credentials.json"
    with pytest.raises(InvalidInputError, match="path of a JSON file"):
        embstore.open("gs://bucket/a", storage_options={"token": file})
    user = {"type": "authorized_user", "client_id": "i", "client_secret": SECRET, "refresh_token": SECRET}
    file.write_text(json.dumps(user))
    for token in (file, str(file)):
        with pytest.raises(StorageError) as caught:
            embstore.open("gs://bucket/a", storage_options={"token": token, "endpoint_url": closed})
        assert SECRET not in str(caught.value)


def test_places_that_take_no_options(tmp_path: Path) -> None:
    """A folder and memory take none."""
    for url in (str(tmp_path / "s"), "memory://of-no-options"):
        with pytest.raises(InvalidInputError, match="takes none"):
            embstore.create(url, storage_options={"anon": True})
