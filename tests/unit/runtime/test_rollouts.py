"""Rounds about AdapterRollouts, with agents that check every token: order, confirmation, retiring, refusals, keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from trimtab_operator.domain.cluster import Key
from trimtab_operator.runtime.kube import ApiError, Body
from trimtab_operator.runtime.pods.agentpoller import NAMESPACE as SERVING_NAMESPACE
from trimtab_operator.runtime.pods.desired import AGENT_KEYS, DESIRED, Desired, orphans
from trimtab_operator.runtime.rounds.workqueue import Retry

from tests.resources import ADAPTERROLLOUTS, EVALUATIONS
from tests.tasks import cancelled
from tests.unit.runtime.fake_api import failing
from tests.unit.runtime.objects import NAMESPACE
from tests.unit.runtime.rounds import Rounds
from tests.unit.runtime.serving import LETTERS, FakeAgent, new_key, rollout, serving_pod

KEY = Key("AdapterRollout", NAMESPACE, "guide")


class World:
    """One agent on a real port, and the operator's parts around an API server in memory."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.now = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
        self.folder = folder / "keys"
        self.may_send = True
        self.busy = False
        self.transitions = 3
        rounds = Rounds(
            lambda: self.now,
            keys=self.folder,
            session=session,
            may_send=lambda: self.may_send,
            lease_transitions=lambda: self.transitions,
            busy=lambda _: self.busy,
        )
        self.api, self.cache, self.told = rounds.api, rounds.cache, rounds.told
        self.signing, self.desired, self.poller = rounds.signing, rounds.desired, rounds.poller
        self.reconciler = rounds.reconciler
        self.agent: FakeAgent

    async def start(self) -> None:
        self.agent = FakeAgent("uid-of-vllm-1", self.signing)
        await self.agent.start()
        self.polling = asyncio.create_task(self.poller.run())

    async def stop(self) -> None:
        await cancelled(self.polling)
        await self.agent.stop()

    def store(self, body: Body) -> None:
        self.cache.owners["AdapterRollout"].put(self.api.put(ADAPTERROLLOUTS, body))

    async def pod(self, **changes: Any) -> None:
        """Let a pod come, and the operator hear of its agent."""
        self.cache.serving.put(serving_pod(**changes))
        view = next(iter(self.cache.serving.of_parent(NAMESPACE)))
        await until(lambda: self.poller.pod(view, "guide").truth is not None)

    async def rounds(self, count: int = 6) -> None:
        """Let time go by; between two rounds the agent is heard once more."""
        await self.desired.publish_keys(NAMESPACE)
        for _ in range(count):
            self.now += timedelta(seconds=1)
            await self.reconciler.reconcile(KEY)
            await self._heard_again()

    async def _heard_again(self) -> None:
        heard = self.agent.asked + 1
        await until(lambda: self.agent.asked > heard)

    @property
    def status(self) -> Body:
        found: Body = self.api.objects["adapterrollouts", NAMESPACE, "guide"]["status"]
        return found

    def ready(self) -> tuple[str, str]:
        return self.condition("Ready")

    def condition(self, kind: str) -> tuple[str, str]:
        found = next(c for c in self.status["conditions"] if c["type"] == kind)
        return found["status"], found["reason"]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def living(folder: Path) -> AsyncIterator[World]:
    async with aiohttp.ClientSession() as session:
        world = World(folder, session)
        await world.start()
        try:
            yield world
        finally:
            await world.stop()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    new_key(tmp_path / "keys", "key-1.pem")
    async with living(tmp_path) as world:
        yield world


