"""Server of one file on this machine, which breaks off, stalls, lies about ranges or sends something else."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CONTENT = os.urandom(300_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content`` at any address but /missing."""

    daemon_threads = False  # so that closing waits for them
    content = CONTENT
    ranges = True
    stop_after: int | None = None  # bytes after which it breaks off
    stall = False  # rather than break off
    lengths = True  # whether it says how long an answer is
    answer: bytes | None = None  # sent as it is in the place of all this
    shift = 0  # bytes by which a range begins elsewhere than was asked for

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.gone = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/a/data.tgz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.asked.append(wanted)
        if self.path == "/missing":
            return self.send_error(404)
        if server.answer is not None:
            self.wfile.write(server.answer)
            return None
        start = int(wanted[6:-1]) if wanted and server.ranges else 0
        if start >= len(server.content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            start += server.shift
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.lengths:
            self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start : None if server.stop_after is None else start + server.stop_after])
        if server.stall:
            server.gone.wait(20)
        return None

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve() -> Iterator[Server]:
    """Start a server, and end it and its threads."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.gone.set()
            server.shutdown()
            thread.join()
