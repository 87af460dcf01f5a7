"""A tenant's namespace: apply FineTuneJobs, watch them, look at their pods, and disturb them."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from trimtab_local.progress import Failed

from deploy.demo.installation import Installation, restricted_namespace

Body = dict[str, Any]


def new_tenant(installation: Installation) -> Tenant:
    """Make a namespace with the Secret `object-storage`."""
    name = f"e2e-{secrets.token_hex(4)}"
    installation.apply(restricted_namespace(name))
    installation.apply(installation.secret(name))
    return Tenant(installation, name)


@dataclass
class Tenant:
    """A namespace of an installation; names are those of one kind, FineTuneJobs unless `of` says otherwise."""

    installation: Installation
    namespace: str
    kind: str = "finetunejob"

    def of(self, kind: str) -> Tenant:
        """Return the same namespace with its objects of another kind."""
        return replace(self, kind=kind)

    def job(self, name: str, *, steps: int = 20, **spec: Any) -> Body:
        """Return a FineTuneJob on the tiny model; fields of the spec are merged, one level deep."""
        secret = {"secretName": "object-storage"}
        body: Body = {
            "baseModel": {"uri": "s3://models/tiny", **secret},
            "dataset": {
                "training": {"uri": "s3://datasets/tiny/"},
                "validation": {"fraction": 0.05},
                "test": {"fraction": 0.05},
                **secret,
            },
            "output": {"uri": f"s3://adapters/{self.namespace}/{name}", **secret},
            "training": {"maxSteps": steps, "batchSize": 4, "microBatchSize": 4, "maxSequenceLength": 256},
            "checkpoint": {"everySteps": 5},
            "template": {
                "resources": {"limits": {"cpu": "2", "memory": "3Gi", "nvidia.com/gpu": 1}, "requests": SMALL},
                "prepareResources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": SMALL},
                "terminationGracePeriodSeconds": 30,
            },
        }
        for key, value in spec.items():
            body[key] = {**body[key], **value} if isinstance(value, dict) and key in body else value
        return {
            "apiVersion": "trimtab.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": body,
        }

    def evaluation(self, name: str, *tasks: Body, **spec: Any) -> Body:
        """Return an Evaluation; without tasks, of the perplexity of the held-out rows."""
        held_out = {"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}}
        template = {
            "resources": {"limits": {"cpu": "2", "memory": "3Gi", "nvidia.com/gpu": 1}, "requests": SMALL},
            "prepareResources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": SMALL},
            "terminationGracePeriodSeconds": 30,
        }
        body: Body = {"tasks": list(tasks) or [held_out], "resamples": 1000, "template": template, **spec}
        return {
            "apiVersion": "trimtab.dev/v1alpha1",
            "kind": "Evaluation",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": body,
        }

    def apply(self, *bodies: Body) -> None:
        self.installation.apply(*bodies)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.installation.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def get(self, name: str) -> Body:
        found = self.installation.get(self.kind, name, self.namespace)
        assert found is not None, f"{self.kind} {name} is gone"
        return found

    def state(self, name: str) -> tuple[str, str, str]:
        """Return (status, reason, message) of Succeeded."""
        conditions = self.get(name).get("status", {}).get("conditions", [])
        found = next((c for c in conditions if c["type"] == "Succeeded"), None)
        return (found["status"], found["reason"], found["message"]) if found else ("Unknown", "", "")

    def wait(self, name: str, what: str, condition: Callable[[Body], bool], seconds: float = 180) -> Body:
        """Wait until an object fulfils a condition."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            body = self.get(name)
            if condition(body):
                return body
            time.sleep(0.3)
        pytest.fail(f"{name}: {what} did not come within {seconds} s\n{self.story(name)}")

    def wait_reason(self, name: str, reason: str, seconds: float = 180) -> Body:
        return self.wait(name, reason, lambda body: reason_of(body) == reason, seconds)

    def wait_end(self, name: str, seconds: float = 300) -> Body:
        return self.wait(name, "the end", lambda body: succeeded(body) != "Unknown", seconds)

    def wait_step(self, name: str, step: int, seconds: float = 180) -> Body:
        """Wait until a checkpoint at or after a step is in the status."""
        return self.wait(
            name, f"a checkpoint at step {step}", lambda b: checkpoint(b) >= step or succeeded(b) != "Unknown", seconds
        )

    def story(self, name: str) -> str:
        """Return what a person would look at."""
        lines = [
            self.kubectl("get", f"{self.kind}s,jobs,pods", "-o", "wide"),
            self.kubectl("describe", self.kind, name),
        ]
        for pod in self.pods(name):
            text = self.installation.kubectl("-n", self.namespace, "logs", pod["metadata"]["name"], check=False)
            lines.append(f"--- {pod['metadata']['name']}\n{text[-3000:]}")
        return "\n".join(lines)

    def objects(self, kind: str, name: str) -> list[Body]:
        text = self.kubectl("get", kind, "-l", f"trimtab.dev/{self.kind}={name}", "-o", "json")
        items: list[Body] = json.loads(text)["items"]
        return items

    def jobs(self, name: str) -> list[str]:
        return sorted(body["metadata"]["name"] for body in self.objects("jobs", name))

    def pods(self, name: str) -> list[Body]:
        return self.objects("pods", name)

    def running_pod(self, name: str, stage: str = "train", seconds: float = 120) -> Body:
        """Wait for the running pod of a stage."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for pod in self.pods(name):
                labels, status = pod["metadata"]["labels"], pod.get("status", {})
                deleting = "deletionTimestamp" in pod["metadata"]
                if labels["trimtab.dev/stage"] == stage and status.get("phase") == "Running" and not deleting:
                    return pod
            time.sleep(0.2)
        pytest.fail(f"{name}: no running {stage} pod\n{self.story(name)}")

    def kill(self, pod: Body) -> None:
        """SIGKILL the process of a pod's container, as the kernel would."""
        found = trainer_processes(pod["metadata"]["uid"])
        assert found, "the container's process is not to be seen from here"
        for process in found:
            os.kill(process, signal.SIGKILL)

    def evict(self, pod: Body) -> None:
        """Evict a pod through the API, as a drain does."""
        name = pod["metadata"]["name"]
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": self.namespace},
        }
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/eviction"
        self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))

    def remove(self) -> None:
        """Delete the namespace; its jobs end with it."""
        try:
            self.installation.kubectl("delete", "namespace", self.namespace, "--wait=false")
        except Failed as failure:
            pytest.fail(str(failure))


SMALL = {"cpu": "50m", "memory": "64Mi"}


def reason_of(body: Body) -> str:
    return condition(body, "Succeeded").get("reason", "")


def succeeded(body: Body) -> str:
    return condition(body, "Succeeded").get("status", "Unknown")


def condition(body: Body, kind: str) -> dict[str, str]:
    """Return a condition of an object, empty if it has none of this type."""
    return next((c for c in body.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def checkpoint(body: Body) -> int:
    step: int = body.get("status", {}).get("checkpoint", {}).get("step", 0)
    return step


def trainer_processes(pod_uid: str) -> list[int]:
    """Return the numbers, as the host counts, of a pod's processes that run the trainer."""
    return processes(pod_uid, b"trimtab-trainer")


def processes(where: str, command: bytes = b"") -> list[int]:
    """Return the numbers, as the host counts, of a pod's or container's processes whose command has a word."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if where in (folder / "cgroup").read_text() and command in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it ended while we looked
    return found
