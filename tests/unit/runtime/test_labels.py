"""Labels of metrics: whatever tenants, agents and other versions say, the series are few."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from trimtab_agent.failures import FailureReason
from trimtab_operator.api import AttemptReason, FineTuneJobStatus, State, SweepState
from trimtab_operator.api.adapterrollout import AdapterRolloutStatus, PodReason, Rejected
from trimtab_operator.api.status.rollout_reasons import POD_EXPLANATIONS, RolloutReason
from trimtab_operator.domain.adapterrollout.record import ADAPTER_ROLLOUT
from trimtab_operator.domain.finetunejob import FINE_TUNE_JOB
from trimtab_operator.domain.finetunesweep.trials import VALUE_MISSING
from trimtab_operator.domain.kinds import KINDS
from trimtab_operator.runtime import metrics
from trimtab_operator.runtime.labels import OTHER, code_label, reason_label, word_label
from trimtab_trainer.contract import Stage
from trimtab_trainer.contract.sweeps.settings import TrialState

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def word(number: int) -> str:
    return f"W{number}{os.urandom(8).hex()}"


def tell(after: FineTuneJobStatus) -> None:
    metrics.count(FINE_TUNE_JOB.measures(FineTuneJobStatus(), after, NOW))


def of_pods(number: int) -> None:
    after = AdapterRolloutStatus(pod_reasons=[PodReason(pod="p", reason=word(number), message="")])
    metrics.count(ADAPTER_ROLLOUT.measures(AdapterRolloutStatus(), after, NOW))


def of_rollbacks(number: int) -> None:
    digest = "sha256:" + f"{number:064x}"
    after = AdapterRolloutStatus(rejected=[Rejected(digest=digest, reason=word(number), generation=1)])
    metrics.count(ADAPTER_ROLLOUT.measures(AdapterRolloutStatus(), after, NOW))


def of_attempts(number: int) -> None:
    attempt = {"number": number, "stage": "train", "jobName": "j", "jobUID": "u", "reason": word(number)}
    tell(FineTuneJobStatus.model_validate({"attempts": [attempt]}))


def of_ends(number: int) -> None:
    condition = {"type": "Succeeded", "status": "False", "reason": word(number), "message": ""}
    status = {
        "startTime": "2026-01-05T12:00:00Z",
        "completionTime": "2026-01-05T12:00:01Z",
        "conditions": [{**condition, "lastTransitionTime": "2026-01-05T12:00:00Z"}],
    }
    tell(FineTuneJobStatus.model_validate(status))


COUNTED: dict[str, tuple[Any, Callable[[int], None]]] = {
    "what pods say of their revisions": (metrics.REVISION_FAILURES, of_pods),
    "why revisions were taken back": (metrics.ROLLBACKS, of_rollbacks),
    "why attempts ended": (metrics.ATTEMPTS, of_attempts),
    "how jobs ended": (metrics.JOB_SECONDS, of_ends),
}


def series(metric: Any) -> int:
    return len({tuple(sample.labels.items()) for each in metric.collect() for sample in each.samples})


@pytest.mark.parametrize("case", COUNTED)
def test_a_thousand_words_are_one_series(case: str) -> None:
    metric, count = COUNTED[case]
    count(0)
    before = series(metric)
    for number in range(1, 1000):
        count(number)
    assert series(metric) == before


def test_states_that_are_not_known_are_counted_together() -> None:
    counts = {word(number): 1 for number in range(50)} | {"Training": 2, "New": 1, "unreachable": 3}
    registry = CollectorRegistry()
    registry.register(metrics.States("trimtab_test", "Things", lambda: counts))
    found = {s.labels["state"]: s.value for each in registry.collect() for s in each.samples}
    assert found == {OTHER: 50, "Training": 2, "New": 1, "unreachable": 3}


def test_every_word_of_the_api_is_its_own_label() -> None:
    states = {word for kind in KINDS.values() for _, told in kind.crd.reasons.values() for word in told}
    for reason in (*RolloutReason, *FailureReason, *POD_EXPLANATIONS, *State, *AttemptReason, *SweepState, *states):
        assert reason_label(reason) == str(reason)
    for outcome in (*Stage, *TrialState, VALUE_MISSING):
        assert word_label(outcome) == str(outcome)
    assert {code_label(number) for number in range(100, 1000)} <= {OTHER, *(str(n) for n in range(100, 600))}
    assert code_label(200) == "200"
    assert code_label(799) == OTHER
