"""Ports for programs that are told where to listen, and cannot choose for themselves."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ports: Iterator[int] | None = None


def free_port(host: str = "") -> int:
    """Return a port that nothing listens on and that was not given before, below those that outgoing connections get.

    What is killed may come back to its ports, and must find them free then: so each worker has ports of its own.
    """
    global _ports
    if _ports is None:
        end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        own = [*range(10_000, end)][worker::workers]
        random.SystemRandom().shuffle(own)
        _ports = iter(own)
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind((host, port))
            return port
    raise AssertionError("no port is left")
