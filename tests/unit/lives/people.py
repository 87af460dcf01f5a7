"""People who decide about adapters: Reviews that come, go and contradict each other, and a policy that is not always
there. What they come to is told here once more, by a simpler rule than the operator's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from trimtab_operator.domain.review.policies import SPECS, TAKES_EFFECT_SECONDS, Policy, binding_spec, policy_name
from trimtab_operator.domain.views import format_time, parse_time
from trimtab_operator.runtime.kube import OWN, POLICIES, POLICY_BINDINGS, Body

from tests.unit.domain.rollout.world import NAME, review, sha
from tests.unit.lives.faults import FaultyApi
from tests.unit.runtime.objects import NAMESPACE

RELEASE = "trimtab.test"
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)
AUTHORS = ("alice", "bob", "carol")
REVIEWED = "reviews"


class People:
    """`approved` are those who ever approved an adapter, by digest, while the policy held."""

    def __init__(self, api: FaultyApi, random: Random, now: Callable[[], datetime]) -> None:
        self._api = api
        self._random = random
        self._now = now
        self._made = 0
        self.approved: defaultdict[str, set[str]] = defaultdict(set)
        self._put_policy(LONG_AGO)

    def asks(self) -> dict[str, Any] | None:
        """Return what a rollout asks for."""
        if self._random.random() < 0.6:
            return None
        return {"required": self._random.choice((1, 1, 2)), "before": self._random.choice(("Canary", "Everywhere"))}

    def decide(self, letter: str) -> None:
        author, word = self._random.choice(AUTHORS), self._random.choice(("Approve", "Approve", "Reject", "Comment"))
        self._write(word, author, letter)

    def _write(self, word: str, author: str, letter: str) -> None:
        self._made += 1
        made = review(f"{author}-{self._made}", word, author, letter, created=self._now(), message="well")
        body = made.model_dump(mode="json", by_alias=True, exclude_none=True)
        body["metadata"] = {"name": body["metadata"]["name"], "namespace": NAMESPACE, "generation": 1}
        self._api.put(OWN["Review"], {"apiVersion": "trimtab.dev/v1alpha1", "kind": "Review", **body})
        if word == "Approve" and self._bound(self._now()):
            self.approved[sha(letter)].add(author)

    def delete_one(self) -> None:
        if found := [each["metadata"]["name"] for each in self._all()]:
            self._api.drop(OWN["Review"], NAMESPACE, self._random.choice(found))

    def the_policy_comes_or_goes(self) -> None:
        if self._since() is None:
            self._put_policy(self._now())
        else:
            del self._api.objects[POLICY_BINDINGS.plural, None, policy_name(RELEASE, Policy.REVIEWS)]

    def _put_policy(self, created: datetime) -> None:
        name = policy_name(RELEASE, Policy.REVIEWS)
        metadata = {"name": name, "creationTimestamp": format_time(created)}
        self._api.objects[POLICIES.plural, None, name] = {"metadata": metadata, "spec": dict(SPECS[Policy.REVIEWS])}
        self._api.objects[POLICY_BINDINGS.plural, None, name] = {"metadata": metadata, "spec": binding_spec(name)}

    def _since(self) -> datetime | None:
        body = self._api.objects.get((POLICY_BINDINGS.plural, None, policy_name(RELEASE, Policy.REVIEWS)))
        return parse_time(body["metadata"]["creationTimestamp"]) if body is not None else None

    def _bound(self, time: datetime) -> bool:
        since = self._since()
        return since is not None and time >= since + timedelta(seconds=TAKES_EFFECT_SECONDS)

    def _all(self) -> list[Body]:
        return [body for place, body in self._api.objects.items() if place[0] == REVIEWED]

    def agree(self, letters: str) -> None:
        """Have every adapter approved or rejected by all, after all that was said."""
        if not self._bound(self._now()):
            self._put_policy(LONG_AGO)
        for each in self._all():
            self._api.drop(OWN["Review"], NAMESPACE, each["metadata"]["name"])
        for letter in letters:
            word = self._random.choice(("Approve", "Approve", "Approve", "Reject"))
            for author in AUTHORS:
                self._write(word, author, letter)

    def reject(self, letter: str) -> bool:
        """Tell whether they all reject an adapter, after they agreed."""
        about = [each["spec"] for each in self._all() if each["spec"]["subject"]["digest"] == sha(letter)]
        return any(each["decision"] == "Reject" for each in about)

    def served_without(self, rollout: Body, before: Body | None) -> bool:
        """Tell whether an adapter has just become the served one, and never had the approvals that are asked for."""
        approvals = rollout["spec"].get("strategy", {}).get("approvals")
        served = rollout.get("status", {}).get("served", {}).get("digest")
        if approvals is None or served is None or rollout["metadata"]["name"] != NAME:
            return False
        if ((before or {}).get("status") or {}).get("served", {}).get("digest") == served:
            return False
        required: int = approvals["required"]
        return len(self.approved[served]) < required
