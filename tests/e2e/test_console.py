"""The console in a pod, as the chart deploys it: people see what their tokens allow, and nothing without one."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import yaml

from deploy.demo.installation import ROOT, SYSTEM, Forward, Installation
from tests.component.patience import Patience
from tests.e2e.tenants import ON_A_NODE, Tenant, new_tenant

pytestmark = ON_A_NODE

HOST, NAME = "trimtab.example.com", "trimtab-console"


@pytest.fixture(scope="module")
def tenant(installation: Installation) -> Iterator[Tenant]:
    made = new_tenant(installation)
    made.apply({**made.job("held"), "spec": {**made.job("held")["spec"], "suspend": True}})
    for user in ("looks", "knows-nothing"):
        made.kubectl("create", "serviceaccount", user)
    account = f"{made.namespace}:looks"
    made.kubectl("create", "rolebinding", "looks", "--clusterrole=view", f"--serviceaccount={account}")
    yield made
    made.remove()


@pytest.fixture(scope="module")
def console(installation: Installation) -> Iterator[Forward]:
    """The chart's Deployment, Service and NetworkPolicy of the console, reached as a proxy would."""
    if installation.cluster is None:
        pytest.skip("its image is built for the local cluster")
    from trimtab_local import images

    image = images.build(["console"])["console"]
    images.load(installation.cluster, image)
    values = {
        "operator.image": installation.images["operator"],
        "prepare.image": installation.images["prepare"],
        "trainer.image": installation.images["trainer"],
        "console.image": image,
        "console.enabled": "true",
        "console.hosts[0]": HOST,
        "networkPolicy.enabled": "true",
    }
    options = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    line = ["template", "trimtab", str(ROOT / "charts/trimtab"), "-n", SYSTEM, "--show-only", "templates/console.yaml"]
    bodies = list(yaml.safe_load_all(installation.helm(*line, *options)))
    installation.api.apply(*bodies)
    try:
        installation.wait_available(SYSTEM, NAME)
        with installation.forward(SYSTEM, f"service/{NAME}", 80) as forward:
            yield forward
    finally:
        for body in bodies:
            installation.api.delete(body["kind"], body["metadata"]["name"], SYSTEM)


def ask(console: Forward, path: str, token: str = "", host: str = HOST) -> tuple[int, str]:
    headers = {"Host": host} | ({"Authorization": f"Bearer {token}"} if token else {})
    patience = Patience("an answer of the console")
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(console.url + path, headers=headers)) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()
        except OSError as error:  # the way there is not open yet
            patience.spend(str(error))
            console.ensure()
            time.sleep(0.2)


def test_what_a_person_sees_is_what_their_token_allows(tenant: Tenant, console: Forward) -> None:
    home = f"/ns/{tenant.namespace}"
    looks, knows_nothing = (tenant.kubectl("create", "token", user).strip() for user in ("looks", "knows-nothing"))
    status, page = ask(console, f"{home}/finetunejobs/held", looks)
    assert status == 200
    assert "Suspended" in page
    for status, page in (
        ask(console, home),
        ask(console, home, "made-up"),
        ask(console, f"{home}/finetunejobs/held", knows_nothing),
    ):
        assert status == 403
        assert "Suspended" not in page
    assert ask(console, home, looks, host="evil.example.com")[0] in {400, 403, 421}


def test_its_pod_has_no_rights_and_writes_no_token(tenant: Tenant, console: Forward) -> None:
    token = tenant.kubectl("create", "token", "looks").strip()
    assert ask(console, f"/ns/{tenant.namespace}", token)[0] == 200
    here = tenant.installation
    (pod,) = here.api.objects("Pod", SYSTEM, "app.kubernetes.io/component=console")
    assert pod["spec"]["automountServiceAccountToken"] is False
    namespace = here.api.get("Namespace", SYSTEM)
    assert namespace is not None
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    log = here.kubectl("-n", SYSTEM, "logs", pod["metadata"]["name"])
    assert token not in log
    assert "Traceback" not in log
