"""The gate's merge patch: what this version wants is written, what only another version knows stays."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from trimtab_operator.api import AdapterRolloutStatus, FineTuneJobStatus
from trimtab_operator.api.definitions.schema import structural
from trimtab_operator.domain.kinds import KINDS
from trimtab_operator.runtime.kube import Body
from trimtab_operator.runtime.rounds.gate import admitted, changes, merged

FIRST: Body = {"number": 0, "stage": "prepare", "jobName": "demo-prepare-0", "jobUID": "u0", "reason": "Completed"}
SECOND: Body = {"number": 1, "stage": "train", "jobName": "demo-train-1", "jobUID": "u1"}
THIRD: Body = {"number": 2, "stage": "train", "jobName": "demo-train-2", "jobUID": "u2"}
LATER: Body = {"laterFact": {"seen": 3}}


@dataclass
class Case:
    """`left` is what is stored after `wanted` was written over `stored`."""

    stored: Body
    wanted: Body
    left: Body
    status: type[FineTuneJobStatus | AdapterRolloutStatus] = FineTuneJobStatus


CASES = {
    "a fact of the whole status stays": Case(
        stored={"failures": 0, **LATER}, wanted={"failures": 1}, left={"failures": 1, **LATER}
    ),
    "a fact within a section stays while the section changes": Case(
        stored={"progress": {"step": 1, **LATER}},
        wanted={"progress": {"step": 2}},
        left={"progress": {"step": 2, **LATER}},
    ),
    "a section that is not wanted any more goes with all that is in it": Case(
        stored={"progress": {"step": 1, **LATER}}, wanted={}, left={}
    ),
    "an attempt keeps its fact when the next one is entered": Case(
        stored={"attempts": [{**FIRST, **LATER}]},
        wanted={"attempts": [FIRST, SECOND]},
        left={"attempts": [{**FIRST, **LATER}, SECOND]},
    ),
    "an attempt keeps its fact when it is closed": Case(
        stored={"attempts": [{**FIRST, **LATER}, {**SECOND, "startTime": "2026-01-05T12:00:00Z", **LATER}]},
        wanted={"attempts": [FIRST, {**SECOND, "reason": "NodeLost"}, THIRD]},
        left={"attempts": [{**FIRST, **LATER}, {**SECOND, "reason": "NodeLost", **LATER}, THIRD]},
    ),
    "an attempt that is no longer kept is gone, and gives its fact to no other": Case(
        stored={"attempts": [{**FIRST, **LATER}, SECOND]},
        wanted={"attempts": [SECOND, THIRD]},
        left={"attempts": [SECOND, THIRD]},
    ),
    "revisions are told apart by name, whatever their order": Case(
        status=AdapterRolloutStatus,
        stored={"revisions": [{"name": "g@00000001", "state": "Serving", **LATER}, {"name": "g@00000002"}]},
        wanted={"revisions": [{"name": "g@00000003"}, {"name": "g@00000001", "state": "Previous"}]},
        left={"revisions": [{"name": "g@00000003"}, {"name": "g@00000001", "state": "Previous", **LATER}]},
    ),
    "a list that is a value is replaced": Case(
        status=AdapterRolloutStatus, stored={"sequence": [1, 5]}, wanted={"sequence": [2, 6]}, left={"sequence": [2, 6]}
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_another_version_told_stays(case: Case) -> None:
    schema = structural(case.status, defaults=False)
    patch = changes(case.stored, without(case.stored), case.wanted, schema)
    left = merged(case.stored, patch)
    assert left == case.left
    assert changes(left, without(left), case.wanted, schema) == {}, "and then there is nothing more to write"


def without(status: Body) -> Body:
    """Return a status as the version understands it that knows nothing of the fact."""
    known = {}
    for key, value in status.items():
        if key in LATER:
            continue
        if isinstance(value, dict):
            value = without(value)
        elif isinstance(value, list):
            value = [without(each) if isinstance(each, dict) else each for each in value]
        known[key] = value
    return known


def _condition(kind: str, status: str, reason: str) -> Body:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-01-05T12:00:00Z",
    }


def test_of_what_has_ended_only_the_conditions_that_come_later_change() -> None:
    ended = _condition("Succeeded", "True", "Completed")
    warned = _condition("Warned", "True", "FinishedWithWarnings")
    kept: Body = {"failures": 1, "observedGeneration": 2, "conditions": [ended, warned]}
    again = _condition("Succeeded", "Unknown", "Training")
    tracked = _condition("Tracked", "Unknown", "Tracking")
    wanted: Body = {"failures": 0, "observedGeneration": 3, "conditions": [again, tracked]}
    first = admitted(KINDS["FineTuneJob"], {"status": kept}, wanted)
    assert first == {"failures": 1, "observedGeneration": 3, "conditions": [ended, warned, tracked]}
    told = _condition("Tracked", "True", "Tracked")
    then = admitted(KINDS["FineTuneJob"], {"status": first}, {"conditions": [told, again]})
    assert then["conditions"] == [ended, warned, told]
    assert admitted(KINDS["FineTuneJob"], {"status": then}, {"conditions": [again]}) == then
    evaluated = admitted(KINDS["Evaluation"], {"status": kept}, wanted)
    assert evaluated["conditions"] == [ended, warned]
