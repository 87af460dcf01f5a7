"""What admission policies and quotas of a cluster do to Jobs and pods of ours, by a real API server that has them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from trimtab_operator.domain.views import (
    ACCELERATORS_LABEL,
    ATTEMPT_LABEL,
    INPUTS_LABEL,
    JOB_LABEL,
    MANAGED_BY_LABEL,
    STAGE_LABEL,
)
from trimtab_operator.runtime.kube import JOBS, MERGE_PATCH, Body, Kube
from trimtab_trainer.contract import Reason, Stage

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import Start, playing
from tests.component.operator.executor import Act, Executor
from tests.component.operator.finetunejobs import (
    finetunejob,
    jobs_of,
    over,
    state_of,
    until,
    until_jobs,
    until_state,
)
from tests.component.operator.process import OperatorProcess
from tests.component.patience import Patience
from tests.resources import FINETUNEJOBS

POLICIES = "/apis/admissionregistration.k8s.io/v1"
PROXY = "mesh-proxy"
LABELS = {"example.com/cost-centre": "42"}

ADDS_A_PROXY = """[JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{
    name: "mesh-proxy", image: "proxy"}}]"""
SUSPENDS = '[JSONPatch{op: "add", path: "/spec/suspend", value: true}]'


def about(group: str, resource: str, *operations: str) -> Body:
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": list(operations), "resources": [resource]}
    return {"resourceRules": [rule]}


@contextmanager
def policy(server: ApiServer, kind: str, namespace: str, spec: Body, **binding: Any) -> Iterator[None]:
    """Have a policy of a kind (validating or mutating) in a namespace."""
    name, plural = f"of-{namespace}", f"{kind.lower()}admissionpolic"
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    bound = {
        **head,
        "kind": f"{kind}AdmissionPolicyBinding",
        "spec": {"policyName": name, "matchResources": where, **binding},
    }
    made = {**head, "kind": f"{kind}AdmissionPolicy", "spec": {"failurePolicy": "Fail", **spec}}
    paths = (f"{POLICIES}/{plural}ies", f"{POLICIES}/{plural}ybindings")
    for path, body in zip(paths, (made, bound), strict=True):
        answer = server.create(path, body)
        assert answer.accepted, answer.message
    try:
        yield
    finally:
        for path in reversed(paths):
            server.delete(f"{path}/{name}")


def probe(kind: str, namespace: str) -> tuple[str, Body]:
    """Return where to create a Job, a pod or a ConfigMap, and one."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    if kind == "pods":
        return f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"generateName": "probe-"}, "spec": pod}
    if kind == "configmaps":
        return f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"generateName": "probe-"}}
    body = {"metadata": {"generateName": "probe-"}, "spec": {"template": {"spec": pod}}}
    return f"/apis/batch/v1/namespaces/{namespace}/jobs", body


async def in_force(server: ApiServer, kind: str, namespace: str, shows: Any, **metadata: Any) -> None:
    """Wait until a policy does what it says, to what is not stored."""
    patience, (path, body) = Patience(f"a policy about {kind}"), probe(kind, namespace)
    body["metadata"] |= metadata
    while not shows(answer := server.create(path, body, dryRun="All")):
        patience.spend(lambda: answer.message)
        await asyncio.sleep(0.1)


class Meshed(Executor):
    """Pods with a proxy beside the trainer, which nobody tells to end."""

    async def write(self, pod: Body, status: Body) -> None:
        assert [each["name"] for each in pod["spec"]["containers"]] == ["trainer", PROXY]
        running = {"running": {"startedAt": status["startTime"]}}
        proxy = {**status["containerStatuses"][0], "name": PROXY, "image": "proxy", "ready": True, "state": running}
        statuses = [*status["containerStatuses"], proxy]
        await super().write(pod, {**status, "phase": "Running", "containerStatuses": statuses})


