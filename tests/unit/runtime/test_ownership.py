"""What says whose a Job is may be lost or forged: the uid that the status holds tells ours from others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.views import JOB_LABEL, JOB_NAME_LABEL, JOB_UID_LABEL, MANAGED_BY_LABEL
from trimtab_operator.runtime.cluster import departed
from trimtab_operator.runtime.kube import JOBS, PODS, ApiError, Body, Conflict, Invalid, Resource
from trimtab_trainer.contract import Reason, Stage, TerminationMessage

from tests.resources import FINETUNEJOBS
from tests.unit.domain.makers import PREPARED
from tests.unit.lives.watches import deliver
from tests.unit.runtime.fake_api import failing
from tests.unit.runtime.objects import NAMESPACE, finetunejob
from tests.unit.runtime.rounds import Rounds

KEY = Key("FineTuneJob", NAMESPACE, "demo")
CREATED = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class World:
    """A FineTuneJob whose prepare Job is under way, seen from a cache that hears everything."""

    def __init__(self) -> None:
        self.now = CREATED
        self.rounds = Rounds(lambda: self.now)
        self.api = self.rounds.api
        body = finetunejob()
        body["metadata"]["creationTimestamp"] = "2026-01-05T12:00:00Z"
        self.api.put(FINETUNEJOBS, body)

    async def settle(self) -> float | None:
        """Do rounds until nothing changes any more, and return when to look again."""
        again: float | None = None
        for _ in range(8):
            for _key in deliver(self.rounds, self.api, Random(), 1.0):
                pass
            again = await self.rounds.round(KEY)
        return again

    @property
    def jobs(self) -> list[str]:
        return self.rounds.jobs()

    @property
    def said(self) -> tuple[str, str]:
        return self.rounds.said(KEY)

    def job(self, name: str = "demo-prepare-0") -> Body:
        return self.api.objects["jobs", NAMESPACE, name]

    def change(self, **metadata: Any) -> None:
        body = self.job()
        self.api.put(JOBS, {**body, "metadata": {**body["metadata"], **metadata}})

    def put_pod(self, phase: str = "Running", *, owned: bool = False) -> None:
        uid = self.job()["metadata"]["uid"]
        labels = {JOB_LABEL: "demo", JOB_UID_LABEL: uid, JOB_NAME_LABEL: "demo-prepare-0"}
        owners = [{"kind": "Job", "name": "demo-prepare-0", "uid": uid, "controller": True}] if owned else []
        metadata = {"namespace": NAMESPACE, "name": "demo-prepare-0-x", "labels": labels, "ownerReferences": owners}
        state = {"running": {}} if phase == "Running" else {"terminated": {"exitCode": 0}}
        status = {"phase": phase, "containerStatuses": [{"name": "trainer", "state": state}]}
        self.api.put(PODS, {"metadata": metadata, "spec": {}, "status": status})


@pytest.fixture
async def world() -> World:
    world = World()
    await world.settle()
    assert world.jobs == ["demo-prepare-0"]
    return world


OWNER = {"apiVersion": "trimtab.dev/v1alpha1", "kind": "FineTuneJob", "name": "demo", "uid": "no-more"}


@pytest.mark.parametrize("owners", [[], [{**OWNER, "controller": True}]])
async def test_a_job_whose_owner_was_taken_away_is_adopted_and_not_run_beside(world: World, owners: list[Body]) -> None:
    before = world.job()["metadata"]
    beside = {"apiVersion": "v1", "kind": "ConfigMap", "name": "of-a-tenant", "uid": "u"}
    world.change(ownerReferences=[beside, *owners])
    await world.settle()
    assert world.jobs == ["demo-prepare-0"]
    assert world.job()["metadata"]["ownerReferences"] == [beside, *before["ownerReferences"]]
    assert world.said[0] == "Preparing"


async def test_who_takes_it_away_again_and_again_is_written_against_once_a_minute(world: World) -> None:
    for _ in range(20):
        world.change(ownerReferences=[])
        await world.settle()
        world.now += timedelta(seconds=2)
    assert world.api.calls.count(("patch", "jobs", "demo-prepare-0")) == 1
    assert (world.jobs, world.said[0]) == (["demo-prepare-0"], "Preparing")


async def test_an_object_that_was_replaced_by_force_begins_when_the_jobs_of_the_former_are_gone(world: World) -> None:
    body = world.api.objects["finetunejobs", NAMESPACE, "demo"]
    metadata = {**body["metadata"], "uid": "ftj-2", "creationTimestamp": "2026-01-05T12:00:05Z"}
    world.api.put(FINETUNEJOBS, {**body, "metadata": metadata, "status": {}})
    former = world.job()
    world.now += timedelta(seconds=6)
    await world.settle()
    assert (world.job(), world.said[0]) == (former, "Pending")
    for plural, namespace, name in [place for place in world.api.objects if place[0] in ("jobs", "configmaps")]:
        del world.api.objects[plural, namespace, name]
    await world.settle()
    assert (world.job()["metadata"]["ownerReferences"][0]["uid"], world.said[0]) == ("ftj-2", "Preparing")


async def test_labels_that_a_tool_has_taken_away_come_back(world: World) -> None:
    before = world.job()["metadata"]["labels"]
    world.change(labels={"app": "x"})
    await world.settle()
    after = world.job()["metadata"]["labels"]
    assert (world.jobs, after["app"]) == (["demo-prepare-0"], "x")
    assert {k: before[k] for k in after if k != "app"} == {k: v for k, v in after.items() if k != "app"}
    assert world.said[0] == "Preparing"


async def test_what_another_controller_has_is_left_to_it_and_is_not_run_beside(world: World) -> None:
    theirs = [{"apiVersion": "example.com/v1", "kind": "Wrapper", "name": "w", "uid": "w", "controller": True}]
    world.change(ownerReferences=theirs)
    await world.settle()
    assert (world.jobs, world.job()["metadata"]["ownerReferences"]) == (["demo-prepare-0"], theirs)
    assert world.said[0] == "Preparing"


@pytest.mark.parametrize("error", [ApiError(403, "Forbidden", "a policy"), Conflict(409, "Conflict", "changed")])
async def test_an_adoption_that_is_refused_holds_nothing_up_and_is_seldom(world: World, error: ApiError) -> None:
    world.change(ownerReferences=[])
    world.api.before = failing("patch", "jobs", error)
    await world.settle()
    tries = world.api.calls.count(("patch", "jobs", "demo-prepare-0"))
    assert (tries, world.jobs, world.said[0]) == (1, ["demo-prepare-0"], "Preparing")
    world.api.before = lambda verb, plural, name: None
    world.now += timedelta(seconds=61)
    await world.settle()
    assert world.job()["metadata"]["ownerReferences"]


async def test_a_copy_with_our_labels_is_neither_adopted_nor_deleted_and_nothing_runs_beside_it(world: World) -> None:
    copy = world.job()
    del world.api.objects["jobs", NAMESPACE, "demo-prepare-0"]
    metadata = {**copy["metadata"], "name": "copy", "ownerReferences": []}
    del metadata["uid"]
    there = world.api.put(JOBS, {**copy, "metadata": metadata})
    world.now += timedelta(seconds=1)
    await world.settle()
    assert (world.jobs, world.said[0]) == (["copy"], "Pending")
    world.now += timedelta(seconds=600)
    await world.settle()
    assert (world.jobs, world.job("copy")) == (["copy"], there)
    assert world.said[0] == "NameTaken"
    assert world.said[1].startswith("Job copy says by its labels that it works for this job")
    world.api.put(JOBS, {**there, "status": {"conditions": [{"type": "Complete", "status": "True"}]}})
    await world.settle()
    assert (world.jobs, world.said[0]) == (["copy", "demo-prepare-1"], "Retrying")


async def test_a_status_that_somebody_wrote_makes_no_job_of_a_tenants_ours(world: World) -> None:
    """Whoever may edit a status could have any Job of the namespace deleted, or given an owner."""
    theirs = world.job()
    labels = {"trimtab.dev/finetunejob": "another", "trimtab.dev/stage": "train", "trimtab.dev/attempt": "1"}
    metadata = {"namespace": NAMESPACE, "name": "theirs", "labels": {**theirs["metadata"]["labels"], **labels}}
    there = world.api.put(JOBS, {**theirs, "metadata": metadata, "spec": {}})
    body = world.api.objects["finetunejobs", NAMESPACE, "demo"]
    forged = {"number": 1, "stage": "train", "jobName": "theirs", "jobUID": there["metadata"]["uid"]}
    status = {**body["status"], "attempts": [*body["status"]["attempts"], forged]}
    world.api.put(FINETUNEJOBS, {**body, "status": status})
    await world.settle()
    assert world.job("theirs") == there


async def test_pods_that_outlive_a_job_which_was_deleted_without_them_are_waited_for(world: World) -> None:
    world.put_pod()
    del world.api.objects["jobs", NAMESPACE, "demo-prepare-0"]
    await world.settle()
    assert (world.jobs, world.said[0]) == ([], "Pending")
    world.now += timedelta(seconds=600)
    await world.settle()
    assert (world.jobs, world.said[0]) == ([], "NameTaken")
    assert "demo-prepare-0-x runs on" in world.said[1]
    pod = world.api.objects["pods", NAMESPACE, "demo-prepare-0-x"]
    world.api.put(PODS, {**pod, "status": {**pod["status"], "phase": "Succeeded"}})
    await world.settle()
    assert world.jobs == ["demo-prepare-1"]


async def test_pods_of_another_object_are_not_waited_for_where_a_status_was_copied(world: World) -> None:
    world.put_pod()
    pod = world.api.objects["pods", NAMESPACE, "demo-prepare-0-x"]
    labels = {**pod["metadata"]["labels"], JOB_LABEL: "another"}
    world.api.put(PODS, {**pod, "metadata": {**pod["metadata"], "labels": labels}})
    del world.api.objects["jobs", NAMESPACE, "demo-prepare-0"]
    await world.settle()
    assert world.jobs == ["demo-prepare-1"]


async def test_nothing_is_adopted_again_from_one_who_is_deleted_without_its_children(world: World) -> None:
    body = world.api.objects["finetunejobs", NAMESPACE, "demo"]
    leaving = {"deletionTimestamp": "2026-01-05T12:00:01Z", "finalizers": ["orphan"]}
    world.api.put(FINETUNEJOBS, {**body, "metadata": {**body["metadata"], **leaving}})
    world.change(ownerReferences=[])
    await world.settle()
    assert (world.jobs, world.job()["metadata"]["ownerReferences"]) == (["demo-prepare-0"], [])


def replaced(world: World, at: str) -> None:
    """Have the FineTuneJob deleted with `--cascade=orphan`, and applied again."""
    body = world.api.objects["finetunejobs", NAMESPACE, "demo"]
    metadata = {**body["metadata"], "uid": "ftj-2", "creationTimestamp": at}
    world.change(ownerReferences=[])
    world.api.put(FINETUNEJOBS, {**body, "metadata": metadata, "status": {}})


def done(job: Body) -> Body:
    return {**job, "status": {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}}


async def test_what_an_object_left_when_it_was_deleted_is_waited_for_by_the_next_of_its_name(world: World) -> None:
    replaced(world, "2026-01-05T12:00:00Z")
    left = world.job()
    world.now += timedelta(seconds=1)
    await world.settle()
    assert (world.jobs, world.said[0]) == (["demo-prepare-0"], "Pending")
    world.now += timedelta(seconds=600)
    await world.settle()
    assert (world.jobs, world.said[0]) == (["demo-prepare-0"], "NameTaken")
    assert world.said[1].startswith("Job demo-prepare-0 says by its labels that it works for this job")
    there = world.api.put(JOBS, done(left))
    await world.settle()
    assert (world.jobs, world.said[0]) == (["demo-prepare-0", "demo-prepare-1"], "Preparing")
    assert world.job() == there


async def test_a_job_that_lost_its_owner_before_the_status_told_of_it_is_waited_for(world: World) -> None:
    body = world.api.objects["finetunejobs", NAMESPACE, "demo"]
    world.api.put(FINETUNEJOBS, {**body, "status": {}})
    world.change(ownerReferences=[])
    world.now += timedelta(seconds=600)
    await world.settle()
    assert (world.jobs, world.said[0]) == (["demo-prepare-0"], "NameTaken")
    world.api.put(JOBS, done(world.job()))
    await world.settle()
    assert (world.jobs, world.said[0]) == (["demo-prepare-0", "demo-prepare-1"], "Preparing")


async def test_a_pod_that_an_object_left_with_neither_job_nor_owner_is_waited_for_by_the_next(world: World) -> None:
    world.put_pod()
    replaced(world, "2026-01-05T12:00:00Z")
    del world.api.objects["jobs", NAMESPACE, "demo-prepare-0"]
    world.now += timedelta(seconds=600)
    await world.settle()
    assert (world.jobs, world.said[0]) == ([], "NameTaken")
    assert "demo-prepare-0-x runs on" in world.said[1]
    pod = world.api.objects["pods", NAMESPACE, "demo-prepare-0-x"]
    world.api.put(PODS, {**pod, "status": {**pod["status"], "phase": "Succeeded"}})
    await world.settle()
    assert (world.jobs, world.said[0]) == (["demo-prepare-0"], "Preparing")


async def test_a_job_with_our_owner_that_is_no_attempt_keeps_its_name_and_is_told_of(world: World) -> None:
    """Nothing goes round in circles about it: it is there, it says whose it is, and nothing can be made of it."""
    there = world.job()
    body = world.api.objects["finetunejobs", NAMESPACE, "demo"]
    world.api.put(FINETUNEJOBS, {**body, "status": {}})
    spec = {**there["spec"], "template": {"metadata": {"labels": {}}, "spec": {}}}
    world.change(labels={"app.kubernetes.io/managed-by": "trimtab"})
    world.api.put(JOBS, {**world.job(), "spec": spec})
    await world.settle()
    assert (world.jobs, world.said[0]) == (["demo-prepare-0"], "Pending")
    tries = world.api.calls.count(("create", "jobs", "demo-prepare-0"))
    await world.settle()
    assert world.api.calls.count(("create", "jobs", "demo-prepare-0")) == tries
    world.now += timedelta(seconds=600)
    await world.settle()
    assert world.said[0] == "NameTaken"
    assert world.said[1].startswith("Job demo-prepare-0 belongs to something else; delete or rename that")


async def test_a_job_whose_labels_a_policy_writes_over_is_read_by_its_name(world: World) -> None:
    """Such as one that sets app.kubernetes.io/managed-by of everything: no watch tells of its end."""
    put = world.api.put

    def overwritten(resource: Resource, body: Body) -> Body:
        if resource is JOBS:
            labels = {**body["metadata"]["labels"], MANAGED_BY_LABEL: "a-policy"}
            body = {**body, "metadata": {**body["metadata"], "labels": labels}}
        return put(resource, body)

    world.api.put = overwritten  # type: ignore[method-assign]
    world.change()
    again = await world.settle()
    assert (world.jobs, world.said[0], again) == (["demo-prepare-0"], "Preparing", 10)
    world.api.put(JOBS, done(world.job()))
    await world.settle()
    assert (world.jobs, world.said[0]) == (["demo-prepare-0", "demo-prepare-1"], "Retrying")
    assert world.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]["attempts"][0]["reason"] == "ResultLost"


def ended(world: World, exit_code: int = 0, words: str = "") -> None:
    """Have the pod end, and then the Job, whose policy deletes it at once; all of that is heard of."""
    job, state = world.job(), {"exitCode": exit_code, "message": words, "finishedAt": "2026-01-05T12:00:05Z"}
    world.put_pod(owned=True)
    pod = world.api.objects["pods", NAMESPACE, "demo-prepare-0-x"]
    pod["status"] = {
        "phase": "Failed" if exit_code else "Succeeded",
        "containerStatuses": [{"name": "trainer", "state": {"terminated": state}}],
    }
    outcome = {"type": "Failed" if exit_code else "Complete", "status": "True"}
    body = {**job, "status": {"conditions": [{**outcome, "lastTransitionTime": "2026-01-05T12:00:06Z"}]}}
    world.rounds.cache.pods.put(pod)
    world.rounds.cache.jobs.put(world.api.put(JOBS, body))


SAID = TerminationMessage(
    stage=Stage.PREPARE, run_uid="ftj-1", attempt=0, reason=Reason.COMPLETED, prepared=PREPARED
).encode()
REFUSED = TerminationMessage(
    stage=Stage.PREPARE, run_uid="ftj-1", attempt=0, reason=Reason.DATASET_EMPTY, message="no rows"
).encode()


@pytest.mark.parametrize("job_too", [True, False])
@pytest.mark.parametrize(
    ("exit_code", "words", "says"), [(0, SAID, ["Completed", None]), (11, REFUSED, ["DatasetEmpty"])]
)
async def test_what_was_heard_of_an_attempt_before_it_was_gone_counts(
    world: World, exit_code: int, words: str, says: list[str | None], *, job_too: bool
) -> None:
    """A policy that sets ttlSecondsAfterFinished to 0, or a janitor that deletes pods as they end."""
    ended(world, exit_code, words)
    world.api.drop(PODS, NAMESPACE, "demo-prepare-0-x")
    if job_too:
        world.api.drop(JOBS, NAMESPACE, "demo-prepare-0")
    await world.settle()
    status = world.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]
    assert [each.get("reason") for each in status["attempts"]] == says
    assert (status.get("disruptions", 0), status.get("failures", 0)) == (0, 0)
    assert [name for name in world.jobs if name != "demo-prepare-0"] == (["demo-train-1"] if exit_code == 0 else [])


async def test_what_was_heard_is_forgotten_soon(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departed, "KEPT_SECONDS", 0.0)
    ended(world, 0, SAID)
    world.api.drop(PODS, NAMESPACE, "demo-prepare-0-x")
    world.api.drop(JOBS, NAMESPACE, "demo-prepare-0")
    await world.settle()
    status = world.api.objects["finetunejobs", NAMESPACE, "demo"]["status"]
    assert status["attempts"][0]["reason"] == "JobDeleted"


def keeps_suspend(world: World, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Have a policy that lets nobody write `suspend` of a Job."""
    wrote = world.api.patch

    async def patch(resource: Resource, namespace: str, name: str, content_type: str, patch: Any, **more: Any) -> Body:
        if resource is JOBS and how == "refuses it":
            raise Invalid(422, "Invalid", "ValidatingAdmissionPolicy 'x' denied request: suspend stays")
        body = await wrote(resource, namespace, name, content_type, patch, **more)
        if resource is JOBS:
            body = world.api.put(JOBS, {**body, "spec": {**body["spec"], "suspend": not body["spec"]["suspend"]}})
        return body

    monkeypatch.setattr(world.api, "patch", patch)


