"""What policies and webhooks make of what is created: it is known all the same, or the state says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.kind import Needs
from trimtab_operator.domain.views import (
    ACCELERATORS_LABEL,
    ATTEMPT_LABEL,
    INDEX_LABEL,
    INPUTS_LABEL,
    JOB_LABEL,
    JOB_NAME_LABEL,
    JOB_UID_LABEL,
    MANAGED_BY_LABEL,
    STAGE_LABEL,
    PodView,
)
from trimtab_operator.runtime.kube import CONFIGMAPS, JOBS, PODS, AlreadyExists, ApiError, Body, Resource, Unreachable

from tests.resources import FINETUNEJOBS
from tests.unit.lives.watches import deliver
from tests.unit.runtime.fake_api import FakeApi, failing
from tests.unit.runtime.objects import NAMESPACE, finetunejob
from tests.unit.runtime.rounds import Rounds

KEY = Key("FineTuneJob", NAMESPACE, "demo")
CREATED = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
NAME = "demo-prepare-0"


class Policed(FakeApi):
    """An API server that makes `changes` of what is written there; `made` are names of the Jobs it was asked for."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__()
        self._now = now
        self.changes: dict[Resource, Callable[[Body], Body]] = {}
        self.made: list[str] = []

    def put(self, resource: Resource, body: Body) -> Body:
        change = self.changes.get(resource)
        return super().put(resource, change(body) if change is not None else body)

    async def create(self, resource: Resource, namespace: str, body: Body) -> Body:
        noted = {"creationTimestamp": self._now().isoformat(), "managedFields": [{"manager": "trimtab-operator"}]}
        answer = await super().create(resource, namespace, {**body, "metadata": {**body["metadata"], **noted}})
        if resource is JOBS:
            self.made.append(answer["metadata"]["name"])
        return answer


class World:
    """A cluster with a FineTuneJob that nobody has looked at yet."""

    def __init__(self) -> None:
        self.now = CREATED
        self.api = Policed(lambda: self.now)
        self.rounds = Rounds(lambda: self.now, api=self.api)
        self.changes, self.made = self.api.changes, self.api.made
        body = finetunejob()
        body["metadata"]["creationTimestamp"] = "2026-01-05T12:00:00Z"
        self.api.put(FINETUNEJOBS, body)

    async def settle(self) -> None:
        """Do rounds until nothing changes any more."""
        for _ in range(12):
            for _key in deliver(self.rounds, self.api, Random(), 1.0):
                pass
            try:
                await self.rounds.round(KEY)
            except (ApiError, Unreachable):
                continue

    @property
    def jobs(self) -> list[str]:
        return self.rounds.jobs()

    @property
    def said(self) -> tuple[str, str]:
        return self.rounds.said(KEY)

    @property
    def attempts(self) -> list[tuple[str, int]]:
        status = self.api.objects["finetunejobs", NAMESPACE, "demo"].get("status", {})
        return [(each["stage"], each["number"]) for each in status.get("attempts", ())]


@pytest.fixture
async def world() -> World:
    return World()


def relabelled(labels: dict[str, str | None]) -> Callable[[Body], Body]:
    """Return what writes over labels of a Job and of its pods, where they are, or takes them (None)."""

    def of(metadata: Body) -> Body:
        before = metadata.get("labels") or {}
        after = {key: labels.get(key, value) for key, value in before.items()}
        return {**metadata, "labels": {key: value for key, value in after.items() if value is not None}}

    def of_job(job: Body) -> Body:
        template = job["spec"]["template"]
        spec = {**job["spec"], "template": {**template, "metadata": of(template["metadata"])}}
        return {**job, "metadata": of(job["metadata"]), "spec": spec}

    return of_job


