"""What must hold of AdapterRollouts and their pods, whatever goes wrong, after every write and every document."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from trimtab_agent.contract import Share
from trimtab_agent.documents import MountedDocument, read_share
from trimtab_operator.api.adapterrollout import AdapterRolloutStatus, Phase
from trimtab_operator.runtime.kube import Body
from trimtab_operator.runtime.pods.agentpoller import LONGEST_PAUSE, REST_SECONDS, SILENCE_SECONDS
from trimtab_operator.runtime.pods.agents import ANSWER_SECONDS
from trimtab_operator.runtime.pods.desired import DESIRED
from trimtab_operator.runtime.pods.outbox import HELD_SECONDS

from tests.unit.domain.rollout.world import NAME, explained, revision, sha
from tests.unit.lives.agents import Pod
from tests.unit.lives.faults import FaultyApi
from tests.unit.runtime.objects import NAMESPACE

GONE_SECONDS = HELD_SECONDS + 1.0
"""So old may a document be when it is sent."""
REFUSED = "c"
"""The adapter that no engine proves."""
NEWS_SECONDS = REST_SECONDS + ANSWER_SECONDS + SILENCE_SECONDS + LONGEST_PAUSE + ANSWER_SECONDS
"""So old may a truth be that is believed: a question is open for as long as nothing changes and its answer may take;
who is silent then is believed for a while more, until the next question after a pause has no answer either."""


class Promises:
    """`api` and `now` are those of the life, `pods` returns the pods that its operator knows of."""

    def __init__(
        self, api: FaultyApi, now: Callable[[], datetime], pods: Callable[[], list[Pod]], story: list[str]
    ) -> None:
        self._api = api
        self._now = now
        self._pods = pods
        self._story = story
        self._rejected: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
        """By uid of the rollout: digest and generation."""
        self._answered: dict[tuple[str, str], datetime] = {}
        """When the alias of a pod, by uid, answered with one revision alone that is proven there."""
        self.gone_at: dict[str, datetime] = {}
        """When rollouts were deleted, by name."""

    def rollout(self, name: str) -> Body | None:
        return self._api.objects.get(("adapterrollouts", NAMESPACE, name))

    # objects

    def wrote(self, before: Body | None, after: Body | None) -> None:
        if after is None:
            return
        if after["kind"] == "AdapterRollout" and after.get("status") != (before or {}).get("status"):
            status = AdapterRolloutStatus.model_validate(after["status"])
            explained(status)
            self._what_was_rejected_is_not_tried_again(after, status)
            self._ready_is_what_every_pod_answers(status)
            assert status.served is None or status.served.digest != sha(REFUSED), self._story
        if after["kind"] == "ConfigMap" and after["metadata"]["name"] == DESIRED:
            old = before["data"] if before is not None else {}
            for file, text in after["data"].items():
                if old.get(file) != text:
                    self._new_pods_start_from_what_is_served(read_share(MountedDocument.read(text.encode()).body))

    def _what_was_rejected_is_not_tried_again(self, after: Body, status: AdapterRolloutStatus) -> None:
        rejected = self._rejected[after["metadata"]["uid"]]
        rejected |= {(each.digest, each.generation) for each in status.rejected}
        if status.step is not None and status.step.phase is not Phase.DRAINING:
            assert (status.step.digest, after["metadata"]["generation"]) not in rejected, self._story

    def _ready_is_what_every_pod_answers(self, status: AdapterRolloutStatus) -> None:
        ready = next((each for each in status.conditions if each.type == "Ready"), None)
        if ready is None or ready.status != "True":
            return
        assert status.served is not None, self._story
        name = revision(status.served.digest[7])
        for pod in self._pods():
            found = self._answered.get((pod.agent.uid, name))
            lately = found is not None and self._now() - found < timedelta(seconds=NEWS_SECONDS)
            assert lately, (self._story, pod.agent.name, name, found, self._now())

    def _new_pods_start_from_what_is_served(self, share: Share) -> None:
        found = self.rollout(share.rollout)
        if found is None or found["metadata"]["uid"] != share.uid:
            return
        status = found["status"]
        assert share.aliases == {NAME: {revision(status["served"]["digest"][7]): 100}}, self._story
        assert list(share.sequence) == status["sequence"], self._story

    # documents

    def sent(self, pod: Pod, share: Share) -> None:
        """Look at a document before it is on its way."""
        found = self.rollout(share.rollout)
        mine = found is not None and found["metadata"]["uid"] == share.uid
        if share.retired:
            assert not mine or pod.was_left_out, (self._story, "retired, and it exists")
        else:
            gone = self.gone_at.get(share.rollout)
            just_now = gone is not None and self._now() - gone < timedelta(seconds=GONE_SECONDS)
            assert mine or just_now, (self._story, "of a rollout that is gone")
            written = found["status"].get("sequence") if found is not None and mine else list(share.sequence)
            # One that waited for others is still wanted, whatever was decided and written since.
            assert list(share.sequence) <= (written or []), (self._story, "not written down before")
            self._proven_where_requests_move(pod, share)
        before = pod.sent.get(share.uid)
        # Of a rollout that is gone nothing remembers a document that no pod took; the next one says the same.
        again = before is not None and before.retired and share.retired
        assert before is None or before.sequence < share.sequence or again, (self._story, "not above the one before")
        pod.sent[share.uid] = share

    def _proven_where_requests_move(self, pod: Pod, share: Share) -> None:
        for alias, weights in share.aliases.items():
            now = pod.agent.table.get(alias)
            if now and now != weights:
                unproven = [name for name, weight in weights.items() if weight and not pod.agent.serves(name)]
                assert not unproven, (self._story, pod.agent.name, unproven)

    def took(self, pod: Pod, share: Share, before: Mapping[str, int]) -> None:
        """Look at a pod that has taken a document, or refused it; `before` is where its alias pointed."""
        agent = pod.agent
        assert len(share.revisions) <= 3, self._story
        assert agent.held_at_most <= 3, self._story
        self.looked_at(pod)
        if before and not agent.table.get(NAME):
            found = self.rollout(share.rollout)
            gone = found is None or found["metadata"]["uid"] != share.uid
            assert share.retired, (self._story, agent.name, "an alias taken away")
            assert gone or pod.was_left_out, (self._story, agent.name, "an alias taken away, and its rollout exists")

    def looked_at(self, pod: Pod) -> None:
        """Note what is true of a pod now."""
        alias = {name: weight for name, weight in pod.agent.table.get(NAME, {}).items() if weight}
        assert revision(REFUSED) not in alias, self._story
        if len(alias) == 1 and pod.agent.up and pod.agent.serves(name := next(iter(alias))):
            self._answered[pod.agent.uid, name] = self._now()
