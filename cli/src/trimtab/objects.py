"""Objects of Trimtab as typed values. What a status says is its tenants' and the operator's of any version: parsing it
cannot raise, and what is not as expected is absent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .kinds import Kind, gitops_marks
from .views import Shown

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Condition:
    """A condition; of the summary condition the reason is the state."""

    type: str
    status: str
    reason: str
    message: str
    since: str


@dataclass(frozen=True)
class Attempt:
    """One Job: `reason` is empty while it runs; times as the API has them; `active_seconds` with a running pod."""

    number: int
    stage: str
    job_name: str
    reason: str = ""
    message: str = ""
    charged_to: str = ""
    start_time: str = ""
    end_time: str = ""
    active_seconds: int | None = None
    start_step: int | None = None
    end_step: int | None = None


@dataclass(frozen=True)
class Curve(Shown):
    """Loss and validation loss over steps, in nats per supervised token; each (step, value)."""

    name: str
    loss: tuple[tuple[int, float], ...] = ()
    validation_loss: tuple[tuple[int, float], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.loss or self.validation_loss)


@dataclass(frozen=True)
class CustomObject(Shown):
    """An object of one of the kinds.

    Attributes:
        status: of its summary condition: True, False, Unknown, or empty where the operator has not looked at it yet.
        state: the word that a person wants to see, such as Training; the reason of that condition.
        message: why, and what to do next.
        body: the object as the API server has it.
    """

    kind: Kind = field(repr=False)
    name: str
    namespace: str
    state: str
    status: str
    message: str = field(repr=False)
    conditions: tuple[Condition, ...] = field(repr=False)
    attempts: tuple[Attempt, ...] = field(repr=False)
    body: Body = field(repr=False, compare=False)

    @property
    def spec(self) -> Body:
        return mapping(self.body.get("spec"))

    @property
    def metadata(self) -> Body:
        return mapping(self.body.get("metadata"))

    @property
    def told(self) -> Body:
        """The status as the API server has it."""
        return mapping(self.body.get("status"))

    @property
    def ended(self) -> bool:
        """Whether it is over for good; an AdapterRollout never is."""
        return self.kind.summary == "Succeeded" and self.status in ("True", "False")

    @property
    def curve(self) -> Curve:
        """Its curves; empty for kinds and runs that have none."""
        told = mapping(self.told.get("curve"))
        return Curve(
            self.name,
            _points(told.get("steps"), told.get("loss")),
            _points(told.get("validationSteps"), told.get("validationLoss")),
        )

    @property
    def stopped(self) -> bool:
        """Whether a person has held it up: `spec.suspend`, of an AdapterRollout `spec.paused`."""
        return self.kind.stop is not None and self.spec.get(self.kind.stop) is True

    @property
    def kept_by(self) -> str:
        """The mark of a tool that keeps the object as it is in git, empty without one."""
        marks = gitops_marks()
        named = (*mapping(self.metadata.get("labels")), *mapping(self.metadata.get("annotations")))
        return next((mark for mark in named if mark in marks), "")

    def condition(self, type_: str) -> Condition | None:
        return next((each for each in self.conditions if each.type == type_), None)


class FineTuneJob(CustomObject):
    """A run that makes an adapter, or a model of its own."""

    @property
    def made(self) -> str:
        """What it makes: `adapter`, or `model` where all weights are trained."""
        return "model" if mapping(self.spec.get("lora")).get("type") == "None" else "adapter"

    @property
    def progress(self) -> Body:
        """step, totalSteps, percent, loss, validationLoss, tokensPerSecond, etaSeconds: what is known of them."""
        return mapping(self.told.get("progress"))

    @property
    def adapter_uri(self) -> str:
        """Where the adapter or model is, empty before it is published."""
        return text(mapping(self.told.get("artifact")).get("uri"))

    @property
    def adapter_digest(self) -> str:
        return text(mapping(self.told.get("artifact")).get("digest"))


class Evaluation(CustomObject):
    """A question about an adapter, and the answer."""

    @property
    def passed(self) -> bool | None:
        """The verdict; None before there is one."""
        verdict = self.condition("Passed")
        return None if verdict is None or verdict.status == "Unknown" else verdict.status == "True"

    @property
    def results(self) -> tuple[Body, ...]:
        """Figures: task, metric, value, low, high, baseline, change, passed."""
        return tuple(mapping(each) for each in sequence(self.told.get("results")))


class AdapterRollout(CustomObject):
    """A served name, and the adapter behind it."""

    @property
    def served_digest(self) -> str:
        return text(mapping(self.told.get("served")).get("digest"))


class FineTuneSweep(CustomObject):
    """A search whose trials are FineTuneJobs."""

    @property
    def best(self) -> Body:
        """id, fineTuneJobName, parameters, value; empty before there is one."""
        return mapping(self.told.get("best"))


CLASSES: dict[str, type[CustomObject]] = {
    each.__name__: each for each in (FineTuneJob, Evaluation, AdapterRollout, FineTuneSweep)
}


def parse(kind: Kind, body: Body) -> CustomObject:
    """Return the typed form of an object from the API server."""
    metadata, status = mapping(body.get("metadata")), mapping(body.get("status"))
    conditions = tuple(_condition(mapping(each)) for each in sequence(status.get("conditions")))
    summary = next((each for each in conditions if each.type == kind.summary), None)
    return CLASSES.get(kind.name, CustomObject)(
        kind=kind,
        name=text(metadata.get("name")),
        namespace=text(metadata.get("namespace")),
        state=summary.reason if summary else "",
        status=summary.status if summary else "",
        message=summary.message if summary else "",
        conditions=conditions,
        attempts=tuple(_attempt(mapping(each)) for each in sequence(status.get("attempts"))),
        body=body,
    )


def mapping(told: Any) -> Body:
    return told if isinstance(told, dict) else {}


def sequence(told: Any) -> list[Any]:
    return told if isinstance(told, list) else []


def text(told: Any) -> str:
    return told if isinstance(told, str) else ""


def number(told: Any) -> float | None:
    """Return a finite number, or None."""
    usable = isinstance(told, int | float) and not isinstance(told, bool) and math.isfinite(told)
    return told if usable else None


def _whole(told: Any) -> int | None:
    return told if isinstance(told, int) and not isinstance(told, bool) else None


def _points(steps: Any, values: Any) -> tuple[tuple[int, float], ...]:
    pairs = zip(sequence(steps), sequence(values), strict=False)
    return tuple((step, value) for step, value in pairs if _whole(step) is not None and number(value) is not None)


def _condition(told: Body) -> Condition:
    names = ("type", "status", "reason", "message", "lastTransitionTime")
    return Condition(*(text(told.get(name)) for name in names))


def _attempt(told: Body) -> Attempt:
    return Attempt(
        number=_whole(told.get("number")) or 0,
        stage=text(told.get("stage")),
        job_name=text(told.get("jobName")),
        reason=text(told.get("reason")),
        message=text(told.get("message")),
        charged_to=text(told.get("chargedTo")),
        start_time=text(told.get("startTime")),
        end_time=text(told.get("endTime")),
        active_seconds=_whole(told.get("activeSeconds")),
        start_step=_whole(told.get("startStep")),
        end_step=_whole(told.get("endStep")),
    )
