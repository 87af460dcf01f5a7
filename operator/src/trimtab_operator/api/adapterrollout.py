"""AdapterRollout: a served name that outlives the jobs, which adapter answers to it, and how a new one gets there."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, computed_field, model_validator
from trimtab_agent import contract
from trimtab_agent.contract import ADAPTER_NAME, REVISION, ProbeKind
from trimtab_trainer.contract import Model
from trimtab_trainer.contract.model import rules
from trimtab_trainer.contract.settings import DIGEST, OBJECT_URI

from .approvals import APPROVALS_MAXIMUM, AUTHOR_TOLD, Approvals, ApprovalStatus
from .definitions.customresource import AGE, CustomObject, CustomResource, condition_path
from .finetunejob import NAME_LENGTH
from .pods.names import OBJECT_NAME
from .pods.scheduling import LABEL_VALUE
from .status.conditions import Condition
from .status.rollout_reasons import (
    POD_EXPLANATIONS,
    PROGRESSING_EXPLANATIONS,
    READY_EXPLANATIONS,
    VERIFIED_EXPLANATIONS,
)
from .status.summary import SummarizedStatus

READY: Final = "Ready"
PROGRESSING: Final = "Progressing"
VERIFIED: Final = "Verified"

HISTORY_MAXIMUM = 10
TOLD_LENGTH = 160
"""Of a message about one pod or one adapter."""
CANARY_PODS_MAXIMUM = 8
STABLE_PODS_MARKED = 4
MARKS_MAXIMUM = CANARY_PODS_MAXIMUM + STABLE_PODS_MARKED
MARK_TIMES = 12
"""Three sums of each of four kinds of time."""
POD_REASONS_KEPT = 8
REJECTED_KEPT = 4

SERVING_LABEL = ("trimtab.dev/stage", "serve")
"""The label of pods with an agent in them; the operator sees no others of those that are not its own."""

LABEL_KEY = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"

COUNT = Annotated[int, Field(ge=0)]


class RevisionState(StrEnum):
    """What a revision is to the rollout."""

    INCOMING = "Incoming"
    SERVING = "Serving"
    PREVIOUS = "Previous"
    RETIRED = "Retired"


class Phase(StrEnum):
    """How far an incoming revision is; after it is served, the one before the last drains."""

    LOADING = "Loading"
    CANARY = "Canary"
    DRAINING = "Draining"


class MatchLabels(Model):
    """Labels that an object must have, all of them."""

    match_labels: dict[str, LABEL_VALUE] = Field(
        min_length=1,
        max_length=16,
        json_schema_extra=rules(
            ("self.all(k, k.size() <= 317)", "a key must have at most 317 characters"),
            (f"self.all(k, k.matches('{LABEL_KEY}'))", "a key must be that of a label: a name, or prefix/name"),
        ),
        description="matchLabels that must all be there.",
    )

    @model_validator(mode="after")
    def _keys_of_labels(self) -> Self:
        if not all(len(key) <= 317 and re.fullmatch(LABEL_KEY, key) for key in self.match_labels):
            raise ValueError("a key must be that of a label: a name, or prefix/name")
        return self

    def matches(self, labels: dict[str, str]) -> bool:
        """Tell whether labels hold all that are asked for."""
        return all(labels.get(key) == value for key, value in self.match_labels.items())


class RolloutArtifact(Model):
    """A published adapter, pinned by its digest; the serving pods read it with their own credentials."""

    uri: OBJECT_URI = Field(description="uri of the adapter's folder, <output>/adapters/<digest>.")
    digest: DIGEST = Field(description="digest the adapter must have.")


class Follow(Model):
    """The passed Evaluation that completed last, of those with some labels."""

    selector: MatchLabels = Field(description="selector of Evaluations of this namespace.")
    require_thresholds: bool = Field(
        default=True,
        description="requireThresholds: only Evaluations that judged are followed; one without thresholds passes "
        "whatever it measured.",
    )


class RolloutSource(Model):
    """Which adapter is wanted."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.evaluationName), has(self.artifact), has(self.follow)].filter(x, x).size() == 1",
                "exactly one of evaluationName, artifact and follow must be set",
            ),
        )
    )

    evaluation_name: OBJECT_NAME | None = Field(
        default=None, description="evaluationName of this namespace: its target, once it has passed."
    )
    artifact: RolloutArtifact | None = Field(default=None, description="artifact: the explicit way, without a gate.")
    follow: Follow | None = Field(default=None, description="follow the passed Evaluation that completed last.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.evaluation_name, self.artifact, self.follow)) != 1:
            raise ValueError("exactly one of evaluationName, artifact and follow must be set")
        return self


_OTHER_STAGE = f"only pods with the label {': '.join(SERVING_LABEL)} are looked at; remove the key, or set it so"


class Serving(Model):
    """The pods whose engines serve the adapter."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                f"!('{SERVING_LABEL[0]}' in self.selector.matchLabels) || "
                f"self.selector.matchLabels['{SERVING_LABEL[0]}'] == '{SERVING_LABEL[1]}'",
                _OTHER_STAGE,
            ),
        )
    )

    selector: MatchLabels = Field(
        description="selector among the pods of this namespace with the label trimtab.dev/stage: serve."
    )
    port: int = Field(default=8081, ge=1, le=65535, description="port of the agents in pods that do not name it.")

    @model_validator(mode="after")
    def _of_this_stage(self) -> Self:
        key, value = SERVING_LABEL
        if self.selector.match_labels.get(key, value) != value:
            raise ValueError(_OTHER_STAGE)
        return self


class Analysis(Model):
    """When a canary is worse than what was served before: it is beyond a margin, and that is more than chance."""

    minimum_requests: int = Field(
        default=20, ge=1, le=100_000, description="minimumRequests on either side; with fewer the probe decides."
    )
    maximum_error_ratio_increase: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="maximumErrorRatioIncrease: errors per request, new minus old, that is no reason to take it back.",
    )
    maximum_latency_ratio: float = Field(
        default=1.5,
        ge=1,
        le=100,
        description="maximumLatencyRatio: geometric means of times, new over old, that is no reason to take it back.",
    )


_WEIGHT_WITHOUT_TIME = "canaryWeight below 100 needs canarySeconds above 0: without them no canary takes requests"


class Strategy(Model):
    """How a new revision gets to the pods and to the requests."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.canarySeconds) || self.canarySeconds > 0 || "
                "!has(self.canaryWeight) || self.canaryWeight == 100",
                _WEIGHT_WITHOUT_TIME,
            ),
        )
    )

    canary_pods: int = Field(
        default=1, ge=1, le=CANARY_PODS_MAXIMUM, description="canaryPods that load, prove and serve it first."
    )
    canary_weight: int = Field(
        default=100, ge=1, le=100, description="canaryWeight: share of the alias's requests on the canary pods."
    )
    canary_seconds: int = Field(
        default=60, ge=0, le=86_400, description="canarySeconds before the other pods serve it."
    )
    max_pods_at_once: int = Field(
        default=0, ge=0, le=10_000, description="maxPodsAtOnce that load after the canary pods; 0 for all."
    )
    drain_seconds: int = Field(
        default=30, ge=0, le=3600, description="drainSeconds that a revision stays loaded after its last use."
    )
    analysis: Analysis = Field(default=Analysis(), description="analysis of the canary.")
    approvals: Approvals | None = Field(default=None, description="approvals that a revision waits for; absent: none.")

    @model_validator(mode="after")
    def _weight_has_time(self) -> Self:
        if self.canary_seconds == 0 and self.canary_weight < 100:
            raise ValueError(_WEIGHT_WITHOUT_TIME)
        return self