def wants(world: World, *, suspend: bool) -> None:
    body = world.api.objects["finetunejobs", NAMESPACE, "demo"]
    metadata = {**body["metadata"], "generation": body["metadata"]["generation"] + 1}
    world.api.put(FINETUNEJOBS, {**body, "metadata": metadata, "spec": {**body["spec"], "suspend": suspend}})


OVER_IT = ["writes over it", "refuses it"]


@pytest.mark.parametrize("how", OVER_IT)
async def test_a_job_that_may_not_be_suspended_and_ends_keeps_nothing_from_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    keeps_suspend(world, monkeypatch, how)
    wants(world, suspend=True)
    await world.settle()
    assert world.said[0] == "Suspended"
    assert "suspend" in world.said[1]
    ended(world, 0, SAID)
    await world.settle()
    assert world.said[0] == "Suspended"
    world.now += timedelta(seconds=900)
    wants(world, suspend=False)
    await world.settle()
    assert (world.jobs, world.said[0]) == (["demo-prepare-0", "demo-train-1"], "Training")


@pytest.mark.parametrize("how", OVER_IT)
async def test_a_job_that_may_not_go_on_and_that_somebody_deletes_is_followed_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    wants(world, suspend=True)
    await world.settle()
    keeps_suspend(world, monkeypatch, how)
    wants(world, suspend=False)
    for _ in range(30):
        await world.settle()
        assert (world.said[0], world.jobs) == ("Suspended", ["demo-prepare-0"])
        world.now += timedelta(seconds=30)
    world.api.drop(JOBS, NAMESPACE, "demo-prepare-0")
    world.api.before = failing("create", "jobs", Invalid(422, "Invalid", "jobs need a cost-centre"))
    await world.settle()
    assert world.said == ("PodRefused", "the namespace refuses the Job: jobs need a cost-centre")
    world.api.before = lambda verb, plural, name: None
    world.now += timedelta(seconds=60)
    await world.settle()
    assert (world.jobs, world.said[0]) == (["demo-prepare-1"], "Retrying")


async def test_the_jobs_of_a_former_object_take_no_number_from_the_next(world: World) -> None:
    ended(world, 0, SAID)
    body = world.api.objects["finetunejobs", NAMESPACE, "demo"]
    world.api.put(FINETUNEJOBS, {**body, "metadata": {**body["metadata"], "uid": "ftj-2"}, "status": {}})
    for plural, namespace, name in [place for place in world.api.objects if place[0] in ("jobs", "pods", "configmaps")]:
        del world.api.objects[plural, namespace, name]
    await world.settle()
    assert world.jobs == ["demo-prepare-0"]
