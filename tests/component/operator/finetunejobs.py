"""Make FineTuneJobs and Evaluations, and wait for what becomes of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from trimtab_operator.runtime.kube import JOBS, Body, Kube, Resource

from tests.resources import FINETUNEJOBS


def finetunejob(name: str, namespace: str, labels: dict[str, str] | None = None, **spec: object) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {
            "baseModel": {"uri": "s3://models/base", "secretName": "object-storage"},
            "dataset": {"training": {"uri": "s3://datasets/rows/"}, "secretName": "object-storage"},
            "output": {"uri": "s3://adapters/out", "secretName": "object-storage"},
            **spec,
        },
    }


def evaluation(name: str, namespace: str, **spec: object) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "Evaluation",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "target": {"fineTuneJobName": name},
            "tasks": [
                {"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}},
                {"name": "answers", "type": "Generation", "dataset": {"split": "Test"}},
            ],
            "thresholds": [{"metric": "heldout/perplexity", "maximum": 12.0}],
            **spec,
        },
    }


def verdict_of(body: Body) -> tuple[str, str]:
    conditions = body.get("status", {}).get("conditions", ())
    return next(((str(c["status"]), str(c["reason"])) for c in conditions if c["type"] == "Passed"), ("", ""))


def state_of(body: Body) -> str:
    conditions = body.get("status", {}).get("conditions", ())
    return next((str(c["reason"]) for c in conditions if c["type"] == "Succeeded"), "")


def over(body: Body) -> bool:
    conditions = body.get("status", {}).get("conditions", ())
    return any(c["type"] == "Succeeded" and c["status"] != "Unknown" for c in conditions)


async def until(
    kube: Kube,
    namespace: str,
    name: str,
    true: Callable[[Body], bool],
    *,
    what: str,
    seconds: float = 30,
    resource: Resource = FINETUNEJOBS,
) -> Body:
    """Return the object when something is true of it."""
    deadline = time.monotonic() + seconds
    while True:
        body = await kube.get(resource, namespace, name)
        if true(body):
            return body
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}: {body.get('status')}"
        await asyncio.sleep(0.05)


async def until_state(
    kube: Kube, namespace: str, name: str, state: str, *, seconds: float = 30, resource: Resource = FINETUNEJOBS
) -> Body:
    def reached(body: Body) -> bool:
        return state_of(body) == state

    return await until(kube, namespace, name, reached, what=state, seconds=seconds, resource=resource)


async def jobs_of(kube: Kube, namespace: str) -> dict[str, Body]:
    return {job["metadata"]["name"]: job for job in await kube.items(JOBS, namespace, {})}
