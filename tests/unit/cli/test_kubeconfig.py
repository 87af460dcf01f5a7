"""Who asks, and how: every way that a kubeconfig has to say it, as the API server sees it."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from trimtab import Client, NotAllowed, Unreachable
from trimtab import kubeconfig as places

from tests.unit.cli.certificates import Authority, authority
from tests.unit.cli.cluster import NAMESPACE, FakeCluster, Request, kubeconfig, serve

TOKEN = "a-token"


def asked_as(cluster: FakeCluster, file: Path, **user: Any) -> Request:
    """Return the request of a user as the API server sees it."""
    kubeconfig(file, cluster.address, users=[{"name": "u", "user": user}])
    with Client(kubeconfig=file) as client:
        client.list("finetunejob")
    return cluster.asked[-1]


def test_a_token(empty: FakeCluster, tmp_path: Path) -> None:
    assert asked_as(empty, tmp_path / "c", token=TOKEN).headers["Authorization"] == f"Bearer {TOKEN}"


def test_a_token_in_a_file_is_read_again_and_found_beside_the_kubeconfig(empty: FakeCluster, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    kubeconfig(tmp_path / "c", empty.address, users=[{"name": "u", "user": {"tokenFile": "token"}}])
    with Client(kubeconfig=tmp_path / "c") as client:
        for told in ("first", "second"):
            file.write_text(f"{told}\n")
            client.list("finetunejob")
            assert empty.asked[-1].headers["Authorization"] == f"Bearer {told}"


def test_a_name_and_a_password(empty: FakeCluster, tmp_path: Path) -> None:
    told = asked_as(empty, tmp_path / "c", username="ann", password="secret").headers["Authorization"]
    assert base64.b64decode(told.removeprefix("Basic ")) == b"ann:secret"


def test_a_user_who_acts_as_another(empty: FakeCluster, tmp_path: Path) -> None:
    asked = asked_as(empty, tmp_path / "c", **{"token": TOKEN, "as": "bob"})
    assert asked.headers["Impersonate-User"] == "bob"
    with pytest.raises(Unreachable, match="acts as groups"):
        asked_as(empty, tmp_path / "c", **{"token": TOKEN, "as": "bob", "as-groups": ["admins"]})


def test_a_user_without_credentials(empty: FakeCluster, tmp_path: Path) -> None:
    assert "Authorization" not in asked_as(empty, tmp_path / "c").headers


def plugin(folder: Path, status: dict[str, Any]) -> dict[str, Any]:
    """Return the user of a credential plugin that says a status and counts how often it is run."""
    told = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    program = folder / "plugin.py"
    program.write_text(
        f"import json, os, pathlib\n"
        f"file = pathlib.Path({str(folder / 'runs')!r})\n"
        f"file.write_text((file.read_text() if file.exists() else '') + os.environ['WHO'])\n"
        f"print(json.dumps({told!r}))\n"
    )
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(program)],
        "env": [{"name": "WHO", "value": "x"}],
        "interactiveMode": "Never",
    }


def test_a_plugin_gives_a_token(empty: FakeCluster, tmp_path: Path) -> None:
    asked = asked_as(empty, tmp_path / "c", exec=plugin(tmp_path, {"token": TOKEN}))
    assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
    assert (tmp_path / "runs").read_text() == "x"


def test_a_plugin_whose_token_ran_out_is_run_again(empty: FakeCluster, tmp_path: Path) -> None:
    user = plugin(tmp_path, {"token": TOKEN, "expirationTimestamp": "2020-01-01T00:00:00Z"})
    asked_as(empty, tmp_path / "c", exec=user)
    assert len((tmp_path / "runs").read_text()) > 1


def test_a_plugin_that_gives_nothing_is_named(empty: FakeCluster, tmp_path: Path) -> None:
    with pytest.raises(NotAllowed, match=r"the credential plugin .* gave no credentials: run it by hand"):
        asked_as(empty, tmp_path / "c", exec={**plugin(tmp_path, {}), "args": ["-c", "raise SystemExit(3)"]})


@pytest.mark.parametrize("by_a_plugin", [False, True])
def test_a_connection_whose_network_is_gone_ends(empty: FakeCluster, tmp_path: Path, *, by_a_plugin: bool) -> None:
    user = {"exec": plugin(tmp_path, {"token": TOKEN})} if by_a_plugin else {"token": TOKEN}
    kubeconfig(tmp_path / "c", empty.address, users=[{"name": "u", "user": user}])
    empty.answers["/version"] = (200, {})
    with Client(kubeconfig=tmp_path / "c") as client, client.server.opened("GET", "/version") as response:
        used = response.connection.sock  # type: ignore[union-attr]
        assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15


def test_an_identity_provider(empty: FakeCluster, tmp_path: Path) -> None:
    token = jwt.encode({"exp": time.time() + 3600}, "k" * 32, "HS256")
    provider = {"name": "oidc", "config": {"id-token": token, "idp-issuer-url": "https://nowhere.invalid"}}
    asked = asked_as(empty, tmp_path / "c", **{"auth-provider": provider})
    assert asked.headers["Authorization"] == f"Bearer {token}"


def test_a_proxy_is_used_where_one_is_named(empty: FakeCluster, tmp_path: Path) -> None:
    """The cluster's own address does not exist, so only the proxy can have answered."""
    cluster = {"server": "http://cluster.invalid:80", "proxy-url": empty.address}
    kubeconfig(tmp_path / "c", "", clusters=[{"name": "c", "cluster": cluster}])
    with Client(kubeconfig=tmp_path / "c") as client:
        client.list("finetunejob")
    assert empty.asked[-1].headers["Host"].startswith("cluster.invalid")