async def test_an_adapter_gets_to_its_pod_and_the_alias_follows(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    await world.rounds()
    assert world.ready() == ("True", "Serving")
    held = world.agent.shares["guide"]
    assert held.aliases == {"guide": {"guide@aaaaaaaa": 100}}
    assert held.sequence[0] == 3
    assert set(world.api.objects["configmaps", NAMESPACE, DESIRED]["data"]) == {"guide.json"}
    assert set(world.api.objects["configmaps", NAMESPACE, AGENT_KEYS]["data"]) == set(world.signing.public_pems())


async def test_at_rest_nothing_is_written_or_sent(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    await world.rounds()
    writes, documents = len(world.api.writes()), len(world.agent.documents)
    await world.rounds(3)
    assert (len(world.api.writes()), len(world.agent.documents)) == (writes, documents)


async def test_nothing_is_sent_before_the_status_is_written(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    world.api.before = failing("patch", "adapterrollouts", ApiError(500, "InternalError", "down"))
    with pytest.raises(ApiError):
        await world.reconciler.reconcile(KEY)
    assert world.agent.documents == []


async def test_a_status_that_another_wrote_meanwhile_is_decided_on_again(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    world.api.put(ADAPTERROLLOUTS, rollout(port=world.agent.port))  # newer than the cache knows
    with pytest.raises(Retry):
        await world.reconciler.reconcile(KEY)
    assert world.agent.documents == []
    await world.rounds()
    assert world.ready() == ("True", "Serving")


async def test_before_the_alias_moves_the_object_is_read_anew(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    await world.rounds(1)
    assert world.agent.shares["guide"].aliases == {}
    world.api.drop(ADAPTERROLLOUTS, NAMESPACE, "guide")  # and no watch has told of it
    await world.rounds(2)
    assert "guide" not in world.agent.shares, "it was retired instead of moved"


async def test_an_agent_that_is_silent_when_requests_are_to_move_gets_nothing(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    await world.rounds(1)
    world.agent.status = 500
    await world.rounds(1)
    assert [share.aliases for share in world.agent.documents] == [{}]
    assert world.status["podReasons"][0]["reason"] == "Unreachable"
    assert "500" in world.status["podReasons"][0]["message"]


async def test_an_agent_that_hangs_holds_up_no_round(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its document is waited for by itself, once, and then it is not asked again before requests move."""
    for module in ("agentpoller", "outbox"):
        monkeypatch.setattr(f"trimtab_operator.runtime.pods.{module}.SENDING_SECONDS", 0.1)
    monkeypatch.setattr("trimtab_operator.runtime.pods.agentpoller.CONFIRM_SECONDS", 0.1)
    world.store(rollout(port=world.agent.port))
    await world.pod()
    world.agent.hangs = True
    for _ in range(5):
        world.now += timedelta(seconds=0.5)
        async with asyncio.timeout(4):  # less than an answer may take
            await world.reconciler.reconcile(KEY)
    assert world.status["podReasons"][0]["reason"] == "Unreachable"
    assert sum(name == "guide" for _, _, name in world.api.writes()) <= 3, (
        "one for what was decided, one for its silence"
    )
    world.agent.hangs = False
    await until(lambda: world.agent.shares != {})
    assert len(world.agent.documents) == 1
    await world.rounds()
    assert world.ready() == ("True", "Serving")


async def test_a_refused_document_is_said_and_not_sent_again_at_once(world: World) -> None:
    world.agent.refuses = (409, "DoesNotFit")
    world.store(rollout(port=world.agent.port))
    await world.pod()
    await world.rounds(2)
    assert world.status["podReasons"][0]["reason"] == "DoesNotFit"
    sent, writes = len(world.agent.documents), len(world.api.writes())
    for _ in range(5):
        await world.reconciler.reconcile(KEY)  # no time goes by
    assert (len(world.agent.documents), len(world.api.writes())) == (sent, writes)
    world.agent.refuses = None
    world.now += timedelta(seconds=60)
    await world.rounds()
    assert world.ready() == ("True", "Serving")


NAMES = [f"guide-{number}" for number in range(5)]


async def several(world: World) -> None:
    """Have a round about each of some rollouts while rounds about the others wait, and then none."""
    for name in NAMES:
        body = rollout(port=world.agent.port)
        body["metadata"] |= {"name": name, "uid": f"arl-of-{name}"}
        body["spec"]["adapterName"] = name
        world.store(body)
    await world.pod()
    world.busy = True
    for name in NAMES:
        await world.reconciler.reconcile(KEY._replace(name=name))
    assert world.agent.requests == [], "they wait for the others"
    world.busy = False
    await until(lambda: len(world.agent.documents) == len(NAMES))


async def test_documents_of_several_rollouts_go_to_a_pod_in_one_request_and_one_refused_spoils_no_other(
    world: World,
) -> None:
    world.agent.refused = {NAMES[2]}
    await several(world)
    assert world.agent.requests == [NAMES]
    await until(lambda: KEY._replace(name=NAMES[2]) in world.told)
    await world.reconciler.reconcile(KEY._replace(name=NAMES[2]))
    status = world.api.objects["adapterrollouts", NAMESPACE, NAMES[2]]["status"]
    assert status["podReasons"][0]["reason"] == "DoesNotFit"
    assert set(world.agent.shares) == set(NAMES) - {NAMES[2]}


async def test_an_agent_of_an_earlier_version_is_sent_each_document_alone(world: World) -> None:
    world.agent.takes_several = False
    await several(world)
    assert sorted(world.agent.requests) == [[name] for name in NAMES]
    assert set(world.agent.shares) == set(NAMES)


async def test_a_document_that_waits_and_is_not_wanted_any_more_is_not_sent(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    world.busy = True
    await world.reconciler.reconcile(KEY)
    written = len(world.api.writes())
    await world.reconciler.reconcile(KEY)
    assert len(world.api.writes()) == written, "it is on its way, and nothing is decided anew"
    world.store(rollout("b", port=world.agent.port, **world.status))
    await world.reconciler.reconcile(KEY)
    world.api.drop(ADAPTERROLLOUTS, NAMESPACE, "guide")
    world.cache.owners["AdapterRollout"].remove("arl-1")
    await world.reconciler.reconcile(KEY)
    world.busy = False
    await asyncio.sleep(0.3)
    assert world.agent.documents == []


async def test_a_deleted_rollout_is_retired_everywhere(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    await world.rounds()
    world.api.drop(ADAPTERROLLOUTS, NAMESPACE, "guide")
    world.cache.owners["AdapterRollout"].remove("arl-1")
    await world.rounds(2)
    assert world.agent.shares == {}
    assert world.agent.documents[-1].retired
    assert world.api.objects["configmaps", NAMESPACE, DESIRED]["data"] == {}
    assert await world.reconciler.reconcile(KEY) is None


async def test_a_rollout_that_only_seems_to_be_gone_is_not_retired(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    await world.rounds()
    created_again = rollout(port=world.agent.port)
    created_again["metadata"]["uid"] = "arl-2"
    world.api.put(ADAPTERROLLOUTS, created_again)
    world.cache.owners["AdapterRollout"].remove("arl-1")
    documents = len(world.agent.documents)
    assert await world.reconciler.reconcile(KEY) == 0.0
    assert len(world.agent.documents) == documents


async def test_a_pod_that_is_not_selected_any_more_keeps_nothing(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    await world.rounds()
    world.cache.serving.put(serving_pod(version=2, app="another"))
    await world.rounds(2)
    assert world.agent.shares == {}
    assert world.ready() == ("False", "NoPods")


async def test_what_was_deleted_while_nobody_looked_is_found_by_what_it_left(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    await world.rounds()
    world.cache.owners["AdapterRollout"].remove("arl-1")
    assert await orphans(world.cache, Desired(world.api, world.signing)) == {KEY}


async def test_a_namespace_that_serves_gets_the_keys_without_a_rollout(world: World) -> None:
    world.cache.serving.put(serving_pod(ip=""))
    await until(lambda: Key(SERVING_NAMESPACE, NAMESPACE, "") in world.told)
    await world.desired.publish_keys(NAMESPACE)
    assert set(world.api.objects["configmaps", NAMESPACE, AGENT_KEYS]["data"]) == set(world.signing.public_pems())


async def test_a_new_key_signs_when_the_agent_knows_it(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    await world.rounds()
    old = world.signing.all()[-1].id
    new_key(world.folder, "key-2.pem")
    world.now += timedelta(seconds=60)
    assert world.signing.all()[-1].id != old
    knows_old_only = {old: world.signing.read()[old]}
    world.agent.verifier.keys = type("Old", (), {"read": lambda self: knows_old_only})()
    world.store(rollout("b", port=world.agent.port))
    await world.rounds()
    assert world.ready() == ("True", "Serving")
    assert world.agent.shares["guide"].revisions[0].digest == LETTERS["b"]
    assert len(world.api.objects["configmaps", NAMESPACE, AGENT_KEYS]["data"]) == 2


async def test_without_a_key_nothing_is_served_and_the_status_says_why(tmp_path: Path) -> None:
    async with living(tmp_path) as world:
        world.store(rollout(port=world.agent.port))
        world.cache.serving.put(serving_pod())
        await world.reconciler.reconcile(KEY)
        assert world.ready() == ("False", "AgentKeyMissing")
        assert world.condition("Progressing") == ("False", "AgentKeyMissing")
        assert world.agent.documents == []


async def test_an_object_that_is_not_understood_says_so_and_what_is_served_goes_on(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    await world.rounds()
    body = world.api.objects["adapterrollouts", NAMESPACE, "guide"]
    body["spec"]["strategy"]["canaryPods"] = "many"
    world.store(body)
    documents = len(world.agent.documents)
    assert await world.reconciler.reconcile(KEY) is None
    assert world.ready() == ("Unknown", "NotUnderstood")
    assert world.status["served"]["digest"] == LETTERS["a"]
    assert len(world.agent.documents) == documents


async def test_one_that_is_not_understood_keeps_its_name(world: World) -> None:
    """A younger one must not get the older one's pods while an operator leads that does not know a value of the older:
    the next one would take them back.
    """
    older = rollout("b", port=world.agent.port)
    older["metadata"] |= {"name": "older", "uid": "arl-0", "creationTimestamp": "2026-01-05T10:00:00Z"}
    older["spec"]["strategy"]["canaryPods"] = "many"
    world.store(older)
    world.store(rollout(port=world.agent.port))
    await world.pod()
    await world.rounds()
    assert world.ready() == ("False", "AdapterNameConflict")
    assert world.agent.documents == []


async def test_a_process_that_may_not_write_any_more_sends_no_document(world: World) -> None:
    world.store(rollout(port=world.agent.port))
    await world.pod()
    world.may_send = False
    await world.rounds()
    assert world.agent.documents == []
    world.may_send = True
    world.now += timedelta(seconds=60)
    await world.rounds()
    assert world.ready() == ("True", "Serving")


async def test_an_evaluation_that_passed_is_followed_and_its_rollout_told(world: World) -> None:
    source = {"follow": {"selector": {"matchLabels": {"app": "guide"}}}}
    world.store(rollout(port=world.agent.port, source=source))
    await world.pod()
    await world.rounds(2)
    assert world.ready() == ("False", "NothingPassed")
    world.told.clear()
    world.cache.owners["Evaluation"].put(world.api.put(EVALUATIONS, passed_evaluation("good", "a", "12:00")))
    assert KEY in world.told
    world.cache.owners["Evaluation"].put(world.api.put(EVALUATIONS, passed_evaluation("better", "b", "12:05")))
    await world.rounds()
    assert world.status["served"]["digest"] == LETTERS["b"]


async def test_many_evaluations_that_judged_nothing_hide_none_that_did(world: World) -> None:
    source: Body = {"follow": {"selector": {"matchLabels": {"app": "guide"}}}}
    world.store(rollout(port=world.agent.port, source=source))
    await world.pod()
    for number in range(10):
        empty = passed_evaluation(f"empty-{number}", "b", f"12:{30 + number}")
        empty["status"]["conditions"][1]["reason"] = "NoThresholds"
        world.cache.owners["Evaluation"].put(world.api.put(EVALUATIONS, empty))
    await world.rounds(2)
    assert world.ready() == ("False", "NothingPassed")
    world.cache.owners["Evaluation"].put(world.api.put(EVALUATIONS, passed_evaluation("good", "a", "12:00")))
    await world.rounds()
    assert world.status["served"]["digest"] == LETTERS["a"]
    source["follow"]["requireThresholds"] = False
    world.store(rollout(port=world.agent.port, source=source, version=2, **world.status))
    await world.rounds()
    assert world.status["served"]["digest"] == LETTERS["b"]


async def test_a_lease_made_anew_takes_a_rollout_back_from_pods_that_are_not_its_own_any_more(world: World) -> None:
    world.transitions = 7
    world.store(rollout(port=world.agent.port))
    await world.pod()
    await world.rounds()
    world.transitions = 1
    world.cache.serving.put(serving_pod(version=2, app="another"))
    await world.rounds(2)
    assert world.agent.shares == {}


async def test_pods_are_told_apart_by_the_label_of_their_stage_and_each_change_concerns_its_rollout(
    world: World,
) -> None:
    world.store(rollout(port=world.agent.port))
    world.told.clear()
    world.cache.serving.put(serving_pod("other", app="another"))
    assert KEY not in world.told
    world.cache.serving.put(serving_pod())
    assert KEY in world.told
    assert world.cache.pods.wants(serving_pod()) is False
    assert world.cache.serving.wants(serving_pod()) is True


def passed_evaluation(name: str, letter: str, time: str) -> Body:
    artifact = {"uri": f"s3://adapters/guide/{letter}", "digest": LETTERS[letter]}
    moment = f"2026-01-05T{time}:00Z"
    condition = {"status": "True", "reason": "Passed", "message": "", "lastTransitionTime": moment}
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": "Evaluation",
        "metadata": {"namespace": NAMESPACE, "name": name, "labels": {"app": "guide"}, "generation": 1},
        "spec": {
            "target": {"artifact": artifact},
            "baseModel": {"uri": "s3://models/tiny"},
            "output": {"uri": "s3://results/x"},
            "tasks": [{"name": "heldout", "type": "Perplexity", "dataset": {"uri": "s3://data/x"}}],
        },
        "status": {
            "target": artifact,
            "completionTime": moment,
            "conditions": [{"type": "Succeeded", **condition}, {"type": "Passed", **condition}],
        },
    }


async def test_a_revision_that_comes_is_news_for_its_own_rollout_alone(world: World) -> None:
    """A pod of twenty rollouts would have all of them looked at for each answer otherwise, twenty times."""
    for name in ("guide", "other"):
        body = rollout(port=world.agent.port)
        body["metadata"] |= {"name": name, "uid": f"arl-of-{name}"}
        body["spec"]["adapterName"] = name
        world.store(body)
    await world.pod()
    world.told.clear()
    await world.rounds()
    assert world.ready() == ("True", "Serving")
    assert set(world.told) == {KEY}
    world.told.clear()
    world.agent.shares.clear()
    world.agent.version += 1
    await until(lambda: KEY._replace(name="other") in world.told)  # what goes leaves room for others
