"""The console's two ways of knowing who asks, against a real API server with real rights; pages are read without a
browser. `make test-console` does the same and more with one."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
import yaml

from tests.console.conftest import Team, console, team_of_three
from tests.console.objects import training
from tests.ports import free_port

__all__ = ["team_of_three"]

pytestmark = pytest.mark.cluster
SECONDS = 60


@dataclass
class Reader:
    """A browser of few words: keeps a cookie, sends a form as the page had it."""

    home: str
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str) -> tuple[int, str]:
        return self._ask("GET", path)

    def post(self, path: str, page: str, **form: str) -> tuple[int, str]:
        token = re.search(r'name="form_token" value="(\w+)"', page)
        uid = re.search(r'name="uid" value="([\w-]+)"', page)
        fields = {"form_token": token[1] if token else "", "uid": uid[1] if uid else "", **form}
        return self._ask("POST", path, urlencode(fields), Origin=self.home)

    def changes(self, path: str) -> Iterator[str]:
        """Open a stream, and return the names of events as they come; pings are not waited for without end."""
        connection = http.client.HTTPConnection(urlsplit(self.home).netloc, timeout=SECONDS)
        connection.request("GET", path, headers=self.headers)
        response = connection.getresponse()
        assert response.status == 200
        end = time.monotonic() + SECONDS

        def names() -> Iterator[str]:
            for line in response:
                assert time.monotonic() < end, "no event came"
                if line.startswith(b"event: "):
                    yield line.decode().strip().removeprefix("event: ")

        return names()

    def _ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(urlsplit(self.home).netloc, timeout=SECONDS)
        form = {} if body is None else {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request(method, path, body, {**self.headers, **form, **headers})
        response = connection.getresponse()
        text = response.read().decode()
        if cookie := response.getheader("Set-Cookie"):
            self.headers["Cookie"] = cookie.partition(";")[0]
        connection.close()
        return response.status, text


def entered(address: str) -> Reader:
    reader = Reader(address.partition("/login")[0])
    assert reader.get(address.removeprefix(reader.home))[0] == 303
    return reader


def test_on_loopback_it_is_the_user_of_the_kubeconfig(team_of_three: Team) -> None:
    team, home = team_of_three, f"/ns/{team_of_three.namespace}"
    with console(team.users["jane"]) as (address, process):
        jane = entered(address)
        assert jane.get(address.removeprefix(jane.home))[0] == 403
        status, page = jane.get(home)
        assert status == 200
        assert "field-guide-v4" in page
        assert f"system:serviceaccount:{team.namespace}:jane" in page
        events = jane.changes(f"{home}/changes")
        team.status("finetunejobs", "field-guide-v4", training(step=132)["status"])
        assert next(events) == "change"
        path = f"{home}/finetunejobs/field-guide-v4"
        assert "step 132 of 200" in jane.get(path)[1]
        assert jane.post(f"{path}/suspend", jane.get(path)[1])[0] == 303
        assert team.get("finetunejobs", "field-guide-v4")["spec"]["suspend"] is True
        assert jane.post(f"{path}/resume", jane.get(path)[1], uid="another-object")[0] == 409
        assert jane.post(f"{path}/resume", jane.get(path)[1])[0] == 303
        assert "is forbidden" in jane.get(f"/ns/{team.other}")[1]
        process.send_signal(signal.SIGINT)  # with a page open, whose stream ends
        assert process.wait(SECONDS) == 0
        assert process.stderr is not None
        said = process.stderr.read()
        assert "token" not in said
        assert "Traceback" not in said


def test_behind_a_proxy_it_is_whose_token_comes(team_of_three: Team, tmp_path: Path) -> None:
    team, home = team_of_three, f"/ns/{team_of_three.namespace}"
    with in_cluster(team.users["jane"], tmp_path) as (address, process):
        jane, rita, eve, nobody = (Reader(address, headers(team, name)) for name in ("jane", "rita", "eve", ""))
        assert nobody.get(home)[0] == 403
        assert Reader(address, {"Authorization": "Bearer made-up"}).get(home)[0] == 403
        path = f"{home}/finetunejobs/support-v7"
        for reader, name in ((jane, "jane"), (rita, "rita")):
            status, page = reader.get(path)
            assert status == 200
            assert f"system:serviceaccount:{team.namespace}:{name}" in page
        status, page = eve.get(path)
        assert status == 403
        assert "smollm2" not in page
        status, page = rita.post(f"{path}/suspend", rita.get(path)[1])
        assert status == 403
        assert "cannot patch" in page
        assert jane.post(f"{path}/suspend", rita.get(path)[1])[0] == 403  # another's form
        assert team.get("finetunejobs", "support-v7")["spec"]["suspend"] is False
        assert jane.post(f"{path}/suspend", jane.get(path)[1])[0] == 303
        assert team.get("finetunejobs", "support-v7")["spec"]["suspend"] is True
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        assert process.stderr is not None
        said = process.stderr.read()
        assert not [name for name in team.users if _token(team.users[name]) in said]
        assert "Traceback" not in said


def test_replicas_of_one_key_know_each_others_forms(team_of_three: Team, tmp_path: Path) -> None:
    path, config = f"/ns/{team_of_three.namespace}/finetunejobs/field-guide-v4", team_of_three.users["jane"]
    with contextlib.ExitStack() as stack:
        one, other, stranger = (
            Reader(stack.enter_context(in_cluster(config, tmp_path, TRIMTAB_CONSOLE_FORM_KEY=key * 32))[0])
            for key in ("a", "a", "b")
        )
        for reader in (one, other, stranger):
            reader.headers |= headers(team_of_three, "jane")
        page = one.get(path)[1]
        for reader in (other, stranger):
            reader.headers["Cookie"] = one.headers["Cookie"]
        assert stranger.post(f"{path}/suspend", page)[0] == 403
        assert team_of_three.get("finetunejobs", "field-guide-v4")["spec"]["suspend"] is False
        assert other.post(f"{path}/suspend", page)[0] == 303
        assert team_of_three.get("finetunejobs", "field-guide-v4")["spec"]["suspend"] is True
        assert one.post(f"{path}/resume", other.get(path)[1])[0] == 303
        assert team_of_three.get("finetunejobs", "field-guide-v4")["spec"]["suspend"] is False


def headers(team: Team, name: str) -> dict[str, str]:
    return {"X-Forwarded-Access-Token": _token(team.users[name])} if name else {}


def _token(config: Path) -> str:
    return str(yaml.safe_load(config.read_text())["users"][0]["user"]["token"])


@contextlib.contextmanager
def in_cluster(
    config: Path, folder: Path, *more: str, port: int = 0, **variables: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the console as a pod does, without an account, on loopback; yield its address."""
    cluster = yaml.safe_load(config.read_text())["clusters"][0]["cluster"]
    authority = folder / "ca.crt"
    authority.write_bytes(b64decode(cluster["certificate-authority-data"]))
    port = port or free_port()
    command = [sys.executable, "-m", "trimtab.console", "--host", f"127.0.0.1:{port}", "--port", str(port)]
    command += ["--api-server", cluster["server"], "--certificate-authority", str(authority), "--plain-http", *more]
    environment = variables | {name: value for name, value in os.environ.items() if name not in ("KUBECONFIG", "HOME")}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**environment, "HOME": str(folder)}, cwd=folder
    )
    try:
        reader, end = Reader(f"http://127.0.0.1:{port}"), time.monotonic() + SECONDS
        while True:
            assert process.poll() is None
            with contextlib.suppress(ConnectionRefusedError):  # it does not listen yet
                if reader.get("/healthz")[0] == 200:
                    break
            assert time.monotonic() < end, "it did not begin"
            time.sleep(0.05)
        yield reader.home, process
    finally:
        process.kill()
        process.wait()
