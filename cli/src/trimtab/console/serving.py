"""The process that serves the console: on loopback as the user of a kubeconfig, or in a cluster as whoever asks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Collection
from types import FrameType

import uvicorn

from ..errors import Unreachable
from ..server import Server
from .app import Console
from .callers import Callers, OfBearerToken, OfKubeconfig, OfProvider
from .context import Context
from .feeds import Feeds
from .preferences import Preferences
from .provider import Provider
from .sessions import Sessions
from .storage import Storage
from .visits import Visits

LOOPBACK = "127.0.0.1"
HTTP = 80
END_SECONDS = 3
BACKLOG = 128


class _Uvicorn(uvicorn.Server):
    """Says when it answers, and ends streams when it is told to stop: it would wait for their end."""

    def __init__(self, config: uvicorn.Config, console: Console, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._console, self._ready = console, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await asyncio.to_thread(self._ready)  # a browser may hold it up

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._console.end()
        super().handle_exit(sig, frame)


def serve_loopback(server: Server, namespace: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve browsers of this machine until Ctrl-C.

    Args:
        port: 0 takes a free one.
        ready: is given the address, which opens one session, when it is answered at once.

    Raises:
        Unreachable: the port is taken.
    """
    listening = listen(LOOPBACK, port)
    port = listening.getsockname()[1]
    sessions = Sessions()
    callers = OfKubeconfig(server, namespace, sessions, cookie=f"trimtab-{port}")
    context = _context(callers, sessions, server.address, secure=False)
    address = f"http://{LOOPBACK}:{port}/login?token={sessions.invitation()}"
    run(Console(context, loopback_hosts(port)), listening, lambda: ready(address))


def serve_cluster(
    address: str,
    authority: str,
    namespace: str,
    hosts: Collection[str],
    port: int,
    *,
    secure: bool,
    provider: Provider | None = None,
    form_key: bytes | None = None,
) -> None:
    """Serve whoever signs in at a provider; without one, whoever a proxy has authenticated, with the token it sends.

    Args:
        form_key: by which forms are known that another process of the same key has shown.
    """
    sessions = Sessions(form_key)
    cookie = "__Host-trimtab" if secure else "trimtab"
    callers: Callers = (
        OfProvider(address, authority, namespace, cookie, Visits(provider))
        if provider is not None
        else OfBearerToken(address, authority, namespace, cookie)
    )
    context = _context(callers, sessions, address, secure=secure)
    run(Console(context, hosts), listen("0.0.0.0", port))


def _context(callers: Callers, sessions: Sessions, address: str, *, secure: bool) -> Context:
    storage, preferences = Storage.of(os.environ), Preferences.of(os.environ)
    return Context(callers, Feeds(), sessions, address, secure, storage, preferences)


def loopback_hosts(port: int) -> list[str]:
    """Return what browsers of this machine write into Host; of port 80 they leave the port out."""
    names = (LOOPBACK, "localhost")
    return [*(f"{name}:{port}" for name in names), *(names if port == HTTP else ())]


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        Unreachable: the port is taken, or not ours to take.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)  # before anybody is told the address
    except OSError as error:
        listening.close()
        raise Unreachable(f"the port {port} cannot be used ({error.strerror})", "give another with --port") from error
    return listening


def run(console: Console, listening: socket.socket, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until the process is told to end; `ready` is called when requests are taken."""
    config = uvicorn.Config(
        console.app,
        access_log=False,  # addresses may have a token in them, and names are their owners'
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=END_SECONDS,
        h11_max_incomplete_event_size=65_536,
        ws="none",
    )
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
        _Uvicorn(config, console, ready).run(sockets=[listening])