class Probe(contract.Probe):
    """A question that a revision must answer before it takes traffic."""

    kind: ProbeKind = Field(default=ProbeKind.COMPLETION, description="kind of request: Chat needs a chat template.")


class AdapterRolloutSpec(Model):
    """What to serve, where, and how to get there."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.adapterName == oldSelf.adapterName", "adapterName is immutable: clients ask for it"),
        )
    )

    adapter_name: ADAPTER_NAME = Field(description="adapterName: the model that clients ask for.")
    source: RolloutSource = Field(description="source of the adapter.")
    serving: Serving = Field(description="serving pods.")
    strategy: Strategy = Field(default=Strategy(), description="strategy of a rollout.")
    probe: Probe = Field(default=Probe(), description="probe that a revision must answer before it takes traffic.")
    revision_history_limit: int = Field(
        default=5, ge=0, le=HISTORY_MAXIMUM, description="revisionHistoryLimit: retired revisions kept in the status."
    )
    paused: bool = Field(
        default=False,
        description="paused: nothing new begins and no traffic moves on; a bad canary is still taken back.",
    )


class ServedRevision(Model):
    """An adapter, as it is served or wanted."""

    digest: DIGEST = Field(description="digest of the adapter.")
    uri: str = Field(max_length=1024, description="uri of the adapter's folder.")
    generation: int = Field(default=0, ge=0, description="generation in which the source named it last.")
    since: str | None = Field(
        default=None,
        alias="sinceTime",
        max_length=32,
        json_schema_extra={"format": "date-time"},
        description="sinceTime it is served.",
    )
    passed: str | None = Field(
        default=None,
        alias="passedTime",
        max_length=32,
        json_schema_extra={"format": "date-time"},
        description="passedTime: completion of the followed Evaluation that named it; none older is followed.",
    )
    canary: str | None = Field(
        default=None,
        max_length=TOLD_LENGTH,
        description="canary: what its requests told before it was served everywhere.",
    )


class RevisionStatus(Model):
    """One revision of the history."""

    name: REVISION = Field(description="name in the engines, <adapterName>@<digest8>.")
    uri: str = Field(max_length=1024, description="uri of the adapter's folder.")
    digest: DIGEST = Field(description="digest of the adapter.")
    state: RevisionState = Field(description="state of the revision.")
    pods: int = Field(default=0, ge=0, description="pods whose engines list it, proven, as read back.")
    approved_by: list[AUTHOR_TOLD] = Field(
        default=[],
        max_length=APPROVALS_MAXIMUM,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="approvedBy: whose approvals it was served with; long names are cut.",
    )


class PodCounts(Model):
    """Matching pods that are not being deleted."""

    desired: int = Field(default=0, ge=0, description="desired: all of them.")
    updated: int = Field(default=0, ge=0, description="updated: the wanted revision is loaded and proven.")
    ready: int = Field(default=0, ge=0, description="ready: the alias answers with the wanted revision alone.")


class PodReason(Model):
    """Why a pod is not up to date."""

    pod: str = Field(max_length=253, description="pod by name.")
    reason: str = Field(max_length=64, description="reason in one word.")
    message: str = Field(max_length=TOLD_LENGTH, description="message for a person.")


class Rejected(Model):
    """An adapter that was taken back; not tried again while the generation stays."""

    digest: DIGEST = Field(description="digest of the adapter.")
    reason: str = Field(max_length=64, description="reason in one word.")
    generation: int = Field(ge=0, description="generation of the rollout that it was rejected in.")
    message: str = Field(default="", max_length=TOLD_LENGTH, description="message for a person.")


class CountMark(Model):
    """What a guard had counted for a revision when the canary began, the zero of the comparison."""

    pod: str = Field(max_length=36, description="pod by uid.")
    instance: str = Field(max_length=64, description="instance: the start of the engine that counts.")
    revision: REVISION = Field(description="revision that was counted.")
    requests: COUNT = Field(description="requests by the alias that the engine ended.")
    errors: COUNT = Field(description="errors among them.")
    disconnected: COUNT = Field(default=0, description="disconnected: requests that the client left.")
    running: COUNT = Field(default=0, description="running at that moment.")
    times: list[float] | None = Field(
        default=None,
        min_length=MARK_TIMES,
        max_length=MARK_TIMES,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="times of answers: number, sum and sum of squares of their logarithms, of first, chunk, token and "
        "whole; absent where the guard does not tell.",
    )


class CanaryLook(Model):
    """A look at the canary's counts; each takes its part of the chance of a false alarm, so they are few."""

    time: float = Field(ge=0, description="time of it, in lengths of the canary.")
    requests: COUNT = Field(description="requests to the new revision that it saw; the next sees twice as many.")


