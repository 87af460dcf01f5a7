"""Which decisions of people about a revision count, and what they come to: a pure function of the Reviews.

Counted are Reviews of this AdapterRollout and of exactly the revision's digest, of which it is certain who wrote them.
Of one author the latest stands. A rejection stands until its author approves, or deletes it: one is enough to keep the
revision from being served, however many approve. Nothing of this is remembered: whoever asks again, or after a crash,
sees the same Reviews.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimtab_agent.contract import Revision

from trimtab_operator.api.approvals import (
    APPROVALS_MAXIMUM,
    AUTHOR_TOLD_LENGTH,
    Approvals,
    ApprovalStatus,
    ApprovedBefore,
)
from trimtab_operator.api.review import Decision, Review
from trimtab_operator.api.status.rollout_reasons import RolloutReason as Reason

from ..conditions import cut
from ..plan import Inquiry, PolicyInForce
from ..review.policies import AUTHOR_ANNOTATION, Force, Policy
from .observed import Maker, Observed

REVIEWS_AT_MOST = 500
"""Decisions about one digest that are counted; of more none is, for a rejection could be among those left out."""
TOLD = 40
"""Characters of a name in a message."""


@dataclass(frozen=True)
class Standing:
    """What the decisions about one revision come to.

    Attributes:
        required: approvals that it needs.
        approved_by: authors of those that count, by name.
        rejected: why it must not be served; None if nobody rejects it.
        unbound: why no decision counts; None if they do.
        passed_over: of a decision that does not count, why.
        before: the step that waits.
    """

    required: int
    approved_by: tuple[str, ...] = ()
    rejected: str | None = None
    unbound: str | None = None
    passed_over: str | None = None
    before: ApprovedBefore = ApprovedBefore.EVERYWHERE

    @property
    def approved(self) -> bool:
        return self.unbound is None and self.rejected is None and len(self.approved_by) >= self.required

    def status(self, digest: str) -> ApprovalStatus:
        """Return what the status tells, without since when it is waited for."""
        return ApprovalStatus(digest=digest, required=self.required, approved_by=self.told)

    @property
    def told(self) -> list[str]:
        """The authors, as the status has them."""
        return [cut(author, AUTHOR_TOLD_LENGTH) for author in self.approved_by[:APPROVALS_MAXIMUM]]


def inquiries(approvals: Approvals | None) -> tuple[Inquiry, ...]:
    """Return what has to be known before a decision is counted."""
    if approvals is None:
        return ()
    authors = (PolicyInForce(Policy.AUTHORS),) if approvals.not_by_author_of_the_job else ()
    return (PolicyInForce(Policy.REVIEWS), *authors)


def standing(observed: Observed, revision: Revision) -> Standing | None:
    """Return what the decisions about a revision come to, None where none are asked for."""
    approvals = observed.rollout.spec.strategy.approvals
    if approvals is None:
        return None
    found = Standing(approvals.required, before=approvals.before)
    force = _force(observed, Policy.REVIEWS)
    if force.since is None:
        return replace(found, unbound=force.why)
    about = [each for each in observed.reviews if each.spec.subject.digest == revision.digest]
    if len(about) > REVIEWS_AT_MOST:
        return replace(found, unbound=f"there are more than {REVIEWS_AT_MOST} Reviews of it; delete some")
    about = [each for each in about if not _taken_back(each)]
    known = [each for each in about if force.covers(each.metadata.creation_timestamp)]
    last = latest([each for each in known if _asked(approvals, each)])
    for review in last:
        if review.spec.decision is Decision.REJECT:
            why = f": {review.spec.message}" if review.spec.message else ""
            return replace(found, rejected=f"{cut(review.spec.author, TOLD)} rejects it{why}")
    approving = sorted({each.spec.author for each in last})
    passed_over = _passed_over(approvals, about, known)
    if approvals.not_by_author_of_the_job:
        makers = _makers(observed, revision.digest)
        if isinstance(makers, str):
            return replace(found, passed_over=makers)
        if excluded := [author for author in approving if author in makers]:
            passed_over = f"{cut(excluded[0], TOLD)} made the FineTuneJob"
        approving = [author for author in approving if author not in makers]
    return replace(found, approved_by=tuple(approving), passed_over=passed_over)


def _taken_back(review: Review) -> bool:
    """Tell whether its author has deleted it: a finalizer, which everybody may add who edits, does not keep it."""
    return review.metadata.deletion_timestamp is not None


def latest(reviews: Sequence[Review]) -> list[Review]:
    """Return the decision of each author that stands. Times are whole seconds: of one second the rejection does."""
    stands: dict[str, Review] = {}
    for review in sorted(reviews, key=_order):
        if review.spec.decision is not Decision.COMMENT:
            stands[review.spec.author] = review
    return list(stands.values())


def _order(review: Review) -> tuple[str, bool, str]:
    return (
        review.metadata.creation_timestamp,
        review.spec.decision is Decision.REJECT,
        review.metadata.name,
    )


def _asked(approvals: Approvals, review: Review) -> bool:
    """Tell whether a Review is of one of those whose decisions count."""
    return approvals.from_ is None or any(group in approvals.from_.groups for group in review.spec.author_groups)


def _passed_over(approvals: Approvals, about: Sequence[Review], known: Sequence[Review]) -> str | None:
    """Return why a decision does not count, of the first that does not, rejections first: they stop nothing then."""
    decisions = [each for each in about if each.spec.decision is not Decision.COMMENT]
    for review in sorted(decisions, key=lambda each: (each.spec.decision is not Decision.REJECT, _order(each))):
        what = "the rejection" if review.spec.decision is Decision.REJECT else "that"
        if review not in known:
            return f"{what} of {cut(review.spec.author, TOLD)} is from before the admission policy"
        if not _asked(approvals, review):
            return f"{what} of {cut(review.spec.author, TOLD)} names none of the groups"
    return None


def _makers(observed: Observed, digest: str) -> frozenset[str] | str:
    """Return who made the FineTuneJobs that published an adapter, or why that is not known."""
    force = _force(observed, Policy.AUTHORS)
    if force.since is None:
        return f"who made the FineTuneJob is not certain: {force.why}"
    makers = observed.makers.get(digest, ())
    if not makers:
        return "who made it is not known: no FineTuneJob of this namespace has published it"
    unknown = next((each for each in makers if not _is_known(each, force)), None)
    if unknown is not None:
        return f"who made FineTuneJob {unknown.job} is not known: it was created without {AUTHOR_ANNOTATION}"
    return frozenset(each.author for each in makers)


def _is_known(maker: Maker, force: Force) -> bool:
    return bool(maker.author) and force.covers(maker.created)


def _force(observed: Observed, policy: Policy) -> Force:
    found = observed.answers.get(PolicyInForce(policy))
    return found if isinstance(found, Force) else Force(why="it was not looked for")


def waits(observed: Observed, revision: Revision, found: Standing) -> tuple[str, str]:
    """Return reason and message of a revision that waits for nothing but approvals."""
    if found.unbound is not None:
        return Reason.AUTHORS_NOT_BOUND, f"{revision.name} needs approvals, and none counts: {found.unbound}"
    return Reason.AWAITING_APPROVAL, f"{revision.name} {lacking(observed, revision, found)}"


def lacking(observed: Observed, revision: Revision, found: Standing) -> str:
    """Return what is lacking, and what to type, which comes before all that may be too long to be told."""
    metadata, approvals = observed.rollout.metadata, observed.rollout.spec.strategy.approvals
    command = f"kubectl trimtab approve adapterrollout/{metadata.name} -n {metadata.namespace}"
    parts = [
        f"has {len(found.approved_by)} of {found.required} approvals",
        f"to decide: {command} --digest {revision.digest}",
    ]
    if approvals is not None and approvals.from_ is not None:
        parts.append(f"asked are {_names(approvals.from_.groups, 'or')}")
    if found.approved_by:
        parts.append(f"approved by {_names(found.approved_by, 'and')}")
    if found.passed_over is not None:
        parts.append(found.passed_over)
    return "; ".join(parts)


def _names(names: Sequence[str], word: str) -> str:
    return f" {word} ".join(cut(name, TOLD) for name in names[:3])
