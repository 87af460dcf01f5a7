"""A tenant's namespace: apply FineTuneJobs, watch them, look at their pods, and disturb them."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest
import yaml
from trimtab_local.progress import Failed

from deploy.demo.api import Body
from deploy.demo.installation import Installation, restricted_namespace
from deploy.demo.mirror import QUIET_SECONDS, Mirror, Quiet
from tests.component.patience import Patience

T = TypeVar("T")

MIRRORED = ("FineTuneJob", "FineTuneSweep", "Evaluation", "AdapterRollout", "AdapterExport", "Job", "Pod", "ConfigMap")
ON_A_NODE = [pytest.mark.e2e, pytest.mark.timeout(3600)]
"""For tests with real pods. Their waits end by themselves when nothing moves; the hour is for what moves for ever."""


def new_tenant(installation: Installation) -> Tenant:
    """Make a namespace with the Secret `object-storage`."""
    name = f"e2e-{secrets.token_hex(4)}"
    installation.api.apply(restricted_namespace(name), installation.secret(name))
    return Tenant(installation, name, Mirror(installation.api, name, MIRRORED))


@dataclass
class Tenant:
    """A namespace of an installation; names are those of one kind, FineTuneJobs unless `of` says otherwise."""

    installation: Installation
    namespace: str
    mirror: Mirror
    kind: str = "FineTuneJob"

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

    def policies(self, manifests: str) -> list[Body]:
        """Return the NetworkPolicies among manifests, for this namespace."""
        found = [body for body in yaml.safe_load_all(manifests) if body["kind"] == "NetworkPolicy"]
        return [{**body, "metadata": {**body["metadata"], "namespace": self.namespace}} for body in found]

    def apply(self, *bodies: Body) -> None:
        self.installation.api.apply(*bodies)

    def kubectl(self, *arguments: str) -> str:
        return self.installation.kubectl("-n", self.namespace, *arguments)

    def patch(self, name: str, **spec: Any) -> None:
        """Change fields of an object's spec."""
        self.installation.api.patch(self.kind, name, self.namespace, {"spec": spec})

    def delete(self, name: str, kind: str = "") -> None:
        self.installation.api.delete(kind or self.kind, name, self.namespace)

    def get(self, name: str) -> Body:
        found = self.installation.api.get(self.kind, name, self.namespace)
        assert found is not None, f"{self.kind} {name} is gone"
        return found

    def state(self, name: str) -> tuple[str, str, str]:
        """Return (status, reason, message) of Succeeded."""
        conditions = self.get(name).get("status", {}).get("conditions", [])
        found = next((c for c in conditions if c["type"] == "Succeeded"), None)
        return (found["status"], found["reason"], found["message"]) if found else ("Unknown", "", "")

    def until(self, name: str, what: str, look: Callable[[], T | None], quiet: float = QUIET_SECONDS) -> T:
        """Look at every move of the namespace until there is something to be seen, and return it.

        `name`: whose story is told when nothing moves any more and nothing was seen.
        """
        try:
            return self.mirror.wait(what, look, quiet)
        except Quiet as quietness:
            self.fail(name, str(quietness))

    def wait(self, name: str, what: str, condition: Callable[[Body], bool], quiet: float = QUIET_SECONDS) -> Body:
        """Wait until an object fulfils a condition."""

        def look() -> Body | None:
            body = self.mirror.get(self.kind, name)
            return body if body and condition(body) else None

        return self.until(name, what, look, quiet)

    def wait_reason(self, name: str, reason: str) -> Body:
        """Wait until an object gives a reason; that it ends with another one is a failure."""
        body = self.wait(name, reason, lambda body: reason_of(body) == reason or succeeded(body) != "Unknown")
        if reason_of(body) != reason:
            self.fail(name, f"it ended with {reason_of(body)}, not {reason}")
        return body

    def wait_end(self, name: str) -> Body:
        return self.wait(name, "the end", lambda body: succeeded(body) != "Unknown")

    def wait_step(self, name: str, step: int) -> Body:
        """Wait until a checkpoint at or after a step is in the status."""
        body = self.wait(
            name, f"a checkpoint at step {step}", lambda b: checkpoint(b) >= step or succeeded(b) != "Unknown"
        )
        if checkpoint(body) < step:
            self.fail(name, f"it ended before step {step}")
        return body

    def wait_gone(self, name: str, *kinds: str, **labels: str) -> None:
        """Wait until no object of some kinds belongs to a custom resource any more."""

        def gone() -> bool:
            return not any(self.mirror.objects(kind, self.labels(name) | labels) for kind in kinds)

        self.until(name, f"the end of its {', '.join(kinds)}", gone)

    def fail(self, name: str, why: str) -> NoReturn:
        pytest.fail(f"{self.kind} {name}: {why}\n{self.story(name)}")

    def story(self, name: str) -> str:
        """Return what a person would look at."""
        lines = [
            self.kubectl("get", f"{self.kind}s,jobs,pods", "-o", "wide"),
            self.installation.kubectl("-n", self.namespace, "describe", self.kind, name, check=False),
        ]
        for pod in self.pods(name):
            text = self.installation.kubectl("-n", self.namespace, "logs", pod["metadata"]["name"], check=False)
            lines.append(f"--- {pod['metadata']['name']}\n{text[-3000:]}")
        return "\n".join(lines)

    def labels(self, name: str) -> dict[str, str]:
        """Return the labels of all that belongs to a custom resource."""
        return {f"trimtab.dev/{self.kind.lower()}": name}

    def jobs(self, name: str) -> list[str]:
        return sorted(body["metadata"]["name"] for body in self._belonging("Job", name))

    def pods(self, name: str) -> list[Body]:
        return self._belonging("Pod", name)

    def _belonging(self, kind: str, name: str) -> list[Body]:
        """Return what there is now, which the mirror may not have heard of."""
        selector = ",".join(f"{key}={value}" for key, value in self.labels(name).items())
        return self.installation.api.objects(kind, self.namespace, selector)

    def running_pod(self, name: str, stage: str = "train", **labels: str) -> Body:
        """Wait for the running pod of a stage, of several that with these labels."""

        def look() -> Body | None:
            for pod in self.mirror.objects("Pod", {**self.labels(name), "trimtab.dev/stage": stage, **labels}):
                if pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]:
                    return pod
            return None

        return self.until(name, f"a running {stage} pod", look)

    def kill(self, pod: Body) -> None:
        """SIGKILL the process of a pod's container, as the kernel would."""
        # A container that has just been started is the runtime's own process for a moment.
        patience = Patience(f"the trainer's process in {pod['metadata']['name']}")
        while not (found := trainer_processes(pod["metadata"]["uid"])):
            patience.spend(None)
            time.sleep(0.05)
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
        self.installation.api.create("Pod", body, subresource="eviction")

    def remove(self) -> None:
        """Delete the namespace; its jobs end with it."""
        self.mirror.close()
        try:
            self.installation.api.delete("Namespace", self.namespace)
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
