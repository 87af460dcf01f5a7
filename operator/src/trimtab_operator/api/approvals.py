"""Which decisions of people an AdapterRollout waits for, and how far they are."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field
from trimtab_trainer.contract import Model
from trimtab_trainer.contract.settings import DIGEST

from .review import GROUP_NAME

APPROVALS_MAXIMUM = 10
AUTHOR_TOLD_LENGTH = 64
AUTHOR_TOLD = Annotated[str, Field(max_length=AUTHOR_TOLD_LENGTH)]


class ApprovedBefore(StrEnum):
    """The step that waits for approvals."""

    CANARY = "Canary"
    EVERYWHERE = "Everywhere"


class ApprovalsFrom(Model):
    """Whose decisions count."""

    groups: list[GROUP_NAME] = Field(
        min_length=1,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="groups of users, as the API server knows them: a Review counts that was written in the name of "
        "one of them (spec.authorGroups).",
    )


class Approvals(Model):
    """Which decisions of people a revision waits for: Reviews of this AdapterRollout and of exactly its digest."""

    required: int = Field(
        default=1, ge=1, le=APPROVALS_MAXIMUM, description="required approvals, each of another author."
    )
    from_: ApprovalsFrom | None = Field(
        default=None,
        alias="from",
        description="from whom; absent: everybody who may create Reviews in the namespace.",
    )
    not_by_author_of_the_job: bool = Field(
        default=False,
        description="notByAuthorOfTheJob: approvals of who made the adapter's FineTuneJob do not count. Every "
        "FineTuneJob that published it must say who that is in the annotation trimtab.dev/author.",
    )
    before: ApprovedBefore = Field(
        default=ApprovedBefore.EVERYWHERE,
        description="before which step: Canary, so that nothing is loaded without them, or Everywhere, after a canary "
        "that was good.",
    )


class ApprovalStatus(Model):
    """How far the wanted revision is approved."""

    digest: DIGEST = Field(description="digest of the adapter that is to be approved.")
    required: int = Field(ge=1, le=APPROVALS_MAXIMUM, description="required approvals.")
    approved_by: list[AUTHOR_TOLD] = Field(
        default=[],
        max_length=APPROVALS_MAXIMUM,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="approvedBy: the authors of those that count; long names are cut.",
    )
    since: str | None = Field(
        default=None,
        alias="sinceTime",
        max_length=32,
        json_schema_extra={"format": "date-time"},
        description="sinceTime nothing else is waited for.",
    )