class RolloutStep(Model):
    """The revision on its way; enough for another operator to go on."""

    digest: DIGEST = Field(description="digest of the incoming adapter; while draining, of the one served.")
    uri: str = Field(max_length=1024, description="uri of its folder.")
    generation: int = Field(default=0, ge=0, description="generation in which the source named it last.")
    phase: Phase = Field(description="phase it is in.")
    since: str = Field(
        alias="sinceTime",
        max_length=32,
        json_schema_extra={"format": "date-time"},
        description="sinceTime it is in this phase.",
    )
    began: str | None = Field(
        default=None,
        alias="beganTime",
        max_length=32,
        json_schema_extra={"format": "date-time"},
        description="beganTime of its way, whatever phase it is in.",
    )
    passed: str | None = Field(
        default=None,
        alias="passedTime",
        max_length=32,
        json_schema_extra={"format": "date-time"},
        description="passedTime: completion of the followed Evaluation that named it.",
    )
    canaries: list[Annotated[str, Field(max_length=36)]] = Field(
        default=[],
        max_length=CANARY_PODS_MAXIMUM,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="canaries: pods by uid.",
    )
    marks: list[CountMark] = Field(
        default=[],
        max_length=MARKS_MAXIMUM,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["pod", "revision"]},
        description="marks: what had been counted when the canary began.",
    )
    look: CanaryLook | None = Field(default=None, description="look at the counts that was the last.")
    held: str | None = Field(
        default=None,
        max_length=TOLD_LENGTH,
        description="held: why the canary goes on though its time is over, as it was when that began.",
    )


