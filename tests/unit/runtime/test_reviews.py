"""Reviews and policies in rounds: what is read, how often, what a Review's status says, and whom a decision wakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.review.policies import SPECS, Force, Policy, binding_spec, force_of, policy_name
from trimtab_operator.runtime.cluster.cache import slim
from trimtab_operator.runtime.kube import POLICIES, POLICY_BINDINGS, ApiError, Body
from trimtab_operator.runtime.rounds.policies import KNOWN_SECONDS, Policies

from tests.resources import ADAPTERROLLOUTS, REVIEWS
from tests.unit.runtime.fake_api import FakeApi, failing
from tests.unit.runtime.objects import NAMESPACE
from tests.unit.runtime.rounds import Rounds
from tests.unit.runtime.serving import LETTERS, rollout
from tests.unit.runtime.virtual_time import run

RELEASE = "trimtab.system"
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
KEY = Key("Review", NAMESPACE, "one")


def put_policy(api: FakeApi, policy: Policy = Policy.REVIEWS, created: str = "2026-01-05T10:00:00Z") -> None:
    name = policy_name(RELEASE, policy)
    metadata = {"name": name, "creationTimestamp": created}
    api.objects[POLICIES.plural, None, name] = {"metadata": metadata, "spec": dict(SPECS[policy])}
    api.objects[POLICY_BINDINGS.plural, None, name] = {"metadata": metadata, "spec": binding_spec(name)}


def review(decision: str = "Approve", created: str = "2026-01-05T11:00:00Z", **spec: Any) -> Body:
    subject = {"kind": "AdapterRollout", "name": "guide", "digest": LETTERS["b"]}
    given = {"subject": subject, "decision": decision, "author": "alice", "message": "well", **spec}
    metadata = {"namespace": NAMESPACE, "name": "one", "uid": "rev-1", "generation": 1, "creationTimestamp": created}
    return {"apiVersion": "trimtab.dev/v1alpha1", "kind": "Review", "metadata": metadata, "spec": given}


def rounds(**options: Any) -> Rounds:
    return Rounds(lambda: NOW, policies=RELEASE, **options)


def played(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run(test())


def store(operator: Rounds, body: Body) -> None:
    operator.cache.owners["Review"].put(operator.api.put(REVIEWS, body))


def recorded(operator: Rounds) -> tuple[str, str, str]:
    (found,) = operator.api.objects["reviews", NAMESPACE, "one"]["status"]["conditions"]
    assert found["type"] == "Recorded"
    return found["status"], found["reason"], found["message"]


@pytest.mark.parametrize(
    ("decision", "reason"), [("Approve", "Approved"), ("Reject", "Rejected"), ("Comment", "Commented")]
)
def test_a_review_says_as_what_it_counts_once(decision: str, reason: str) -> None:
    async def test() -> None:
        operator = rounds()
        put_policy(operator.api)
        store(operator, review(decision))
        assert await operator.round(KEY) is None
        status, found, message = recorded(operator)
        assert (status, found) == ("True", reason)
        assert LETTERS["b"] in message
        writes = len(operator.api.writes())
        await operator.round(KEY)
        assert len(operator.api.writes()) == writes

    played(test)


@pytest.mark.parametrize("why", ["older", "the first seconds", "no policy", "weaker", "forbidden", "not told of any"])
def test_a_review_whose_author_is_not_certain_says_that_it_counts_for_nothing(why: str) -> None:
    async def test() -> None:
        operator = Rounds(lambda: NOW, policies="" if why == "not told of any" else RELEASE)
        created = {"older": "2026-01-05T09:59:59Z", "the first seconds": "2026-01-05T10:00:09Z"}
        if why != "no policy":
            put_policy(operator.api)
        if why == "weaker":
            name = policy_name(RELEASE, Policy.REVIEWS)
            operator.api.objects[POLICIES.plural, None, name]["spec"] |= {"failurePolicy": "Ignore"}
        if why == "forbidden":
            operator.api.before = failing("get", POLICIES.plural, ApiError(403, "Forbidden", "no"))
        store(operator, review(created=created.get(why, "2026-01-05T11:00:00Z")))
        assert await operator.round(KEY) == 300, "it is looked at again"
        status, reason, message = recorded(operator)
        assert (status, reason) == ("False", "AuthorNotBound")
        assert message.startswith("it counts for nothing: ")

    played(test)


def test_policies_are_read_again_after_some_seconds_and_a_failure_is_no_answer() -> None:
    async def test() -> None:
        api = FakeApi()
        put_policy(api)
        policies = Policies(api, RELEASE)
        assert (await policies.force(Policy.REVIEWS)).since == datetime(2026, 1, 5, 10, 0, 10, tzinfo=UTC)
        assert len(api.calls) == 2
        await policies.force(Policy.REVIEWS)
        assert len(api.calls) == 2
        del api.objects[POLICY_BINDINGS.plural, None, policy_name(RELEASE, Policy.REVIEWS)]
        await asyncio.sleep(KNOWN_SECONDS)
        assert "there is no ValidatingAdmissionPolicyBinding" in (await policies.force(Policy.REVIEWS)).why
        await asyncio.sleep(KNOWN_SECONDS)
        api.before = failing("get", POLICIES.plural, ApiError(500, "InternalError", "etcd"))
        with pytest.raises(ApiError):
            await policies.force(Policy.REVIEWS)
        api.before = lambda verb, plural, name: None
        put_policy(api, Policy.AUTHORS)
        assert (await policies.force(Policy.AUTHORS)).since is not None

    played(test)


def test_a_policy_that_refuses_more_is_still_one() -> None:
    name, spec = policy_name(RELEASE, Policy.REVIEWS), SPECS[Policy.REVIEWS]
    metadata = {"creationTimestamp": "2026-01-05T10:00:00Z"}
    more = {**spec, "validations": [*spec["validations"], {"expression": "false"}], "laterField": 1}
    binding = {"metadata": metadata, "spec": {**binding_spec(name), "validationActions": ["Deny", "Audit"]}}
    assert force_of(Policy.REVIEWS, name, {"metadata": metadata, "spec": more}, binding).since is not None
    without = {"metadata": {}, "spec": spec}
    assert force_of(Policy.REVIEWS, name, without, binding) == Force(
        why=f"ValidatingAdmissionPolicy {name} has no time of creation"
    )


@pytest.mark.parametrize(
    ("asks", "body", "woken"),
    [
        (True, review("Approve"), True),
        (True, review("Reject"), True),
        (True, review("Comment"), False),
        (False, review("Approve"), False),
        (True, review("Approve", subject={"kind": "Evaluation", "name": "guide", "digest": LETTERS["b"]}), False),
    ],
    ids=["approval", "rejection", "comment", "nobody is asked", "of an Evaluation"],
)
def test_a_decision_wakes_the_rollout_that_asks_for_it_when_it_comes_and_when_it_goes(
    asks: bool, body: Body, woken: bool
) -> None:
    async def test() -> None:
        operator = rounds()
        asking = rollout("b")
        if asks:
            asking["spec"]["strategy"]["approvals"] = {"required": 1}
        operator.cache.owners["AdapterRollout"].put(operator.api.put(ADAPTERROLLOUTS, asking))
        operator.told.clear()
        store(operator, body)
        wanted = [Key("AdapterRollout", NAMESPACE, "guide")] if woken else []
        assert operator.told == wanted
        operator.told.clear()
        operator.cache.owners["Review"].remove("rev-1")
        assert operator.told == wanted

    played(test)


def test_who_made_a_job_is_kept_however_many_annotations_there_are() -> None:
    queue = {f"kueue.x-k8s.io/a-{number}": "x" for number in range(200)}
    annotations = {**queue, "trimtab.dev/author": "alice", "note": "x" * 100_000}
    metadata = {"namespace": "n", "name": "j", "uid": "u", "annotations": annotations}
    kept = slim({"metadata": metadata, "spec": {}})["metadata"]["annotations"]
    assert kept["trimtab.dev/author"] == "alice"
    assert len(kept) <= 64
    assert "note" not in kept


def test_a_review_of_a_later_version_says_so_and_counts_for_nothing() -> None:
    async def test() -> None:
        operator = rounds()
        put_policy(operator.api)
        store(operator, review("Abstain"))
        await operator.round(KEY)
        assert recorded(operator)[:2] == ("Unknown", "NotUnderstood")

    played(test)
