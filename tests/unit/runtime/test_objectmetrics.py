"""Metrics by AdapterRollout: read off the statuses, and of the Evaluation that the served adapter passed last."""

from __future__ import annotations

from typing import Any

from trimtab_operator.runtime.cluster.cache import Cache
from trimtab_operator.runtime.kube import Body
from trimtab_operator.runtime.objectmetrics import ObjectMetrics

from tests.unit.runtime.objects import NAMESPACE, evaluation
from tests.unit.runtime.serving import LETTERS, rollout


def samples(cache: Cache) -> dict[str, dict[tuple[str, ...], float]]:
    families = ObjectMetrics(cache).collect()
    return {family.name: {tuple(s.labels.values()): s.value for s in family.samples} for family in families}


def served(letter: str, ready: str = "True") -> Body:
    status: dict[str, Any] = {
        "conditions": [{"type": "Ready", "status": ready, "reason": "Serving"}],
        "served": {"digest": LETTERS[letter], "sinceTime": "2026-01-05T12:00:00Z"},
    }
    body = rollout(letter, port=8081, **status)
    body["metadata"]["resourceVersion"] = "1"
    return body


def judged(name: str, letter: str, time: str, value: float, passed: str = "True") -> Body:
    return evaluation(
        name,
        f"uid-of-{name}",
        target={"digest": LETTERS[letter]},
        completionTime=f"2026-01-05T{time}:00Z",
        conditions=[{"type": "Succeeded", "status": "True"}, {"type": "Passed", "status": passed}],
        results=[{"task": "heldout", "metric": "perplexity", "value": value}, {"task": "heldout", "metric": "bytes"}],
    )


async def test_the_newest_evaluation_that_the_served_adapter_passed_gives_the_values() -> None:
    cache = Cache()
    cache.owners["AdapterRollout"].put(served("a"))
    cache.owners["Evaluation"].put(judged("first", "a", "10:00", 24.0))
    cache.owners["Evaluation"].put(judged("again", "a", "11:00", 23.0))
    cache.owners["Evaluation"].put(judged("missed", "a", "12:00", 99.0, passed="False"))
    cache.owners["Evaluation"].put(judged("another", "b", "12:30", 7.0))
    found = samples(cache)
    assert found["trimtab_adapterrollout_ready"] == {(NAMESPACE, "guide"): 1.0}
    assert found["trimtab_adapterrollout_served_timestamp_seconds"] == {(NAMESPACE, "guide"): 1767614400.0}
    assert found["trimtab_evaluation_value"] == {(NAMESPACE, "guide", "heldout/perplexity"): 23.0}


async def test_what_serves_nothing_has_no_value_and_no_time() -> None:
    cache = Cache()
    body = rollout(port=8081)
    body["metadata"]["resourceVersion"] = "1"
    cache.owners["AdapterRollout"].put(body)
    cache.owners["Evaluation"].put(judged("first", "a", "10:00", 24.0))
    found = samples(cache)
    assert found["trimtab_adapterrollout_ready"] == {(NAMESPACE, "guide"): 0.0}
    assert found["trimtab_adapterrollout_served_timestamp_seconds"] == {}
    assert found["trimtab_evaluation_value"] == {}
