"""A real Kueue beside the control plane: its own manifests, and its manager as a process in the node's network.

What a kubelet would do for its pod is done here: the token of its service account, its certificate as a file, and the
address behind its Service. Everything else is as in a cluster: its roles, its webhooks, the certificates it makes.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml
from trimtab_local import Cluster, binaries, toolchain
from trimtab_local.progress import Word, run

from tests.component.api_server import ApiServer
from tests.component.patience import Patience

Body = dict[str, Any]

MODULE = binaries.Module(Path(__file__).parent / "go", {"kueue": "sigs.k8s.io/kueue/cmd/kueue"})
API = "kueue.x-k8s.io/v1beta2"
NAMESPACE, SERVICE, SECRET = "kueue-system", "kueue-webhook-service", "kueue-webhook-server-cert"
ACCOUNT = "kueue-controller-manager"
WEBHOOK_PORT = 9443
LEFT_OUT = frozenset({"Deployment", "APIService"})
"""The process stands for the Deployment, and nobody asks for the visibility of queues."""


def install(cluster: Cluster) -> None:
    """Apply Kueue's manifests, of the version that go.mod names."""
    go: list[Word] = [toolchain.go(MODULE.folder), "-C", MODULE.folder]
    downloaded = json.loads(run([*go, "mod", "download", "-json", "sigs.k8s.io/kueue"]))
    rendered = yaml.safe_load_all(cluster.kubectl("kustomize", f"{downloaded['Dir']}/config/default"))
    objects = [body for body in rendered if body["kind"] not in LEFT_OUT]
    for body in objects:
        if body["kind"] == "Service":
            del body["spec"]["selector"]  # there is no pod: the address is given below
    address = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{SERVICE}-process",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": SERVICE},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [cluster.instance.address], "conditions": {"ready": True}}],
        "ports": [{"port": WEBHOOK_PORT, "protocol": "TCP"}],
    }
    listed = {"apiVersion": "v1", "kind": "List", "items": [*objects, address]}
    cluster.kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(listed))


class Kueue:
    """The manager with one configuration."""

    def __init__(self, cluster: Cluster, folder: Path, **configuration: object) -> None:
        self._cluster, self._folder = cluster, folder
        self._server = ApiServer(cluster.kubeconfig)
        self._configuration = {
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "metrics": {"bindAddress": "0"},
            "webhook": {"port": WEBHOOK_PORT, "certDir": str(folder / "certificates")},
            "leaderElection": {"leaderElect": False},
            "integrations": {"frameworks": ["batch/job"]},
            "featureGates": {"VisibilityOnDemand": False},
            "clientConnection": {"qps": 200, "burst": 400},
            **configuration,
        }
        self._log = folder / "kueue.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until its webhooks answer."""
        folder = self._folder
        (folder / "kueue.yaml").write_text(json.dumps(self._configuration))
        (folder / "kubeconfig").write_text(json.dumps(self._kubeconfig()))
        program = binaries.ensure(module=MODULE) / "kueue"
        inside = ["nsenter", "--target", str(self._cluster.pid()), "--net", "--"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*inside, program, f"--config={folder / 'kueue.yaml'}", "--zap-log-level=2"],
                env={**os.environ, "KUBECONFIG": str(folder / "kubeconfig"), "GOGC": "400"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        patience = Patience("Kueue ready")
        while not (self._mounted() and self._ready()):
            assert self._process.poll() is None, f"Kueue ended:\n{self.tail()}"
            patience.spend(self.tail)
            time.sleep(0.2)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def _kubeconfig(self) -> Body:
        """Return the administrator's, with the token of Kueue's service account in place of the certificate."""
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
        answer = self._server.create(path, {"spec": {"expirationSeconds": 86400}})
        assert answer.accepted, answer.message
        config: Body = yaml.safe_load(self._cluster.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": answer.body["status"]["token"]}
        return config

    def _mounted(self) -> bool:
        """Write the certificate that Kueue has put into its Secret to where its pod would see it."""
        answer = self._server.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{SECRET}")
        data = answer.body.get("data") or {}
        folder = self._folder / "certificates"
        if "tls.crt" in data and not folder.exists():
            fresh = self._folder / "fresh"
            fresh.mkdir()
            for name, content in data.items():
                (fresh / name).write_bytes(base64.b64decode(content))
            fresh.rename(folder)
        return folder.exists()

    def _ready(self) -> bool:
        """Tell whether the API server reaches its webhooks."""
        flavor = {"apiVersion": API, "kind": "ResourceFlavor", "metadata": {"name": "ready"}}
        return self._server.create(f"/apis/{API}/resourceflavors", flavor, dryRun="All").accepted
