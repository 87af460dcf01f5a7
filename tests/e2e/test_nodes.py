"""Attempts of two pods on a real node: they find each other by name and train one adapter, whatever befalls one.

Their namespace denies everything but what the samples allow, so it is these policies that they train under.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from deploy.demo.api import Body
from deploy.demo.installation import Installation
from tests.component.patience import Patience
from tests.e2e.scenes import SAMPLE
from tests.e2e.tenants import ON_A_NODE, Tenant, new_tenant, reason_of

pytestmark = ON_A_NODE

STEPS = 60
KINDS = ("NetworkPolicy", "Service")
INDEX = "batch.kubernetes.io/job-completion-index"


@pytest.fixture(scope="module")
def sealed(installation: Installation) -> Iterator[Tenant]:
    """A namespace that denies everything but what the samples allow."""
    tenant = new_tenant(installation)
    tenant.apply(*tenant.policies(SAMPLE.read_text()))
    yield tenant
    tenant.remove()


@pytest.fixture(scope="module")
def undisturbed(sealed: Tenant) -> Body:
    """A run of two pods that nothing befell."""
    sealed.apply(pair(sealed, "pair"))
    return sealed.wait_end("pair")


def pair(tenant: Tenant, name: str) -> Body:
    return tenant.job(name, steps=STEPS, nodes=2, training={"microBatchSize": 2})


def test_two_pods_train_one_adapter(sealed: Tenant, undisturbed: Body) -> None:
    assert reason_of(undisturbed) == "Completed", sealed.story("pair")
    status = undisturbed["status"]
    assert (status["failures"], status["disruptions"]) == (0, 0)
    assert status["progress"] | {"worldSize": 2, "step": STEPS} == status["progress"]
    assert status["artifact"]["testLoss"] < status["artifact"]["baseTestLoss"]
    assert status["acceleratorSeconds"] == 2 * status["attempts"][-1]["activeSeconds"]
    pods = [pod for pod in sealed.pods("pair") if pod["metadata"]["labels"]["trimtab.dev/stage"] == "train"]
    assert sorted(pod["spec"]["hostname"] for pod in pods) == ["pair-train-1-0", "pair-train-1-1"]
    assert {pod["status"]["phase"] for pod in pods} == {"Succeeded"}


@pytest.mark.parametrize(
    ("name", "step", "index"),
    [("midway", 20, "1"), ("led", 40, "0")],
    ids=["while both train", "the leader near the end"],
)
def test_one_of_two_that_is_killed_costs_one_failure_and_nothing_else(
    sealed: Tenant, undisturbed: Body, name: str, step: int, index: str
) -> None:
    """At other times: tests/trainer/train/distributed/test_nodes.py."""
    sealed.apply(pair(sealed, name))
    sealed.wait_step(name, step)
    sealed.kill(sealed.running_pod(name, **{INDEX: index}))
    body = sealed.wait_end(name)
    assert reason_of(body) == "Completed", sealed.story(name)
    status = body["status"]
    assert (status["failures"], status["disruptions"]) == (1, 0), sealed.story(name)
    assert status["attempts"][-1].get("startStep", 0) >= step, sealed.story(name)
    assert status["artifact"]["digest"] == undisturbed["status"]["artifact"]["digest"]
    assert [job for job in sealed.jobs(name) if "-prepare-" in job] == [f"{name}-prepare-0"]


def test_nobody_else_reaches_them(sealed: Tenant, undisturbed: Body) -> None:
    """The policy is the operator's own; the end of the job leaves it, and its deletion takes all along."""
    policy = sealed.installation.api.get("NetworkPolicy", "train-pair", sealed.namespace)
    service = sealed.installation.api.get("Service", "train-pair", sealed.namespace)
    assert policy is not None
    assert service is not None
    assert policy["spec"]["podSelector"]["matchLabels"] == service["spec"]["selector"]
    sealed.delete("pair")
    sealed.wait_gone("pair", "Job", "Pod", "ConfigMap")
    patience = Patience("the end of its Service and NetworkPolicy")
    while found := [kind for kind in KINDS if sealed.installation.api.get(kind, "train-pair", sealed.namespace)]:
        patience.spend(found)
        time.sleep(0.5)
