"""Review: what a person decided about one adapter, or said of it, bound to its digest."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field
from trimtab_trainer.contract import Model
from trimtab_trainer.contract.model import rules
from trimtab_trainer.contract.settings import DIGEST

from .definitions.customresource import AGE, CustomObject, CustomResource, condition_path
from .pods.names import OBJECT_NAME
from .status.conditions import NOT_UNDERSTOOD, Condition
from .status.reasons import Explanation

RECORDED: Final = "Recorded"
USER_LENGTH = 512
GROUP_NAME = Annotated[str, Field(min_length=1, max_length=256)]
GROUPS_MAXIMUM = 32


class SubjectKind(StrEnum):
    """What can be decided about: that which has the digest of an adapter."""

    FINE_TUNE_JOB = "FineTuneJob"
    EVALUATION = "Evaluation"
    ADAPTER_ROLLOUT = "AdapterRollout"


class Decision(StrEnum):
    """What was decided; a Comment decides nothing."""

    APPROVE = "Approve"
    REJECT = "Reject"
    COMMENT = "Comment"


class ReviewReason(StrEnum):
    """Reasons of a Review's Recorded."""

    APPROVED = "Approved"
    REJECTED = "Rejected"
    COMMENTED = "Commented"
    AUTHOR_NOT_BOUND = "AuthorNotBound"


class ReviewSubject(Model):
    """What was decided about. The digest counts: nothing that is decided is of what comes after it."""

    kind: SubjectKind = Field(
        description="kind of the object. Rollouts that require approvals count those of an AdapterRollout."
    )
    name: OBJECT_NAME = Field(description="name of the object, in the namespace of the Review.")
    digest: DIGEST = Field(description="digest of the adapter.")


class ReviewSpec(Model):
    """Who decided what about which adapter."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self == oldSelf", "spec is immutable: a Review is a record; create another one"),
            (
                "self.decision != 'Comment' || (has(self.message) && self.message.size() > 0)",
                "a Comment needs a message",
            ),
        )
    )

    subject: ReviewSubject = Field(description="subject of the decision.")
    decision: Decision = Field(
        description="decision. Of two of one author about one subject the later one stands; a Comment changes nothing."
    )
    message: str = Field(default="", max_length=1024, description="message for people: why.")
    author: str = Field(
        min_length=1,
        max_length=USER_LENGTH,
        description="author: the name of the user who creates it, as the API server knows them. The chart's admission "
        "policy refuses any other.",
    )
    author_groups: list[GROUP_NAME] = Field(
        default=[],
        max_length=GROUPS_MAXIMUM,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="authorGroups in whose name the author decides. The chart's admission policy refuses groups that "
        "the author is not in.",
    )


class ReviewStatus(Model):
    """Whether it counts."""

    observed_generation: int | None = Field(default=None, ge=0, description="observedGeneration of the spec.")
    conditions: list[Condition] = Field(
        default=[],
        max_length=4,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="conditions: Recorded, whose reason is the state.",
    )


class Review(CustomObject):
    """Review says who decided what about which adapter. It is a record: nobody changes it, and only its author deletes
    it."""

    model_config = ConfigDict(json_schema_extra={})

    spec: ReviewSpec = Field(description="spec is who decided what.")
    status: ReviewStatus = Field(default=ReviewStatus(), description="status is whether it counts.")


_NOTHING = "Nothing."

REVIEW = CustomResource(
    model=Review,
    spec=ReviewSpec,
    status=ReviewStatus,
    plural="reviews",
    short_name="rev",
    columns=(
        ("Subject", "string", ".spec.subject.name", "Name of the object that was decided about."),
        ("Decision", "string", ".spec.decision", "What was decided."),
        ("Author", "string", ".spec.author", "Who decided."),
        AGE,
    ),
    wide_columns=(
        ("Message", "string", ".spec.message", "Why."),
        ("Kind", "string", ".spec.subject.kind", "Kind of the object that was decided about."),
        ("Digest", "string", ".spec.subject.digest", "Digest of the adapter that was decided about."),
        ("State", "string", condition_path(RECORDED, "reason"), "Whether it counts, and as what."),
    ),
    summary=RECORDED,
    writers="Who may write them approves adapters, as themselves and for no other: an admission policy sees to that.",
    reasons={
        RECORDED: (
            "The condition `Recorded` is the summary: True if it is certain who wrote the Review, so that whoever asks "
            "for decisions counts it; its reason says as what.",
            {
                ReviewReason.APPROVED: Explanation("succeeded", "The author approves the adapter.", _NOTHING),
                ReviewReason.REJECTED: Explanation(
                    "succeeded",
                    "The author rejects the adapter: a rollout that asks for approvals does not serve it.",
                    "Train better, or convince the author; their later approval takes it back.",
                ),
                ReviewReason.COMMENTED: Explanation(
                    "succeeded", "The author says something about the adapter; it decides nothing.", _NOTHING
                ),
                ReviewReason.AUTHOR_NOT_BOUND: Explanation(
                    "failed",
                    "Nothing made sure that the author wrote it: the admission policy is not in force, or came after "
                    "the Review. It counts for nothing.",
                    "Set `admissionPolicies.enabled: true` in the values of the chart, then decide again.",
                ),
                NOT_UNDERSTOOD: Explanation(
                    "active",
                    "The Review has a value that this version of the operator does not know, such as one of a later "
                    "version's; it counts for nothing.",
                    "Wait for the other version, or create another Review.",
                ),
            },
        ),
    },
)
