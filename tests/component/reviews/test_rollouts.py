"""A rollout that waits for people, from the command that they type to what the pods answer with."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trimtab_operator.domain.review.policies import Policy, policy_name
from trimtab_operator.runtime.kube import EVENTS, Body

from tests.component.api_server import ApiServer
from tests.component.crd_samples import DIGEST, MINIMAL, change
from tests.component.reviews import policies
from tests.component.reviews.conftest import Users
from tests.component.rollout.objects import QUICK, artifact, ready_of
from tests.component.rollout.scene import NAME, Scene
from tests.serving.adapters import Published

pytestmark = [pytest.mark.cluster, pytest.mark.asyncio(loop_scope="session")]

GROUP = "/apis/trimtab.dev/v1alpha1"


async def typed(kubeconfig: Path, namespace: str, verb: str, *arguments: str) -> str:
    """Return what a person reads who types a command."""
    command = [
        sys.executable,
        "-m",
        "trimtab",
        verb,
        NAME,
        *arguments,
        "--kubeconfig",
        str(kubeconfig),
        "-n",
        namespace,
    ]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr


def review(user: ApiServer, namespace: str, author: str, adapter: Published, decision: str = "Approve") -> Body:
    subject = {"kind": "AdapterRollout", "name": NAME, "digest": adapter.digest}
    answer = user.create(
        f"{GROUP}/namespaces/{namespace}/reviews",
        {
            "apiVersion": "trimtab.dev/v1alpha1",
            "kind": "Review",
            "metadata": {"generateName": f"{author}-"},
            "spec": {"subject": subject, "decision": decision, "author": author},
        },
    )
    assert answer.accepted, answer.message
    return answer.body


def message(body: Body) -> str:
    return str(next(each["message"] for each in body["status"]["conditions"] if each["type"] == "Ready"))


async def waiting(scene: Scene, first: Published, second: Published, **approvals: Any) -> Body:
    """Let the second adapter wait for approvals after a good canary."""
    await scene.pods(2)
    await scene.apply(artifact(first))
    await scene.served(first)
    await scene.edit(source=artifact(second), strategy={**QUICK, "approvals": approvals})
    return await scene.until_state("AwaitingApproval")


def canaries(scene: Scene, first: Published, second: Published) -> bool:
    return sorted(map(str, scene.aliases())) == sorted(map(str, [{first.name(NAME): 100}, {second.name(NAME): 100}]))


async def test_it_goes_on_when_those_who_are_asked_have_approved_it(scene: Scene, team: str, users: Users) -> None:
    first, second, other = (scene.fleet.publish() for _ in range(3))
    body = await waiting(scene, first, second, required=1, **{"from": {"groups": ["leads"]}})
    await scene.happens(lambda: canaries(scene, first, second), "the canary goes on")
    assert f"kubectl trimtab approve adapterrollout/{NAME} -n {team} --digest {second.digest}" in message(body)
    since = body["status"]["approval"]["sinceTime"]
    review(users.bob, team, "bob", second)
    review(users.alice, team, "alice", other)
    await scene.until(lambda body: "that of bob names none of the groups" in message(body), what="bob is told")
    assert "bob is in none of the groups leads" in await typed(users.of_bob, team, "approve")
    assert "cannot create resource" in await typed(users.of_carol, team, "comment", "-m", "well")
    await scene.operator.kill()
    await scene.operator.start()
    await scene.operator.ready()
    body = await scene.until(lambda body: "0 of 1 approvals" in message(body), what="it waits on")
    assert body["status"]["approval"]["sinceTime"] == since
    assert canaries(scene, first, second)
    said = await typed(users.of_alice, team, "approve", "-m", "reads well")
    assert f"alice approves {second.digest} of adapterrollout/{NAME}" in said
    body = await scene.served(second)
    assert body["status"]["revisions"][0]["approvedBy"] == ["alice"]
    assert "approval" not in body["status"]
    events = await scene.kube.items(EVENTS, team, {"fieldSelector": f"regarding.name={NAME}"})
    assert {"AwaitingApproval", "Serving"} <= {each["reason"] for each in events}
    states = {
        each["spec"]["author"]: each["status"]["conditions"][0]["reason"]
        for each in users.admin.get(f"{GROUP}/namespaces/{team}/reviews").body["items"]
    }
    assert states == {"alice": "Approved", "bob": "Approved"}


async def test_who_made_the_job_does_not_approve_it_and_a_rejection_takes_it_back(
    scene: Scene, team: str, users: Users
) -> None:
    first, second = scene.fleet.publish(), scene.fleet.publish()
    jobs = f"{GROUP}/namespaces/{team}/finetunejobs"
    job = change(
        MINIMAL, {"metadata": {"name": "train", "annotations": {"trimtab.dev/author": "alice"}}, "spec.suspend": True}
    )
    await until_accepted(users.alice, jobs, job)
    told = {
        "uri": second.uri,
        "digest": second.digest,
        "rank": 8,
        "targetModules": ["q_proj"],
        "baseModelDigest": DIGEST,
    }
    published = users.admin.request("PATCH", f"{jobs}/train/status", {"status": {"artifact": told}}, "merge")
    assert published.accepted, published.message
    await waiting(scene, first, second, required=1, notByAuthorOfTheJob=True)
    review(users.alice, team, "alice", second)
    await scene.until(lambda body: "alice made the FineTuneJob" in message(body), what="alice is told")
    said = await typed(users.of_bob, team, "reject", "-m", "it swears")
    assert "bob rejects" in said
    body = await scene.until_state("Rejected")
    assert "bob rejects it: it swears" in message(body)
    await scene.happens(lambda: scene.aliases() == [{first.name(NAME): 100}] * 2, "the canary is taken back")
    assert "step" not in (await scene.get())["status"]
    await typed(users.of_bob, team, "approve", "--digest", second.digest, "-m", "it does not")
    body = await scene.served(second)
    assert body["status"]["revisions"][0]["approvedBy"] == ["bob"]


async def test_nothing_counts_while_the_policy_does_not_deny(scene: Scene, team: str, users: Users) -> None:
    first, second = scene.fleet.publish(), scene.fleet.publish()
    await waiting(scene, first, second, required=1)
    path = f"{policies.GROUP}/validatingadmissionpolicybindings/{policy_name(policies.RELEASE, Policy.REVIEWS)}"
    try:
        assert users.admin.request("PATCH", path, {"spec": {"validationActions": ["Warn"]}}, "merge").accepted
        body = await scene.until_state("AuthorsNotBound")
        assert "does not bind it to everything, or does not deny" in message(body)
        review(users.admin, team, "admin", second)
        await asyncio.sleep(1.2)  # what else it would do
        assert ready_of(await scene.get()) == ("False", "AuthorsNotBound")
        assert canaries(scene, first, second)
    finally:
        assert users.admin.request("PATCH", path, {"spec": {"validationActions": ["Deny"]}}, "merge").accepted
    await scene.served(second)


async def until_accepted(user: ApiServer, url: str, body: Body) -> None:
    """Create something as soon as the controller has added the chart's rights to those of editors."""
    for _ in range(300):
        answer = user.create(url, body)
        if answer.accepted:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(answer.message)
