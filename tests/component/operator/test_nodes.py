"""Attempts of several pods, under the real Job controller: what it makes of them, and what one that fails ends."""

from __future__ import annotations

import asyncio

import pytest
from trimtab_operator.domain.views import ATTEMPT_LABEL, INDEX_LABEL, STAGE_LABEL
from trimtab_operator.runtime.kube import JOBS, MERGE_PATCH, NETWORK_POLICIES, PODS, SERVICES, Body, Kube, Resource
from trimtab_trainer.contract import Reason, Stage

from tests.component.operator.conftest import Start, playing
from tests.component.operator.executor import Act, Executor
from tests.component.operator.finetunejobs import finetunejob, jobs_of, until, until_jobs, until_state
from tests.component.patience import Patience
from tests.resources import FINETUNEJOBS

TRAIN = f"{STAGE_LABEL}=train"
TEMPLATE = {"resources": {"limits": {"nvidia.com/gpu": 1}}}


class Pods(Executor):
    """Plays the pods of attempts by their index; `fails` has (attempt, index) of what ends badly, `holds` of what does
    not start, `rests` of what runs until it is deleted."""

    fails: frozenset[tuple[int, int]] = frozenset()
    holds: frozenset[tuple[int, int]] = frozenset()
    rests: frozenset[tuple[int, int]] = frozenset()

    def act_of(self, pod: Body, stage: Stage, attempt: int) -> Act | None:
        place = place_of(pod)
        if place in self.fails:
            return Act(1, Reason.BUG, message=f"pod {place[1]} failed", seconds=0.5)
        return None if place in self.rests else Act(seconds=1)

    async def play(self, pod: Body) -> None:
        if place_of(pod) not in self.holds:
            await super().play(pod)


def place_of(pod: Body) -> tuple[int, int]:
    labels = pod["metadata"]["labels"]
    return int(labels[ATTEMPT_LABEL]), int(labels.get(INDEX_LABEL, 0))


async def there(kube: Kube, resource: Resource, namespace: str) -> list[Body]:
    return [each for each in await kube.items(resource, namespace, {}) if each["metadata"]["name"] == "train-demo"]


async def test_two_pods_have_names_and_ranks_and_one_result(kube: Kube, namespace: str, start: Start) -> None:
    await start()
    async with playing(kube, namespace, kind=Pods) as executor:
        job = finetunejob("demo", namespace, nodes=2, template=TEMPLATE)
        await kube.create(FINETUNEJOBS, namespace, job)
        body = await until_state(kube, namespace, "demo", "Completed")
    assert sorted(executor.pods) == [("prepare", 0), ("train", 1), ("train", 1)]
    attempt = body["status"]["attempts"][-1]
    assert body["status"]["acceleratorSeconds"] == 2 * attempt["activeSeconds"] > 0
    made = await kube.get(JOBS, namespace, "demo-train-1")
    assert (made["spec"]["completionMode"], made["spec"]["parallelism"]) == ("Indexed", 2)

    pods = sorted(await kube.items(PODS, namespace, {"labelSelector": TRAIN}), key=place_of)
    named = [(pod["spec"]["hostname"], pod["spec"]["subdomain"]) for pod in pods]
    assert named == [("demo-train-1-0", "train-demo"), ("demo-train-1-1", "train-demo")]
    told = {each["name"]: each.get("value") for each in pods[1]["spec"]["containers"][0]["env"]}
    assert told["PET_MASTER_ADDR"] == ".".join(named[0])
    assert pods[1]["metadata"]["annotations"][INDEX_LABEL] == "1"  # what PET_NODE_RANK refers to
    (service,), (policy,) = await there(kube, SERVICES, namespace), await there(kube, NETWORK_POLICIES, namespace)
    selected = {"matchLabels": service["spec"]["selector"]}
    assert policy["spec"]["podSelector"] == selected
    assert all(service["spec"]["selector"].items() <= pod["metadata"]["labels"].items() for pod in pods)
    assert service["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize(
    ("failed", "held", "rests"),
    [
        ((1, 1), {(1, 0)}, set()),  # before the first has begun
        ((1, 1), set(), {(1, 0)}),  # while both train
        ((1, 0), set(), set()),  # while the first publishes, after the other has done its part
    ],
    ids=["while the leader loads", "while both train", "while the leader publishes"],
)
async def test_one_pod_that_fails_ends_the_attempt_and_the_next_has_both(  # noqa: PLR0917  fixtures, and what is told
    kube: Kube,
    namespace: str,
    start: Start,
    failed: tuple[int, int],
    held: set[tuple[int, int]],
    rests: set[tuple[int, int]],
) -> None:
    await start()
    async with playing(kube, namespace, kind=Pods) as executor:
        assert isinstance(executor, Pods)
        executor.fails, executor.holds, executor.rests = frozenset({failed}), frozenset(held), frozenset(rests)
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace, nodes=2, retries={"onFailure": 1}))
        body = await until_state(kube, namespace, "demo", "Completed")
    status = body["status"]
    first = next(each for each in status["attempts"] if each["number"] == 1)
    assert (first["reason"], first["message"], first["chargedTo"]) == (
        "InternalError", f"pod {failed[1]} failed", "failures",
    )  # fmt: skip
    assert (status["failures"], status.get("disruptions", 0)) == (1, 0)
    assert set(await jobs_of(kube, namespace)) == {"demo-prepare-0", "demo-train-1", "demo-train-2"}
    assert executor.pods.count(("train", 2)) == 2
    running = [pod for pod in await kube.items(PODS, namespace, {"labelSelector": TRAIN}) if not over(pod)]
    assert running == []