@pytest.mark.parametrize("ends", ["well", "with invalid data"])
async def test_a_proxy_that_an_injector_adds_outlives_no_attempt(
    server: ApiServer, kube: Kube, namespace: str, start: Start, ends: str
) -> None:
    adds = {"patchType": "JSONPatch", "jsonPatch": {"expression": ADDS_A_PROXY}}
    spec = {"matchConstraints": about("", "pods", "CREATE"), "reinvocationPolicy": "Never", "mutations": [adds]}

    def script(stage: Stage, attempt: int) -> Act:
        return Act() if ends == "well" else Act(11, Reason.DATASET_EMPTY, message="no rows")

    await start()
    with policy(server, "Mutating", namespace, spec):
        await in_force(server, "pods", namespace, lambda answer: PROXY in str(answer.body.get("spec")))
        async with playing(kube, namespace, script, kind=Meshed):
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
            body = await until_state(kube, namespace, "demo", "Completed" if ends == "well" else "DatasetEmpty")
    stages = [each["stage"] for each in body["status"]["attempts"]]
    assert stages == (["prepare", "train"] if ends == "well" else ["prepare"])


async def looks_at_a_change(operator: OperatorProcess, kube: Kube, namespace: str, number: int) -> None:
    """Change a label of the Job, and wait for the rounds that the operator does about it."""
    before, patience = await rounds(operator), Patience("a round")
    changed = {"metadata": {"labels": {"looked-at": str(number)}}}
    await kube.patch(JOBS, namespace, "demo-prepare-0", MERGE_PATCH, changed)
    while (now := await rounds(operator)) == before:
        patience.spend(now)
        await asyncio.sleep(0.1)


async def rounds(operator: OperatorProcess) -> float:
    found = await operator.metrics()
    return sum(value for key, value in found.items() if key.startswith("trimtab_reconcile_total{"))


async def test_what_suspends_every_job_is_not_written_against(
    server: ApiServer, kube: Kube, namespace: str, start: Start
) -> None:
    suspends = {"patchType": "JSONPatch", "jsonPatch": {"expression": SUSPENDS}}
    spec = {"matchConstraints": about("batch", "jobs", "CREATE", "UPDATE"), "reinvocationPolicy": "Never"}
    operator = await start()
    with policy(server, "Mutating", namespace, {**spec, "mutations": [suspends]}):
        await in_force(server, "jobs", namespace, lambda answer: answer.body.get("spec", {}).get("suspend"))
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        await until_state(kube, namespace, "demo", "Queued")
        for number in range(3):
            await looks_at_a_change(operator, kube, namespace, number)
        writes = [key for key in await operator.metrics() if 'verb="patch"' in key and 'resource="jobs"' in key]
        assert writes == []
        assert set(await jobs_of(kube, namespace)) == {"demo-prepare-0"}


