"""The admission policies that make sure who wrote a Review and who made a FineTuneJob, and whether they are in force.

The chart installs what is written here (`generate`), and the operator compares what the cluster has with it before it
counts a Review: without the policy everybody could write in everybody's name. Policies are the API server's own CEL, no
webhook. `request.userInfo` is whom it has authenticated, or whom that user impersonates by a right of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from trimtab_operator.api.finetunejob import FINETUNEJOB, GROUP
from trimtab_operator.api.review import REVIEW

from ..plan import Body
from ..views import parse_time

AUTHOR_ANNOTATION = f"{GROUP}/author"
"""On a FineTuneJob: the user who made it, where they say so."""
ADMINISTER = "administer"
"""The verb of those who may delete what others have written: of who may do everything, and of nobody else by itself."""
TAKES_EFFECT_SECONDS = 10
"""Until every API server knows of a policy: what is written before counts as written without it."""

_ASKING = "request.userInfo.username"
_GROUPS = "has(request.userInfo.groups) && g in request.userInfo.groups"
_ADMINISTRATOR = (
    f"authorizer.group('{GROUP}').resource('{REVIEW.plural}').namespace(request.namespace)"
    f".check('{ADMINISTER}').allowed()"
)


class Policy(StrEnum):
    """The policies by the last part of their names."""

    REVIEWS = "reviews"
    AUTHORS = "authors"


def _author_of(variable: str) -> str:
    annotations = f"{variable}.metadata.annotations"
    there = f"has({annotations}) && '{AUTHOR_ANNOTATION}' in {annotations}"
    return f"{variable} != null && {there} ? {annotations}['{AUTHOR_ANNOTATION}'] : ''"


def _validation(expression: str, message: str, words: str = "") -> Body:
    return {"expression": expression, "message": message, **({"messageExpression": words} if words else {})}


def _spec(plural: str, operations: list[str], **rest: Any) -> Body:
    rule = {"apiGroups": [GROUP], "apiVersions": ["*"], "resources": [plural], "operations": operations, "scope": "*"}
    constraints = {"matchPolicy": "Equivalent", "resourceRules": [rule]}
    return {"failurePolicy": "Fail", "matchConstraints": constraints, **rest}


SPECS: Mapping[Policy, Body] = {
    Policy.REVIEWS: _spec(
        REVIEW.plural,
        ["CREATE", "UPDATE", "DELETE"],
        validations=[
            _validation(
                f"request.operation != 'CREATE' || object.spec.author == {_ASKING}",
                "spec.author must be the user who creates the Review",
                f"'spec.author must be the user who creates the Review: ' + {_ASKING}",
            ),
            _validation(
                "request.operation != 'CREATE' || !has(object.spec.authorGroups) "
                f"|| object.spec.authorGroups.all(g, {_GROUPS})",
                "spec.authorGroups must be groups of the user who creates the Review",
            ),
            _validation(
                "request.operation != 'UPDATE' || object.spec == oldObject.spec",
                "a Review is a record: create another one",
            ),
            _validation(
                "request.operation == 'DELETE' || !has(object.metadata.ownerReferences) "
                "|| object.metadata.ownerReferences.size() == 0",
                "a Review has no owner: it would be deleted with it",
            ),
            _validation(
                f"request.operation != 'DELETE' || oldObject.spec.author == {_ASKING} "
                f"|| has(namespaceObject.metadata.deletionTimestamp) || {_ADMINISTRATOR}",
                f"only its author may delete a Review, or who may {ADMINISTER} {REVIEW.plural}.{GROUP}",
            ),
        ],
    ),
    Policy.AUTHORS: _spec(
        FINETUNEJOB.plural,
        ["CREATE", "UPDATE"],
        variables=[
            {"name": "author", "expression": _author_of("object")},
            {"name": "before", "expression": _author_of("oldObject")},
        ],
        validations=[
            _validation(
                f"request.operation != 'CREATE' || variables.author in ['', {_ASKING}]",
                f"the annotation {AUTHOR_ANNOTATION} must be the user who creates the FineTuneJob",
                f"'the annotation {AUTHOR_ANNOTATION} must be the user who creates the FineTuneJob: ' + {_ASKING}",
            ),
            _validation(
                "request.operation != 'UPDATE' || variables.author == variables.before",
                f"the annotation {AUTHOR_ANNOTATION} stays as it was when the FineTuneJob was created",
            ),
        ],
    ),
}
"""What the policies say, with the values that the API server would fill in."""


def policy_name(release: str, policy: Policy) -> str:
    """Return the name that policy and binding have; `release` is the setting `admissionPolicies`."""
    return f"{release}.{policy}.{GROUP}"


def binding_spec(name: str) -> Body:
    """Return what binds a policy to every object of every namespace."""
    return {"policyName": name, "validationActions": ["Deny"]}


@dataclass(frozen=True)
class Force:
    """Since when a policy is in force; None: it is not, and why."""

    since: datetime | None = None
    why: str = ""

    def covers(self, created: str) -> bool:
        """Tell whether what was created at a time was held to the policy."""
        time = parse_time(created)
        return self.since is not None and time is not None and time >= self.since


def force_of(policy: Policy, name: str, found: Body | None, binding: Body | None) -> Force:
    """Return whether what the cluster has under a name is the policy, whole and for everything.

    What it has beyond that only refuses more: further validations, fields that a later API server fills in. All else
    that lets something through is none.
    """
    for what, body in (("ValidatingAdmissionPolicy", found), ("ValidatingAdmissionPolicyBinding", binding)):
        if body is None:
            return Force(why=f"there is no {what} {name}")
    assert found is not None
    assert binding is not None
    if not _says(found.get("spec", {}), SPECS[policy]) or _leaves_out(found.get("spec", {})):
        return Force(why=f"ValidatingAdmissionPolicy {name} is not that of this version of the chart")
    if not _says(binding.get("spec", {}), binding_spec(name)) or _narrows(binding.get("spec", {})):
        return Force(why=f"ValidatingAdmissionPolicyBinding {name} does not bind it to everything, or does not deny")
    times = [parse_time(each["metadata"].get("creationTimestamp")) for each in (found, binding)]
    made = [time for time in times if time is not None]
    if len(made) < len(times):
        return Force(why=f"ValidatingAdmissionPolicy {name} has no time of creation")
    return Force(max(made) + timedelta(seconds=TAKES_EFFECT_SECONDS))


def _says(actual: object, wanted: object) -> bool:
    """Tell whether one value has everything of another; a list of the wanted one may have further items."""
    if isinstance(wanted, dict):
        return isinstance(actual, dict) and all(_says(actual.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(actual, list) and all(any(_says(each, item) for each in actual) for item in wanted)
    return actual == wanted


def _leaves_out(spec: Body) -> bool:
    """Tell whether a policy does not look at something of what it is for, or depends on parameters."""
    constraints = spec.get("matchConstraints", {})
    selectors = any(constraints.get(key) for key in ("namespaceSelector", "objectSelector", "excludeResourceRules"))
    names = any(rule.get("resourceNames") for rule in constraints.get("resourceRules") or ())
    return bool(selectors or names or spec.get("matchConditions") or spec.get("paramKind"))


def _narrows(spec: Body) -> bool:
    return bool(spec.get("matchResources") or spec.get("paramRef"))
