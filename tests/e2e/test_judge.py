"""A judge behind an endpoint, asked from a namespace that denies everything but what the samples allow."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.demo.api import Body
from deploy.demo.installation import ROOT, Installation
from tests.component.patience import Patience
from tests.e2e.scenes import SAMPLE
from tests.e2e.serverpod import server, wait_ready
from tests.e2e.tenants import ON_A_NODE, Tenant, condition, new_tenant, reason_of
from tests.e2e.test_finetunejob import assert_pods_are_restricted

pytestmark = ON_A_NODE

SERVER = ROOT / "tests/trainer/evaluate/judging/server.py"
PORT = 8000
KEY = "judge-key-of-the-tests"
ROWS = 100
LOOKED = 2
"""Questions of the first look at a judge, of one task."""
KEPT_TOGETHER = 64
"""Replies that are stored together: one that is killed outright takes less than these with it."""

SERVE = f"""
import hashlib, sys, time
import server

class Judge(server.JudgeServer):
    def reply(self, body, key):
        words = hashlib.sha256(body["messages"][0]["content"].encode()).hexdigest()
        sys.stdout.write(f"{{words}} {{key == 'Bearer {KEY}'}}\\n")  # at once: several are asked beside each other
        time.sleep(1)
        return super().reply(body, key)

server.JudgeServer = Judge
with server.serving(lambda shown: '{{"score": 4}}', "", {PORT}) as judge:
    judge.key = "{KEY}"
    time.sleep(1e9)