EVERY_LABEL = (MANAGED_BY_LABEL, STAGE_LABEL, ATTEMPT_LABEL, JOB_LABEL, ACCELERATORS_LABEL, INPUTS_LABEL)
WRITTEN_OVER: dict[str, dict[str, str | None]] = {
    "whose it is": {JOB_LABEL: "platform"},
    "which attempt it is": {ATTEMPT_LABEL: "7"},
    "which stage it is": {STAGE_LABEL: "platform"},
    "what it was made from": {INPUTS_LABEL: "platform", ACCELERATORS_LABEL: "platform"},
    "all of them": dict.fromkeys(EVERY_LABEL, "platform"),
    "all of them taken": dict.fromkeys(EVERY_LABEL),
}


@pytest.mark.parametrize("labels", WRITTEN_OVER.values(), ids=WRITTEN_OVER)
async def test_an_attempt_is_known_whatever_labels_a_policy_writes_over(
    world: World, labels: dict[str, str | None]
) -> None:
    world.changes[JOBS] = relabelled(labels)
    for _ in range(20):
        await world.settle()
        world.now += timedelta(seconds=2)
    assert (world.made, world.jobs, world.said[0]) == ([NAME], [NAME], "Preparing")
    assert world.attempts == [("prepare", 0)]


def pod_of(world: World, labels: dict[str, str], phase: str = "Running") -> Body:
    uid = world.api.objects["jobs", NAMESPACE, NAME]["metadata"]["uid"]
    owner = {"kind": "Job", "name": NAME, "uid": uid, "controller": True}
    labels = {JOB_UID_LABEL: uid, JOB_NAME_LABEL: NAME, **labels}
    metadata = {"namespace": NAMESPACE, "name": f"{NAME}-x", "labels": labels, "ownerReferences": [owner]}
    state = {"running": {"startedAt": "2026-01-05T12:00:01Z"}}
    return {
        "metadata": {**metadata, "uid": "pod-1"},
        "spec": {},
        "status": {"phase": phase, "containerStatuses": [{"name": "trainer", "state": state}]},
    }


COMPLETE = {"type": "Complete", "status": "True"}


async def test_the_pods_of_a_job_are_found_whatever_their_job_name_is_written_over_with(world: World) -> None:
    """One that is taken for gone would take its last words with it, and never be believed again."""
    await world.settle()
    job = world.api.objects["jobs", NAMESPACE, NAME]
    world.api.put(PODS, pod_of(world, {STAGE_LABEL: "prepare", JOB_NAME_LABEL: "platform"}))
    await world.settle()
    world.rounds.cache.jobs.put(world.api.put(JOBS, {**job, "status": {"conditions": [COMPLETE]}}))
    await world.rounds.inquiries.read_anew(KEY, "ftj-1", Needs(True, (), {NAME: job["metadata"]["uid"]}))
    assert [pod.name for pod in world.rounds.cache.pods.of_parent(job["metadata"]["uid"])] == [f"{NAME}-x"]


@pytest.mark.parametrize("labels", [{INDEX_LABEL: "platform"}, {}], ids=["written over", "taken"])
async def test_which_of_several_a_pod_is_is_known_whatever_its_label_says(world: World, labels: dict[str, str]) -> None:
    await world.settle()
    body = pod_of(world, labels)
    view = PodView.of({**body, "metadata": {**body["metadata"], "annotations": {INDEX_LABEL: "3"}}})
    assert view is not None
    assert view.index == 3


@pytest.mark.parametrize("owner", ["platform", None], ids=["written over", "taken"])
async def test_a_pod_concerns_whom_its_job_does_whatever_its_label_says(world: World, owner: str | None) -> None:
    await world.settle()
    labels = {STAGE_LABEL: "prepare", **({JOB_LABEL: owner} if owner is not None else {})}
    body = world.api.put(PODS, pod_of(world, labels))
    assert world.rounds.cache.pods.put(body) == KEY
    assert world.rounds.cache.pods.remove(body["metadata"]["uid"]) == KEY


