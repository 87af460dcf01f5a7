"""A server on loopback that stands before a real storage: it refuses, spoils or counts what passes through it."""

from __future__ import annotations

import http.client
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Refusal = tuple[int, str]
Quirk = Callable[["Asked"], Refusal | None]
Passed = Callable[["Asked", bytes], bytes]


@dataclass(frozen=True)
class Asked:
    """A request as the storage sees it."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Front:
    """A server on loopback that has a quirk, and what it was asked."""

    quirk: Quirk
    behind: str
    asked: list[Asked] = field(default_factory=list)
    sent: Passed = lambda _, body: body
    """What reaches the storage of a request's body."""
    answered: Passed = lambda _, body: body
    """What comes back of an answer's body; less than all of it, or a ConnectionError, is a connection that broke."""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = Asked(handler.command, handler.path, {key.lower(): value for key, value in handler.headers.items()})
        self.asked.append(asked)
        body = handler.rfile.read(int(asked.headers.get("content-length", 0)))
        if (refusal := self.quirk(asked)) is not None:
            status, code = refusal
            self.send(handler, status, {}, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())
            return
        behind = http.client.HTTPConnection(self.behind.removeprefix("http://"), timeout=20)
        behind.request(asked.method, asked.path, self.sent(asked, body), dict(handler.headers))
        found = behind.getresponse()
        headers, body = dict(found.getheaders()), found.read()
        behind.close()
        passed = self.answered(asked, body)
        handler.close_connection = handler.close_connection or len(passed) < len(body)
        self.send(handler, found.status, {"Content-Length": str(len(body)), **headers}, passed)

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        handler.send_response(status)
        for key, value in headers.items():
            if key.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                handler.send_header(key, value)
        handler.send_header("Content-Length", headers.get("Content-Length", str(len(body))))
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def front(quirk: Quirk, behind: str = "") -> Iterator[tuple[Front, int]]:
    """Serve a quirk on a free port."""
    state = Front(quirk, behind)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            state.answer(self)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # whoever asked is gone, or has to think that we are
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state, server.server_port
    finally:
        server.shutdown()
        server.server_close()
