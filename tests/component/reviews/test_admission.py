"""Whether somebody can decide in another's name: the chart's policies on a real API server, and ways round them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from trimtab_operator.domain.review.policies import SPECS, Force, Policy, binding_spec, force_of, policy_name

from tests.component.api_server import Answer, ApiServer, Body
from tests.component.crd_samples import DIGEST, MINIMAL, change
from tests.component.patience import Patience
from tests.component.review_samples import SUBJECT
from tests.component.reviews import policies
from tests.component.reviews.conftest import Users

pytestmark = pytest.mark.cluster

GROUP = "/apis/trimtab.dev/v1alpha1"
AUTHOR = "spec.author must be the user who creates the Review"
ANNOTATION = "trimtab.dev/author"


def reviews(namespace: str) -> str:
    return f"{GROUP}/namespaces/{namespace}/reviews"


def review(author: str, decision: str = "Approve", *groups: str, **metadata: Any) -> Body:
    spec = {"subject": SUBJECT, "decision": decision, "author": author, "message": "well", "authorGroups": list(groups)}
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "Review",
        "metadata": metadata or {"name": "one"},
        "spec": spec,
    }


def denied(answer: Answer, words: str) -> None:
    assert not answer.accepted, answer.body
    assert words in answer.message


def edits(users: Users, namespace: str) -> None:
    """Wait until the controller has added the chart's rights to those of editors."""
    patience = Patience("edit")
    while not users.alice.create(reviews(namespace), review("alice"), dryRun="All").accepted:
        patience.spend(None)
        time.sleep(0.1)


@pytest.fixture
def place(users: Users, team: str) -> str:
    edits(users, team)
    return reviews(team)


def test_everybody_decides_as_themselves(users: Users, place: str) -> None:
    assert users.alice.create(place, review("alice", "Approve", "leads", "system:authenticated")).accepted
    assert users.bob.create(place, review("bob", "Reject", name="two")).accepted
    denied(users.bob.create(place, review("alice", name="three")), f"{AUTHOR}: bob")
    denied(users.carol.create(place, review("carol", name="four")), "cannot create resource")
    denied(users.admin.create(place, review("alice", name="five")), AUTHOR)


def test_nobody_decides_in_the_name_of_a_group_that_they_are_not_in(users: Users, place: str) -> None:
    words = "spec.authorGroups must be groups of the user"
    denied(users.bob.create(place, review("bob", "Approve", "leads")), words)
    denied(users.bob.create(place, review("bob", "Approve", "interns", "leads")), words)
    denied(users.bob.create(place, review("bob", "Approve", "Interns")), words)
    assert users.bob.create(place, review("bob", "Approve", "interns")).accepted


@pytest.mark.parametrize("author", ["Alice", "alice ", " alice", "system:serviceaccount:default:alice", "ALICE", "a"])
def test_a_name_is_the_whole_name(users: Users, place: str, author: str) -> None:
    denied(users.alice.create(place, review(author)), AUTHOR)


def test_every_way_to_create_one_is_one(users: Users, place: str) -> None:
    """A generated name, a server-side apply, strict or not, and a put to a name that is not there."""
    denied(users.bob.create(place, review("alice", generateName="x-")), AUTHOR)
    denied(users.bob.apply(f"{place}/applied", review("alice", name="applied")), AUTHOR)
    assert not users.bob.replace(f"{place}/put", review("alice", name="put")).accepted
    assert not users.bob.request("PATCH", f"{place}/merged", review("alice", name="merged"), "merge").accepted
    denied(users.bob.create(place, review("alice", name="ignored"), fieldValidation="Ignore"), AUTHOR)
    twice = {**review("alice", name="status"), "status": {"conditions": []}}
    denied(users.bob.create(place, twice), AUTHOR)
    assert users.bob.apply(f"{place}/own", review("bob", name="own")).accepted
    assert {each["spec"]["author"] for each in users.admin.get(place).body["items"]} == {"bob"}


def test_none_is_changed_by_anybody(users: Users, place: str) -> None:
    made = users.alice.create(place, review("alice", "Reject")).body
    for user in (users.alice, users.bob, users.admin):
        for changes in ({"spec.decision": "Approve"}, {"spec.author": "bob"}, {"spec.authorGroups": ["leads"]}):
            denied(user.replace(f"{place}/one", change(made, changes)), "immutable")
        patch = {"spec": {"decision": "Approve"}}
        denied(user.request("PATCH", f"{place}/one", patch, "merge"), "immutable")
    forced = users.bob.apply(f"{place}/one", review("bob", "Approve"))
    denied(forced, "immutable")
    assert users.admin.get(f"{place}/one").body["spec"] == made["spec"]


