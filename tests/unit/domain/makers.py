"""Fluent makers of what a decision sees: a FineTuneJob, its Jobs and their pods, written the way the cluster does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from trimtab_operator.api import AdapterExport, AdapterRollout, Evaluation, FineTuneJob
from trimtab_operator.domain.adapterexport import EXPORTING
from trimtab_operator.domain.cluster import NameTaken, Refusal
from trimtab_operator.domain.evaluation import EVALUATING
from trimtab_operator.domain.finetunejob import TRAINING
from trimtab_operator.domain.plan import Inquiry, Plan, PodsRefused
from trimtab_operator.domain.settings import Settings
from trimtab_operator.domain.views import QUEUE_LABEL, JobView, PodView
from trimtab_operator.domain.work import Observed, Particulars, References, attempts_of, plan
from trimtab_operator.domain.work.staged import AFTERWARDS
from trimtab_trainer.contract import (
    Artifact,
    EvaluationOutcome,
    Exported,
    Prepared,
    PreparedEvaluation,
    Progress,
    Reason,
    Stage,
    Summary,
    TerminationMessage,
)

T0 = datetime(2026, 1, 5, 12, 0, 0, tzinfo=UTC)
UID = "11111111-2222-3333-4444-555555555555"
EVALUATION_UID = "99999999-2222-3333-4444-555555555555"
EXPORT_UID = "77777777-2222-3333-4444-555555555555"
SETTINGS = Settings(
    prepare_image="prepare:1",
    trainer_image="trainer:1",
    prepare_resources={"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
    train_resources={"limits": {"cpu": "4", "memory": "16Gi"}, "requests": {"cpu": "1", "memory": "4Gi"}},
)


def sha(letter: str) -> str:
    return "sha256:" + letter * 64


PREPARED = Prepared(
    base_model_digest=sha("a"),
    rows_digest=sha("b"),
    view_digest=sha("c"),
    run_digest=sha("d"),
    rows=900,
    validation_rows=50,
    test_rows=50,
    tokens=60_000,
    supervised_tokens=30_000,
    total_steps=100,
)
ARTIFACT = Artifact(
    uri="s3://adapters/demo/adapters/e",
    digest=sha("e"),
    rank=16,
    target_modules=["q_proj", "v_proj"],
    base_model_digest=sha("a"),
)


PREPARED_EVALUATION = PreparedEvaluation(
    evaluation_digest=sha("f"),
    data_digest=sha("1"),
    base_model_digest=sha("a"),
    target_digest=sha("e"),
    tasks=2,
    rows=300,
)
EXPORTED = Exported(
    uri="s3://models/guide/exports/8",
    digest=sha("8"),
    size_bytes=271_000_000,
    files=6,
    adapter_digest=sha("e"),
    base_model_digest=sha("a"),
)
OUTCOME = EvaluationOutcome.model_validate(
    {
        "reportUri": "s3://adapters/demo/evaluations/f/report.html",
        "resultsDigest": sha("2"),
        "rows": 300,
        "results": [
            {"task": "heldout", "metric": "perplexity", "value": 9.5, "low": 9.0, "high": 10.1, "count": 100},
            {"task": "answers", "metric": "rougeL", "value": 0.4, "low": 0.35, "high": 0.45, "count": 200},
        ],
        "checks": [{"threshold": 0, "bound": "maximum", "estimate": 9.5}],
    }
)


def finetunejob(**spec: Any) -> FineTuneJob:
    body = {
        "metadata": {
            "name": "demo",
            "namespace": "team",
            "uid": UID,
            "generation": 1,
            "resourceVersion": "1",
            "labels": spec.pop("labels", {}),
        },
        "spec": {
            "baseModel": {"uri": "s3://models/tiny", "secretName": "storage"},
            "dataset": {"training": {"uri": "s3://datasets/demo/"}, "secretName": "storage"},
            "output": {"uri": "s3://adapters/demo", "secretName": "storage"},
            "template": {"resources": {"limits": {"nvidia.com/gpu": 1}}},
            **spec,
        },
    }
    return FineTuneJob.parse(body)


def evaluation(**spec: Any) -> Evaluation:
    body = {
        "metadata": {
            "name": "demo",
            "namespace": "team",
            "uid": EVALUATION_UID,
            "generation": 1,
            "resourceVersion": "1",
            "labels": spec.pop("labels", {}),
        },
        "spec": {
            "target": {"fineTuneJobName": "demo"},
            "tasks": [
                {"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}},
                {"name": "answers", "type": "Generation", "dataset": {"split": "Test"}},
            ],
            "thresholds": [{"metric": "heldout/perplexity", "maximum": 12.0}],
            "template": {"resources": {"limits": {"nvidia.com/gpu": 1}}},
            **spec,
        },
    }
    return Evaluation.parse(body)


def adapterexport(**spec: Any) -> AdapterExport:
    body = {
        "metadata": {"name": "demo", "namespace": "team", "uid": EXPORT_UID, "generation": 1, "resourceVersion": "1"},
        "spec": {
            "source": {"fineTuneJobName": "demo"},
            "destination": {"uri": "s3://models/guide", "secretName": "models"},
            **spec,
        },
    }
    return AdapterExport.parse(body)


def adapterrollout(serves: str | None = None) -> AdapterRollout:
    """Return the AdapterRollout `guide`, which serves the adapter with a digest of one letter, or nothing yet."""
    body: dict[str, Any] = {
        "metadata": {"name": "guide", "namespace": "team", "uid": "rollout-uid"},
        "spec": {
            "adapterName": "guide",
            "source": {"evaluationName": "demo"},
            "serving": {"selector": {"matchLabels": {"app": "vllm"}}},
        },
    }
    if serves is not None:
        body["status"] = {"served": {"uri": f"s3://adapters/demo/adapters/{serves}", "digest": sha(serves)}}
    return AdapterRollout.parse(body)


class World:
    """A cluster of one FineTuneJob, on a clock of its own.

    `settle()` carries out plans as the runtime does, a round each, until one changes nothing.
    """

    kind: Particulars[Any, Any] = TRAINING
    upstream: FineTuneJob | None = None
    rollout: AdapterRollout | None = None
    judge: Evaluation | None = None
    settings: Settings = SETTINGS

    def __init__(self, **spec: Any) -> None:
        self.job: Any = self.make(**spec)
        self.now = T0
        self.jobs: list[JobView] = []
        self.pods: list[PodView] = []
        self.progress: dict[str, Progress] = {}
        self.silent: frozenset[str] = frozenset()
        self.answers: dict[Inquiry, object] = {}
        """What is answered to whoever asks; to other questions there is nothing to say."""
        self.asked: tuple[Inquiry, ...] = ()
        """What the last round asked."""
        self.taken: NameTaken | None = None
        self.refused: Refusal | None = None
        self.created: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.notes: list[tuple[str, str]] = []
        self.writes = 0
        self.last = Plan()

    @staticmethod
    def make(**spec: Any) -> Any:
        return finetunejob(**spec)

    # what the cluster does

    def after(self, seconds: float) -> Self:
        self.now += timedelta(seconds=seconds)
        return self

    def patch_spec(self, **spec: Any) -> Self:
        body = self.job.spec.to_json() | spec
        generation = self.job.metadata.generation + 1
        self.job = self.job.model_copy(
            update={
                "spec": type(self.job.spec).model_validate(body),
                "metadata": self.job.metadata.model_copy(update={"generation": generation}),
            }
        )
        return self

    def says(self, reason: str) -> Self:
        """Let the state be another operator's word."""
        said, *others = self.job.status.conditions
        conditions = [said.model_copy(update={"reason": reason}), *others]
        self.job = self.job.model_copy(update={"status": self.job.status.model_copy(update={"conditions": conditions})})
        return self

    @property
    def current(self) -> JobView:
        return self.jobs[-1]

    def change_job(self, **fields: Any) -> Self:
        self.jobs[-1] = replace(self.jobs[-1], **fields)
        return self

    def pod(self, index: int = 0, **fields: Any) -> Self:
        """Create or change the pod of the newest Job, of several that of an index."""
        job = self.current
        mine = [pod for pod in self.pods if pod.job_uid == job.uid and pod.index == index]
        if not mine:
            name = f"{job.name}-x{len(self.pods)}"
            fresh = PodView("team", name, f"uid-{name}", job.uid, job.name, "demo", created=self.now, index=index)
            self.pods.append(replace(fresh, **{"owner_kind": job.owner_kind, "stage": job.stage, **fields}))
        else:
            self.pods[self.pods.index(mine[-1])] = replace(mine[-1], **fields)
        return self

    def running(self) -> Self:
        self.pod(phase="Running", scheduled_time=self.now, started=self.now, running=True, node="node-1", ip="10.0.0.9")
        return self.change_job(active=1).settle()

    def reports(self, **fields: Any) -> Self:
        job = self.current
        values: dict[str, Any] = {"activity": "Training", "total_steps": 100, **fields}
        self.progress[job.uid] = Progress(
            run_uid=self.job.metadata.uid, attempt=job.attempt, stage=Stage(job.stage), **values
        )
        return self.settle()

    def words(self, reason: Reason, message: str = "", **fields: Any) -> TerminationMessage:
        job = self.current
        return TerminationMessage(
            stage=Stage(job.stage),
            run_uid=self.job.metadata.uid,
            attempt=job.attempt,
            reason=reason,
            message=message,
            **fields,
        )

    def succeeds(self, words: TerminationMessage | None) -> Self:
        self.pod(
            phase="Succeeded",
            running=False,
            terminated=True,
            exit_code=0,
            terminated_time=self.now,
            said=words.encode() if words else "",
        )
        return self.change_job(complete=True, active=0, ended=self.now).settle()

    def prepared(self, **fields: Any) -> Self:
        return self.running().after(20).succeeds(self.words(Reason.COMPLETED, prepared=PREPARED, **fields))

    def published(self, artifact: Artifact = ARTIFACT) -> Self:
        summary = Summary(step=100, total_steps=100, loss=1.0, test_loss=1.1, base_test_loss=2.2)
        return self.succeeds(self.words(Reason.COMPLETED, artifact=artifact, summary=summary))

    def exits(self, code: int, words: TerminationMessage | None = None, reason: str = "Error", text: str = "") -> Self:
        index = {14: 1, 10: 2, 11: 2, 12: 3, 13: 4}.get(code)
        matched = f" matching FailJob rule at index {index}" if index else ""
        self.pod(
            phase="Failed",
            running=False,
            terminated=True,
            exit_code=code,
            terminated_reason=reason,
            terminated_time=self.now,
            said=words.encode() if words is not None else text,
        )
        return self.change_job(
            failed=True,
            active=0,
            ended=self.now,
            failed_reason="PodFailurePolicy" if index else "BackoffLimitExceeded",
            failed_message=f"Container trainer for pod team/x failed with exit code {code}{matched}" if index else "",
        ).settle()

    def disrupted(self, reason: str, *, pod_left: bool = False) -> Self:
        if pod_left:
            self.pod(phase="Failed", running=False, disruption=reason)
        else:
            self.pods = [pod for pod in self.pods if pod.job_uid != self.current.uid]
        return self.change_job(
            failed=True,
            active=0,
            ended=self.now,
            failed_reason="PodFailurePolicy",
            failed_message="Pod team/x has condition DisruptionTarget matching FailJob rule at index 0",
        ).settle()

    def pods_refused(self, words: str, since: datetime | None = None) -> Self:
        """Have the newest Job get no pods, by default as long as it is there."""
        since = since or self.current.resumed or self.current.created or self.now
        self.answers[PodsRefused("team", self.current.uid)] = Refusal("pod", words, since, self.now)
        return self

    # what the operator does

    def observed(self, answers: Mapping[Inquiry, object] | None = None) -> Observed[Any]:
        """Return what a decision sees that was given some answers in this round; it is given none of rounds before."""
        return Observed(
            kind=self.kind,
            references=References(self.upstream, self.rollout, self.judge),
            job=self.job,
            settings=self.settings,
            attempts=attempts_of(
                [job for job in self.jobs if job.stage not in AFTERWARDS], self.pods, self.progress, self.silent
            ),
            afterwards=attempts_of([job for job in self.jobs if job.stage in AFTERWARDS], self.pods),
            answers=dict(answers or {}),
            taken=self.taken,
            refused=self.refused,
        )

    def act(self, action: Any) -> None:
        match type(action).__name__:
            case "Create":
                self.created.append(action.body)
                if action.body["kind"] == "Job":
                    body = action.body | {
                        "metadata": action.body["metadata"]
                        | {"uid": f"job-uid-{len(self.created)}", "creationTimestamp": self.now.isoformat()}
                    }
                    view = JobView.of(body)
                    assert view is not None
                    assert view.name not in [job.name for job in self.jobs], "a name is used twice"
                    self.jobs.append(view)
            case "Delete":
                self.deleted.append(action.name)
                self.jobs = [job for job in self.jobs if job.uid != action.uid]
            case "Suspend":
                self.jobs = [
                    replace(job, suspended=action.suspend) if job.uid == action.uid else job for job in self.jobs
                ]

    def write(self, made: Plan) -> None:
        if made.status is None or made.status == self.job.status.to_json():
            return
        self.writes += 1
        self.job = self.job.model_copy(update={"status": type(self.job.status).model_validate(made.status)})
        self.notes += [(note.type, note.reason) for note in made.notes]

    def decided(self) -> Plan:
        """Plan as one round does: from no answers, and again with those to what it asks, until it asks no more."""
        answers: dict[Inquiry, object] = {}
        for _ in range(8):
            made = plan(self.observed(answers), self.now)
            if not made.inquiries:
                self.asked = tuple(answers)
                return made
            assert not answers.keys() & set(made.inquiries), "it asks what it was told"
            answers |= {inquiry: self.answers.get(inquiry, ()) for inquiry in made.inquiries}
        raise AssertionError(f"the plan asks without end: {made.inquiries}")

    def settle(self) -> Self:
        for _ in range(10):
            self.last = self.decided()
            if self.last.actions:
                assert self.last.confirm, "actions need a confirmed observation"
                for action in self.last.actions:
                    self.act(action)
                self.write(self.last)
                continue
            before = self.writes
            self.write(self.last)
            if self.writes == before:
                return self
        raise AssertionError(f"the plan never comes to rest: {self.last}")

    # what a person sees

    @property
    def state(self) -> str:
        return next(str(c.reason) for c in self.job.status.conditions if c.type == "Succeeded")

    @property
    def message(self) -> str:
        return next(str(c.message) for c in self.job.status.conditions if c.type == "Succeeded")

    @property
    def succeeded(self) -> str:
        return next(str(c.status) for c in self.job.status.conditions if c.type == "Succeeded")

    @property
    def job_names(self) -> list[str]:
        return [body["metadata"]["name"] for body in self.created if body["kind"] == "Job"]


