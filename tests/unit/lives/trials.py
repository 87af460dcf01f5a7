"""FineTuneJobs as far as a sweep sees them, played without an operator of their own: a few words a life."""

from __future__ import annotations

from random import Random
from typing import Any

from trimtab_operator.domain.finetunesweep.searching import TRIAL_LABEL
from trimtab_operator.runtime.kube import OWN, Body

from tests.unit.domain.makers import ARTIFACT, sha
from tests.unit.lives.faults import FaultyApi

STATIONS = (10, 30, 40)
"""Steps at which a trial is seen: both rungs, and its end."""
RULE = {"reductionFactor": 3, "minimumSteps": 10}
RATES = [1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 6e-4]
BAD_RATE = 5e-4
"""Does not fit into memory."""
TIME = "2026-01-05T12:00:00Z"
RESOURCE = OWN["FineTuneJob"]


def loss_of(job: Body) -> float:
    """Return the validation loss of a trial, the same at all steps."""
    return 1 + abs(float(job["spec"]["training"]["learningRate"]) - 2.2e-4) * 1000


def is_over(job: Body) -> bool:
    return bool(said(job).get("status", "Unknown") != "Unknown")


def said(job: Body) -> Body:
    found: Body = next(iter(job.get("status", {}).get("conditions", ())), {})
    return found


def holds(job: Body) -> bool:
    """Tell whether a FineTuneJob holds accelerators, or may do so in the next moment."""
    return not is_over(job) and (not job["spec"].get("suspend") or _runs(job))


def trial_of(job: Body) -> str:
    return str(job["metadata"]["labels"][TRIAL_LABEL])


class Trials:
    """Plays the FineTuneJobs of an API server, one word at a time."""

    def __init__(self, api: FaultyApi, random: Random) -> None:
        self._api = api
        self._random = random

    @property
    def all(self) -> list[Body]:
        return [body for place, body in self._api.objects.items() if place[0] == RESOURCE.plural]

    @property
    def live(self) -> list[Body]:
        return [job for job in self.all if not is_over(job)]

    def one_gets_on(self) -> None:
        if live := self.live:
            self.gets_on(self._random.choice(live))

    def one_is_deleted(self) -> str | None:
        """By somebody who should not; return its name."""
        if not (live := self.live):
            return None
        metadata = self._random.choice(live)["metadata"]
        self._api.drop(RESOURCE, metadata["namespace"], metadata["name"])
        return str(metadata["name"])

    def gets_on_by_far(self, job: Body, *, to_a_station: bool) -> None:
        """Say words until something is to be decided: at a station, or at the end."""
        place = RESOURCE.plural, job["metadata"]["namespace"], job["metadata"]["name"]
        for _ in range(7):
            now = self._api.objects[place]
            self.gets_on(now)
            after = self._api.objects[place]
            if is_over(after) or (to_a_station and _step(after) > _step(now)) or after == now:
                return

    def gets_on(self, job: Body) -> None:
        """Say the next word of a FineTuneJob: prepared, begun, at the next station, waiting, at rest, or over."""
        status = job.get("status", {})
        if job["spec"].get("suspend") and said(job).get("reason") != "Suspended":
            self._tell(job, conditions=[condition("Suspended")])
        elif job["spec"].get("suspend") and _runs(job):
            if self._random.random() < 0.3:
                self._trains(job)  # while its checkpoint is being written
            else:
                self._tell(job, attempts=[_attempt(startTime=None, activeSeconds=1)])
        elif job["spec"].get("suspend"):
            pass
        elif "dataset" not in status:
            dataset = {"digest": sha("a"), "rowsDigest": sha("b"), "rows": 9, "tokens": 99}
            self._tell(job, dataset=dataset, progress={"step": 0, "totalSteps": STATIONS[-1]})
        elif not _runs(job):
            self._tell(job, conditions=[condition("Training")], attempts=[_attempt(startTime=TIME)])
        else:
            self._trains(job)

    def _trains(self, job: Body) -> None:
        before = job["status"]["progress"]["step"]
        loss = loss_of(job)
        if job["spec"]["training"]["learningRate"] == BAD_RATE:
            self._ends(job, "OutOfMemory", "False")
            return
        if before == STATIONS[-1]:
            artifact = {"uri": ARTIFACT.uri, "digest": ARTIFACT.digest, "rank": 8, "targetModules": ["q_proj"]}
            self._ends(job, "Completed", "True", artifact={**artifact, "baseModelDigest": sha("c")})
            return
        steps = [step for step in STATIONS if step <= before] + [next(step for step in STATIONS if step > before)]
        self._tell(
            job,
            curve={"validationSteps": steps, "validationLoss": [loss] * len(steps)},
            progress={"step": steps[-1], "totalSteps": STATIONS[-1], "validationLoss": loss},
            acceleratorSeconds=steps[-1],
        )

    def _ends(self, job: Body, reason: str, status: str, **told: Any) -> None:
        self._tell(job, conditions=[condition(reason, status)], attempts=[_attempt(reason=reason)], **told)

    def _tell(self, job: Body, **status: Any) -> None:
        self._api.put(RESOURCE, {**job, "status": {**job.get("status", {}), **status}})


def _step(job: Body) -> int:
    return int(job.get("status", {}).get("progress", {}).get("step", 0))


def _runs(job: Body) -> bool:
    attempts = job.get("status", {}).get("attempts", ())
    return any(each.get("startTime") is not None and each.get("reason") is None for each in attempts)


def _attempt(**fields: Any) -> Body:
    return {"number": 0, "stage": "train", "jobName": "x", "jobUID": "x", **fields}


def condition(reason: str, status: str = "Unknown") -> Body:
    return {"type": "Succeeded", "status": status, "reason": reason, "message": reason, "lastTransitionTime": TIME}
