"""What a CustomResourceDefinition has beside the models: names, columns of `kubectl get`, reasons of conditions."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from .adapterrollout import PROGRESSING, READY, VERIFIED, AdapterRollout, AdapterRolloutSpec, AdapterRolloutStatus
from .conditions import PASSED, SUCCEEDED
from .evaluation import Evaluation, EvaluationSpec, EvaluationStatus
from .finetunejob import FineTuneJob, FineTuneJobSpec, FineTuneJobStatus
from .reasons import EVALUATION_EXPLANATIONS, FINETUNEJOB_EXPLANATIONS, PASSED_EXPLANATIONS, Explanation
from .rollout_reasons import (
    POD_EXPLANATIONS,
    PROGRESSING_EXPLANATIONS,
    READY_EXPLANATIONS,
    VERIFIED_EXPLANATIONS,
)

Column = tuple[str, str, str, str]
"""Name, type, JSONPath and description of a column of `kubectl get`."""


@dataclass(frozen=True)
class Resource:
    """One kind: its models, its names and what people see of it.

    Attributes:
        model: of the whole object; its docstring and rules are those of the root.
        wide_columns: are shown by `kubectl get -o wide` only.
        summary: the condition whose reason is the state.
        reasons: explanations of each condition's reasons, by type of condition, with a sentence on the condition; of
            other reasons by the field of the status that has them.
    """

    model: type[BaseModel]
    spec: type[BaseModel]
    status: type[BaseModel]
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    wide_columns: tuple[Column, ...]
    summary: str
    reasons: dict[str, tuple[str, dict[str, Explanation]]]

    @property
    def kind(self) -> str:
        return self.model.__name__

    @property
    def singular(self) -> str:
        return self.kind.lower()


def _condition(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


_AGE: Column = ("Age", "date", ".metadata.creationTimestamp", "Time since it was created.")
_SUCCEEDED = (
    "The condition `Succeeded` is the summary; its reason is the word that `kubectl get` prints as STATE, and its "
    "message says what happened and what to do next."
)

FINETUNEJOB = Resource(
    model=FineTuneJob,
    spec=FineTuneJobSpec,
    status=FineTuneJobStatus,
    plural="finetunejobs",
    short_name="ftj",
    columns=(
        ("State", "string", _condition(SUCCEEDED, "reason"), "What the job is doing, or how it ended."),
        ("Progress", "string", ".status.summary.progress", "Optimizer steps done, in percent."),
        ("Loss", "string", ".status.summary.loss", "Training loss in nats per supervised token."),
        ("Step", "string", ".status.summary.step", "Optimizer steps done, of all."),
        ("Adapter", "string", ".status.summary.adapter", "First 12 characters of the adapter's digest."),
        _AGE,
    ),
    wide_columns=(
        ("Message", "string", _condition(SUCCEEDED, "message"), "Why, and what to do next."),
        ("Attempt", "integer", ".status.attempts[-1:].number", "Number of the newest attempt."),
        ("Rank", "integer", ".spec.lora.rank", "Rank of the adapter."),
    ),
    summary=SUCCEEDED,
    reasons={SUCCEEDED: (_SUCCEEDED, FINETUNEJOB_EXPLANATIONS)},
)

EVALUATION = Resource(
    model=Evaluation,
    spec=EvaluationSpec,
    status=EvaluationStatus,
    plural="evaluations",
    short_name="ftev",
    columns=(
        ("State", "string", _condition(SUCCEEDED, "reason"), "What the evaluation is doing, or how it ended."),
        ("Passed", "string", _condition(PASSED, "status"), "The verdict: True, False, or Unknown while it is active."),
        ("Metric", "string", ".status.summary.metric", "The headline metric, <task>/<result>."),
        ("Value", "string", ".status.summary.value", "Its value."),
        ("Change", "string", ".status.summary.change", "Its change against the baseline."),
        _AGE,
    ),
    wide_columns=(
        ("Message", "string", _condition(PASSED, "message"), "What passed or failed, and what to do next."),
        ("Progress", "string", ".status.summary.progress", "Tasks done, of target and baseline, in percent."),
        ("Report", "string", ".status.reportURI", "Where report.html is."),
    ),
    summary=SUCCEEDED,
    reasons={
        SUCCEEDED: (_SUCCEEDED, EVALUATION_EXPLANATIONS),
        PASSED: (
            "The condition `Passed` is the verdict, which is what a gate waits for. It is given once, when the "
            "evaluation has ended, and never changes.",
            PASSED_EXPLANATIONS,
        ),
    },
)

ADAPTERROLLOUT = Resource(
    model=AdapterRollout,
    spec=AdapterRolloutSpec,
    status=AdapterRolloutStatus,
    plural="adapterrollouts",
    short_name="arl",
    columns=(
        ("State", "string", _condition(READY, "reason"), "What the rollout is doing, or why it does nothing."),
        ("Ready", "string", _condition(READY, "status"), "Whether every pod answers with the wanted adapter."),
        ("Adapter", "string", ".status.summary.adapter", "First 12 characters of the served adapter's digest."),
        ("Pods", "string", ".status.summary.pods", "Pods that answer with the wanted adapter, of all that match."),
        _AGE,
    ),
    wide_columns=(
        ("Message", "string", _condition(READY, "message"), "Why, and what to do next."),
        ("Verified", "string", _condition(VERIFIED, "status"), "Whether every pod has loaded and proven it."),
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

RESOURCES: tuple[Resource, ...] = (FINETUNEJOB, EVALUATION, ADAPTERROLLOUT)
"""All kinds, in the order in which people meet them."""