def test_the_status_subresource_changes_no_decision(users: Users, place: str) -> None:
    made = users.alice.create(place, review("alice", "Reject")).body
    path = f"{place}/one/status"
    denied(users.bob.replace(path, change(made, {"spec.decision": "Approve"})), "cannot update resource")
    turned = change(made, {"spec.decision": "Approve", "metadata.ownerReferences": OWNER, "spec.author": "bob"})
    users.admin.replace(path, turned)
    after = users.admin.get(f"{place}/one").body
    assert after["spec"] == made["spec"]
    assert "ownerReferences" not in after["metadata"]


OWNER = [{"apiVersion": "v1", "kind": "ConfigMap", "name": "not-there", "uid": "00000000-0000-0000-0000-000000000000"}]


def test_none_goes_with_an_owner(users: Users, place: str) -> None:
    """The garbage collector deletes what has an owner that is not there."""
    made = users.alice.create(place, review("alice", "Reject")).body
    denied(users.bob.replace(f"{place}/one", change(made, {"metadata.ownerReferences": OWNER})), "has no owner")
    patch = {"metadata": {"ownerReferences": OWNER}}
    denied(users.bob.request("PATCH", f"{place}/one", patch, "merge"), "has no owner")
    denied(users.alice.create(place, review("alice", name="owned", ownerReferences=OWNER)), "has no owner")


def test_nobody_deletes_what_another_decided(users: Users, place: str, team: str) -> None:
    assert users.alice.create(place, review("alice", "Reject")).accepted
    assert users.bob.create(place, review("bob", name="bobs")).accepted
    denied(users.bob.delete(f"{place}/one"), "only its author may delete a Review")
    collected = users.bob.delete(place)
    there = {each["metadata"]["name"] for each in users.admin.get(place).body["items"]}
    assert "one" in there, collected.body
    assert users.alice.delete(f"{place}/one").accepted
    assert users.alice.create(place, review("alice", "Reject")).accepted
    assert users.admin.delete(f"{place}/one").accepted, "who may do everything may administer"


def test_a_namespace_goes_with_its_reviews(users: Users, place: str, team: str) -> None:
    assert users.alice.create(place, review("alice", "Reject")).accepted
    users.admin.delete(f"/api/v1/namespaces/{team}")
    patience = Patience("the namespace is gone")
    while users.admin.get(f"/api/v1/namespaces/{team}").accepted:
        patience.spend(users.admin.get(place).body.get("items"))
        time.sleep(0.2)


def test_the_rights_of_a_namespace_impersonate_nobody(users: Users, place: str) -> None:
    denied(users.bob.request("POST", place, review("alice"), impersonate="alice"), "cannot impersonate")
    assert users.admin.request("POST", place, review("alice"), impersonate="alice").accepted, "a right of its own"


def test_the_policy_holds_in_every_namespace(users: Users, place: str) -> None:
    """Whatever labels a namespace has: the binding selects none of them."""
    denied(users.admin.create(reviews("kube-system"), review("alice"), dryRun="All"), AUTHOR)
    denied(users.admin.create(reviews("default"), review("alice"), dryRun="All"), AUTHOR)


# FineTuneJobs


def job(author: str | None, name: str = "job") -> Body:
    return change(MINIMAL, {"metadata": {"name": name, **({"annotations": {ANNOTATION: author}} if author else {})}})


def test_who_made_a_job_is_who_says_so(users: Users, place: str, team: str) -> None:
    jobs = f"{GROUP}/namespaces/{team}/finetunejobs"
    assert users.alice.create(jobs, job("alice")).accepted
    assert users.bob.create(jobs, job(None, "nobodys")).accepted, "it may be left out"
    denied(users.bob.create(jobs, job("alice", "forged")), "must be the user who creates the FineTuneJob: bob")
    denied(users.bob.apply(f"{jobs}/applied", job("alice", "applied")), "must be the user")


