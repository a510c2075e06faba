"""A place in an object store: its URL, the options that lead there, and the engine's storage for it.

The engine does all the rest: it signs, sends and retries, and where no credentials are given it finds them itself, in the
environment or wherever else the tools of that cloud look. Nothing here reads the environment.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import wait
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import icechunk

from embstore.errors import InvalidInputError, StorageError
from embstore.storage.loop import start
from embstore.storage.place_options import SECRET, checked, without_secrets

SCHEMES = ("s3", "gs", "az")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f?#\\]")
T = TypeVar("T")
_SECONDS_BEFORE_LOOKING = 2.0
_SECONDS_TO_REACH = 3.0
_SECONDS_TO_ANSWER = 18.0
# Until the engine has heard that nobody waits any more: it would abort if Python ended before.
_SECONDS_TO_LET_GO = 0.1


class ObjectPlace:
    """A prefix of a bucket, with what is needed to get there.

    Parameters
    ----------
    url
        ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``.
    options
        As in fsspec and pandas; ``docs/object-storage.md`` lists them.

    Raises
    ------
    InvalidInputError
        For a URL with a secret, without a prefix or with one that cannot be stored; for options unknown or wrong.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.scheme, _, rest = url.partition("://")
        self.bucket, self.prefix = _bucket_and_prefix(url, rest)
        self.url = f"{self.scheme}://{self.bucket}/{self.prefix}"
        self._options = checked(self.scheme, options or {})

    @property
    def options(self) -> dict[str, Any]:
        """Return all options, secrets too: for another place of this scheme, never to be shown or stored."""
        return dict(self._options)

    @property
    def public_options(self) -> dict[str, Any]:
        """Return the options without secrets: who takes them up elsewhere finds credentials there."""
        return {name: value for name, value in self._options.items() if name not in SECRET}

    def below(self, name: str) -> ObjectPlace:
        """Return the place ``name`` inside this one."""
        return ObjectPlace(f"{self.url}/{name}", self._options)

    @cached_property
    def storage(self) -> icechunk.Storage:
        """Return the engine's storage; nothing is sent yet."""
        makers: dict[str, Callable[[], icechunk.Storage]] = {"s3": self._s3, "gs": self._gs, "az": self._az}
        return makers[self.scheme]()

    def _s3(self) -> icechunk.Storage:
        given = self._options
        endpoint = given.get("endpoint_url")
        style = given.get("addressing_style", "auto")
        anonymous = given.get("anon", False)
        return icechunk.s3_storage(
            bucket=self.bucket,
            prefix=self.prefix,
            region=given.get("region"),
            endpoint_url=endpoint,
            allow_http=_is_http(endpoint),
            access_key_id=given.get("key"),
            secret_access_key=given.get("secret"),
            session_token=given.get("token"),
            anonymous=anonymous or None,
            from_env=None if anonymous or "key" in given else True,
            # Buckets as parts of host names need a name server that knows them: rare but at Amazon.
            force_path_style=style == "path" or (style == "auto" and endpoint is not None),
            requester_pays=given.get("requester_pays", False),
        )

    def _gs(self) -> icechunk.Storage:
        token, anonymous = self._options.get("token"), self._options.get("anon", False)
        return icechunk.gcs_storage(
            bucket=self.bucket,
            prefix=self.prefix,
            anonymous=anonymous or None,
            from_env=None if anonymous or token else True,
            application_credentials=str(token) if isinstance(token, (str, Path)) else None,
            service_account_key=json.dumps(dict(token)) if isinstance(token, Mapping) else None,
            config=_configured({"google_base_url": self._options.get("endpoint_url")}),
        )

    def _az(self) -> icechunk.Storage:
        given = self._options
        endpoint, anonymous = given.get("endpoint_url"), given.get("anon", False)
        return icechunk.azure_storage(
            account=given["account_name"],
            container=self.bucket,
            prefix=self.prefix,
            access_key=given.get("account_key"),
            sas_token=given.get("sas_token"),
            from_env=None if given.keys() & {"account_key", "sas_token"} else True,
            config=_configured(
                {
                    "azure_storage_endpoint": endpoint,
                    "azure_allow_http": "true" if _is_http(endpoint) else None,
                    "azure_skip_signature": "true" if anonymous else None,
                }
            ),
        )

    def answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return the answer to a request; the engine itself waits for one that never comes.

        Raises
        ------
        StorageError
            If there is none within twenty seconds, or soon nobody at the ``endpoint_url``.
        """

        async def asking() -> T:
            return await ask()

        future = start(asking())
        try:
            waited, reason = wait([future], _SECONDS_BEFORE_LOOKING), None
            if not waited.done and (reason := self._why_unreachable()) is None:
                waited = wait([future], _SECONDS_TO_ANSWER)
            if waited.done:
                return future.result()
        finally:
            if not future.done():
                future.cancel()
                time.sleep(_SECONDS_TO_LET_GO)
        msg = f"{self.url}: no answer from the server ({reason or 'it is silent'}); check endpoint_url and the network"
        raise StorageError(msg)

    def _why_unreachable(self) -> str | None:
        """Return why nobody can be reached at the ``endpoint_url``; None if somebody can, or if none was given."""
        endpoint = self._options.get("endpoint_url")
        if endpoint is None:
            return None
        parts = urlsplit(endpoint)
        try:
            port = parts.port or (80 if parts.scheme == "http" else 443)
            socket.create_connection((str(parts.hostname), port), timeout=_SECONDS_TO_REACH).close()
        except OSError as error:
            return error.strerror or str(error) or type(error).__name__
        return None


def is_object_url(text: str) -> bool:
    """Return whether a URL is one of an object store."""
    return text.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def _bucket_and_prefix(url: str, rest: str) -> tuple[str, str]:
    shown = without_secrets(url)
    if "@" in rest.partition("/")[0]:
        msg = f"store {shown!r}: a URL holds no credentials; give them in storage_options, or leave them to the environment"
        raise InvalidInputError(msg)
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    scheme = url.partition("://")[0]
    if not _BUCKET.fullmatch(bucket) or not prefix:
        msg = f"store {shown!r}: give a bucket and a prefix in it, {scheme}://bucket/prefix"
        raise InvalidInputError(msg)
    if _FORBIDDEN.search(prefix) or any(part in ("", ".", "..") for part in prefix.split("/")):
        msg = f"store {shown!r}: a prefix has no empty part, no . or .. and none of ? # \\ or control characters; take another"
        raise InvalidInputError(msg)
    return bucket, prefix


def _is_http(endpoint: str | None) -> bool:
    return endpoint is not None and endpoint.startswith("http://")


def _configured(settings: Mapping[str, str | None]) -> dict[str, str] | None:
    return {name: value for name, value in settings.items() if value is not None} or None
