"""Browsers on a console on the control plane of the component tests: three users, two namespaces, real rights."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.component.api_server import ApiServer
from tests.component.conftest import kubeconfig, server
from tests.console.objects import API, team
from tests.console.window import Window, window

__all__ = ["kubeconfig", "server"]

GROUP = f"/apis/{API}"
USERS = {
    "jane": {"apiGroups": ["trimtab.dev"], "resources": ["*"], "verbs": ["*"]},
    "rita": {"apiGroups": ["trimtab.dev"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
    "eve": None,
}
"""Rights in the team's namespace: everything of Trimtab and to ask models, to read it, and nothing."""


@dataclass(frozen=True)
class Team:
    """A namespace with the day of a team, another with nothing, and the kubeconfigs of three users."""

    server: ApiServer
    namespace: str
    other: str
    users: dict[str, Path]

    def make(self, body: dict[str, Any]) -> None:
        plural = f"{body['kind'].lower()}s"
        path = f"{GROUP}/namespaces/{self.namespace}/{plural}"
        answer = self.server.create(path, {key: value for key, value in body.items() if key != "status"})
        assert answer.accepted, answer.message
        if "status" in body:
            self.status(plural, body["metadata"]["name"], body["status"])

    def status(self, plural: str, name: str, status: dict[str, Any]) -> None:
        path = f"{GROUP}/namespaces/{self.namespace}/{plural}/{name}/status"
        answer = self.server.request("PATCH", path, {"status": status}, "merge")
        assert answer.accepted, answer.message

    def get(self, plural: str, name: str) -> dict[str, Any]:
        return self.server.get(f"{GROUP}/namespaces/{self.namespace}/{plural}/{name}").body


@pytest.fixture(scope="session")
def team_of_three(server: ApiServer, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    spaces = []
    for _ in range(2):
        answer = server.create("/api/v1/namespaces", {"metadata": {"generateName": "console-"}})
        assert answer.accepted, answer.message
        spaces.append(answer.body["metadata"]["name"])
    folder = tmp_path_factory.mktemp("users")
    made = Team(server, spaces[0], spaces[1], {})
    for name, rights in USERS.items():
        made.users[name] = folder / name
        made.users[name].write_text(yaml.safe_dump(user(made, yaml.safe_load(kubeconfig.read_text()), name, rights)))
    for each in team():
        made.make(each)
    yield made
    for each in spaces:
        server.delete(f"/api/v1/namespaces/{each}")


def user(team: Team, config: dict[str, Any], name: str, rights: dict[str, Any] | None) -> dict[str, Any]:
    """Return a kubeconfig as of a service account of the team's namespace, with these rights in it."""
    server, namespace = team.server, team.namespace
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    server.create(accounts, {"metadata": {"name": name}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    token = server.create(f"{accounts}/{name}/token", request)
    assert token.accepted, token.message
    if rights is not None:
        roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        rules = [rights, {"apiGroups": [""], "resources": ["pods", "pods/log", "events"], "verbs": ["get", "list"]}]
        if "*" in rights["verbs"]:
            rules.append({"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get", "create"]})
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        }
        for plural, body in (("roles", {"metadata": {"name": name}, "rules": rules}), ("rolebindings", binding)):
            answer = server.create(f"{roles}/{plural}", body)
            assert answer.accepted, answer.message
    config["users"][0]["user"] = {"token": token.body["status"]["token"]}
    config["contexts"][0]["context"]["namespace"] = namespace
    return config


@contextlib.contextmanager
def console(config: Path, **variables: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `kubectl trimtab ui` as the user of a kubeconfig; yield the address that it prints.

    Args:
        variables: of its environment.
    """
    command = [sys.executable, "-m", "trimtab", "ui", "--kubeconfig", str(config)]
    environment = {**os.environ, **variables}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.communicate(timeout=10)
        yield address, process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def opened(config: Path, folder: Path, width: int = 1440, *, dark: bool = False) -> Iterator[Window]:
    """Yield a window on a console, as of a user of a kubeconfig who has just typed the command."""
    with console(config) as (address, _), window(folder, address.partition("/login")[0], width, dark=dark) as made:
        made.visit(address, "location.pathname.startsWith('/ns/')")
        yield made


Opens = Callable[..., contextlib.AbstractContextManager[Window]]


@pytest.fixture(scope="session")
def opens(team_of_three: Team, tmp_path_factory: pytest.TempPathFactory) -> Opens:
    """Return what opens a window as a user who has just typed the command."""

    def opens(name: str, width: int = 1440, *, dark: bool = False) -> contextlib.AbstractContextManager[Window]:
        return opened(team_of_three.users[name], tmp_path_factory.mktemp("browser"), width, dark=dark)

    return opens
