"""Make FineTuneJobs, Evaluations and AdapterExports, and wait for what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from trimtab_operator.runtime.kube import EVENTS, JOBS, Body, Kube, Resource

from tests.component.patience import Patience
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


def adapterexport(name: str, namespace: str, **spec: object) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "AdapterExport",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "source": {"fineTuneJobName": name},
            "destination": {"uri": "s3://models/guide", "secretName": "object-storage"},
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
    resource: Resource = FINETUNEJOBS,
) -> Body:
    """Return the object when something is true of it; it may take its time as long as it moves."""
    patience = Patience(f"{namespace}/{name}: {what}")
    while True:
        body = await kube.get(resource, namespace, name)
        if true(body):
            return body
        patience.spend(body)
        await asyncio.sleep(0.05)


async def until_state(kube: Kube, namespace: str, name: str, state: str, *, resource: Resource = FINETUNEJOBS) -> Body:
    def reached(body: Body) -> bool:
        return state_of(body) == state

    return await until(kube, namespace, name, reached, what=state, resource=resource)


async def until_jobs(kube: Kube, namespace: str, names: set[str]) -> None:
    """Wait until a namespace has these Jobs and no others."""
    patience = Patience(f"{namespace}: the Jobs {sorted(names)}")
    while (found := set(await jobs_of(kube, namespace))) != names:
        patience.spend(found)
        await asyncio.sleep(0.1)


async def events_of(kube: Kube, namespace: str, body: Body, reasons: set[str]) -> list[Body]:
    """Return the events of an object once these reasons are among them: they are posted after the status."""
    patience = Patience(f"{namespace}: events {sorted(reasons)}")
    query = {"fieldSelector": f"regarding.uid={body['metadata']['uid']}"}
    while True:
        events = await kube.items(EVENTS, namespace, query)
        if reasons <= (found := {event["reason"] for event in events}):
            return events
        patience.spend(found)
        await asyncio.sleep(0.1)


async def jobs_of(kube: Kube, namespace: str) -> dict[str, Body]:
    return {job["metadata"]["name"]: job for job in await kube.items(JOBS, namespace, {})}
