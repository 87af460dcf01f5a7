"""Metrics with names of objects in their labels: many, so only where `objectMetrics` asks for them.

They are read off the statuses in the cache when they are asked for, so they cost nothing between two scrapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector

from ..api.adapterrollout import READY
from ..domain.indexes import passed_in
from ..domain.views import parse_time
from .cluster.cache import Cache
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
        passed = self._newest_passed()
        for entry in self._cache.owners["AdapterRollout"]:
            if entry.view is None:
                continue
            names, status = [entry.namespace, entry.name], entry.view.body.get("status", {})
            conditions = status.get("conditions", ())
            ready.add_metric(names, any(c["type"] == READY and c["status"] == "True" for c in conditions))
            since = parse_time(status.get("served", {}).get("sinceTime"))
            if since is not None:
                served.add_metric(names, since.timestamp())
            digest = status.get("served", {}).get("digest", "")
            for result in passed.get((entry.namespace, digest), {}).get("results", ()):
                if result.get("value") is not None:
                    value.add_metric([*names, f"{result['task']}/{result['metric']}"], float(result["value"]))
        return (ready, served, value)

    def _newest_passed(self) -> Mapping[tuple[str, str], Body]:
        """Return the status of the Evaluation that an adapter passed last, by namespace and the adapter's digest."""
        newest: dict[tuple[str, str], Body] = {}
        for entry in self._cache.owners["Evaluation"]:
            if entry.view is None or passed_in(entry.namespace) not in entry.view.indexes:
                continue
            status = entry.view.body["status"]
            digest = status.get("target", {}).get("digest")
            if digest is None:
                continue  # of the base model alone
            adapter = (entry.namespace, digest)
            if adapter not in newest or _completed(newest[adapter]) < _completed(status):
                newest[adapter] = status
        return newest


def _completed(status: Body) -> str:
    return str(status.get("completionTime", ""))