async def test_a_quota_of_jobs_is_waited_for(server: ApiServer, kube: Kube, namespace: str, start: Start) -> None:
    quota = {"metadata": {"name": "few-jobs"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    assert server.create(path, quota).accepted
    await in_force(server, "jobs", namespace, lambda answer: "exceeded quota" in answer.message)
    await start()
    async with playing(kube, namespace):
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
        await until_state(kube, namespace, "demo", "QuotaExceeded")
        assert server.delete(f"{path}/few-jobs").accepted
        await until_state(kube, namespace, "demo", "Completed")


async def test_a_policy_that_refuses_the_job_is_given_up_on_and_labels_of_the_template_satisfy_it(
    server: ApiServer, kube: Kube, namespace: str, start: Start
) -> None:
    needs = "has(object.metadata.labels) && 'example.com/cost-centre' in object.metadata.labels"
    spec = {
        "matchConstraints": about("batch", "jobs", "CREATE"),
        "validations": [{"expression": needs, "message": "Jobs need the label example.com/cost-centre"}],
    }
    await start(TRIMTAB_POD_START_SECONDS="5")
    with policy(server, "Validating", namespace, spec, validationActions=["Deny"]):
        await in_force(server, "jobs", namespace, lambda answer: "cost-centre" in answer.message)
        async with playing(kube, namespace):
            await kube.create(FINETUNEJOBS, namespace, finetunejob("refused", namespace))
            await kube.create(FINETUNEJOBS, namespace, finetunejob("paid", namespace, template={"labels": LABELS}))
            await until_state(kube, namespace, "paid", "Completed")
            body = await until(kube, namespace, "refused", over, what="the end of patience")
    (said,) = [each for each in body["status"]["conditions"] if each["type"] == "Succeeded"]
    assert (said["reason"], said["status"]) == ("PodRefused", "False")
    assert "Jobs need the label example.com/cost-centre" in said["message"]


LABELLED = """[JSONPatch{op: "replace", path: "/metadata/labels/app.kubernetes.io~1managed-by", value: "platform"}]"""
RETRIED = """[JSONPatch{op: "replace", path: "/spec/backoffLimit", value: 4}] + (has(object.spec.podFailurePolicy)
    ? [JSONPatch{op: "remove", path: "/spec/podFailurePolicy"}] : [])"""
OURS = "has(object.metadata.labels) && 'trimtab.dev/stage' in object.metadata.labels"


async def test_a_job_whose_labels_a_policy_writes_over_is_followed_all_the_same(
    server: ApiServer, kube: Kube, namespace: str, start: Start
) -> None:
    adds = {"patchType": "JSONPatch", "jsonPatch": {"expression": LABELLED}}
    ours = [{"name": "ours", "expression": OURS}]
    spec = {"matchConstraints": about("batch", "jobs", "CREATE", "UPDATE"), "matchConditions": ours}
    await start(TRIMTAB_AUDIT_SECONDS="600")
    with policy(server, "Mutating", namespace, {**spec, "reinvocationPolicy": "Never", "mutations": [adds]}):
        await in_force(server, "jobs", namespace, is_labelled, labels={STAGE_LABEL: "x", MANAGED_BY_LABEL: "trimtab"})
        async with playing(kube, namespace):
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
            body = await until_state(kube, namespace, "demo", "Completed")
    assert [each["reason"] for each in body["status"]["attempts"]] == ["Completed", "Completed"]
    job = await kube.get(JOBS, namespace, "demo-train-1")
    assert job["metadata"]["labels"][MANAGED_BY_LABEL] == "platform"


def is_labelled(answer: Any) -> bool:
    return bool(answer.body["metadata"].get("labels", {}).get(MANAGED_BY_LABEL) == "platform")


async def test_a_pod_whose_labels_a_policy_writes_over_is_known_to_the_next_operator(
    server: ApiServer, kube: Kube, namespace: str, start: Start
) -> None:
    """It runs, and no event tells of it for as long as it does."""
    ours = [{"name": "ours", "expression": OURS}]
    adds = {"patchType": "JSONPatch", "jsonPatch": {"expression": LABELLED}}
    spec = {"matchConstraints": about("", "pods", "CREATE"), "matchConditions": ours, "mutations": [adds]}
    before = await start()
    with policy(server, "Mutating", namespace, {**spec, "reinvocationPolicy": "Never"}):
        await in_force(server, "pods", namespace, is_labelled, labels={STAGE_LABEL: "x", MANAGED_BY_LABEL: "trimtab"})
        async with playing(kube, namespace, lambda stage, attempt: None):
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
            await knows_the_pod(before)
            await before.terminate()
            await knows_the_pod(await start("two"))


async def knows_the_pod(operator: OperatorProcess) -> None:
    patience = Patience("a pod in the cache")
    while (known := (await operator.metrics()).get('trimtab_cache_objects{resource="pods"}')) != 1:
        patience.spend(known)
        await asyncio.sleep(0.2)


async def test_a_job_that_a_policy_lets_try_again_by_itself_is_one_attempt(
    server: ApiServer, kube: Kube, namespace: str, start: Start
) -> None:
    """Its pods come one after the other, and nothing is begun beside them."""
    changes = {"patchType": "JSONPatch", "jsonPatch": {"expression": RETRIED}}
    spec = {"matchConstraints": about("batch", "jobs", "CREATE"), "reinvocationPolicy": "Never"}
    tries: list[int] = []

    def script(stage: Stage, attempt: int) -> Act:
        if stage is Stage.TRAIN:
            tries.append(attempt)
        return Act(13, Reason.STORAGE_FAILED, message="503") if len(tries) == 1 else Act()

    await start()
    with policy(server, "Mutating", namespace, {**spec, "mutations": [changes]}):
        await in_force(server, "jobs", namespace, lambda answer: answer.body["spec"]["backoffLimit"] == 4)
        async with playing(kube, namespace, script):
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
            body = await until_state(kube, namespace, "demo", "Completed")
    assert (await kube.get(JOBS, namespace, "demo-train-1"))["spec"]["backoffLimit"] == 4
    assert [each["reason"] for each in body["status"]["attempts"]] == ["Completed", "Completed"]
    assert tries == [1, 1]


@pytest.mark.parametrize("limit", [None, 2])
async def test_a_gpu_that_is_only_requested_or_requested_otherwise_than_limited(
    server: ApiServer, kube: Kube, namespace: str, start: Start, limit: int | None
) -> None:
    limits = {"nvidia.com/gpu": limit} if limit is not None else {}
    template = {"resources": {"requests": {"nvidia.com/gpu": 1}, "limits": limits}}
    path = f"/apis/trimtab.dev/v1alpha1/namespaces/{namespace}/finetunejobs"
    answer = server.create(path, finetunejob("demo", namespace, template=template))
    if limit is not None:
        assert not answer.accepted
        assert "nvidia.com/gpu" in answer.message
        return
    assert answer.accepted, answer.message
    await start()
    async with playing(kube, namespace):
        await until_state(kube, namespace, "demo", "Completed")
    (container,) = (await kube.get(JOBS, namespace, "demo-train-1"))["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


AT_ONCE = '[JSONPatch{op: "add", path: "/spec/ttlSecondsAfterFinished", value: 0}]'


async def test_jobs_that_a_policy_deletes_as_soon_as_they_end_are_run_once(
    server: ApiServer, kube: Kube, namespace: str, start: Start
) -> None:
    changes = {"patchType": "JSONPatch", "jsonPatch": {"expression": AT_ONCE}}
    spec = {"matchConstraints": about("batch", "jobs", "CREATE"), "reinvocationPolicy": "Never"}
    await start()
    with policy(server, "Mutating", namespace, {**spec, "mutations": [changes]}):
        await in_force(server, "jobs", namespace, lambda answer: "ttlSecondsAfterFinished" in answer.body["spec"])
        async with playing(kube, namespace) as executor:
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
            body = await until(kube, namespace, "demo", over, what="the end")
    assert executor.pods == [("prepare", 0), ("train", 1)]
    assert [each["reason"] for each in body["status"]["attempts"]] == ["Completed", "Completed"]
    await until_jobs(kube, namespace, set())


RESUMED = """[JSONPatch{op: "add", path: "/spec/suspend", value: false},
    JSONPatch{op: "add", path: "/spec/ttlSecondsAfterFinished", value: 600}]"""


async def test_a_policy_that_lets_no_job_be_suspended_is_not_written_against_in_a_hot_loop(
    server: ApiServer, kube: Kube, namespace: str, start: Start
) -> None:
    changes = {"patchType": "JSONPatch", "jsonPatch": {"expression": RESUMED}}
    spec = {"matchConstraints": about("batch", "jobs", "CREATE", "UPDATE"), "reinvocationPolicy": "Never"}
    operator = await start()
    with policy(server, "Mutating", namespace, {**spec, "mutations": [changes]}):
        await in_force(server, "jobs", namespace, lambda answer: "ttlSecondsAfterFinished" in answer.body["spec"])
        async with playing(kube, namespace, lambda stage, attempt: None):
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
            await until_state(kube, namespace, "demo", "Preparing")
            await kube.patch(FINETUNEJOBS, namespace, "demo", MERGE_PATCH, {"spec": {"suspend": True}})
            body = await until(kube, namespace, "demo", lambda each: "keeps spec.suspend" in str(each), what="a word")
        found = await operator.metrics()
    assert "keeps spec.suspend of demo-prepare-0 false" in body["status"]["conditions"][0]["message"]
    assert sum(value for key, value in found.items() if 'verb="patch"' in key and 'resource="jobs"' in key) <= 2


def is_disowned(answer: Any) -> bool:
    return "ownerReferences" not in answer.body["metadata"]


DISOWNED = '[JSONPatch{op: "remove", path: "/metadata/ownerReferences"}]'


async def test_a_policy_that_takes_jobs_their_owner_makes_no_more_of_them(
    server: ApiServer, kube: Kube, namespace: str, start: Start
) -> None:
    """Nobody would know whose they are, so each would run, and another be made when it has ended."""
    owned = [{"name": "owned", "expression": "has(object.metadata.ownerReferences)"}]
    changes = {"patchType": "JSONPatch", "jsonPatch": {"expression": DISOWNED}}
    spec = {"matchConstraints": about("batch", "jobs", "CREATE"), "matchConditions": owned, "mutations": [changes]}
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"}
    await start(TRIMTAB_POD_START_SECONDS="5")
    with policy(server, "Mutating", namespace, {**spec, "reinvocationPolicy": "Never"}):
        await in_force(server, "jobs", namespace, is_disowned, ownerReferences=[owner])
        async with playing(kube, namespace):
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
            body = await until(kube, namespace, "demo", over, what="the end of patience")
            await until_jobs(kube, namespace, set())
    (said,) = [each for each in body["status"]["conditions"] if each["type"] == "Succeeded"]
    assert said["reason"] == "PodRefused"
    assert "takes demo-prepare-0 its owner" in said["message"]


def written_over(labels: dict[str, str | None]) -> str:
    """Return the patches with which a policy writes over labels of Jobs and of their pods, or takes them (None)."""
    places = ("metadata.labels", "spec.template.metadata.labels")
    patches = []
    for place in places:
        for label, value in labels.items():
            path = f"/{place.replace('.', '/')}/{label.replace('/', '~1')}"
            operation = f'op: "replace", path: "{path}", value: "{value}"' if value else f'op: "remove", path: "{path}"'
            there = f"has(object.{place}) && '{label}' in object.{place}"
            patches.append(f"({there} ? [JSONPatch{{{operation}}}] : [])")
    return " + ".join(patches)


EVERY_LABEL = (MANAGED_BY_LABEL, STAGE_LABEL, ATTEMPT_LABEL, JOB_LABEL, ACCELERATORS_LABEL, INPUTS_LABEL)
WRITTEN_OVER: dict[str, dict[str, str | None]] = {
    "whose it is": {JOB_LABEL: "platform"},
    "which attempt it is": {ATTEMPT_LABEL: "0"},
    "which stage it is": {STAGE_LABEL: "platform"},
    "what it holds": {ACCELERATORS_LABEL: "platform", INPUTS_LABEL: "platform"},
    "all of them": dict.fromkeys(EVERY_LABEL, "platform"),
    "all of them taken": dict.fromkeys(EVERY_LABEL),
}


@pytest.mark.parametrize("labels", WRITTEN_OVER.values(), ids=WRITTEN_OVER)
async def test_an_attempt_is_known_whatever_labels_a_policy_writes_over(
    server: ApiServer, kube: Kube, namespace: str, start: Start, labels: dict[str, str | None]
) -> None:
    changes = {"patchType": "JSONPatch", "jsonPatch": {"expression": written_over(labels)}}
    spec = {"matchConstraints": about("batch", "jobs", "CREATE", "UPDATE"), "mutations": [changes]}
    operator = await start()
    with policy(server, "Mutating", namespace, {**spec, "reinvocationPolicy": "Never"}):
        await in_force(server, "jobs", namespace, is_changed, labels=dict.fromkeys(labels, "before"))
        async with playing(kube, namespace) as executor:
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
            body = await until(kube, namespace, "demo", over, what="the end")
            found = await operator.metrics()
    assert [(each["stage"], each["reason"]) for each in body["status"]["attempts"]] == [
        ("prepare", "Completed"),
        ("train", "Completed"),
    ]
    assert executor.pods == [("prepare", 0), ("train", 1)]
    assert sum(value for key, value in found.items() if 'verb="create"' in key and 'resource="jobs"' in key) == 2


def is_changed(answer: Any) -> bool:
    return "before" not in answer.body["metadata"].get("labels", {}).values()


async def test_a_policy_that_takes_config_maps_their_owner_keeps_no_attempt_from_the_next(
    server: ApiServer, kube: Kube, namespace: str, start: Start
) -> None:
    """After a failure the run configuration is made again, and meets the one that is there and nobody's."""
    owned = [{"name": "owned", "expression": "has(object.metadata.ownerReferences)"}]
    changes = {"patchType": "JSONPatch", "jsonPatch": {"expression": DISOWNED}}
    spec = {"matchConstraints": about("", "configmaps", "CREATE"), "matchConditions": owned, "mutations": [changes]}
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"}

    def script(stage: Stage, attempt: int) -> Act:
        return Act(13, Reason.STORAGE_FAILED, message="503") if attempt == 1 else Act()

    await start()
    with policy(server, "Mutating", namespace, {**spec, "reinvocationPolicy": "Never"}):
        await in_force(server, "configmaps", namespace, is_disowned, ownerReferences=[owner])
        async with playing(kube, namespace, script):
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
            body = await until(kube, namespace, "demo", over_or_taken, what="the end")
    assert state_of(body) == "Completed"
    assert [each["reason"] for each in body["status"]["attempts"]] == ["Completed", "StorageFailed", "Completed"]


def over_or_taken(body: Body) -> bool:
    return over(body) or state_of(body) == "NameTaken"
