"""A serving pod on a control plane without nodes: a ready object, and an engine behind its guard in this process."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from trimtab_agent.guard import Guard

from tests.component.api_server import ApiServer
from tests.serving.asgi_server import AsgiServer
from tests.serving.fake_engine import FakeEngine, with_app


@contextmanager
def serving(
    server: ApiServer, folder: Path, engine: FakeEngine, served: Mapping[str, str]
) -> Iterator[tuple[str, int]]:
    """Serve an engine behind its guard where the API server can reach it; yield address and port.

    Args:
        served: names of adapters, and the revision that answers to each.
    """
    aliases = {name: {"to": {revision: 1}} for name, revision in served.items()}
    (folder / "aliases.json").write_text(json.dumps({"version": 1, "aliases": aliases}))
    (folder / "token").write_text("a-token")
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asgi = AsgiServer(with_app(engine, Guard(engine, str(folder))), host=own_address(server))
    asyncio.run_coroutine_threadsafe(asgi.start(), loop).result(30)
    try:
        yield asgi.host, asgi.port
    finally:
        asyncio.run_coroutine_threadsafe(asgi.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)


def own_address(server: ApiServer) -> str:
    """Return the address by which the API server reaches this process."""
    address = urlsplit(yaml.safe_load(server.kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
    with socket.create_connection((address.hostname or "", address.port or 443)) as cable:
        return str(cable.getsockname()[0])


def make_pod(server: ApiServer, namespace: str, address: str, port: int) -> None:
    """Make a serving pod that is ready, and whose address is the engine's."""
    server.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "default"}})
    container = {"name": "vllm", "image": "none", "ports": [{"name": "http", "containerPort": port}]}
    spec = {"containers": [container], "automountServiceAccountToken": False}
    metadata = {"name": "vllm-0", "labels": {"app": "vllm"}}
    place = f"/api/v1/namespaces/{namespace}/pods"
    answer = server.create(place, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    assert answer.accepted, answer.message
    ready = {"type": "Ready", "status": "True"}
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [ready]}
    answer = server.request("PATCH", f"{place}/vllm-0/status", {"status": status}, "merge")
    assert answer.accepted, answer.message
