"""Sources on a model hub, in a namespace that denies everything but what the samples allow and the way to the hub.

The real client asks a hub of our own, which runs in a pod.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.demo.api import Body
from deploy.demo.installation import Installation
from tests.component.patience import Patience
from tests.e2e.hubpod import MODEL, PORT, ROWS, SUMS, TOKEN, Control, hub, way_out
from tests.e2e.scenes import SAMPLE
from tests.e2e.serverpod import wait_ready
from tests.e2e.tenants import ON_A_NODE, Tenant, condition, new_tenant, reason_of
from tests.trainer.hub.models import SHARDS, sharded
from tests.trainer.tiny import make_tiny_model

pytestmark = ON_A_NODE

OUTPUT = "s3://adapters/{}/shared"


@pytest.fixture(scope="module")
def files(installation: Installation) -> dict[str, bytes]:
    """The model's files, which are in the storage for the hub to read, beside the data of a task."""
    with tempfile.TemporaryDirectory() as folder, installation.storage() as client:
        found = sharded(make_tiny_model(Path(folder) / "tiny"), Path(folder))
        for name, data in {**found, "LICENSE": b"Apache License"}.items():
            client.put_object(Bucket="models", Key=f"sharded/{name}", Body=data)
        for split, first in (("train", 0), ("test", 40)):
            name = f"gsm8k/main/{split}-00000-of-00001.jsonl"
            client.put_object(Bucket="datasets", Key=name, Body=sums(range(first, first + 8)))
    return found


def sums(numbers: range) -> bytes:
    """Return rows as the task gsm8k of lm-evaluation-harness has them."""
    rows = ({"question": f"What is {n} and 1?", "answer": f"{n} + 1 = {n + 1}\n#### {n + 1}"} for n in numbers)
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="module")
def sealed(installation: Installation, files: dict[str, bytes]) -> Iterator[Tenant]:
    tenant = new_tenant(installation)
    tenant.apply(*tenant.policies(SAMPLE.read_text()), *hub(tenant))
    yield tenant
    tenant.remove()


@pytest.fixture(scope="module")
def control(sealed: Tenant) -> Iterator[Control]:
    wait_ready(sealed, "hub")
    with sealed.installation.forward(sealed.namespace, "pod/hub", PORT) as forward:
        yield Control(forward)


def from_hub(tenant: Tenant, name: str, *, steps: int = 4, digest: str | None = None, **spec: Any) -> Body:
    """Return a FineTuneJob of what is on the hub; all of a namespace share an output."""
    secret = {"secretName": "hub"}
    base = {"uri": f"hf://{MODEL}@main", **secret, **({"digest": digest} if digest else {})}
    dataset = {"training": {"uri": f"hf://datasets/{ROWS}@main"}, **secret}
    output = {"uri": OUTPUT.format(tenant.namespace)}
    return tenant.job(name, steps=steps, baseModel=base, dataset=dataset, output=output, **spec)


def test_without_a_way_out_the_hub_is_named(sealed: Tenant, control: Control) -> None:
    sealed.apply(from_hub(sealed, "shut-in", retries={"onFailure": 0}))
    body = sealed.wait_end("shut-in")
    (attempt,) = body["status"]["attempts"]
    assert (attempt["stage"], attempt["reason"]) == ("mirror", "HubUnreachable"), sealed.story("shut-in")
    assert "trimtab.dev/stage: mirror" in body["status"]["conditions"][0]["message"]
    assert control.asked() == []


