"""Pods that run to a script: what a kubelet and a trainer would write to the API server, without either.

The Job controller is the real one: it creates the pods, and finishes the Jobs when their pods have ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from trimtab_operator.domain.views import CONTAINER, EVALUATION_LABEL, format_time
from trimtab_operator.runtime.kube import JOBS, MERGE_PATCH, PODS, Body, Kube, NotFound
from trimtab_trainer.contract import ExitCode, Reason, Stage, Summary, TerminationMessage
from trimtab_trainer.contract.outcome import PACKED_OUTCOME_BYTES

from tests.unit.domain.makers import ARTIFACT, EXPORTED, OUTCOME, PREPARED, PREPARED_EVALUATION

ATTEMPT = "--attempt"
"""The argument that tells a trainer which attempt it is; what its labels say is the cluster's."""


@dataclass(frozen=True)
class Act:
    """What a pod does: run for a while and until something happens, then end."""

    exit_code: int = 0
    reason: Reason = Reason.COMPLETED
    seconds: float = 0.0
    message: str = ""
    until: asyncio.Event | None = None
    warnings: tuple[str, ...] = ()
    answers: str | None = None
    """The digest of answers that an endpoint is to judge: what evaluating ends with instead of an outcome."""


Script = Callable[[Stage, int], Act | None]
"""What the pod of a stage's attempt does; None: it runs for ever."""


def succeed(stage: Stage, attempt: int) -> Act:
    return Act()


@dataclass
class Executor:
    """Plays the pods of one namespace, each once."""

    kube: Kube
    namespace: str
    script: Script = succeed
    pod_ip: str = "127.0.0.1"
    every: float = 0.1
    played: set[str] = field(default_factory=set)
    pods: list[tuple[str, int]] = field(default_factory=list)
    """(stage, attempt) of every pod that was started."""

    def act_of(self, pod: Body, stage: Stage, attempt: int) -> Act | None:
        """Return what a pod does."""
        return self.script(stage, attempt)

    def address_of(self, pod: Body) -> str:
        """Return the address that a pod gets."""
        return self.pod_ip

    async def validation_loss(self, pod: Body) -> float | None:
        """Return the loss on held-out rows that a pod comes to."""
        return None

    def notice(self, pod: Body) -> None:
        """Look at a pod, each time that it is listed."""

    def says(self, words: str) -> str:
        """Return the termination message of a container that has these last words."""
        return words

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                for pod in await self.kube.items(PODS, self.namespace, {}):
                    if ATTEMPT not in arguments_of(pod):  # a pod that serves, or somebody else's
                        continue
                    self.notice(pod)
                    if pod["metadata"]["uid"] not in self.played:
                        self.played.add(pod["metadata"]["uid"])
                        group.create_task(self.play(pod))
                await asyncio.sleep(self.every)

    async def play(self, pod: Body) -> None:
        labels, arguments = pod["metadata"].get("labels", {}), arguments_of(pod)
        stage, attempt = Stage(arguments[0]), int(arguments[arguments.index(ATTEMPT) + 1])
        self.pods.append((stage.value, attempt))
        act = self.act_of(pod, stage, attempt)
        started, address = now(), self.address_of(pod)
        with contextlib.suppress(NotFound):  # deleted meanwhile
            uid = await self.run_uid(pod)
            await self.write(pod, running(pod, started, address))
            if act is None:
                return
            await asyncio.sleep(act.seconds)
            if act.until is not None:
                await act.until.wait()
            evaluates, loss = EVALUATION_LABEL in labels, await self.validation_loss(pod)
            looks = stage is Stage.JUDGE and not any("answersDigest" in each for each in arguments_of(pod))
            words = last_words(stage, attempt, uid, act, evaluates=evaluates, validation_loss=loss, looks=looks)
            await self.write(pod, ended(pod, started, address, act.exit_code, self.says(words)))

    async def run_uid(self, pod: Body) -> str:
        """Return the uid of the Job's owner, which a test may have taken away: then the operator gives it back."""
        job_name = pod["metadata"]["ownerReferences"][0]["name"]
        while True:
            job = await self.kube.get(JOBS, self.namespace, job_name)
            if owners := job["metadata"].get("ownerReferences"):
                return str(owners[0]["uid"])
            await asyncio.sleep(self.every)

    async def write(self, pod: Body, status: Body) -> None:
        await self.kube.patch(
            PODS, self.namespace, pod["metadata"]["name"], MERGE_PATCH, {"status": status}, subresource="status"
        )


def now() -> str:
    return format_time(datetime.now(UTC))


def running(pod: Body, started: str, ip: str) -> Body:
    condition = {"status": "True", "lastTransitionTime": started}
    return {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "startTime": started,
        "conditions": [{"type": kind, **condition} for kind in ("PodScheduled", "Initialized", "Ready")],
        "containerStatuses": [container(pod, {"running": {"startedAt": started}})],
    }


def ended(pod: Body, started: str, ip: str, exit_code: int, words: str) -> Body:
    state = {"exitCode": exit_code, "startedAt": started, "finishedAt": now(), "message": words, "reason": "Error"}
    if exit_code == 0:
        state["reason"] = "Completed"
    return {
        **running(pod, started, ip),
        "phase": "Succeeded" if exit_code == 0 else "Failed",
        "containerStatuses": [container(pod, {"terminated": state})],
    }


def arguments_of(pod: Body) -> list[str]:
    arguments: list[str] = pod["spec"]["containers"][0].get("args", [])
    return arguments


def container(pod: Body, state: dict[str, Any]) -> Body:
    image = pod["spec"]["containers"][0]["image"]
    ready = "running" in state
    return {"name": CONTAINER, "image": image, "imageID": "", "ready": ready, "restartCount": 0, "state": state}


def last_words(
    stage: Stage,
    attempt: int,
    uid: str,
    act: Act,
    *,
    evaluates: bool = False,
    validation_loss: float | None = None,
    looks: bool = False,
) -> str:
    """Return what a stage says; `looks`: it asks a judge, and there are no answers yet."""
    done = act.exit_code == ExitCode.DONE
    concludes = stage in (Stage.EVALUATE, Stage.JUDGE) and act.answers is None and not looks
    return TerminationMessage(
        stage=stage,
        run_uid=uid,
        attempt=attempt,
        reason=act.reason,
        message=act.message,
        warnings=act.warnings,
        prepared=PREPARED if done and stage is Stage.PREPARE and not evaluates else None,
        prepared_evaluation=PREPARED_EVALUATION if done and stage is Stage.PREPARE and evaluates else None,
        answers_digest=act.answers if done else None,
        judge_ready=True if done and looks else None,
        packed_outcome=OUTCOME.pack(PACKED_OUTCOME_BYTES) if done and concludes else None,
        artifact=ARTIFACT if done and stage is Stage.TRAIN else None,
        exported=EXPORTED if done and stage is Stage.EXPORT else None,
        summary=Summary(step=100, total_steps=100, loss=1.5, validation_loss=validation_loss)
        if stage is Stage.TRAIN
        else Summary(),
    ).encode()
