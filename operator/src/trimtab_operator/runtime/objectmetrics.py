"""Metrics with names of objects in their labels: many, so only where `objectMetrics` asks for them.

They are read off the statuses in the cache when they are asked for, so they cost nothing between two scrapes.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector

from ..api.adapterrollout import READY
from ..domain.views import parse_time
from .cache import Cache
from .follow import passed_in
from .kube import Body


class ObjectMetrics(Collector):
    """Gauges by AdapterRollout: whether it is ready, since when what it serves is served, and how good that was."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def register(self) -> None:
        REGISTRY.register(self)

    def collect(self) -> Iterable[Metric]:
        of = ["namespace", "name"]
        ready = GaugeMetricFamily("trimtab_adapterrollout_ready", "1 if Ready is True.", labels=of)
        served = GaugeMetricFamily(
            "trimtab_adapterrollout_served_timestamp_seconds", "Time since which the revision is served.", labels=of
        )
        value = GaugeMetricFamily(
            "trimtab_evaluation_value",
            "Value of each threshold's metric in the Evaluation that the served adapter passed last.",
            labels=["namespace", "rollout", "metric"],
        )
        for entry in self._cache.rollouts:
            if entry.view is None:
                continue
            names, status = [entry.namespace, entry.name], entry.view.body.get("status", {})
            conditions = status.get("conditions", ())
            ready.add_metric(names, any(c["type"] == READY and c["status"] == "True" for c in conditions))
            since = parse_time(status.get("served", {}).get("sinceTime"))
            if since is not None:
                served.add_metric(names, since.timestamp())
            for metric, number in self._values(entry.namespace, status.get("served", {}).get("digest")):
                value.add_metric([*names, metric], number)
        return (ready, served, value)

    def _values(self, namespace: str, digest: str | None) -> Iterable[tuple[str, float]]:
        passed = [stored.body["status"] for stored in self._cache.evaluations.of_parent(passed_in(namespace))]
        mine = [status for status in passed if digest and status.get("target", {}).get("digest") == digest]
        newest: Body = max(mine, key=lambda status: str(status.get("completionTime", "")), default={})
        for result in newest.get("results", ()):
            if result.get("value") is not None:
                yield f"{result['task']}/{result['metric']}", float(result["value"])


def pod_counts(rollout: Body) -> tuple[int, int]:
    """Return how many pods of an AdapterRollout are ready, of how many."""
    pods = rollout.get("status", {}).get("pods", {})
    return int(pods.get("ready", 0)), int(pods.get("desired", 0))