def test_who_made_a_job_stays_who_made_it(users: Users, place: str, team: str) -> None:
    jobs = f"{GROUP}/namespaces/{team}/finetunejobs"
    assert users.alice.create(jobs, job("alice")).accepted
    assert users.bob.create(jobs, job(None, "nobodys")).accepted
    words = "stays as it was when the FineTuneJob was created"
    for user, name, said in (
        (users.bob, "job", {ANNOTATION: "bob"}),
        (users.alice, "job", {ANNOTATION: None}),
        (users.admin, "job", None),
        (users.bob, "nobodys", {ANNOTATION: "bob"}),
    ):
        denied(user.request("PATCH", f"{jobs}/{name}", {"metadata": {"annotations": said}}, "merge"), words)
    other = {"metadata": {"annotations": {"team": "b"}}, "spec": {"suspend": True}}
    assert users.bob.request("PATCH", f"{jobs}/job", other, "merge").accepted


# What the operator reads


def force(server: ApiServer, policy: Policy = Policy.REVIEWS) -> Force:
    name = policy_name(policies.RELEASE, policy)
    bodies = [server.get(f"{policies.GROUP}/{plural}/{name}") for plural in policies.PLURALS.values()]
    found, binding = (each.body if each.accepted else None for each in bodies)
    return force_of(policy, name, found, binding)


@pytest.mark.parametrize("policy", Policy)
def test_the_policy_as_the_api_server_has_it_is_in_force(users: Users, place: str, policy: Policy) -> None:
    assert force(users.admin, policy).since is not None, force(users.admin, policy).why


WEAKER: dict[str, tuple[str, Body]] = {
    "it ignores failures": ("policy", {"spec": {"failurePolicy": "Ignore"}}),
    "it lacks a rule": ("policy", {"spec": {"validations": SPECS[Policy.REVIEWS]["validations"][1:]}}),
    "a rule is another one": ("policy", {"spec": {"validations": [{"expression": "true"}]}}),
    "it does not look at creations": (
        "policy",
        {
            "spec": {
                "matchConstraints": {
                    "resourceRules": [
                        {
                            **SPECS[Policy.REVIEWS]["matchConstraints"]["resourceRules"][0],
                            "operations": ["UPDATE", "DELETE"],
                        }
                    ]
                }
            }
        },
    ),
    "it leaves out a namespace": (
        "policy",
        {"spec": {"matchConstraints": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}},
    ),
    "it leaves out objects": (
        "policy",
        {"spec": {"matchConstraints": {"objectSelector": {"matchLabels": {"a": "b"}}}}},
    ),
    "it leaves out a resource": (
        "policy",
        {
            "spec": {
                "matchConstraints": {
                    "excludeResourceRules": [SPECS[Policy.REVIEWS]["matchConstraints"]["resourceRules"][0]]
                }
            }
        },
    ),
    "it has a condition": ("policy", {"spec": {"matchConditions": [{"name": "never", "expression": "false"}]}}),
    "it only warns": ("binding", {"spec": {"validationActions": ["Warn"]}}),
    "it is bound to some": (
        "binding",
        {"spec": {"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}},
    ),
}


@pytest.mark.parametrize("how", WEAKER)
def test_a_weaker_policy_is_none(users: Users, place: str, how: str) -> None:
    """By dry runs: the API server takes it, the operator does not."""
    what, patch = WEAKER[how]
    name = policy_name(policies.RELEASE, Policy.REVIEWS)
    paths = {
        word: f"{policies.GROUP}/{plural}/{name}"
        for word, plural in zip(("policy", "binding"), policies.PLURALS.values(), strict=True)
    }
    bodies = {word: users.admin.get(path).body for word, path in paths.items()}
    answer = users.admin.request("PATCH", paths[what], patch, "merge", dryRun="All")
    assert answer.accepted, answer.message
    found = force_of(Policy.REVIEWS, name, *{**bodies, what: answer.body}.values())
    assert found.since is None
    assert name in found.why


def test_a_policy_that_is_not_there_is_none(users: Users, place: str) -> None:
    name = policy_name("another.release", Policy.REVIEWS)
    assert "there is no ValidatingAdmissionPolicy" in force_of(Policy.REVIEWS, name, None, None).why
    policy = {"metadata": {"creationTimestamp": "2026-01-05T12:00:00Z"}, "spec": SPECS[Policy.REVIEWS]}
    assert "Binding" in force_of(Policy.REVIEWS, name, policy, None).why
    assert DIGEST in str(SUBJECT)
    assert binding_spec(name)["policyName"] == name
