"""Reviews that are accepted and, together, use every field; and cases of their rules."""

from __future__ import annotations

from typing import Any

from tests.component.crd_samples import DIGEST, TIME, Body
from tests.component.rule_cases import Case, Rule


def review(spec: Body, **metadata: Any) -> Body:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "Review",
        "metadata": {"name": "sample", **metadata},
        "spec": spec,
    }


SUBJECT = {"kind": "AdapterRollout", "name": "field-guide", "digest": DIGEST}
MINIMAL = review({"subject": SUBJECT, "decision": "Approve", "author": "kubernetes-admin"})
FULL = review(
    {
        "subject": SUBJECT,
        "decision": "Comment",
        "message": "who asked for this?",
        "author": "kubernetes-admin",
        "authorGroups": ["system:masters", "leads"],
    }
)
STATUS: Body = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Recorded",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": TIME,
            "reason": "Commented",
            "message": "kubernetes-admin comments on it",
        }
    ],
}

REVIEW_CASES: dict[Rule, Case] = {
    ("spec", "spec is immutable: a Review is a record; create another one"): Case(
        refused=[
            {"spec.decision": "Reject"},
            {"spec.author": "other"},
            {"spec.message": "other"},
            {"spec.authorGroups": ["leads"]},
            {"spec.subject.name": "other"},
            {"spec.subject.kind": "Evaluation"},
            {"spec.subject.digest": DIGEST.replace("0", "1")},
        ],
        passed=[{}, {"metadata.labels": {"team": "b"}}],
    ),
    ("spec", "a Comment needs a message"): Case(
        refused=[{"spec.decision": "Comment"}, {"spec.decision": "Comment", "spec.message": ""}],
        passed=[{"spec.decision": "Comment", "spec.message": "well"}, {"spec.decision": "Reject"}],
    ),
}
