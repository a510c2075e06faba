"""A real S3 server for tests: SeaweedFS in a process of its own, and before it, where asked for, somebody who spoils things."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUCKET = "tests"
KEY, SECRET = "the-writer", "the-secret-of-the-writer"
READER, READERS_SECRET = "the-reader", "the-secret-of-the-reader"
REGION = "us-east-1"
_SECONDS_TO_START = 60.0
_IDENTITIES = {
    "identities": [
        {
            "name": "writer",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {"name": "reader", "credentials": [{"accessKey": READER, "secretKey": READERS_SECRET}], "actions": ["Read", "List"]},
    ]
}


@dataclass(frozen=True)
class S3Server:
    """A server that runs: where it answers S3, and where its files can be read and written without asking."""

    endpoint: str
    files: str

    def options(self, **other: Any) -> dict[str, Any]:
        """Return the storage options that lead to it, some of them others; None takes one away."""
        options = {"key": KEY, "secret": SECRET, "endpoint_url": self.endpoint, "region": REGION, **other}
        return {name: value for name, value in options.items() if value is not None}

    def environment(self) -> dict[str, str]:
        """Return the environment of a process that finds the credentials there."""
        hidden = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return {**hidden, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}

    def put(self, path: str, content: bytes) -> None:
        """Write an object past S3."""
        request = urllib.request.Request(f"{self.files}/buckets/{BUCKET}/{path}", content, method="PUT")
        request.add_header("Content-Type", "application/octet-stream")
        urllib.request.urlopen(request, timeout=10).close()

    def listing(self, path: str) -> list[str]:
        """Return the names of what is below a path."""
        request = urllib.request.Request(
            f"{self.files}/buckets/{BUCKET}/{path}/?limit=1000", headers={"Accept": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            entries = json.load(answer).get("Entries") or []
        return [entry["FullPath"].rpartition("/")[2] for entry in entries]


@contextmanager
def running_server(folder: Path) -> Iterator[S3Server]:
    """Start a server that keeps its files in ``folder``, wait until it answers, and end it."""
    names = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc", "admin", "admin.grpc")
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    identities = folder / "identities.json"
    identities.write_text(json.dumps(_IDENTITIES))
    arguments = {
        **{f"{name.removesuffix('.grpc')}.port{'.grpc' * name.endswith('.grpc')}": port for name, port in ports.items()},
        **{"dir": folder, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "bucket": BUCKET, "s3.config": identities},
        **{"s3.port.iceberg": 0, "s3.port.lance": 0, "s3.localSocket": "", "filer.localSocket": ""},
        **dict.fromkeys(("s3.autoCreateBucket", "webdav", "admin.ui", "master.telemetry"), "false"),
    }
    command = [str(Path(sys.executable).with_name("weed")), "mini", *(f"-{name}={value}" for name, value in arguments.items())]
    server = S3Server(f"http://127.0.0.1:{ports['s3']}", f"http://127.0.0.1:{ports['filer']}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait_until(lambda: _takes_a_file(server), process, folder / "log")
        yield server
    finally:
        process.kill()
        process.wait()


@contextmanager
def spoiled(server: S3Server, *, what: str, path: str = "", skip: int = 0, times: int = 1) -> Iterator[str]:
    """Run somebody between, who does something else with conditional writes to paths with ``path`` in them; give its endpoint.

    Parameters
    ----------
    what
        ``"If-Match"`` or ``"If-None-Match"``: such a write is done without its condition. ``"lose"``: it is done, and the
        connection ends without an answer. ``"silence"``: it is done, and nothing is ever answered. ``"mute"``: nothing is, nor
        done, of whatever is asked.
    skip, times
        How many such writes pass as they are before, and how many are spoiled.
    """
    command = [sys.executable, str(Path(__file__).with_name("s3_spoiler.py")), server.endpoint, server.files]
    command += [what, path, str(skip), str(times)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _takes_a_file(server: S3Server) -> bool:
    """Return whether the S3 side answers, the bucket is there and a file can be written."""
    try:
        with closing(urllib.request.urlopen(f"{server.endpoint}/{BUCKET}", timeout=5)):
            return False
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 403:
            return False
    except OSError:
        return False
    with suppress(OSError):
        if BUCKET in server.listing("..") or server.listing("") is not None:
            server.put("started", b"yes")
            return True
    return False


def _wait_until(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not is_ready():
        said = log.read_text(errors="replace")[-2000:]
        assert process.poll() is None, f"the S3 server ended: {said}"
        assert time.monotonic() < deadline, f"the S3 server does not answer: {said}"
        time.sleep(0.05)