def queued_world(**spec: Any) -> World:
    return World(labels={QUEUE_LABEL: "gpus"}, **spec)


def finished(**status: Any) -> FineTuneJob:
    """Return a FineTuneJob that has published its adapter."""
    world = World().settle().prepared().running().published()
    job: FineTuneJob = world.job
    return job.model_copy(update={"status": job.status.model_copy(update=status)})


class EvaluationWorld(World):
    """A cluster of one Evaluation; `upstream` and `rollout` are what it refers to, if they are there."""

    kind = EVALUATING

    def __init__(self, upstream: FineTuneJob | None = None, rollout: AdapterRollout | None = None, **spec: Any) -> None:
        super().__init__(**spec)
        self.upstream = upstream
        self.rollout = rollout

    @staticmethod
    def make(**spec: Any) -> Evaluation:
        return evaluation(**spec)

    def prepared(self, **fields: Any) -> Self:
        words = self.words(Reason.COMPLETED, prepared_evaluation=PREPARED_EVALUATION, **fields)
        return self.running().after(20).succeeds(words)

    def looked(self) -> Self:
        """Let the judge's endpoint take a first question."""
        return self.running().after(5).succeeds(self.words(Reason.COMPLETED, judge_ready=True))

    def evaluated(self, outcome: EvaluationOutcome = OUTCOME) -> Self:
        return self.succeeds(self.words(Reason.COMPLETED, packed_outcome=outcome.pack(3072)))

    def condition(self, kind: str = "Passed") -> tuple[str, str, str]:
        found = next(c for c in self.job.status.conditions if c.type == kind)
        return found.status, found.reason, found.message


class ExportWorld(World):
    """A cluster of one AdapterExport; `upstream` and `judge` are what it refers to, if they are there."""

    kind = EXPORTING

    def __init__(self, upstream: FineTuneJob | None = None, judge: Evaluation | None = None, **spec: Any) -> None:
        super().__init__(**spec)
        self.upstream = upstream
        self.judge = judge

    @staticmethod
    def make(**spec: Any) -> AdapterExport:
        return adapterexport(**spec)

    def exported(self) -> Self:
        return self.succeeds(self.words(Reason.COMPLETED, exported=EXPORTED))