class AdapterRolloutSummary(Model):
    """What `kubectl get` prints: for people, derived from the rest of the status."""

    adapter: str | None = Field(default=None, max_length=12, description="adapter that is served, by its digest.")
    pods: str | None = Field(default=None, max_length=16, description="pods that are ready, of all that match.")

    @classmethod
    def of(cls, served: ServedRevision | None, pods: PodCounts) -> AdapterRolloutSummary:
        """Return the summary of these sections; the digest is cut as that of a FineTuneJob's adapter."""
        return cls(
            adapter=served.digest.removeprefix("sha256:")[:12] if served is not None else None,
            pods=f"{pods.ready}/{pods.desired}",
        )


class AdapterRolloutStatus(SummarizedStatus):
    """What is true of the rollout, as read back from the engines."""

    observed_generation: int | None = Field(default=None, ge=0, description="observedGeneration of the spec.")
    conditions: list[Condition] = Field(
        default=[],
        max_length=8,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="conditions: Ready, whose reason is the state, Progressing and Verified.",
    )
    served: ServedRevision | None = Field(default=None, description="served: what the alias is to point at.")
    revisions: list[RevisionStatus] = Field(
        default=[],
        max_length=HISTORY_MAXIMUM + 3,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        description="revisions, newest first.",
    )
    pods: PodCounts = Field(default=PodCounts(), description="pods that match.")
    pod_reasons: list[PodReason] = Field(
        default=[],
        max_length=POD_REASONS_KEPT,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["pod"]},
        description="podReasons: the first of the pods that are not up to date.",
    )
    pod_reasons_omitted: int = Field(default=0, ge=0, description="podReasonsOmitted: how many more there are.")
    rejected: list[Rejected] = Field(
        default=[],
        max_length=REJECTED_KEPT,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["digest"]},
        description="rejected adapters of this generation, newest last.",
    )
    step: RolloutStep | None = Field(default=None, description="step that is under way.")
    approval: ApprovalStatus | None = Field(
        default=None, description="approval of the revision that is wanted and not served yet."
    )
    sequence: list[COUNT] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="sequence of the newest documents: [leaseTransitions, n].",
    )

    @computed_field(  # type: ignore[prop-decorator]  # mypy knows no property that is decorated
        description="summary is what kubectl get prints; programs read the other fields."
    )
    @property
    def summary(self) -> AdapterRolloutSummary | None:
        """Derived: written with the rest and never read back."""
        return AdapterRolloutSummary.of(self.served, self.pods) if self.conditions else None