async def test_a_pod_that_no_watch_tells_of_is_looked_for(world: World) -> None:
    """A policy has taken the label that selects it."""
    await world.settle()
    job = world.api.objects["jobs", NAMESPACE, NAME]
    world.api.put(JOBS, {**job, "status": {"active": 1}})
    world.api.put(PODS, pod_of(world, {}))
    world.rounds.cache.pods.wants = lambda body: STAGE_LABEL in body["metadata"]["labels"]
    await world.settle()
    world.now += timedelta(seconds=20)
    await world.settle()
    (found,) = world.rounds.cache.pods.of_parent(job["metadata"]["uid"])
    assert found.running


async def test_pods_of_an_attempt_that_lost_their_labels_and_their_job_are_not_run_beside(world: World) -> None:
    await world.settle()
    pod = pod_of(world, {STAGE_LABEL: "prepare"})
    world.api.put(PODS, pod)
    await world.settle()
    world.api.drop(JOBS, NAMESPACE, NAME)
    world.api.put(PODS, {**pod, "metadata": {**pod["metadata"], "ownerReferences": []}})
    world.now += timedelta(seconds=600)
    await world.settle()
    world.now += timedelta(seconds=600)
    await world.settle()
    assert world.jobs == []
    assert world.said[0] == "NameTaken"
    assert f"pod {NAME}-x runs on" in world.said[1]


def disowned(body: Body) -> Body:
    return {**body, "metadata": {**body["metadata"], "ownerReferences": []}}


