"""Reviews: records of decisions. All that is decided about one is whether it is certain who wrote it; what follows from
it is decided by those who ask for approvals, such as `adapterrollout.approvals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from trimtab_operator.api.review import RECORDED, REVIEW, Decision, Review, ReviewReason, ReviewStatus, SubjectKind

from ..cluster import Cluster, Key
from ..conditions import condition
from ..indexes import decided_about, decided_on
from ..kind import Kind, Needs
from ..measures import Measure
from ..plan import Body, Inquiry, Plan, PolicyInForce
from .policies import Force, Policy

__all__ = ["REVIEWS"]

LOOK_AGAIN_SECONDS = 300.0
SAID = {
    Decision.APPROVE: (ReviewReason.APPROVED, "approves"),
    Decision.REJECT: (ReviewReason.REJECTED, "rejects"),
    Decision.COMMENT: (ReviewReason.COMMENTED, "comments on"),
}


@dataclass(frozen=True)
class Observed:
    """A Review, and the answers to inquiries of this round."""

    review: Review
    answers: Mapping[Inquiry, object] = field(default_factory=dict)


def plan(observed: Observed, now: datetime) -> Plan:
    """Say whether it counts, and as what."""
    force = observed.answers.get(PolicyInForce(Policy.REVIEWS))
    if not isinstance(force, Force):
        return Plan(inquiries=(PolicyInForce(Policy.REVIEWS),))
    review, subject = observed.review, observed.review.spec.subject
    reason, verb = SAID[review.spec.decision]
    about = f"{verb} {subject.digest} of {subject.kind} {subject.name}"
    bound = force.covers(review.metadata.creation_timestamp)
    why = force.why or "the admission policy was not in force when it was created"
    said = condition(
        review.status.conditions,
        RECORDED,
        "True" if bound else "False",
        reason if bound else ReviewReason.AUTHOR_NOT_BOUND,
        f"{review.spec.author} {about}" if bound else f"it counts for nothing: {why}",
        generation=review.metadata.generation,
        now=now,
    )
    status = ReviewStatus(observed_generation=review.metadata.generation, conditions=[said])
    return Plan(status=status.to_json(), look_again_seconds=None if bound else LOOK_AGAIN_SECONDS, follows_up=False)


def _indexes(body: Body, ended: bool) -> tuple[str, ...]:
    spec = body.get("spec", {})
    subject = spec.get("subject", {})
    if spec.get("decision") == Decision.COMMENT or subject.get("kind") != SubjectKind.ADAPTER_ROLLOUT:
        return ()
    return (decided_on(body["metadata"]["namespace"], subject.get("name", ""), subject.get("digest", "")),)


def _concerns(key: Key, ended: bool, indexes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(decided_about(index) for index in indexes)


def _observe(cluster: Cluster, review: Review) -> Observed:
    return Observed(review)


def _needs(observed: Observed, planned: Plan) -> Needs:
    return Needs()


def _measures(before: ReviewStatus, after: ReviewStatus, now: datetime) -> tuple[Measure, ...]:
    return ()


REVIEWS = Kind(
    crd=REVIEW,
    ends=False,
    parse=Review.parse,
    indexes=_indexes,
    concerns=_concerns,
    observe=_observe,
    plan=plan,
    needs=_needs,
    measures=_measures,
    gauge="trimtab_reviews",
)
