"""A FineTuneJob from apply to Completed with real pods, and what a person sees of it."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from deploy.demo.api import Body
from deploy.demo.installation import ADMIN, SYSTEM
from tests.e2e.scenes import Played
from tests.e2e.tenants import ON_A_NODE, Tenant, reason_of, succeeded

pytestmark = ON_A_NODE


def test_a_job_runs_to_the_end_and_tells_its_story(tenant: Tenant) -> None:
    tenant.apply(tenant.job("story", steps=60))
    told: list[str] = []

    def ended(body: Body) -> bool:
        if (reason := reason_of(body)) and reason not in told:
            told.append(reason)
        return succeeded(body) != "Unknown"

    body = tenant.wait("story", "the end", ended)
    told = [reason for reason in told if reason != "Queued"]  # a node may have no room, or be just back
    assert told[0] == "Preparing"
    assert told[-1] == "Completed", tenant.story("story")
    assert "Training" in told

    status = body["status"]
    assert status["artifact"]["uri"].endswith(status["artifact"]["digest"].removeprefix("sha256:"))
    assert status["artifact"]["testLoss"] < status["artifact"]["baseTestLoss"]
    assert status["progress"] | {"percent": 100, "step": 60, "totalSteps": 60} == status["progress"]
    assert status["dataset"]["testRows"] > 0
    assert status["dataset"]["reportURI"].endswith("/data.html")
    assert status["artifact"]["reportURI"] == f"{status['artifact']['uri']}/report.html"
    assert (status["failures"], status["disruptions"]) == (0, 0)
    assert status["acceleratorSeconds"] > 0
    assert status["observedGeneration"] == body["metadata"]["generation"]
    assert len(json.dumps(body)) < 10_000

    assert tenant.jobs("story") == ["story-prepare-0", "story-train-1"]
    heading, line = tenant.kubectl("get", "ftj", "story").strip().splitlines()
    assert heading.split()[:6] == ["NAME", "STATE", "PROGRESS", "LOSS", "STEP", "ADAPTER"]
    assert "Completed" in line
    described = tenant.kubectl("describe", "ftj", "story")
    for word in ("Training", "Completed", "adapter sha256:"):
        assert word in described
    events = json.loads(tenant.kubectl("get", "events", "-o", "json"))["items"]
    mine = [event for event in events if event["involvedObject"]["kind"] == "FineTuneJob"]
    assert 2 <= len(mine) <= 5
    assert_nothing_is_revealed(tenant, "story")
    assert_pods_are_restricted(tenant, "story")

    again = tenant.job("again", steps=60, output={"uri": f"s3://adapters/{tenant.namespace}/story"})
    tenant.apply(again)
    repeated = tenant.wait_end("again")["status"]
    assert repeated["artifact"]["digest"] == status["artifact"]["digest"]
    assert tenant.jobs("again") == ["again-prepare-0"], "what was published before needs no train Job"


def assert_pods_are_restricted(tenant: Tenant, name: str) -> None:
    pods = tenant.pods(name)
    assert pods
    for pod in pods:
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert not [v for v in spec["volumes"] if "projected" in v]
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


def assert_nothing_is_revealed(tenant: Tenant, name: str) -> None:
    """Look for the keys in all that a reader of the namespace, Secrets aside, and of the logs can see."""
    seen = [
        tenant.kubectl("get", "finetunejobs,evaluations,jobs,pods,configmaps,events", "-o", "json"),
        tenant.installation.kubectl("-n", SYSTEM, "logs", "deployment/trimtab"),
        *(tenant.kubectl("logs", pod["metadata"]["name"]) for pod in tenant.pods(name)),
    ]
    assert len(seen) > 2
    for text in seen:
        assert len(text) > 100
        assert ADMIN.secret not in text
        assert ADMIN.access not in text


def test_suspended_and_resumed_it_goes_on_from_its_checkpoint(played: Played) -> None:
    tenant, body = played["paused"].result()
    status = body["status"]
    assert reason_of(body) == "Completed", tenant.story("paused")
    assert (status["failures"], status["disruptions"]) == (0, 0)
    # The Job controller may still count the pod that ended as it was told to, when the Job goes on: then a next attempt
    # takes over from the checkpoint, and nothing is charged.
    assert tenant.jobs("paused")[:2] == ["paused-prepare-0", "paused-train-1"]
    assert [attempt["stage"] for attempt in status["attempts"]] in (["prepare", "train"], ["prepare", "train", "train"])
    assert not any(attempt.get("chargedTo") for attempt in status["attempts"])


def test_deleting_a_job_ends_its_pods_and_keeps_what_was_published(tenant: Tenant) -> None:
    tenant.apply(tenant.job("brief", steps=400))
    tenant.running_pod("brief")
    tenant.delete("brief")
    tenant.wait_gone("brief", "Job", "Pod", "ConfigMap")


def test_a_finished_job_is_deleted_after_its_time(tenant: Tenant) -> None:
    broken = tenant.job("short-lived", dataset={"training": {"uri": "s3://datasets/empty/"}})
    broken["spec"]["ttlSecondsAfterFinished"] = 1
    tenant.apply(broken)
    tenant.wait("short-lived", "that it is there", bool)
    tenant.until("short-lived", "its deletion", lambda: not tenant.mirror.get("FineTuneJob", "short-lived"))


def test_a_spec_cannot_be_edited_where_it_defines_the_result(tenant: Tenant) -> None:
    body = tenant.job("fixed")
    body["spec"]["suspend"] = True
    tenant.apply(body)
    patch = json.dumps({"spec": {"training": {"learningRate": 0.1}}})
    done = refused(tenant, "patch", "ftj", "fixed", "--type=merge", "-p", patch)
    assert "training is immutable" in done
    tenant.kubectl("patch", "ftj", "fixed", "--type=merge", "-p", '{"spec":{"activeDeadlineSeconds":100}}')


def refused(tenant: Tenant, *arguments: str) -> str:
    here = tenant.installation
    line = [str(here.kubectl_path), "--kubeconfig", str(here.kubeconfig), "-n", tenant.namespace, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode, done.stdout
    return done.stderr


def test_kubectl_explains_every_field(tenant: Tenant) -> None:
    text = tenant.kubectl("explain", "finetunejob.spec", "--recursive")
    for field in ("baseModel", "dataset", "training", "earlyStopping", "template", "prepareResources"):
        assert re.search(rf"^\s*{field}\s", text, re.MULTILINE), field
    for path in ("finetunejob.spec.training.learningRate", "finetunejob.status.artifact.digest"):
        assert "DESCRIPTION" in tenant.kubectl("explain", path)


def test_the_operator_has_no_more_rights_than_it_uses(tenant: Tenant) -> None:
    me = f"system:serviceaccount:{SYSTEM}:trimtab"

    def can(*what: str) -> str:
        line: tuple[Any, ...] = ("auth", "can-i", *what, "--as", me)
        return tenant.installation.kubectl("-n", tenant.namespace, *line, check=False).strip()

    assert can("create", "jobs.batch") == "yes"
    assert can("patch", "finetunejobs.trimtab.dev", "--subresource=status") == "yes"
    for verb in ("get", "list", "watch"):
        assert can(verb, "secrets") == "no"
    assert can("create", "pods") == "no"
    assert can("delete", "pods") == "no"
    for plural in ("finetunejobs", "evaluations"):
        assert can("create", f"{plural}.trimtab.dev") == "yes", "the trials of a sweep, and what judges them"
    for plural in ("finetunesweeps", "adapterrollouts"):
        assert can("patch", f"{plural}.trimtab.dev") == can("create", f"{plural}.trimtab.dev") == "no"
