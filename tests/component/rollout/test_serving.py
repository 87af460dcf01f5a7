"""From an adapter that is named to one that every pod answers with, and what comes up or goes down meanwhile."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.component.rollout.objects import QUICK, UNENDING, artifact, ready_of, serves
from tests.component.rollout.scene import NAME, Scene
from tests.serving.fleet import STAGE

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_adapter_is_served_by_every_pod_and_provided_for_new_ones(scene: Scene) -> None:
    adapter = scene.fleet.publish()
    await scene.apply(artifact(adapter))
    await scene.until_state("NoPods")
    await scene.pods(3)
    body = await scene.served(adapter)
    revision = adapter.name(NAME)
    assert scene.aliases() == [{revision: 100}] * 3
    assert body["status"]["pods"] == {"desired": 3, "updated": 3, "ready": 3}
    assert [each.ready for each in scene.all_pods] == [True] * 3
    for pod in scene.all_pods:
        assert await pod.ask(NAME) == (200, revision, adapter.marker)
        assert pod.loads() == 1
    await scene.answers(scene.mounted, {f"{NAME}.json"})


async def test_a_second_revision_goes_by_a_canary_and_back_at_once(scene: Scene) -> None:
    """Clients ask all the while: none fails, none is answered by a revision that the alias did not mean."""
    await scene.pods(3)
    old, new = scene.fleet.publish(), scene.fleet.publish()
    before, after = old.name(NAME), new.name(NAME)
    await scene.apply(artifact(old), strategy=UNENDING)
    await scene.served(old)
    async with scene.asking(old, new) as verdicts:
        await scene.edit(source=artifact(new))
        body = await scene.until_state("Canary")
        assert all(pod.proves(after) for pod in scene.all_pods), "proven everywhere before any request moves"
        await scene.happens(lambda: {after: 100} in scene.aliases(), "the canary takes requests")
        assert sorted(scene.aliases(), key=str) == sorted([{after: 100}, {before: 100}, {before: 100}], key=str)
        (canary,) = body["status"]["step"]["canaries"]
        assert [pod.uid for pod in scene.all_pods if pod.alias(NAME) == {after: 100}] == [canary]
        await scene.edit(strategy=QUICK)
        body = await scene.served(new)
        assert [(each["state"], each["digest"]) for each in body["status"]["revisions"]] == [
            ("Serving", new.digest),
            ("Previous", old.digest),
        ]
        loads, began = [pod.loads() for pod in scene.all_pods], time.monotonic()
        await scene.edit(source=artifact(old))
        await scene.happens(lambda: scene.aliases() == [{before: 100}] * 3, "the alias is back")
        took = time.monotonic() - began
        await scene.served(old)
    verdicts.check()
    assert set(verdicts.answers) == {before, after}
    assert [pod.loads() for pod in scene.all_pods] == loads, "what was served before is loaded still"
    print(f"back in {took:.2f} s; {verdicts.requests} requests")


async def test_a_weighted_canary_gets_its_share_of_requests(scene: Scene) -> None:
    await scene.pods(2)
    old, new = scene.fleet.publish(), scene.fleet.publish()
    await scene.apply(artifact(old), strategy={**UNENDING, "canaryWeight": 30})
    await scene.served(old)
    async with scene.asking(old, new) as verdicts:
        await scene.edit(source=artifact(new))
        want = {new.name(NAME): 30, old.name(NAME): 70}
        await scene.happens(lambda: want in scene.aliases(), "the canary takes its share")
        await scene.edit(strategy=QUICK)
        await scene.served(new)
    verdicts.check()


async def test_paused_loads_nothing_and_moves_nothing(scene: Scene) -> None:
    await scene.pods(2)
    old, new, newer = (scene.fleet.publish() for _ in range(3))
    await scene.apply(artifact(old), strategy=UNENDING)
    await scene.served(old)
    await scene.edit(source=artifact(new))
    await scene.happens(lambda: {new.name(NAME): 100} in scene.aliases(), "the canary takes requests")
    await scene.edit(paused=True, strategy=QUICK)
    await scene.until_state("Paused")
    await asyncio.sleep(2.5)
    assert {old.name(NAME): 100} in scene.aliases(), "the canary's time is over, and nothing moves on"
    await scene.edit(source=artifact(newer))
    await scene.until_state("Paused")
    await asyncio.sleep(0.5)
    assert not any(pod.proves(newer.name(NAME)) for pod in scene.all_pods)
    await scene.edit(paused=False)
    await scene.served(newer)


async def test_a_pod_that_starts_while_the_operator_is_down_serves_by_itself(scene: Scene) -> None:
    await scene.pods(2)
    old, new = scene.fleet.publish(), scene.fleet.publish()
    await scene.apply(artifact(old))
    await scene.served(old)
    await scene.edit(source=artifact(new))
    await scene.served(new)
    await scene.answers(scene.mounted_revision, new.name(NAME))
    await scene.operator.kill()
    (pod,) = await scene.pods(1)
    assert await pod.ask(NAME) == (200, new.name(NAME), new.marker)
    await scene.edit(source=artifact(old))
    await scene.operator.start()
    body = await scene.served(old)
    assert body["status"]["pods"] == {"desired": 3, "updated": 3, "ready": 3}


async def test_pods_that_come_go_and_restart_in_the_middle_of_a_rollout(scene: Scene) -> None:
    await scene.pods(3)
    old, new = scene.fleet.publish(), scene.fleet.publish()
    await scene.apply(artifact(old), strategy=UNENDING)
    await scene.served(old)
    async with scene.asking(old, new) as verdicts:
        await scene.edit(source=artifact(new))
        await scene.happens(lambda: {new.name(NAME): 100} in scene.aliases(), "the canary takes requests")
        stable = [pod for pod in scene.all_pods if pod.alias(NAME) != {new.name(NAME): 100}]
        await stable[0].delete()
        await stable[1].restart_agent()
        await scene.pods(1)
        canary = next(pod for pod in scene.all_pods if pod.alias(NAME) == {new.name(NAME): 100})
        await canary.restart_engine()
        await scene.edit(strategy=QUICK)
        await scene.served(new)
    assert (verdicts.failed, verdicts.wrong) == (0, 0), verdicts.examples
    assert scene.aliases() == [{new.name(NAME): 100}] * 3


async def test_an_engine_that_restarts_is_told_and_heals(scene: Scene) -> None:
    first, second = await scene.pods(2)
    adapter = scene.fleet.publish()
    await scene.apply(artifact(adapter))
    await scene.served(adapter)
    await second.kill_engine()
    body = await scene.until_state("PodNotUpdated")
    assert [(each["pod"], each["reason"]) for each in body["status"]["podReasons"]] == [(second.name, "EngineDown")]
    assert body["status"]["pods"] == {"desired": 2, "updated": 1, "ready": 1}
    await second.start_engine()
    await scene.served(adapter)
    assert second.ready is True or await second.ask(NAME) == (200, adapter.name(NAME), adapter.marker)
    assert first.loads() == 1


async def test_a_deleted_rollout_is_gone_from_every_pod_and_for_new_ones(scene: Scene) -> None:
    await scene.pods(2)
    kept, gone = scene.fleet.publish(), scene.fleet.publish()
    await asyncio.gather(scene.apply(artifact(kept)), scene.apply(artifact(gone), "passing"))
    await asyncio.gather(scene.served(kept), scene.served(gone, "passing"))
    await scene.delete("passing")
    await scene.happens(lambda: scene.aliases("passing") == [{}, {}], "no alias any more")
    await scene.happens(
        lambda: all(set(pod.engine.loaded) == {kept.name(NAME)} for pod in scene.all_pods), "it is unloaded"
    )
    await scene.answers(scene.mounted, {f"{NAME}.json"})
    assert [(await pod.ask("passing"))[0] for pod in scene.all_pods] == [404, 404]
    # One that is made again under the name begins anew, and no mark of the first one's sequence is in its way.
    await scene.apply(artifact(kept), "passing")
    await scene.served(kept, "passing")


async def test_one_deleted_while_the_operator_is_down_is_retired_when_it_is_back(scene: Scene) -> None:
    await scene.pods(2)
    adapter = scene.fleet.publish()
    await scene.apply(artifact(adapter))
    await scene.served(adapter)
    await scene.answers(scene.mounted, {f"{NAME}.json"})
    await scene.operator.kill()
    await scene.delete()
    await scene.operator.start()
    await scene.happens(lambda: scene.aliases() == [{}, {}], "no alias any more")
    await scene.answers(scene.mounted, set())


async def test_pods_that_are_no_longer_selected_are_given_back(scene: Scene) -> None:
    (one,) = await scene.pods(1, tier="a")
    (other,) = await scene.pods(1, tier="b")
    adapter = scene.fleet.publish()
    await scene.apply(artifact(adapter))
    await scene.served(adapter)
    port = scene.fleet.port
    await scene.edit(serving={"selector": {"matchLabels": {"tier": "b"}}, "port": port})
    await scene.happens(lambda: one.alias(NAME) == {}, "the first pod has no alias")
    body = await scene.served(adapter)
    assert body["status"]["pods"]["desired"] == 1
    assert other.alias(NAME) == {adapter.name(NAME): 100}
    assert ready_of(body) == ("True", "Serving")


async def test_a_pod_that_loses_the_label_of_its_stage_is_left_alone_until_it_has_it_again(scene: Scene) -> None:
    first, second = await scene.pods(2)
    old, new = scene.fleet.publish(), scene.fleet.publish()
    await scene.apply(artifact(old))
    await scene.served(old)
    await scene.label(second, {STAGE: None})
    await scene.until(lambda body: body["status"]["pods"]["desired"] == 1, what="one pod counted")
    await scene.edit(source=artifact(new))
    await scene.until(lambda body: serves(body, new.digest), what="the other one served")
    assert (first.alias(NAME), second.alias(NAME)) == ({new.name(NAME): 100}, {old.name(NAME): 100})
    await scene.label(second, {STAGE: "serve"})
    await scene.until(lambda body: body["status"]["pods"]["ready"] == 2, what="both pods served")
    assert second.alias(NAME) == {new.name(NAME): 100}