class AdapterRollout(CustomObject):
    """AdapterRollout brings the adapter that passed to every serving pod, and takes it back."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (f"self.metadata.name.size() <= {NAME_LENGTH}", f"name must have at most {NAME_LENGTH} characters"),
        ),
    )

    spec: AdapterRolloutSpec = Field(description="spec is what to serve, where, and how to get there.")
    status: AdapterRolloutStatus = Field(default=AdapterRolloutStatus(), description="status is what was read back.")


ConditionType = Literal["Ready", "Progressing", "Verified"]


ADAPTERROLLOUT = CustomResource(
    model=AdapterRollout,
    spec=AdapterRolloutSpec,
    status=AdapterRolloutStatus,
    plural="adapterrollouts",
    short_name="arl",
    columns=(
        ("State", "string", condition_path(READY, "reason"), "What the rollout is doing, or why it does nothing."),
        ("Ready", "string", condition_path(READY, "status"), "Whether every pod answers with the wanted adapter."),
        ("Adapter", "string", ".status.summary.adapter", "First 12 characters of the served adapter's digest."),
        ("Pods", "string", ".status.summary.pods", "Pods that answer with the wanted adapter, of all that match."),
        AGE,
    ),
    wide_columns=(
        ("Message", "string", condition_path(READY, "message"), "Why, and what to do next."),
        ("Verified", "string", condition_path(VERIFIED, "status"), "Whether every pod has loaded and proven it."),
        ("Model", "string", ".spec.adapterName", "The model that clients ask for."),
        (
            "Evaluation",
            "string",
            ".spec.source.evaluationName",
            "The Evaluation that it waits for, where one is named.",
        ),
        ("Served", "date", ".status.served.sinceTime", "Time since the adapter is served."),
    ),
    summary=READY,
    writers="Who may write them decides which adapters the serving pods of the namespace answer with.",
    reasons={
        READY: (
            "The condition `Ready` is the summary: True if every pod that matches answers with the wanted adapter "
            "alone, as read back from its engine. Its reason is the word that `kubectl get` prints as STATE, and its "
            "message says what happened and what to do next.",
            READY_EXPLANATIONS,
        ),
        PROGRESSING: (
            "The condition `Progressing` says whether the rollout gets on by itself: False at rest, and where "
            "something has to be done, or waited for, elsewhere.",
            PROGRESSING_EXPLANATIONS,
        ),
        VERIFIED: (
            "The condition `Verified` says whether every pod has loaded the revision under its own name and proven it "
            "with the probe, whether or not requests go there yet.",
            VERIFIED_EXPLANATIONS,
        ),
        "podReasons": (
            "`status.podReasons` says of each pod that is behind why, with one of these words. An adapter that was "
            "taken back is in `status.rejected`, with the word that it was taken back for.",
            POD_EXPLANATIONS,
        ),
    },
)