@pytest.fixture
def issuer(tmp_path: Path) -> Authority:
    return authority(tmp_path)


@pytest.fixture
def secured(issuer: Authority) -> Iterator[FakeCluster]:
    """A cluster that answers over TLS, and only to whoever has a certificate."""
    cluster = FakeCluster()
    server = serve(cluster, issuer.of_a_server())
    yield cluster
    server.shutdown()
    server.server_close()


def encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


@pytest.mark.parametrize("inside", [True, False], ids=["within the kubeconfig", "as files beside it"])
def test_a_certificate(secured: FakeCluster, issuer: Authority, tmp_path: Path, inside: bool) -> None:
    mine = issuer.issue("ann")
    if inside:
        trust = {"certificate-authority-data": encoded(issuer.pair.certificate)}
        user = {"client-certificate-data": encoded(mine.certificate), "client-key-data": encoded(mine.key)}
    else:
        trust = {"certificate-authority": issuer.pair.certificate.name}
        user = {"client-certificate": mine.certificate.name, "client-key": mine.key.name}
    kubeconfig(
        tmp_path / "c",
        "",
        clusters=[{"name": "c", "cluster": {"server": secured.address, **trust}}],
        users=[{"name": "u", "user": user}],
    )
    with Client(kubeconfig=tmp_path / "c") as client:
        assert client.list("finetunejob") == ()
    assert secured.asked


def test_a_plugin_gives_a_certificate(secured: FakeCluster, issuer: Authority, tmp_path: Path) -> None:
    mine = issuer.issue("ann")
    status = {"clientCertificateData": mine.certificate.read_text(), "clientKeyData": mine.key.read_text()}
    cluster = {"server": secured.address, "certificate-authority": str(issuer.pair.certificate)}
    user = {"exec": plugin(tmp_path, status)}
    kubeconfig(tmp_path / "c", "", clusters=[{"name": "c", "cluster": cluster}], users=[{"name": "u", "user": user}])
    with Client(kubeconfig=tmp_path / "c") as client:
        assert client.list("finetunejob") == ()


def test_an_authority_that_is_not_known_is_not_trusted(secured: FakeCluster, tmp_path: Path) -> None:
    kubeconfig(tmp_path / "c", secured.address)
    with Client(kubeconfig=tmp_path / "c") as client, pytest.raises(Unreachable, match="cannot be trusted"):
        client.list("finetunejob")
    assert secured.asked == []


def test_the_keys_leave_no_file_behind(
    secured: FakeCluster, issuer: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    test_a_certificate(secured, issuer, tmp_path, inside=True)
    assert list(folder.iterdir()) == []


def test_of_several_kubeconfigs_the_first_that_names_a_thing_wins(
    empty: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(yaml.safe_dump({"users": [{"name": "u", "user": {"token": "of-one"}}]}))
    kubeconfig(two, empty.address)
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, (tmp_path / "none", one, two))))
    with Client() as client:
        client.list("finetunejob")
    assert empty.asked[-1].headers["Authorization"] == "Bearer of-one"


def test_within_a_pod_its_service_account_asks(
    secured: FakeCluster, issuer: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server wants a certificate, which a service account has none of: so far comes whoever trusts it."""
    for name, text in (("token", TOKEN), ("namespace", NAMESPACE), ("ca.crt", issuer.pair.certificate.read_text())):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(places, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    host, _, port = secured.address.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    connection, namespace = places.connection_of()
    assert (connection.address, namespace) == (secured.address, NAMESPACE)
    assert connection.credentials() == {"Authorization": f"Bearer {TOKEN}"}


def test_what_takes_long_to_import_is_not(empty: FakeCluster, tmp_path: Path) -> None:
    """A list of a user with a token is one import of urllib3 away."""
    kubeconfig(tmp_path / "c", empty.address)
    program = (
        "import json, sys\n"
        "from trimtab import Client\n"
        f"Client(kubeconfig={str(tmp_path / 'c')!r}).list()\n"
        "slow = ('kubernetes', 'requests', 'oauthlib', 'rich.table')\n"
        "print(json.dumps([each for each in sys.modules if each in slow]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == []
