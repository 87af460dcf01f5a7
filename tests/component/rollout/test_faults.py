"""Pods that fail in ways of their own: each is named with its reason, and none delays another."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial

import pytest
from trimtab_operator.runtime.kube import Body

from tests.component.rollout.objects import QUICK, artifact
from tests.component.rollout.scene import NAME, Scene
from tests.serving.fleet import Pod

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENSORS = "The size of tensor a (576) must match the size of tensor b (640)"


async def test_one_bad_pod_delays_no_other(scene: Scene) -> None:
    """Eight pods, five of them bad in different ways; the others prove the next revision as if they were alone."""
    old, new = scene.fleet.publish(), scene.fleet.publish()
    await scene.pods(8)
    await scene.apply(artifact(old), strategy={**QUICK, "canarySeconds": 0})
    await scene.served(old)
    *good, hangs, silent, refuses, slow, lies = scene.all_pods
    hangs.engine.faults.load_hangs_seconds = 30
    silent.faults.hangs_seconds = 30
    refuses.engine.faults.load_status, refuses.engine.faults.load_message = 500, TENSORS
    fetch = slow.faults.held_fetches[new.digest] = threading.Event()
    lies.engine.faults.forgets = {new.name(NAME)}
    async with scene.asking(old, new) as verdicts:
        began = time.monotonic()
        await scene.edit(source=artifact(new))
        await scene.happens(lambda: all(pod.proves(new.name(NAME)) for pod in good), "the good ones have proven it")
        proven = time.monotonic() - began
        assert not slow.proves(new.name(NAME))
        moved = {new.name(NAME): 100}
        await scene.happens(lambda: all(pod.alias(NAME) == moved for pod in good), "the good ones answer with it")
        served = time.monotonic() - began
        fetch.set()
        await scene.happens(lambda: slow.alias(NAME) == moved, "the slow one answers with it")
        counted = {"desired": 8, "updated": 4, "ready": 4}

        def told(body: Body) -> bool:
            """What pods answer is told by the status after the one that decided about them."""
            return len(body["status"].get("podReasons", ())) == 4 and body["status"]["pods"] == counted

        body = await scene.until(told, what="the pods counted, and the reasons of the bad ones")
    verdicts.check()
    print(f"proven in {proven:.1f} s, served in {served:.1f} s beside bad pods")
    reasons = {each["pod"]: each["reason"] for each in body["status"]["podReasons"]}
    want = {hangs: "EngineFailed", silent: "Unreachable", refuses: "BaseModelMismatch"}
    # An engine that lies is asked again and again: it says then that the name is taken.
    assert reasons.pop(lies.name) in ("EngineFailed", "NameTaken")
    assert reasons == {pod.name: reason for pod, reason in want.items()}
    for pod in (hangs, refuses, lies):
        assert pod.alias(NAME) == {old.name(NAME): 100}, "what is not proven gets no request"
    hangs.engine.faults.load_hangs_seconds = silent.faults.hangs_seconds = 0
    lies.engine.faults.forgets = set()
    await refuses.delete()
    await scene.served(new)


async def test_a_transient_refusal_is_tried_again(scene: Scene) -> None:
    (pod,) = await scene.pods(1)
    faults = pod.engine.faults
    faults.load_status, faults.load_message, faults.loads_to_fail = 500, "EngineCore is busy", 2
    adapter = scene.fleet.publish()
    await scene.apply(artifact(adapter))
    await scene.served(adapter)
    assert pod.loads() == 3


async def test_an_engine_that_ends_in_the_middle_of_a_load(scene: Scene) -> None:
    await scene.pods(2)
    old, new = scene.fleet.publish(), scene.fleet.publish()
    await scene.apply(artifact(old))
    await scene.served(old)
    ended: list[asyncio.Task[None]] = []

    async def end(pod: Pod) -> None:
        pod.engine.faults.on_load = None
        ended.append(asyncio.create_task(pod.restart_engine()))
        await asyncio.Event().wait()  # until this engine ends

    for pod in scene.all_pods:
        pod.engine.faults.on_load = partial(end, pod)
    await scene.edit(source=artifact(new))
    await scene.served(new)
    assert [pod.engine_starts for pod in scene.all_pods] == [2, 2]
    await asyncio.gather(*ended)


async def test_a_pod_that_cannot_be_reached_is_named_and_comes_back(scene: Scene) -> None:
    await scene.pods(2)
    old, new = scene.fleet.publish(), scene.fleet.publish()
    await scene.apply(artifact(old))
    await scene.served(old)
    lost = scene.all_pods[0]
    await lost.kill_agent()
    body = await scene.until_state("PodNotUpdated")
    assert [(each["pod"], each["reason"]) for each in body["status"]["podReasons"]] == [(lost.name, "Unreachable")]
    assert await lost.ask(NAME) == (200, old.name(NAME), old.marker)
    await scene.edit(source=artifact(new))
    await scene.happens(lambda: {new.name(NAME): 100} in scene.aliases(), "the other pod goes on")
    assert lost.alias(NAME) == {old.name(NAME): 100}
    await lost.start_agent()
    await scene.served(new)


async def test_an_engine_without_room_is_told_before_it_is_touched(scene: Scene) -> None:
    (pod,) = await scene.pods(1)
    pod.engine.state.vllm_config.lora_config.max_cpu_loras = 1
    old, new = scene.fleet.publish(), scene.fleet.publish()
    await scene.apply(artifact(old))
    await scene.served(old)
    await scene.edit(source=artifact(new))
    await scene.until_state("DoesNotFit")
    assert pod.loads() == 1
    assert pod.alias(NAME) == {old.name(NAME): 100}