def unheard(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose the answer to the first creation of a Job; one whose name is taken was refused, and nobody heard that."""
    create, lost = world.api.create, [True]

    async def once(resource: Resource, namespace: str, body: Body) -> Body:
        if resource is not JOBS or not lost:
            return await create(resource, namespace, body)
        lost.clear()
        with suppress(AlreadyExists):
            await create(resource, namespace, body)
        raise Unreachable("create: connection reset")

    monkeypatch.setattr(world.api, "create", once)


async def test_a_creation_whose_answer_was_lost_and_whose_owner_a_policy_takes_counts_as_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would run for nobody, and its name be taken by something that nobody has made."""
    world.changes[JOBS] = disowned
    unheard(world, monkeypatch)
    await world.settle()
    assert world.jobs == []
    assert world.said[0] == "PodRefused"
    assert f"takes {NAME} its owner" in world.said[1]


OTHERS: dict[str, Body] = {
    "of an Evaluation": {"apiVersion": "trimtab.dev/v1alpha1", "kind": "Evaluation", "name": "a", "uid": "other"},
    "of one of this name before": {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "FineTuneJob",
        "name": "demo",
        "uid": "gone",
    },
}


@pytest.mark.parametrize("owner", OTHERS.values(), ids=OTHERS)
async def test_after_a_creation_whose_answer_was_lost_what_is_anothers_is_left_to_it(
    world: World, monkeypatch: pytest.MonkeyPatch, owner: Body
) -> None:
    """An operator has made it in the same second, or by a clock that is ahead of ours."""
    metadata = {
        "namespace": NAMESPACE,
        "name": NAME,
        "creationTimestamp": "2026-01-05T12:00:05Z",
        "managedFields": [{"manager": "trimtab-operator"}],
        "ownerReferences": [{**owner, "controller": True}],
    }
    unheard(world, monkeypatch)
    world.api.put(JOBS, {"metadata": metadata, "spec": {"template": {"spec": {}}}})
    await world.settle()
    world.now += timedelta(seconds=600)
    await world.settle()
    assert world.jobs == [NAME]
    assert world.said[0] == "NameTaken"


async def test_what_has_the_name_of_a_child_and_no_owner_is_told_of_as_that(world: World) -> None:
    """As after a restart: nobody knows any more that a creation had no answer."""
    world.changes[JOBS] = disowned
    body = {"metadata": {"namespace": NAMESPACE, "name": NAME, "creationTimestamp": "2026-01-05T12:00:00Z"}}
    world.api.put(JOBS, {**body, "spec": {"template": {"spec": {}}}})
    await world.settle()
    world.now += timedelta(seconds=600)
    await world.settle()
    assert world.jobs == [NAME]
    assert world.said[0] == "NameTaken"
    assert world.said[1].startswith(
        f"Job {NAME} is there and has no owner: something else made it, or a policy or a webhook takes owners away"
    )


async def test_a_run_configuration_whose_owner_a_policy_takes_is_used_all_the_same(world: World) -> None:
    world.changes[CONFIGMAPS] = disowned
    world.api.before = failing("create", "jobs", Unreachable("create: not sent"))
    await world.settle()
    world.now += timedelta(seconds=60)
    world.api.before = lambda verb, plural, name: None
    await world.settle()
    assert (world.jobs, world.said[0]) == ([NAME], "Preparing")


async def test_a_run_configuration_that_nobody_will_collect_is_told_of(world: World) -> None:
    await world.settle()
    assert warned(world) == []
    world = World()
    world.changes[CONFIGMAPS] = disowned
    await world.settle()
    ((reason, words),) = warned(world)
    (name,) = [name for plural, _, name in world.api.objects if plural == "configmaps"]
    assert reason == "OwnerTaken"
    assert words.startswith(f"ConfigMap {name} has no owner")
    assert words.endswith(f"kubectl delete configmaps {name}")


def warned(world: World) -> list[tuple[str, str]]:
    events = [body for (plural, _, _), body in world.api.objects.items() if plural == "events"]
    return [(each["reason"], each["note"]) for each in events if each["type"] == "Warning"]


async def test_a_run_configuration_of_nobodys_that_says_something_else_is_not_used(world: World) -> None:
    def otherwise(body: Body) -> Body:
        return disowned({**body, "data": {"run.json": "{}"}})

    world.changes[CONFIGMAPS] = otherwise
    world.api.before = failing("create", "jobs", Unreachable("create: not sent"))
    await world.settle()
    world.now += timedelta(seconds=600)
    world.api.before = lambda verb, plural, name: None
    await world.settle()
    world.now += timedelta(seconds=600)
    await world.settle()
    assert (world.jobs, world.said[0]) == ([], "NameTaken")
    assert "has no owner" in world.said[1]


def retold(*arguments: str) -> Callable[[Body], Body]:
    """Return what writes over what the trainer is told."""

    def change(job: Body) -> Body:
        template = job["spec"]["template"]
        containers: list[Any] = [{**each, "args": list(arguments)} for each in template["spec"]["containers"]]
        template = {**template, "spec": {**template["spec"], "containers": containers}}
        return {**job, "spec": {**job["spec"], "template": template}}

    return change


def renamed(job: Body) -> Body:
    return {**job, "metadata": {**job["metadata"], "name": f"platform-{job['metadata']['name']}"}}


def made_from_else(job: Body) -> Body:
    labels = {**job["metadata"]["labels"], INPUTS_LABEL: "01234567"}
    return {**job, "metadata": {**job["metadata"], "labels": labels}}


MADE_OTHERWISE = {
    "another attempt": retold("prepare", "--config", "/run.json", "--attempt", "7"),
    "another stage": retold("train", "--config", "/run.json", "--attempt", "0"),
    "another name": renamed,
    "made from something else": made_from_else,
}


@pytest.mark.parametrize("change", MADE_OTHERWISE.values(), ids=MADE_OTHERWISE)
async def test_a_job_that_a_policy_makes_another_of_is_deleted_again_and_counts_as_refused(
    world: World, change: Callable[[Body], Body]
) -> None:
    world.changes[JOBS] = change
    await world.settle()
    assert (world.jobs, world.attempts, len(world.made)) == ([], [], 1)
    assert world.said[0] == "PodRefused"
    assert "a policy or a webhook" in world.said[1]
