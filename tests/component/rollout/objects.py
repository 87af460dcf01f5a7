"""AdapterRollouts, and Evaluations that have ended, as users and their operator write them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from trimtab_operator.runtime.kube import Body

from tests.resources import ADAPTERROLLOUTS, EVALUATIONS

QUICK: Body = {"canarySeconds": 1, "drainSeconds": 0, "analysis": {"maximumLatencyRatio": 20}}
"""A second is enough for a canary here, and times say nothing on a busy machine."""
UNENDING: Body = {**QUICK, "canarySeconds": 3600}
"""The canary lasts until a test has seen it, however slow the machine is, and makes it quick."""


class Adapter(Protocol):
    """A published adapter."""

    @property
    def uri(self) -> str: ...

    @property
    def digest(self) -> str: ...


def target_of(adapter: Adapter) -> Body:
    return {"uri": adapter.uri, "digest": adapter.digest}


def artifact(adapter: Adapter) -> Body:
    """Return the source that names an adapter without a gate."""
    return {"artifact": target_of(adapter)}


def rollout(namespace: str, name: str, source: Body, *, port: int, **spec: Any) -> Body:
    given = {
        "adapterName": name,
        "source": source,
        "serving": {"selector": {"matchLabels": {"app": "vllm"}}, "port": port},
        "strategy": QUICK,
    }
    return {
        "apiVersion": ADAPTERROLLOUTS.api_version,
        "kind": ADAPTERROLLOUTS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**given, **spec},
    }


def evaluation(
    namespace: str, name: str, adapter: Adapter, baseline: Adapter | None, labels: Mapping[str, str]
) -> Body:
    """Return an Evaluation; it is suspended, so that no operator ever begins it."""
    spec = {
        "suspend": True,
        "target": artifact(adapter),
        "baseModel": {"uri": "s3://models/tiny"},
        "output": {"uri": "s3://results/x"},
        "tasks": [{"name": "heldout", "type": "Perplexity", "dataset": {"uri": "s3://data/x"}}],
        **({"baseline": artifact(baseline)} if baseline is not None else {}),
    }
    return {
        "apiVersion": EVALUATIONS.api_version,
        "kind": EVALUATIONS.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": spec,
    }


def verdict(adapter: Adapter, baseline: Adapter | None, completed: datetime, *, passed: bool = True) -> Body:
    """Return the status of an Evaluation that has ended."""
    at = completed.strftime("%Y-%m-%dT%H:%M:%SZ")
    said = ("True", "Passed") if passed else ("False", "Regressed")
    conditions = [
        {"type": kind, "status": word, "reason": reason, "message": "", "lastTransitionTime": at}
        for kind, word, reason in (("Succeeded", "True", "Completed"), ("Passed", *said))
    ]
    compared = target_of(baseline) if baseline is not None else None
    return {"conditions": conditions, "completionTime": at, "target": target_of(adapter), "baseline": compared}


def ready_of(body: Body) -> tuple[str, str]:
    """Return status and reason of Ready."""
    conditions = body.get("status", {}).get("conditions", ())
    return next(((str(c["status"]), str(c["reason"])) for c in conditions if c["type"] == "Ready"), ("", ""))


def current(body: Body) -> bool:
    """Tell whether the status is of this generation."""
    return bool(body.get("status", {}).get("observedGeneration") == body["metadata"]["generation"])


def serves(body: Body, digest: str) -> bool:
    """Tell whether every pod answers with an adapter, as the status says."""
    served = body.get("status", {}).get("served", {}).get("digest")
    return current(body) and ready_of(body) == ("True", "Serving") and served == digest
