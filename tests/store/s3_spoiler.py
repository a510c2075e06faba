"""A program between a client and an S3 server, that spoils some conditional writes and passes everything else on.

Run as ``s3_spoiler.py ENDPOINT FILES WHAT PATH SKIP TIMES``; it writes the port that it listens on.
"""

from __future__ import annotations

import hashlib
import http.client
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ENDPOINT, FILES, WHAT, PATH = sys.argv[1:5]
_SKIP, _TIMES = map(int, sys.argv[5:])
_CONDITIONS = ("If-Match", "If-None-Match")
_guard = threading.Lock()
_seen = 0


def _is_next() -> bool:
    """Count one that fits, and return whether it is to be spoiled."""
    global _seen
    with _guard:
        _seen += 1
        return _SKIP < _seen <= _SKIP + _TIMES


class Spoiler(BaseHTTPRequestHandler):
    """One connection of the client."""

    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        if WHAT == "mute":
            time.sleep(3600)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        conditions = [name for name in _CONDITIONS if name in self.headers]
        is_wanted = WHAT in conditions or (bool(conditions) and WHAT not in _CONDITIONS)
        fits = self.command == "PUT" and is_wanted and PATH in self.path
        if not fits or not _is_next():
            self._pass_on(body)
        elif WHAT in _CONDITIONS:
            self._write_anyway(body)
        else:
            self._ask(body)
            if WHAT == "silence":
                time.sleep(3600)
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(urlsplit(ENDPOINT).netloc, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _pass_on(self, body: bytes) -> None:
        status, headers, content = self._ask(body)
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length") or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _write_anyway(self, body: bytes) -> None:
        """Do what a server does that knows no conditions: past S3, for there the request is signed as it is."""
        request = urllib.request.Request(f"{FILES}/buckets{self.path.partition('?')[0]}", body, method="PUT")
        request.add_header("Content-Type", "application/octet-stream")
        urllib.request.urlopen(request, timeout=10).close()
        self.send_response_only(200)
        self.send_header("ETag", f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Spoiler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
