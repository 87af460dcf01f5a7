"""One life of an AdapterRollout: the real rounds and the real questions to agents, over an API server and a network
that go wrong, between pods that come, break and go, and users who change their minds; with an operator that dies
between any two writes, and Leases that count from the beginning.

Adapters: `a`, `b`, `e` and `f` are good, `c` fails its probe, `d` passes it and fails one request in two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from trimtab_agent.contract import Share
from trimtab_agent.documents import MountedDocument, read_share
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.views import format_time
from trimtab_operator.runtime.kube import OWN, PODS, ApiError, Body, Unreachable
from trimtab_operator.runtime.pods.agentpoller import NAMESPACE as SERVING_NAMESPACE
from trimtab_operator.runtime.pods.desired import DESIRED, orphans
from trimtab_operator.runtime.pods.signing import SigningKeys
from trimtab_operator.runtime.rounds.workqueue import Retry

from tests.unit.domain.rollout.world import NAME, Agent, Counted, artifact, evaluation, revision, sha
from tests.unit.lives.agents import AgentsInMemory, Network, Pod
from tests.unit.lives.faults import Died, Fate, FaultyApi
from tests.unit.lives.people import RELEASE, People
from tests.unit.lives.promises import NEWS_SECONDS, REFUSED, Promises
from tests.unit.lives.watches import deliver
from tests.unit.runtime.objects import NAMESPACE
from tests.unit.runtime.rounds import Rounds
from tests.unit.runtime.serving import serving_pod
from tests.unit.runtime.virtual_time import run

T0 = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
GOOD, WORSE = "abef", "d"
LETTERS = (*GOOD, REFUSED, WORSE)
PASSING = ("EngineFailed", False)
OF_THE_POD = ("VolumeNotShared", True)
RIVAL = "rival"
"""Another rollout that claims the same name: the younger of the two gets nothing."""
PODS_AT_MOST = 5
LOOK_SECONDS = 0.2
"""For what was sent to arrive, and agents to be heard."""


class Life:
    """Everything that happens follows from the seed; `keys` is the folder of the operator's keys."""

    def __init__(self, seed: int, keys: Path) -> None:
        self.random = Random(f"AdapterRollout {seed}")
        self.seed = seed
        self.keys = keys
        self.story: list[str] = []
        self.api = FaultyApi(self.random, self.now)
        self.operator: Rounds
        self.promises = Promises(self.api, self.now, self._pods_that_count, self.story)
        self.people = People(self.api, self.random, self.now)
        self.api.wrote = self._wrote
        self.network = Network([], self._take, self.promises.sent)
        self.due: dict[Key, float] = {}
        """Whom the operator is to look at, and when."""
        self.lease = 1
        self.started = 0
        self.following: asyncio.Task[None] | None = None

    def now(self) -> datetime:
        return T0 + timedelta(seconds=asyncio.get_running_loop().time())

    @property
    def pods(self) -> list[Pod]:
        return self.network.pods

    # the operator

    def a_new_operator(self) -> None:
        """Another one leads, and begins with a list."""
        self.story.append("a new operator")
        if self.following is not None:
            self.following.cancel()
        self.lease += 1
        self.due.clear()
        self.api.fate.left = -1  # what the one before has still to send is never sent
        self.api.fate = fate = Fate()
        ids = frozenset(key.id for key in SigningKeys(self.keys).all())
        self.operator = Rounds(
            self.now,
            api=self.api,
            keys=self.keys,
            agents=AgentsInMemory(self.network, fate, ids),
            lease_transitions=lambda: self.lease,
            tell=self._tell,
            policies=RELEASE,
            busy=self._others_wait,
        )
        self._hear(1.0)
        self.following = asyncio.create_task(self.operator.poller.run())

    def _others_wait(self, namespace: str) -> bool:
        """Tell whether rounds about others are about to come: for some seconds, and then not."""
        seconds = int(asyncio.get_running_loop().time() / 3)
        return Random(f"busy {self.seed} {seconds}").random() < 0.3

    def _wrote(self, before: Body | None, after: Body | None) -> None:
        self.promises.wrote(before, after)
        if after is not None and after["kind"] == "AdapterRollout":
            assert not self.people.served_without(after, before), (self.story, "served without its approvals")

    def _tell(self, key: Key) -> None:
        if key.kind != "Evaluation":  # those have lives of their own
            self.due[key] = asyncio.get_running_loop().time()

    def _hear(self, share: float) -> None:
        for key in deliver(self.operator, self.api, self.random, share, in_order=True):
            self._tell(key)

    async def _look_for_orphans(self) -> None:
        with suppress(ApiError, Unreachable, Died):  # as in any round: the next look finds them
            for key in await orphans(self.operator.cache, self.operator.desired):
                self._tell(key)

    async def operate(self, rounds: int) -> None:
        """Let the operator do rounds about those who are to be looked at, as long as it lives."""
        for _ in range(rounds):
            now = asyncio.get_running_loop().time()
            ready = sorted((at, key) for key, at in self.due.items() if at <= now)
            if not ready:
                return
            key = ready[0][1]
            del self.due[key]
            try:
                again = await self._round(key)
            except (ApiError, Unreachable, Retry) as error:
                self.story.append(f"  {type(error).__name__} {error}")
                again = 1.0
            except Died:
                self.story.append("  died")
            if self.api.fate.dead:
                self.a_new_operator()
                await self._look_for_orphans()
                return
            if again is not None:
                self.due.setdefault(key, asyncio.get_running_loop().time() + again)

    async def _round(self, key: Key) -> float | None:
        if key.kind == SERVING_NAMESPACE:
            return await self.operator.desired.publish_keys(key.namespace)
        return await self.operator.round(key)

    # the cluster and its pods

    def _rollout(self, name: str = NAME) -> Body | None:
        return self.promises.rollout(name)

    def _make(self, name: str) -> None:
        strategy: dict[str, Any] = {
            "canarySeconds": self.random.choice((0, 20, 20)),
            "maxPodsAtOnce": self.random.choice((0, 0, 1, 2)),
            "drainSeconds": self.random.choice((5, 20)),
        }
        if strategy["canarySeconds"]:
            strategy |= {"canaryWeight": self.random.choice((100, 30)), "canaryPods": self.random.choice((1, 1, 2))}
        if name == NAME and (approvals := self.people.asks()) is not None:
            strategy["approvals"] = approvals
        self.api.put(
            OWN["AdapterRollout"],
            {
                "apiVersion": "trimtab.dev/v1alpha1",
                "kind": "AdapterRollout",
                "metadata": {"namespace": NAMESPACE, "name": name, "generation": 1},
                "spec": {
                    "adapterName": NAME,
                    "source": {"artifact": artifact("a")},
                    "serving": {"selector": {"matchLabels": {"app": "vllm"}}},
                    "strategy": strategy,
                },
                "status": {},
            },
        )

    def _edit(self, name: str = NAME, **spec: Any) -> None:
        found = self._rollout(name)
        if found is not None:
            metadata = {**found["metadata"], "generation": found["metadata"]["generation"] + 1}
            self.api.put(OWN["AdapterRollout"], {**found, "metadata": metadata, "spec": {**found["spec"], **spec}})

    def _take(self, pod: Pod, share: Share, *, mounted: bool = False) -> None:
        before = dict(pod.agent.table.get(NAME, {}))
        pod.agent.take(share, mounted=mounted)
        self.promises.took(pod, share, before)
        pod.look()

    def _pods_that_count(self) -> list[Pod]:
        views = self.operator.cache.pods_of(NAMESPACE, {"app": "vllm"})
        known = {view.uid for view in views if not view.deleting}
        return [pod for pod in self.pods if pod.agent.uid in known]

    def _show(self, pod: Pod, **metadata: Any) -> None:
        """Have the API server say of a pod what is so."""
        body = serving_pod(pod.agent.name, ip=pod.ip)
        body["metadata"] |= metadata
        body["metadata"]["labels"]["app"] = "vllm" if pod.selected else "other"
        ready = "True" if pod.agent.engine_up else "False"
        self.api.put(PODS, {**body, "status": {**body["status"], "conditions": [{"type": "Ready", "status": ready}]}})

    def _one(self) -> Pod:
        return self.random.choice(self.pods)

    def _all_look(self) -> None:
        for pod in self.pods:
            self.promises.looked_at(pod)
            pod.look()

    def a_pod_starts(self) -> None:
        """It takes the mounted documents first."""
        if len(self.pods) == PODS_AT_MOST:
            return
        self.started += 1
        name = f"pod-{self.started}"
        agent = Agent(name)
        agent.fails[sha(REFUSED)] = ("ProbeFailed", True)
        pod = Pod(agent, f"10.0.0.{self.started}", Random(f"{name} {self.seed}"))
        pod.takes_several = Random(f"version of {name} {self.seed}").random() < 0.7
        self.pods.append(pod)
        self._show(pod)
        self._read_the_mounted_documents(pod)

    def _read_the_mounted_documents(self, pod: Pod) -> None:
        found = self.api.objects.get(("configmaps", NAMESPACE, DESIRED), {"data": {}})
        shares = [read_share(MountedDocument.read(text.encode()).body) for text in found["data"].values()]
        for share in sorted(shares, key=lambda each: each.sequence):
            if pod.selected:
                self._take(pod, share, mounted=True)

    def the_kubelet_brings_what_is_mounted(self) -> None:
        self._read_the_mounted_documents(self._one())

    def a_pod_is_deleted(self) -> None:
        if len(self.pods) > 1:
            pod = self._one()
            self._show(pod, deletionTimestamp=format_time(self.now()))
            if self.random.random() < 0.7:
                self.pods.remove(pod)
                self.api.drop(PODS, NAMESPACE, pod.agent.name)

    def a_pod_changes_its_labels(self) -> None:
        if self.random.random() < 0.3:
            pod = self._one()
            pod.selected, pod.was_left_out = not pod.selected, True
            self._show(pod)

    def agents_make_a_round(self) -> None:
        for pod in self.pods:
            if self.random.random() < 0.8:
                pod.agent.step()

    def an_agent_is_silent_or_back(self) -> None:
        pod = self._one()
        pod.agent.up = not pod.agent.up

    def a_pod_is_mute_or_speaks(self) -> None:
        pod = self._one()
        pod.mute = not pod.mute

    def an_engine_is_killed_or_back(self) -> None:
        agent = self._one().agent
        if agent.engine_up:
            agent.engine_restarts()
        agent.engine_up = not agent.engine_up

    def an_engine_restarts_at_once(self) -> None:
        self._one().agent.engine_restarts()

    def a_pod_cannot_load_or_can_again(self) -> None:
        agent, letter = self._one().agent, self.random.choice(GOOD)
        agent.fails.pop(sha(letter), None)
        why = self.random.choice((None, PASSING, OF_THE_POD))
        if why is not None:
            agent.fails[sha(letter)] = why

    def an_engine_lies_or_is_honest(self) -> None:
        self._one().agent.lies ^= {revision(self.random.choice(GOOD))}

    def a_pod_hangs_or_goes_on(self) -> None:
        self._one().agent.hangs ^= True

    def what_was_on_its_way_arrives(self) -> None:
        self.network.arrive()

    # users

    def the_user_wants_another(self) -> None:
        self._edit(source={"artifact": artifact(self.random.choice(LETTERS))})

    def the_user_names_an_evaluation(self) -> None:
        self._edit(source={"evaluationName": self.random.choice("xy")})

    def an_evaluation_has_a_verdict(self) -> None:
        name, letter = self.random.choice("xy"), self.random.choice(LETTERS)
        baseline = self.random.choice((None, *(each for each in GOOD if each != letter)))
        verdict = self.random.choice(("True", "True", "True", "False", "Unknown"))
        made = evaluation(name, letter, verdict, baseline=baseline)
        body = made.model_dump(mode="json", by_alias=True, exclude_none=True)
        del body["metadata"]["uid"]  # each is another one
        head = {"apiVersion": "trimtab.dev/v1alpha1", "kind": "Evaluation"}
        self.api.put(OWN["Evaluation"], {**head, **body})

    def an_evaluation_is_deleted(self) -> None:
        name = self.random.choice("xy")
        if ("evaluations", NAMESPACE, name) in self.api.objects:
            self.api.drop(OWN["Evaluation"], NAMESPACE, name)

    def people_decide(self) -> None:
        self.people.decide(self.random.choice(LETTERS))

    def a_review_is_deleted(self) -> None:
        self.people.delete_one()

    def the_policy_comes_or_goes(self) -> None:
        self.people.the_policy_comes_or_goes()

    def the_user_asks_others(self) -> None:
        if (found := self._rollout()) is not None:
            strategy = {key: value for key, value in found["spec"]["strategy"].items() if key != "approvals"}
            approvals = self.people.asks()
            self._edit(strategy={**strategy, **({"approvals": approvals} if approvals is not None else {})})

    def the_user_pauses_or_goes_on(self) -> None:
        if (found := self._rollout()) is not None:
            self._edit(paused=not found["spec"].get("paused", False))

    def the_rollout_is_deleted_or_made_anew(self) -> None:
        if self._rollout() is None:
            self._make(NAME)
        elif self.random.random() < 0.3:
            self._delete(NAME)

    def _delete(self, name: str) -> None:
        self.api.drop(OWN["AdapterRollout"], NAMESPACE, name)
        self.promises.gone_at[name] = self.now()

    def another_claims_the_name(self) -> None:
        if self._rollout(RIVAL) is not None:
            self._delete(RIVAL)
        elif self.random.random() < 0.3:
            self._make(RIVAL)

    # the operator's surroundings

    def the_operator_dies(self) -> None:
        self.a_new_operator()

    def the_lease_is_made_anew(self) -> None:
        """It counts from one."""
        self.lease = 0
        self.a_new_operator()

    def requests_come(self) -> None:
        for pod in self.pods:
            for name, weight in pod.agent.table.get(NAME, {}).items():
                if weight:
                    answers = 15 if name == revision(WORSE) else 30
                    pod.agent.counts.setdefault(name, Counted()).requests(answers, 30 - answers)

    async def time_goes_by(self, seconds: float) -> None:
        self._all_look()
        await asyncio.sleep(seconds)
        self._all_look()

    # the whole

    async def live(self, steps: int) -> None:
        """Live for some steps, then in peace: all is repaired, and it comes to rest."""
        for _ in range(self.random.randint(1, 3)):
            self.a_pod_starts()
        self._make(NAME)
        self.a_new_operator()
        happenings: tuple[Callable[[], None], ...] = (
            self.a_pod_starts,
            self.the_kubelet_brings_what_is_mounted,
            self.a_pod_is_deleted,
            self.a_pod_changes_its_labels,
            self.an_agent_is_silent_or_back,
            self.a_pod_is_mute_or_speaks,
            self.an_engine_is_killed_or_back,
            self.an_engine_restarts_at_once,
            self.a_pod_cannot_load_or_can_again,
            self.an_engine_lies_or_is_honest,
            self.a_pod_hangs_or_goes_on,
            self.what_was_on_its_way_arrives,
            self.the_user_wants_another,
            self.the_user_wants_another,
            self.the_user_names_an_evaluation,
            self.an_evaluation_has_a_verdict,
            self.an_evaluation_is_deleted,
            self.the_user_pauses_or_goes_on,
            self.people_decide,
            self.people_decide,
            self.people_decide,
            self.a_review_is_deleted,
            self.the_policy_comes_or_goes,
            self.the_user_asks_others,
            self.the_rollout_is_deleted_or_made_anew,
            self.another_claims_the_name,
            self.the_operator_dies,
            self.the_lease_is_made_anew,
        )
        for _ in range(steps):
            self.api.faults = self.network.faults = 0.0
            if self.random.random() < 0.5:
                await self.all_goes_well(self.random.randint(1, 8))
            happening = self.random.choice(happenings)
            self.story.append(happening.__name__)
            happening()
            self._all_look()
            self._hear(self.random.choice((0.0, 0.5, 1.0)))
            self.api.faults = self.random.choice((0.0, 0.0, 0.3))
            self.network.faults = self.random.choice((0.0, 0.0, 0.3))
            self.api.fate.left = self.random.choice((None, None, None, 0, 1, 2, 3))
            await self.operate(self.random.choice((1, 2, 6)))
            self.api.fate.left = None
            await self.time_goes_by(self.random.choice((LOOK_SECONDS, LOOK_SECONDS, 3.0, 30.0)))
        self.api.faults = self.network.faults = 0.0
        await self._rest()

    async def all_goes_well(self, rounds: int) -> None:
        self.story.append(f"all goes well for {rounds} rounds")
        self._hear(1.0)
        for _ in range(rounds):
            self.agents_make_a_round()
            self.requests_come()
            await self.time_goes_by(self.random.choice((LOOK_SECONDS, 1.0, 5.0)))
            await self.operate(4)

    def _peace(self) -> None:
        """All that is broken is repaired, and nobody changes anything any more."""
        self.story.append("peace")
        for pod in self.pods:
            agent = pod.agent
            agent.up = agent.engine_up = True
            agent.hangs = pod.mute = False
            agent.lies.clear()
            agent.fails = {sha(REFUSED): ("ProbeFailed", True)}
            self._show(pod)
        self.network.arrive()
        self.people.agree("".join(LETTERS))
        for name in (NAME, RIVAL):
            if (found := self._rollout(name)) is not None and found["spec"].get("paused"):
                self._edit(name, paused=False)

    async def _rest(self) -> None:
        self._peace()
        await self._look_for_orphans()
        quiet, done = asyncio.get_running_loop().time(), self._done()
        for _ in range(150):
            await self._in_peace()
            now = asyncio.get_running_loop().time()
            if done != self._done() or self._wrong():
                quiet, done = now, self._done()
            if now - quiet > NEWS_SECONDS:
                break
        assert not self._wrong(), (self.story, self._wrong(), self._rollout())
        for _ in range(4):
            await self._in_peace(40)
        at_rest = [call for call in self.api.writes()[done[0] :] if call[1] != "events"]
        assert (at_rest, self._done()[1]) == ([], done[1]), (self.story, "at rest nothing is written or sent", at_rest)
        assert not self._wrong(), (self.story, self._wrong())

    def _done(self) -> tuple[int, int]:
        """Return how much was written and sent."""
        return len(self.api.writes()), self.network.documents

    async def _in_peace(self, most: float = 20) -> None:
        self._hear(1.0)
        for pod in self.pods:
            pod.agent.step()
        self.requests_come()
        self._all_look()
        await self.operate(20)
        now = asyncio.get_running_loop().time()
        until = min(self.due.values(), default=now + most)
        await self.time_goes_by(min(most, max(LOOK_SECONDS, until - now)))

    # what is right when nothing happens any more

    def _wrong(self) -> str | None:
        """Return what is not as it has to be at last."""
        claim = [each for each in (self._rollout(), self._rollout(RIVAL)) if each is not None]
        claim.sort(key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["uid"]))
        serving = claim[0] if claim else None
        if any(_ready(each)[1] != "AdapterNameConflict" for each in claim[1:]):
            return "the younger has no conflict"
        if serving is None:
            held = [
                pod.agent.name for pod in self.pods if any(not share.retired for share in pod.agent.shares.values())
            ]
            return f"gone, and held: {held}" if held else self._mounted(None)
        return self._serves(serving) or self._mounted(serving)

    def _mounted(self, serving: Body | None) -> str | None:
        data = self.api.objects.get(("configmaps", NAMESPACE, DESIRED), {"data": {}})["data"]
        name = serving["metadata"]["name"] if serving is not None and serving["status"].get("served") else None
        return None if set(data) == ({f"{name}.json"} if name else set()) else f"mounted: {set(data)}"

    def _serves(self, rollout: Body) -> str | None:
        selected = [pod for pod in self.pods if pod.selected and not self._is_leaving(pod)]
        served, state = rollout["status"].get("served"), _ready(rollout)
        letter = served["digest"][7] if served else None
        wanted = {revision(letter): 100} if letter else {}
        wrong = [pod.agent.name for pod in selected if pod.agent.table.get(NAME, {}) != wanted]
        if served is None and state[1] == "Rejected":
            wrong = []  # what a rollout of the name before served is served on, as long as nothing takes its place
        if wrong:
            return f"{wrong} do not answer with {wanted}"
        shares = [share for pod in selected for share in pod.agent.shares.values()]
        if any(each.name == revision(REFUSED) for share in shares for each in share.revisions):
            return "held, and refused"
        if any(_holds_anything(pod) for pod in self.pods if not pod.selected and not self._is_leaving(pod)):
            return "held by a pod that is not selected"
        right = self._right_states(rollout, letter, some=bool(selected))
        return None if state in right else f"{state} is none of {right}"

    def _is_leaving(self, pod: Pod) -> bool:
        return "deletionTimestamp" in self.api.objects["pods", NAMESPACE, pod.agent.name]["metadata"]

    def _right_states(self, rollout: Body, served: str | None, *, some: bool) -> set[tuple[str, str]]:
        """Return what Ready may say, given the letter of what is served and whether there is `some` pod."""
        source, generation = rollout["spec"]["source"], rollout["metadata"]["generation"]
        serving = ("True", "Serving") if some else ("False", "NoPods")
        taken = {serving} if served and rollout["status"]["served"]["generation"] == generation else set()
        if "artifact" in source:
            return self._states_of(rollout, source["artifact"]["digest"][7], served, serving, some=some)
        found = self.api.objects.get(("evaluations", NAMESPACE, source["evaluationName"]))
        if found is None:
            return {("False", "EvaluationNotFound")} | taken
        passed = found["status"]["conditions"][0]["status"]
        if passed == "Unknown":
            return {("False", "WaitingForSource")} | taken
        if passed == "False":
            return {("False", "EvaluationNotPassed")}
        baseline = found["status"].get("baseline", {}).get("digest")
        states = self._states_of(rollout, found["status"]["target"]["digest"][7], served, serving, some=some)
        return states | ({("False", "BaselineChanged")} if baseline not in (None, sha(served or "")) else set())

    def _states_of(
        self, rollout: Body, letter: str, served: str | None, serving: tuple[str, str], *, some: bool
    ) -> set[tuple[str, str]]:
        if served == letter:
            return {serving}
        if "approvals" in rollout["spec"]["strategy"] and self.people.reject(letter):
            return {("False", "Rejected"), ("False", "RolledBack")}
        if not some:
            return {("False", "NoPods"), ("False", "RolledBack")}
        return set() if letter in GOOD else {("False", "RolledBack")}


def _holds_anything(pod: Pod) -> bool:
    return any(not share.retired for share in pod.agent.shares.values())


def _ready(rollout: Body) -> tuple[str, str]:
    conditions = rollout["status"].get("conditions", ())
    return next(((each["status"], each["reason"]) for each in conditions if each["type"] == "Ready"), ("", ""))


def live(seed: int, steps: int, keys: Path) -> None:
    """Play one life."""
    run(Life(seed, keys).live(steps))
