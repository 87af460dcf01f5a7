"""One life of a FineTuneJob, an Evaluation or an AdapterExport: the real rounds over an API server that goes wrong,
between Jobs and pods that do whatever they may in a cluster, with an operator that dies and a cache that lags. What
must hold is looked at after every write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from trimtab_operator.api import NOT_UNDERSTOOD, State
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.kinds import KINDS
from trimtab_operator.domain.views import (
    INDEX_LABEL,
    JOB_NAME_LABEL,
    JOB_UID_LABEL,
    OWNER_LABELS,
    QUEUE_LABEL,
    format_time,
)
from trimtab_operator.runtime.kube import JOBS, NODES, OWN, PODS, Body
from trimtab_operator.runtime.rounds.gate import has_ended, summary_of
from trimtab_trainer.contract import ExitCode, Reason, Stage, Summary, TerminationMessage

from tests.unit.domain.makers import (
    ARTIFACT,
    EXPORTED,
    OUTCOME,
    PREPARED,
    PREPARED_EVALUATION,
    adapterrollout,
    finished,
    sha,
)
from tests.unit.lives.faults import FaultyApi
from tests.unit.lives.life import OneObject
from tests.unit.runtime.objects import NAMESPACE, adapterexport, evaluation, finetunejob

T0 = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
REASONS = {
    ExitCode.SETTINGS_INVALID: Reason.BUCKET_NOT_FOUND,
    ExitCode.DATA_INVALID: Reason.DATASET_MALFORMED,
    ExitCode.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    ExitCode.STORAGE_FAILED: Reason.STORAGE_FAILED,
    ExitCode.INTERRUPTED: Reason.INTERRUPTED,
    ExitCode.BUG: Reason.BUG,
}
RULES = {14: 1, 10: 2, 11: 2, 12: 3, 13: 4}
NODE = "node-1"
RETRIES = {"onFailure": 2, "onDisruption": 3}
LATER_RETRIES = {"onFailure": "Automatic", "onDisruption": 3}
"""As no version is understood that is known today."""


JUDGED: Body = {
    "judge": {"endpoint": {"url": "http://judges:8000/v1", "model": "judge"}},
    "tasks": [
        {
            "name": "heldout",
            "type": "Judge",
            "dataset": {"split": "Test"},
            "judging": {"instructions": "Prefer what is right."},
        }
    ],
}


class Life(OneObject):
    """`kind` is FineTuneJob, Evaluation or AdapterExport; everything that happens follows from the seed."""

    def __init__(self, kind: str, seed: int) -> None:
        self.random = Random(f"{kind} {seed}")
        self.kind = KINDS[kind]
        self.key = Key(kind, NAMESPACE, "demo")
        self.now = T0
        self.api = FaultyApi(self.random, lambda: self.now)
        self.api.wrote = self._look_at
        self.charged: dict[int, str | None] = {}
        self.acting = False
        self.suspended_by: dict[str, bool] = {}
        """Whether the operator did it, or the user, by uid of the Job."""
        self.judge_replied = False
        """Whether a pod has told that the judge's endpoint takes questions."""
        self.story: list[str] = []
        self.queued = self.random.random() < 0.3
        self.operator = self._new_operator()
        self.uid = self.api.put(OWN[kind], self._object())["metadata"]["uid"]
        if kind != "FineTuneJob":
            self._upstream()

    def _object(self) -> Body:
        made = {"FineTuneJob": finetunejob(), "Evaluation": evaluation(), "AdapterExport": adapterexport()}
        body = made[self.kind.name]
        body["spec"]["retries"] = RETRIES
        if self.kind.name == "FineTuneJob":
            body["spec"]["nodes"] = self.random.choice((1, 1, 2, 3))
        if self.kind.name != "AdapterExport":
            body["spec"]["template"] = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
        if self.random.random() < 0.2:
            body["spec"]["activeDeadlineSeconds"] = 3000
        if self.random.random() < 0.2:
            body["spec"]["ttlSecondsAfterFinished"] = 60
        if self.queued:
            body["metadata"]["labels"] = {QUEUE_LABEL: "gpus"}
        if self.kind.name == "Evaluation" and self.random.random() < 0.5:
            body["spec"]["baseline"] = {"rolloutName": "guide"}
            if self.random.random() < 0.5:
                body["spec"] |= JUDGED
        return body

    def _upstream(self) -> None:
        rollout = adapterrollout("7").model_dump(mode="json", by_alias=True, exclude_none=True)
        rollout["metadata"] |= {"namespace": NAMESPACE, "resourceVersion": "1"}
        head = {"apiVersion": "trimtab.dev/v1alpha1", "kind": "AdapterRollout"}
        self.api.put(OWN["AdapterRollout"], {**head, **rollout})
        self.api.put(OWN["FineTuneJob"], finetunejob(**finished().status.to_json()))

    def _the_user_wants_it_suspended(self) -> bool:
        found = self.api.objects.get((self.kind.crd.plural, NAMESPACE, "demo"))
        return found is not None and bool(found["spec"].get("suspend"))

    def _is_not_understood(self) -> bool:
        found = self.api.objects.get((self.kind.crd.plural, NAMESPACE, "demo"), {})
        return summary_of(self.kind, found).get("reason") == NOT_UNDERSTOOD

    # what must hold, after every write

    def _look_at(self, before: Body | None, after: Body | None) -> None:
        if after is None:
            return
        if after["kind"] == self.kind.name:
            self._ended_stays_ended(before, after)
            self._nothing_is_charged_twice(after)
            if self._is_not_understood():
                self.suspended_by = dict.fromkeys(self.suspended_by, True)
        if after["kind"] == "Job":
            self._one_job_is_live()
            self._nothing_runs_beside(before, after)
            self._nobody_is_written_against(before, after)
            self._a_judge_is_looked_at_first_and_once(before, after)

    def _a_judge_is_looked_at_first_and_once(self, before: Body | None, after: Body) -> None:
        """What has accelerators begins once the judge was looked at, and then nobody looks at it again."""
        found = self.api.objects.get((self.kind.crd.plural, NAMESPACE, "demo"))
        if before is not None or not self.acting or found is None or "judge" not in found["spec"]:
            return
        noted, stage = "judgeReady" in found.get("status", {}), _labels_of(after)["trimtab.dev/stage"]
        assert self.judge_replied or stage != "evaluate", self.story
        assert not noted or stage != "judge" or _has_answers(after), self.story

    def _ended_stays_ended(self, before: Body | None, after: Body) -> None:
        if (
            before is not None
            and before["metadata"]["uid"] == after["metadata"]["uid"]
            and has_ended(self.kind, before)
        ):
            assert summary_of(self.kind, after) == summary_of(self.kind, before), self.story
        if has_ended(self.kind, after):
            assert after["status"]["completionTime"], self.story

    def _nothing_is_charged_twice(self, after: Body) -> None:
        status = after.get("status", {})
        attempts = status.get("attempts", ())
        numbers = [attempt["number"] for attempt in attempts]
        assert numbers == sorted(set(numbers)), self.story  # a name that another Job has is passed over
        for attempt in attempts:
            if attempt.get("reason") is not None:
                charged = self.charged.setdefault(attempt["number"], attempt.get("chargedTo"))
                assert charged == attempt.get("chargedTo"), self.story
        for budget in ("failures", "disruptions"):
            assert status.get(budget, 0) == list(self.charged.values()).count(budget), self.story

    def _one_job_is_live(self) -> None:
        assert len(self._live()) <= 1, (self.story, [job["metadata"]["name"] for job in self._live()])

    def _nothing_runs_beside(self, before: Body | None, after: Body) -> None:
        """What somebody took from its Job may run on, and then nothing begins before it has ended."""
        if before is None and self.acting:
            found = self.api.objects[self.kind.crd.plural, NAMESPACE, "demo"]
            known = {attempt["jobUID"] for attempt in found["status"].get("attempts", ())}
            left = [pod["metadata"]["name"] for pod in self._left_behind() if _job_of(pod) in known]
            assert not left, (self.story, left)

    def _nobody_is_written_against(self, before: Body | None, after: Body) -> None:
        """Of who suspends a Job, only that one lets it go on, or the user by name."""
        uid, suspended = after["metadata"]["uid"], bool(after["spec"].get("suspend"))
        was = bool(before["spec"].get("suspend")) if before is not None else False
        if suspended and not was:
            # Where the user has it suspended too, what lets it go on is the user's word. Where the state is none of
            # ours, it is let go on once: what told who suspended it was written over.
            self.suspended_by[uid] = self.acting or self._the_user_wants_it_suspended() or self._is_not_understood()
        if was and not suspended and self.acting:
            assert self.suspended_by[uid], self.story

    # the operator

    async def _round(self) -> float | None:
        self.acting = True
        try:
            return await super()._round()
        finally:
            self.acting = False

    # the cluster

    def _mine(self, plural: str) -> list[Body]:
        return [body for place, body in self.api.objects.items() if place[0] == plural]

    def _live(self) -> list[Body]:
        return [job for job in self._mine("jobs") if not _finished(job)]

    def _newest(self) -> Body | None:
        live = self._live()
        return live[-1] if live else None

    def _pods_of(self, job: Body) -> dict[int, Body]:
        """Return the pods that are there, by their index."""
        uid = job["metadata"]["uid"]
        mine = [pod for pod in self._mine("pods") if _job_of(pod) == uid]
        return {int(p["metadata"]["labels"][INDEX_LABEL]): p for p in mine}

    def _left_behind(self) -> list[Body]:
        """Return the pods that run on though somebody has deleted their Job without them."""
        jobs = {job["metadata"]["uid"] for job in self._mine("jobs")}
        left = [pod for pod in self._mine("pods") if _job_of(pod) not in jobs and "terminated" not in _state_of(pod)]
        return [pod for pod in left if "deletionTimestamp" not in pod["metadata"]]

    def _some_pod_of(self, job: Body | None) -> Body | None:
        pods = self._pods_of(job) if job is not None else {}
        return self.random.choice([pods[index] for index in sorted(pods)]) if pods else None

    def _others_notice(self, job: Body, cause: Body) -> None:
        """Let those go that train together with a pod that is gone: they end by themselves, or are deleted."""
        for pod in self._pods_of(job).values():
            if pod["metadata"]["name"] == cause["metadata"]["name"]:
                continue
            if "running" in _state_of(pod) and self.random.random() < 0.7:
                code = self.random.choice((ExitCode.BUG, ExitCode.INTERRUPTED))
                reason = Reason.PROCESS_LOST if code is ExitCode.BUG else Reason.INTERRUPTED
                self._terminate(pod, int(code), self._words(job, reason, message="the others"), "Failed")
            elif "terminated" not in _state_of(pod):
                self.api.drop(PODS, NAMESPACE, pod["metadata"]["name"])

    def _change(self, job: Body, **status: Any) -> None:
        self.api.put(JOBS, {**job, "status": {**job.get("status", {}), **status}})

    def the_pod_is_scheduled(self) -> None:
        """Its container is being created, for ever perhaps."""
        self._start({"waiting": {"reason": "ContainerCreating"}}, "Pending")

    def the_pod_runs(self) -> None:
        self._start({"running": {"startedAt": format_time(self.now)}}, "Running")

    def _start(self, state: Body, phase: str) -> None:
        job = self._newest()
        if job is None or job["spec"].get("suspend"):
            return
        index = self.random.randrange(job["spec"]["completions"])
        if (pod := self._pods_of(job).get(index)) is not None:
            if pod["status"]["phase"] == "Pending" and "deletionTimestamp" not in pod["metadata"]:
                statuses = [{"name": "trainer", "state": state}]
                self.api.put(PODS, {**pod, "status": {**pod["status"], "phase": phase, "containerStatuses": statuses}})
            return
        labels = {
            OWNER_LABELS[self.kind.name]: "demo",
            "trimtab.dev/stage": _labels_of(job)["trimtab.dev/stage"],
            INDEX_LABEL: str(index),
            JOB_UID_LABEL: job["metadata"]["uid"],
            JOB_NAME_LABEL: job["metadata"]["name"],
        }
        owner = {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"], "controller": True}
        name = f"{job['metadata']['name']}-{index}-x"
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": format_time(self.now)}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": NAMESPACE, "name": name, "labels": labels, "ownerReferences": [owner]},
            "spec": {"nodeName": NODE},
            "status": {
                "phase": phase,
                "conditions": [scheduled],
                "containerStatuses": [{"name": "trainer", "state": state}],
            },
        }
        self.api.put(PODS, pod)
        self._change(job, active=1)

    def _terminate(self, pod: Body, code: int, text: str, phase: str) -> None:
        before = pod["status"]["containerStatuses"][0]["state"].get("running", {})
        ended = {"exitCode": code, "message": text, "finishedAt": format_time(self.now), **before}
        state = {"name": "trainer", "state": {"terminated": ended}}
        self.api.put(PODS, {**pod, "status": {**pod["status"], "phase": phase, "containerStatuses": [state]}})

    def _words(self, job: Body, reason: Reason, **said: Any) -> str:
        labels = _labels_of(job)
        stage, attempt = Stage(labels["trimtab.dev/stage"]), int(labels["trimtab.dev/attempt"])
        return TerminationMessage(stage=stage, run_uid=self.uid, attempt=attempt, reason=reason, **said).encode()

    def _spec(self) -> Body:
        found: Body = self.api.objects.get((self.kind.crd.plural, NAMESPACE, "demo"), {}).get("spec", {})
        return found

    def _findings(self, job: Body) -> dict[str, Any]:
        prepares = _labels_of(job)["trimtab.dev/stage"] == "prepare"
        if self.kind.name == "Evaluation":
            if prepares:
                return {"prepared_evaluation": PREPARED_EVALUATION}
            stage = _labels_of(job)["trimtab.dev/stage"]
            if stage == "judge" and not _has_answers(job):
                self.judge_replied = True
                return {"judge_ready": True}
            answers = stage == "evaluate" and "judge" in self._spec()
            return {"answers_digest": sha("9")} if answers else {"packed_outcome": OUTCOME.pack(3072)}
        if self.kind.name == "AdapterExport":
            return {"exported": EXPORTED}
        return {"prepared": PREPARED} if prepares else {"artifact": ARTIFACT, "summary": Summary(step=100)}

    def it_succeeds(self) -> None:
        """Each pod does its part, and then the first publishes."""
        job = self._newest()
        pods = self._pods_of(job) if job is not None else {}
        if job is None or len(pods) < job["spec"]["completions"]:
            return
        if any(pod["status"]["phase"] == "Pending" for pod in pods.values()):
            return
        pod = pods.pop(0)
        for other in pods.values():
            if "running" in _state_of(other):
                self._terminate(other, 0, self._words(job, Reason.COMPLETED), "Succeeded")
        if pods and self.random.random() < 0.3:
            return
        sidecar = self.random.random() < 0.2
        self._terminate(
            pod, 0, self._words(job, Reason.COMPLETED, **self._findings(job)), "Running" if sidecar else "Succeeded"
        )
        if sidecar:
            return
        if self.random.random() < 0.1:
            self.api.drop(PODS, NAMESPACE, pod["metadata"]["name"])
        self._change(job, active=0, conditions=[self._condition("Complete")])

    def it_exits(self) -> None:
        job = self._newest()
        pod = self._some_pod_of(job)
        if job is None or pod is None or pod["status"]["phase"] == "Pending" or pod["status"]["phase"] == "Succeeded":
            return
        code = self.random.choice(list(REASONS))
        self._terminate(pod, int(code), self._words(job, REASONS[code], message="because"), "Failed")
        self._others_notice(job, pod)
        if self.random.random() < 0.3:
            self.api.drop(PODS, NAMESPACE, pod["metadata"]["name"])
        rule = RULES.get(int(code))
        text = f"Container trainer for pod a/b failed with exit code {int(code)} matching FailJob rule at index {rule}"
        self._change(job, active=0, conditions=[self._condition("Failed", text if rule else "")])

    def it_is_evicted(self) -> None:
        job = self._newest()
        pod = self._some_pod_of(job)
        if job is None or pod is None:
            return
        self._others_notice(job, pod)
        self.api.drop(PODS, NAMESPACE, pod["metadata"]["name"])
        text = "Pod a/b has condition DisruptionTarget matching FailJob rule at index 0"
        self._change(job, active=0, conditions=[self._condition("Failed", text)])

    def somebody_deletes_the_job(self) -> None:
        job = self._newest()
        if job is not None:
            self._delete(job)

    def _delete(self, job: Body) -> None:
        pods = self._pods_of(job)
        self.api.drop(JOBS, NAMESPACE, job["metadata"]["name"])
        for pod in pods.values():
            self.api.drop(PODS, NAMESPACE, pod["metadata"]["name"])

    def what_has_ended_is_swept_away(self) -> None:
        """As a policy does that sets ttlSecondsAfterFinished to 0, or a janitor of pods alone."""
        for job in [each for each in self._mine("jobs") if _finished(each)]:
            if self.random.random() < 0.5:
                self._delete(job)
                continue
            for pod in self._pods_of(job).values():
                self.api.drop(PODS, NAMESPACE, pod["metadata"]["name"])

    def somebody_deletes_the_job_and_leaves_its_pods(self) -> None:
        """As `--cascade=orphan` does."""
        job = self._newest()
        if job is None:
            return
        pods = self._pods_of(job)
        self.api.drop(JOBS, NAMESPACE, job["metadata"]["name"])
        for pod in pods.values():
            self.api.put(PODS, {**pod, "metadata": {**pod["metadata"], "ownerReferences": []}})

    def what_was_left_behind_ends(self) -> None:
        for pod in self._left_behind():
            self._terminate(pod, 0, "", "Succeeded")

    def somebody_takes_the_job_from_its_owner(self) -> None:
        """By a tool that strips owner references, or with the labels too; or by one that writes others'."""
        job = self._newest()
        if job is None:
            return
        metadata = {**job["metadata"], "ownerReferences": []}
        what = self.random.choice(("owner", "labels", "both", "another"))
        if what == "another":
            metadata["ownerReferences"] = [self._owner("no-more")]
        elif what == "labels":
            metadata["ownerReferences"] = job["metadata"]["ownerReferences"]
        if what in ("labels", "both"):
            metadata["labels"] = {"app": "restored"}
        self.api.put(JOBS, {**job, "metadata": metadata})

    def _owner(self, uid: str) -> Body:
        owner = {"apiVersion": "trimtab.dev/v1alpha1", "kind": self.kind.name, "name": "demo", "uid": uid}
        return {**owner, "controller": True}

    def a_backup_brings_the_job_back(self) -> None:
        """As another object of the same name, whose owner is one of before."""
        job = self._newest()
        if job is None:
            return
        owners = self.random.choice(([], [self._owner("no-more")]))
        self._delete(job)
        metadata = {key: job["metadata"][key] for key in ("namespace", "name", "labels")}
        self.api.put(JOBS, {**job, "metadata": {**metadata, "ownerReferences": owners}})

    def the_pod_is_to_go_and_its_node_may_be_dead(self) -> None:
        pod = self._some_pod_of(self._newest())
        if pod is not None:
            deletion = format_time(self.now + timedelta(seconds=30))
            self.api.put(PODS, {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": deletion}})
            ready = {"type": "Ready", "status": self.random.choice(("True", "Unknown"))}
            self.api.objects[NODES.plural, None, NODE] = {"metadata": {"name": NODE}, "status": {"conditions": [ready]}}

    def the_queue_decides(self) -> None:
        job = self._newest()
        if self.queued and job is not None:
            self._suspend(job, self.random.random() < 0.4)

    def somebody_else_suspends_the_job(self) -> None:
        job = self._newest()
        if not self.queued and job is not None:
            self._suspend(job, self.random.random() < 0.5)

    def _suspend(self, job: Body, suspend: bool) -> None:
        if bool(job["spec"].get("suspend")) == suspend:
            return
        conditions = [self._condition("Suspended", status="True" if suspend else "False")]
        self.api.put(
            JOBS,
            {
                **job,
                "spec": {**job["spec"], "suspend": suspend},
                "status": {**job.get("status", {}), "conditions": conditions},
            },
        )
        self.the_job_controller_works()

    def the_job_controller_works(self) -> None:
        """It deletes the pods of a suspended Job, and those of Jobs that are gone.

        The garbage collector does that, and deletes Jobs whose owner is gone.
        """
        for orphan in self._mine("jobs"):
            if any(each["uid"] != self.uid for each in orphan["metadata"]["ownerReferences"]):
                self.api.drop(JOBS, NAMESPACE, orphan["metadata"]["name"])
        uids = {job["metadata"]["uid"]: job for job in self._mine("jobs")}
        for pod in self._mine("pods"):
            job = uids.get(_job_of(pod))
            if job is None and not pod["metadata"]["ownerReferences"]:
                continue  # it was left behind, and runs on
            if job is None or (job["spec"].get("suspend") and not _finished(job)):
                self.api.drop(PODS, NAMESPACE, pod["metadata"]["name"])
                if job is not None:
                    self._change(job, active=0)

    def the_user_suspends(self) -> None:
        found = self.api.objects.get((self.kind.crd.plural, NAMESPACE, "demo"))
        if found is not None:
            suspend = self.random.random() < 0.5
            if suspend:  # and false again is how a user lets go on what somebody else has suspended
                self.suspended_by = dict.fromkeys(self.suspended_by, True)
            self._write({**found, "spec": {**found["spec"], "suspend": suspend}})

    def a_later_version_has_another_word(self) -> None:
        """Or it is gone again: what this one knows is there."""
        found = self.api.objects.get((self.kind.crd.plural, NAMESPACE, "demo"))
        if found is not None:
            known = found["spec"]["retries"] == RETRIES
            self._write({**found, "spec": {**found["spec"], "retries": LATER_RETRIES if known else RETRIES}})

    def _write(self, found: Body) -> None:
        metadata = {**found["metadata"], "generation": found["metadata"]["generation"] + 1}
        self.api.put(OWN[self.kind.name], {**found, "metadata": metadata})

    def time_goes_by(self) -> None:
        self.now += timedelta(seconds=self.random.choice((1, 10, 100, 400)))

    def _condition(self, kind: str, message: str = "", status: str = "True") -> Body:
        return {"type": kind, "status": status, "message": message, "lastTransitionTime": format_time(self.now)}

    # the whole

    async def live(self, steps: int) -> None:
        """Live for some steps, then in peace: left alone it ends, and nothing of it stays live."""
        happenings: tuple[Callable[[], None], ...] = (
            self.the_pod_is_scheduled,
            self.the_pod_runs,
            self.the_pod_runs,
            self.it_succeeds,
            self.it_exits,
            self.it_is_evicted,
            self.somebody_deletes_the_job,
            self.somebody_deletes_the_job_and_leaves_its_pods,
            self.what_has_ended_is_swept_away,
            self.what_was_left_behind_ends,
            self.somebody_takes_the_job_from_its_owner,
            self.a_backup_brings_the_job_back,
            self.the_pod_is_to_go_and_its_node_may_be_dead,
            self.the_queue_decides,
            self.somebody_else_suspends_the_job,
            self.the_job_controller_works,
            self.the_user_suspends,
            self.a_later_version_has_another_word,
            self.time_goes_by,
            self.the_operator_dies,
        )
        await self.go_through(happenings, steps)
        await self._rest()

    async def _rest(self) -> None:
        for _ in range(80):
            found = self.api.objects.get((self.kind.crd.plural, NAMESPACE, "demo"))
            if found is None or (has_ended(self.kind, found) and not self._live()):
                return
            self._peace(found)
            self._deliver(self.operator, share=1.0)
            await self.operate(6)
            self.now += timedelta(seconds=61)
        raise AssertionError((self.story, summary_of(self.kind, found or {})))

    def _somebody_does_as_the_message_says(self) -> None:
        for job in self._mine("jobs"):
            if not any(owner["uid"] == self.uid for owner in job["metadata"]["ownerReferences"]):
                self._delete(job)

    def _peace(self, found: Body) -> None:
        """Nobody suspends any more, and what runs succeeds."""
        self.story.append(f"peace: {summary_of(self.kind, found).get('reason')}")
        if found["spec"].get("suspend") or found["spec"]["retries"] != RETRIES:
            self._write({**found, "spec": {**found["spec"], "suspend": False, "retries": RETRIES}})
            return
        self.the_job_controller_works()
        self.what_was_left_behind_ends()
        if summary_of(self.kind, found).get("reason") == State.NAME_TAKEN:
            self._somebody_does_as_the_message_says()
        job = self._newest()
        if job is None:
            return
        if job["spec"].get("suspend"):
            self._suspend(job, suspend=False)
        elif any(
            pod["status"]["phase"] == "Pending" and "deletionTimestamp" in pod["metadata"]
            for pod in self._pods_of(job).values()
        ):
            self.it_is_evicted()
        else:
            for _ in range(4 * job["spec"]["completions"]):
                self.the_pod_runs()
            self.it_succeeds()


def _labels_of(job: Body) -> dict[str, str]:
    """Return the labels of a Job's pods, which nobody can change any more."""
    labels: dict[str, str] = job["spec"]["template"]["metadata"]["labels"]
    return labels


def _has_answers(job: Body) -> bool:
    """Tell whether a Job of the stage judge is given something to judge; without that it looks at the judge."""
    arguments: list[str] = job["spec"]["template"]["spec"]["containers"][0]["args"]
    return any("answersDigest" in each for each in arguments)


def _job_of(pod: Body) -> str:
    """Return the uid of the Job that made a pod, whoever owns it now."""
    uid: str = pod["metadata"]["labels"][JOB_UID_LABEL]
    return uid


def _state_of(pod: Body) -> Body:
    state: Body = pod["status"]["containerStatuses"][0]["state"]
    return state


def _finished(job: Body) -> bool:
    conditions = job.get("status", {}).get("conditions", ())
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def live(kind: str, seed: int, steps: int) -> None:
    """Play one life."""

    async def play() -> None:
        await Life(kind, seed).live(steps)

    asyncio.run(play())
