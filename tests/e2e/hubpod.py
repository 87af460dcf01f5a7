"""The hub of the trainer's tests as a pod: gated, with a model, rows and data of a task, read from the storage."""

from __future__ import annotations

import json
import time
import urllib.request
from dataclasses import dataclass
from typing import Any

from deploy.demo.api import Body
from deploy.demo.installation import ROOT, STORAGE, Forward
from tests.component.patience import Patience
from tests.e2e.serverpod import server
from tests.e2e.tenants import Tenant

PORT = 8080
TOKEN = "hf_of-the-tests"
MODEL, ROWS, SUMS = "tiny/llama", "tiny/rows", "openai/gsm8k"
REPOSITORIES = {
    f"models/{MODEL}": "s3://models/sharded",
    f"datasets/{ROWS}": "s3://datasets/tiny",
    f"datasets/{SUMS}": "s3://datasets/gsm8k",
}
"""What the hub has, and where in the storage it reads it."""
SERVER = ROOT / "tests/trainer/hub/server.py"

SERVE = f"""
import server
from trimtab_trainer.contract import Credentials
from trimtab_trainer.storage import open_store
hub = server.Hub("", {PORT})
hub.elsewhere = "http://files:{PORT}"
hub.tokens.add("{TOKEN}")
for key, uri in {REPOSITORIES!r}.items():
    store = open_store(uri, Credentials(directory="/keys"))
    hub.repository(key).commit({{info.path: store.read(info.path) for info in store.list()}})
    hub.repository(key).gated = True
hub.server.serve_forever()
"""


def hub(tenant: Tenant) -> list[Body]:
    """Return a hub, its Secret, and the policies that let mirror pods, and no others, reach it."""
    metadata = {"namespace": tenant.namespace, "name": "hub"}
    mirrors = {"podSelector": {"matchLabels": {"trimtab.dev/stage": "mirror"}}}
    at_hub = [{"protocol": "TCP", "port": PORT}]
    in_storage = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": STORAGE}}}
    policy = {
        "podSelector": {"matchLabels": {"app": "hub"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [mirrors], "ports": at_hub}],
        "egress": [{"to": [in_storage]}, {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}],
    }
    files = {"selector": {"app": "hub"}, "ports": [{"port": PORT}]}
    code = {"server.py": SERVER.read_text(), "serve.py": SERVE}
    secret = {"HF_TOKEN": TOKEN, "HF_ENDPOINT": f"http://hub:{PORT}"}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": secret},
        {"apiVersion": "v1", "kind": "Service", "metadata": {**metadata, "name": "files"}, "spec": files},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": policy},
        *server(tenant, "hub", PORT, code, memory="256Mi", keys="object-storage"),
    ]


def way_out(tenant: Tenant) -> Body:
    """Return the policy of the samples for a hub, for this one."""
    spec = {
        "podSelector": {"matchLabels": {"trimtab.dev/stage": "mirror"}},
        "policyTypes": ["Egress"],
        "egress": [
            {
                "to": [{"podSelector": {"matchLabels": {"app": "hub"}}}],
                "ports": [{"protocol": "TCP", "port": PORT}],
            }
        ],
    }
    metadata = {"namespace": tenant.namespace, "name": "to-the-hub"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


@dataclass(frozen=True)
class Control:
    """What the hub was asked, and the faults it makes, from outside."""

    forward: Forward

    def asked(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._send("asked")
        return found

    def files(self) -> list[tuple[str, int]]:
        """Return the large files that were sent, at least in part, and how much of each."""
        large = [each for each in self.asked() if "x-signature" in each["path"]]
        return [(each["path"].partition("?")[0].rpartition("/")[2], each["sent"]) for each in large]

    def faults(self, **faults: Any) -> None:
        self._send("faults", json.dumps(faults).encode())

    def _send(self, path: str, body: bytes | None = None) -> Any:
        """Ask until there is an answer: a port that is forwarded is not there at once, nor for ever."""
        patience = Patience("an answer of the hub")
        request = urllib.request.Request(f"{self.forward.url}/-/{path}", body, method="PUT" if body else "GET")
        while True:
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return json.load(answer)
            except OSError as error:
                patience.spend(str(error))
                self.forward.ensure()
                time.sleep(0.5)