def test_a_mirror_that_is_killed_goes_on_and_the_job_completes(
    sealed: Tenant, control: Control, files: dict[str, bytes]
) -> None:
    sealed.apply(way_out(sealed))
    first, second = sorted(SHARDS, key=lambda name: len(files[name]))
    control.faults(bytes_per_second=150_000)
    sealed.apply(from_hub(sealed, "mirrored", retries={"onFailure": 3}))
    pod = sealed.running_pod("mirrored", "mirror")
    patience = Patience(f"{second} is under way")
    while second not in {name for name, sent in control.files() if sent}:
        patience.spend(control.files)
        time.sleep(0.2)
    sealed.kill(pod)
    control.faults()
    body = sealed.wait_end("mirrored")
    assert reason_of(body) == "Completed", sealed.story("mirrored")
    status = body["status"]
    assert [each["stage"] for each in status["attempts"]] == ["mirror", "mirror", "prepare", "train"]
    assert status["attempts"][0]["reason"] == "ContainerFailed"
    sent = control.files()
    assert [size for name, size in sent if name == first] == [len(files[first])]
    assert [size for name, size in sent if name == second][-1] == len(files[second])
    model, rows = status["mirrored"]
    assert (model["license"], model["digest"]) == ("apache-2.0", status["baseModelDigest"])
    assert status["artifact"]["baseModelDigest"] == model["digest"]
    assert len({model["commit"], rows["commit"]} | {""}) == 3
    prefix = f"{sealed.namespace}/shared/models/{model['digest'].removeprefix('sha256:')}"
    with sealed.installation.storage() as client:
        manifest = json.loads(client.get_object(Bucket="adapters", Key=f"{prefix}/MANIFEST.json")["Body"].read())
        license_file = f"{prefix}/source/{model['commit']}/LICENSE"
        assert client.get_object(Bucket="adapters", Key=license_file)["Body"].read() == b"Apache License"
    assert manifest["source"]["repository"] == MODEL
    pods = {pod["metadata"]["labels"]["trimtab.dev/stage"]: json.dumps(pod["spec"]) for pod in sealed.pods("mirrored")}
    assert {stage: '"secretName": "hub"' in spec for stage, spec in pods.items()} == {
        "mirror": True,
        "prepare": False,
        "train": False,
    }
    assert TOKEN not in "".join(pods.values()) + sealed.story("mirrored")
    assert {each["token"] for each in control.asked() if "x-signature" not in each["path"]} == {TOKEN}
    assert {each["token"] for each in control.asked() if "x-signature" in each["path"]} == {None}


def test_another_job_fetches_nothing_and_a_wrong_digest_is_refused(sealed: Tenant, control: Control) -> None:
    sealed.apply(way_out(sealed))
    before = len(control.asked())
    wrong = "sha256:" + "0" * 64
    sealed.apply(from_hub(sealed, "again", steps=2), from_hub(sealed, "wrong", digest=wrong))
    body = sealed.wait_end("wrong")
    assert reason_of(body) == "RevisionMoved", sealed.story("wrong")
    message = next(each["message"] for each in body["status"]["conditions"] if each["type"] == "Succeeded")
    again = sealed.wait_end("again")
    assert reason_of(again) == "Completed", sealed.story("again")
    assert wrong in message
    assert again["status"]["baseModelDigest"] in message
    assert {each["path"].rpartition("/")[2] for each in control.asked()[before:]} == {"main"}


def test_a_task_of_the_harness_is_asked_of_data_and_a_model_of_the_hub(sealed: Tenant, control: Control) -> None:
    sealed.apply(way_out(sealed))
    uri = f"hf://datasets/{SUMS}@main"
    task = {"name": "sums", "type": "Harness", "builtin": "gsm8k", "fewShot": 1, "dataset": {"uri": uri, "limit": 4}}
    sealed.apply(
        sealed.evaluation(
            "sums",
            task,
            target={"baseModel": True},
            baseModel={"uri": f"hf://{MODEL}@main", "secretName": "hub"},
            datasetSecretName="hub",
            output={"uri": OUTPUT.format(sealed.namespace), "secretName": "object-storage"},
            thresholds=[{"metric": "sums/exact_match_flexible_extract", "minimum": 0.99}],
        )
    )
    evaluations = sealed.of("Evaluation")
    body = evaluations.wait_end("sums")
    assert reason_of(body) == "Completed", evaluations.story("sums")
    status = body["status"]
    assert [each["stage"] for each in status["attempts"]] == ["mirror", "prepare", "evaluate"]
    assert status["rows"] == 4
    assert {each["uri"] for each in status["mirrored"]} == {f"hf://{MODEL}@main", uri}
    assert {each["metric"] for each in status["results"]} == {
        "exact_match_strict_match",
        "exact_match_flexible_extract",
    }
    passed = condition(body, "Passed")
    assert (passed["status"], passed["reason"]) == ("False", "ThresholdMissed"), "a model of random weights cannot add"
    assert f"/datasets/{SUMS}/" in "".join(each["path"] for each in control.asked())