def over(pod: Body) -> bool:
    return pod["status"].get("phase") in ("Succeeded", "Failed")


async def test_suspending_ends_both_and_fewer_nodes_go_on(kube: Kube, namespace: str, start: Start) -> None:
    await start()
    async with playing(kube, namespace, kind=Pods) as executor:
        assert isinstance(executor, Pods)
        executor.rests = frozenset({(1, 0), (1, 1)})
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace, nodes=2))
        await until_state(kube, namespace, "demo", "Training")
        change: Body = {"spec": {"suspend": True}}
        await kube.patch(FINETUNEJOBS, namespace, "demo", MERGE_PATCH, change)
        await until_state(kube, namespace, "demo", "Suspended")
        patience = Patience("both pods go")
        while found := await kube.items(PODS, namespace, {"labelSelector": TRAIN}):
            patience.spend([pod["metadata"]["name"] for pod in found])
            await asyncio.sleep(0.1)
        change = {"spec": {"suspend": False, "nodes": 1}}
        await kube.patch(FINETUNEJOBS, namespace, "demo", MERGE_PATCH, change)
        body = await until_state(kube, namespace, "demo", "Completed")
    assert (await kube.get(JOBS, namespace, "demo-train-2"))["spec"]["completions"] == 1
    assert body["status"].get("failures", 0) == body["status"].get("disruptions", 0) == 0


async def test_deleting_it_deletes_all_that_its_pods_have_together(kube: Kube, namespace: str, start: Start) -> None:
    operator = await start()
    async with playing(kube, namespace, kind=Pods) as executor:
        assert isinstance(executor, Pods)
        executor.rests = frozenset({(1, 0), (1, 1)})
        await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace, nodes=2))
        body = await until_state(kube, namespace, "demo", "Training")
        await until(kube, namespace, "demo", lambda body: len(executor.pods) == 3, what="both pods")
        assert await there(kube, SERVICES, namespace)
        await kube.delete(FINETUNEJOBS, namespace, "demo", body["metadata"]["uid"])
        await until_jobs(kube, namespace, set())
        patience = Patience("its Service and NetworkPolicy go")
        while found := [*await there(kube, SERVICES, namespace), *await there(kube, NETWORK_POLICIES, namespace)]:
            patience.spend([each["metadata"].get("resourceVersion") for each in found])
            await asyncio.sleep(0.1)
    assert not [line for line in operator.log_lines() if line["level"] == "error"]
