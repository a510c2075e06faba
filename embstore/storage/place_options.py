"""What leads to an object store besides its URL: options as in fsspec and pandas, checked before anything is sent.

No message shows the value of an option that might be a secret.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from embstore.errors import InvalidInputError

# Options by scheme, and the type of each. Those of SECRET never leave the process: not in a URL, an error or a pickle.
OPTIONS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "s3": {
        "key": str,
        "secret": str,
        "token": str,
        "anon": bool,
        "endpoint_url": str,
        "region": str,
        "addressing_style": str,
        "requester_pays": bool,
        "client_kwargs": Mapping,
    },
    "gs": {"token": (str, Path, Mapping), "anon": bool, "endpoint_url": str},
    "az": {"account_name": str, "account_key": str, "sas_token": str, "anon": bool, "endpoint_url": str},
}
SECRET = {"key", "secret", "token", "account_key", "sas_token", "client_kwargs"}
_CLIENT_KWARGS = {"endpoint_url": "endpoint_url", "region_name": "region"}  # as s3fs hands them to boto
_STYLES = ("auto", "path", "virtual")
_WORDS = ("anon", "google_default")  # what gcsfs takes for a token that is none


def without_secrets(url: str) -> str:
    """Return a URL that was typed wrong without what might be a password in it."""
    url = re.sub(r"//[^/]*@", "//…@", url)
    return re.sub(r"[?#].+", "?…", url) if "://" in url else url


def checked(scheme: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a place, without those that are None and with those of ``client_kwargs`` beside the others.

    Raises
    ------
    InvalidInputError
        For an option that the scheme does not take, and for values and combinations that cannot be meant.
    """
    options = _unfolded(_typed(scheme, given))
    _check_together(scheme, options)
    if scheme == "gs" and options.get("token") in _WORDS:
        options |= {"anon": True} if options.pop("token") == "anon" else {}
    return options


def _typed(scheme: str, given: Mapping[str, Any]) -> dict[str, Any]:
    types = OPTIONS[scheme]
    unknown = sorted(str(name) for name in given if name not in types)
    if unknown:
        msg = f"storage_options {unknown}: {scheme}:// takes {', '.join(types)}"
        raise InvalidInputError(msg)
    options = {name: value for name, value in given.items() if value is not None}
    for name, value in options.items():
        if not isinstance(value, types[name]) or value == "":
            msg = f"storage_options {name!r}: a value of type {type(value).__name__} is none that {scheme}:// takes for it"
            raise InvalidInputError(msg)
    return options


def _unfolded(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with those of ``client_kwargs`` beside the others."""
    inner = options.pop("client_kwargs", {})
    for name, value in inner.items():
        ours = _CLIENT_KWARGS.get(name)
        if ours is None or not isinstance(value, str):
            msg = f"storage_options client_kwargs {name!r}: give texts as {' and '.join(_CLIENT_KWARGS)}, nothing else"
            raise InvalidInputError(msg)
        if options.setdefault(ours, value) != value:
            msg = f"storage_options {ours!r}: there are two of it, one in client_kwargs; give one"
            raise InvalidInputError(msg)
    return options


def _check_together(scheme: str, options: Mapping[str, Any]) -> None:
    """Raise InvalidInputError where one option needs another, excludes it, or cannot be what it says."""
    credentials = sorted(SECRET & options.keys())
    if options.get("anon") and credentials:
        msg = f"storage_options: anon=True and {', '.join(credentials)}; give one or the other"
        raise InvalidInputError(msg)
    if "endpoint_url" in options:
        _check_endpoint(options["endpoint_url"])
    if scheme == "s3":
        _check_s3(options)
    elif scheme == "gs":
        _check_token(options.get("token"))
    else:
        _check_az(options)


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        right = False
    if not right or "@" in endpoint or "?" in endpoint or "#" in endpoint:
        msg = f"storage_options endpoint_url {without_secrets(endpoint)!r}: give http://host:port or https://host, and no more"
        raise InvalidInputError(msg)


def _check_s3(options: Mapping[str, Any]) -> None:
    if ("key" in options) != ("secret" in options) or ("token" in options and "key" not in options):
        msg = "storage_options: key and secret belong together, and a token to both; give what is missing"
        raise InvalidInputError(msg)
    if options.get("addressing_style", "auto") not in _STYLES:
        msg = f"storage_options addressing_style {options['addressing_style']!r}: give {', '.join(_STYLES)}"
        raise InvalidInputError(msg)


def _check_token(token: Any) -> None:
    """Raise InvalidInputError for a file of credentials that the engine would panic over."""
    if token is None or isinstance(token, Mapping) or token in _WORDS:
        return
    try:
        readable = isinstance(json.loads(Path(token).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        readable = False
    if not readable:  # its value is not shown: somebody may have given the token itself
        msg = "storage_options 'token': give 'google_default', 'anon', a mapping, or the path of a JSON file of credentials"
        raise InvalidInputError(msg)


def _check_az(options: Mapping[str, Any]) -> None:
    if "account_name" not in options:
        msg = "storage_options: az:// needs account_name, whose container it is"
        raise InvalidInputError(msg)
    if {"account_key", "sas_token"} <= options.keys():
        msg = "storage_options: account_key and sas_token; give one of them"
        raise InvalidInputError(msg)
    try:
        base64.b64decode(options.get("account_key", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        msg = "storage_options 'account_key': it is no base64; copy it whole"
        raise InvalidInputError(msg) from error