"""


@pytest.fixture(scope="module")
def judge(installation: Installation) -> Iterator[Tenant]:
    """A namespace of a judge that takes its time, wants a key, and prints what it is asked."""
    tenant = new_tenant(installation)
    code = {"server.py": SERVER.read_text(), "serve.py": SERVE}
    tenant.apply(*server(tenant, "judge", PORT, code, memory="128Mi"))
    wait_ready(tenant, "judge")
    yield tenant
    tenant.remove()


@pytest.fixture(scope="module")
def sealed(installation: Installation, judge: Tenant) -> Iterator[Tenant]:
    """A namespace that lets out what the samples let out, but nobody to the judge yet."""
    tenant = new_tenant(installation)
    found = [body for body in tenant.policies(SAMPLE.read_text()) if body["metadata"]["name"] != "trimtab-judge"]
    tenant.apply(*found, secret(tenant, "judge", KEY), secret(tenant, "wrong", "another"))
    yield tenant
    tenant.remove()


def secret(tenant: Tenant, name: str, key: str) -> Body:
    metadata = {"namespace": tenant.namespace, "name": name}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"API_KEY": key}}


def way_out(tenant: Tenant, judge: Tenant) -> Body:
    """Return the policy of the samples that lets out who asks a judge, for this one."""
    text = SAMPLE.read_text().replace("metadata.name: judges", f"metadata.name: {judge.namespace}")
    return next(body for body in tenant.policies(text) if body["metadata"]["name"] == "trimtab-judge")


def asked(judge: Tenant) -> list[tuple[str, bool]]:
    """Return what the judge was asked, by the digest of the words, and whether with its key."""
    lines = judge.kubectl("logs", "judge").split("\n")
    return [(words[0], words[1] == "True") for line in lines if len(words := line.split()) == 2]


def evaluation(tenant: Tenant, judge: Tenant, name: str, key: str, **spec: Any) -> Body:
    """Return an Evaluation of the base model, whose answers a judge gives a score."""
    task = {
        "name": "liked",
        "type": "Judge",
        "dataset": {"uri": "s3://datasets/tiny/", "limit": ROWS},
        "maxNewTokens": 8,
        "judging": {"mode": "Rubric", "instructions": f"Give a score to what {name} says."},
    }
    storage = {"secretName": "object-storage"}
    endpoint = {"url": f"http://judge.{judge.namespace}:{PORT}/v1", "model": "judge-1", "secretName": key}
    body = {
        "target": {"baseModel": True},
        "baseModel": {"uri": "s3://models/tiny", **storage},
        "output": {"uri": f"s3://adapters/{tenant.namespace}/evaluations", **storage},
        "datasetSecretName": "object-storage",
        "judge": {"endpoint": endpoint},
        "thresholds": [{"metric": "liked/judgeScore", "minimum": 3.5}],
        "retries": {"onFailure": 0},
        **spec,
    }
    return tenant.evaluation(name, task, **body)


def ended(tenant: Tenant, name: str) -> Body:
    return tenant.of("Evaluation").wait_end(name)


def stages(body: Body) -> list[str]:
    return [attempt["stage"] for attempt in body["status"]["attempts"]]


def test_without_a_way_out_the_judge_is_named(sealed: Tenant, judge: Tenant) -> None:
    sealed.apply(evaluation(sealed, judge, "shut-in", "judge"))
    body = ended(sealed, "shut-in")
    last = body["status"]["attempts"][-1]
    assert (last["stage"], last["reason"]) == ("judge", "JudgeUnreachable"), sealed.of("Evaluation").story("shut-in")
    assert "trimtab.dev/stage: judge" in body["status"]["conditions"][0]["message"]
    assert stages(body) == ["prepare", "judge"], "it is known before anything is answered"
    assert asked(judge) == []


def test_a_wrong_key_ends_it(sealed: Tenant, judge: Tenant) -> None:
    sealed.apply(way_out(sealed, judge), evaluation(sealed, judge, "keyless", "wrong"))
    body = ended(sealed, "keyless")
    assert reason_of(body) == "AccessDenied", sealed.of("Evaluation").story("keyless")
    assert stages(body) == ["prepare", "judge"], "it is known before anything is answered"
    assert {known for _, known in asked(judge)} == {False}


def test_a_pod_that_asks_a_judge_is_killed_and_nothing_is_asked_again(sealed: Tenant, judge: Tenant) -> None:
    evaluations, before = sealed.of("Evaluation"), len(asked(judge))
    sealed.apply(way_out(sealed, judge), evaluation(sealed, judge, "liked", "judge", retries={"onFailure": 2}))
    patience = Patience("the first replies are stored, and others are not")
    while len(asked(judge)) - before < LOOKED + KEPT_TOGETHER + 10:
        patience.spend(asked(judge))
        time.sleep(0.2)
    evaluations.kill(evaluations.running_pod("liked", "judge"))
    body = ended(sealed, "liked")
    assert reason_of(body) == "Completed", evaluations.story("liked")
    assert condition(body, "Passed")["status"] == "True"
    assert stages(body)[:3] == ["prepare", "judge", "evaluate"]
    assert body["status"]["judgeReady"] is True
    (judged,) = [result for result in body["status"]["results"] if result["metric"] == "judgeScore"]
    assert judged["value"] == 4

    questions = [words for words, known in asked(judge)[before:] if known]
    assert len(set(questions)) == LOOKED + judged["count"] == LOOKED + ROWS
    assert 0 < len(questions) - len(set(questions)) < KEPT_TOGETHER
    first = questions[LOOKED : LOOKED + KEPT_TOGETHER]
    assert not set(first) & set(questions[LOOKED + KEPT_TOGETHER :])
    pods = {pod["metadata"]["labels"]["trimtab.dev/stage"]: pod for pod in evaluations.pods("liked")}
    mounted = {stage: '"secretName": "judge"' in json.dumps(pod["spec"]) for stage, pod in pods.items()}
    assert mounted == {stage: stage == "judge" for stage in pods}
    assert "nvidia.com/gpu" not in json.dumps(pods["judge"]["spec"])
    assert_pods_are_restricted(evaluations, "liked")
    assert KEY not in json.dumps([*pods.values(), body]) + evaluations.story("liked")
