"""How an API server is reached, and as whom: an address, a pool of connections, and the headers that say who asks."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import urllib3

if TYPE_CHECKING:
    from kubernetes.client.configuration import Configuration


TIMES = (("TCP_KEEPIDLE", 15), ("TCP_KEEPALIVE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
ALIVE = [
    *urllib3.connection.HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in TIMES if hasattr(socket, name)),
]
"""A watch whose network is gone, as after a laptop's sleep, ends within half a minute, and not when it would have."""


@dataclass(frozen=True)
class Connection:
    """An API server, and a user of it.

    Attributes:
        pool: follows no redirect and tries nothing twice, whoever asks.
        credentials: makes the headers of a request; it is called for each, because tokens change while a program runs.
    """

    address: str
    pool: urllib3.PoolManager
    credentials: Callable[[], Mapping[str, str]]


def of_configuration(configuration: Configuration, more: Mapping[str, str] | None = None) -> Connection:
    """Return the connection of a configuration of the `kubernetes` package: its proxies, its TLS, its fresh tokens."""
    from kubernetes.client.rest import RESTClientObject

    def credentials() -> Mapping[str, str]:
        token = configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return {**({"Authorization": str(token)} if token else {}), **(more or {})}

    configuration.socket_options = ALIVE
    return Connection(str(configuration.host), RESTClientObject(configuration).pool_manager, credentials)
