"""zitadel/oidc's own provider, compiled once, with two users; and an API server that takes its ID tokens."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
import yaml
from trimtab_local import binaries

from tests.component.api_server import ApiServer
from tests.component.patience import Patience
from tests.unit.cli.certificates import authority

ROOT = Path(__file__).parents[3]
PROVIDER = binaries.Module(ROOT / "tests/console/provider", {"provider": "."})
CLIENT, SECRET, PASSWORD = "trimtab", "a-secret-of-the-client", "a-password"
USERS = {"jane": "id-of-jane", "eve": "id-of-eve"}


@dataclass(frozen=True)
class Running:
    """A provider.

    Attributes:
        authority: file with who signed its certificate.
    """

    issuer: str
    authority: Path


@contextlib.contextmanager
def provider(folder: Path, host: str, port: int, back: str, lifetime: str = "1h") -> Iterator[Running]:
    """Run a provider at an address of this machine.

    Args:
        back: where it leads people back to.
        lifetime: of its ID tokens.
    """
    program = binaries.ensure(module=PROVIDER) / "provider"
    mine = authority(folder)
    pair = mine.issue("provider", host)
    users = {id_: {"ID": id_, "Username": name, "Password": PASSWORD} for name, id_ in USERS.items()}
    (folder / "users.json").write_text(json.dumps(users))
    issuer = f"https://{host}:{port}"
    options = {
        "issuer": issuer, "listen": f"{host}:{port}", "certificate": pair.certificate, "key": pair.key,
        "users": folder / "users.json", "client": CLIENT, "secret": SECRET, "redirect": back, "lifetime": lifetime,
    }  # fmt: skip
    with (folder / "provider.log").open("wb") as log:
        command = [str(program), *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        patience = Patience("the provider")
        while True:
            assert process.poll() is None, (folder / "provider.log").read_text()
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{issuer}/healthz", verify=str(mine.pair.certificate), timeout=10).ok:
                    break
            patience.spend((folder / "provider.log").read_text())
            time.sleep(0.05)
        yield Running(issuer, mine.pair.certificate)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def taken_by(server: ApiServer, folder: Path, *issuers: Running) -> Iterator[None]:
    """Let an API server take ID tokens of issuers, whose users are `oidc:<subject>` there.

    Args:
        folder: of the cluster, whose API server reads its authentication.yaml again when it changes.
    """
    file = folder / "authentication.yaml"
    before = file.read_text()
    told = yaml.safe_load(before)
    told["jwt"] = [
        {
            "issuer": {
                "url": each.issuer,
                "audiences": [CLIENT],
                "certificateAuthority": each.authority.read_text(),
            },
            "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"}},
        }
        for each in issuers
    ]
    settle(server, file, yaml.safe_dump(told))
    try:
        yield
    finally:
        settle(server, file, before)


def settle(server: ApiServer, file: Path, text: str) -> None:
    """Write settings, and wait until the API server goes by them: it tells the hash of those that it has."""
    file.write_text(text)
    wanted, patience = hashlib.sha256(text.encode()).hexdigest(), Patience("the API server's new settings")
    while not any(wanted in line for line in metrics(server)):
        patience.spend(metrics(server))
        time.sleep(0.2)


def may(server: ApiServer, namespace: str, subject: str) -> None:
    """Give a user of a provider the role of the team's jane in its namespace."""
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"generateName": "oidc-"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "jane"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": f"oidc:{subject}"}],
    }
    answer = server.create(f"/apis/{group}/v1/namespaces/{namespace}/rolebindings", binding)
    assert answer.accepted, answer.message


def metrics(server: ApiServer) -> list[str]:
    told = server.get("/metrics").message.splitlines()
    return [line for line in told if line.startswith("apiserver_authentication_config_controller_")]
