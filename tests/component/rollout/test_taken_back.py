"""What is taken back without being asked, and stays so until the spec changes."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy
import pytest

from tests.component.rollout.objects import UNENDING, artifact
from tests.component.rollout.scene import NAME, Scene
from tests.serving.adapters import Published
from tests.serving.fleet import Pod

pytestmark = pytest.mark.asyncio(loop_scope="session")

CAREFUL = {**UNENDING, "analysis": {"minimumRequests": 5, "maximumLatencyRatio": 1.5}}


async def serving(scene: Scene, pods: int, **spec: Any) -> Published:
    """Return the adapter that all pods of the scene serve."""
    await scene.pods(pods)
    adapter = scene.fleet.publish()
    await scene.apply(artifact(adapter), **spec)
    await scene.served(adapter)
    return adapter


async def stays_rolled_back(scene: Scene, old: Published, new: Published, reason: str) -> None:
    """Check what is true after a revision was taken back, now and a little later."""
    body = await scene.until_state("RolledBack")
    generation = body["metadata"]["generation"]
    (rejected,) = body["status"]["rejected"]
    assert (rejected["digest"], rejected["reason"], rejected["generation"]) == (new.digest, reason, generation)
    await scene.happens(
        lambda: all(alias == {old.name(NAME): 100} for alias in scene.aliases()), "the alias is on the old revision"
    )
    await scene.happens(
        lambda: all(set(pod.engine.loaded) == {old.name(NAME)} for pod in scene.all_pods), "the new one is unloaded"
    )
    loads = [pod.loads() for pod in scene.all_pods]
    await asyncio.sleep(1.5)
    body = await scene.until_state("RolledBack")
    assert body["status"]["served"]["digest"] == old.digest
    assert [pod.loads() for pod in scene.all_pods] == loads, "it is not tried again"


async def test_a_probe_that_fails_takes_it_back_and_a_new_spec_tries_again(scene: Scene) -> None:
    old = await serving(scene, 3)
    new = scene.fleet.publish()
    async with scene.asking(old, new) as verdicts:
        await scene.edit(source=artifact(new), probe={"contains": "a word that nobody says"})
        await stays_rolled_back(scene, old, new, "ProbeFailed")
        assert sum(pod.loads() > 1 for pod in scene.all_pods) == 1, "only the canary touched it"
        await scene.edit(probe={"contains": new.marker})
        await scene.served(new)
    verdicts.check()


def spoil(revision: str, pods: list[Pod], **fault: Any) -> None:
    """Let a revision be bad in the pods whose alias points at it; their probes were answered well."""
    for pod in pods:
        if pod.alias(NAME) == {revision: 100}:
            for name, value in fault.items():
                setattr(pod.engine.faults, name, {revision: value})


@pytest.mark.parametrize(
    ("reason", "fault"), [("ErrorRatio", {"answer_status": 500}), ("Latency", {"slow_models": 0.2})]
)
async def test_a_canary_that_is_worse_in_traffic_is_taken_back(
    scene: Scene, reason: str, fault: dict[str, Any]
) -> None:
    old = await serving(scene, 3, strategy=CAREFUL)
    new = scene.fleet.publish()
    revision = new.name(NAME)
    async with scene.asking(old, new, number=6) as verdicts:
        await scene.edit(source=artifact(new))
        await scene.happens(lambda: {revision: 100} in scene.aliases(), "the canary takes requests")
        spoil(revision, scene.all_pods, **fault)
        await stays_rolled_back(scene, old, new, reason)
    assert verdicts.wrong == 0, verdicts.examples
    assert sum(revision in pod.ever_meant(NAME) for pod in scene.all_pods) == 1, "never beyond the canary"
    if reason == "ErrorRatio":  # what the canary answered badly are the only failures
        assert {example.split(" answered ")[1][:3] for example in verdicts.examples} == {"500"}
    else:
        verdicts.check()


async def test_an_adapter_that_harms_its_engine_reaches_one_pod_and_that_heals(scene: Scene) -> None:
    old = await serving(scene, 3)
    new = scene.fleet.publish()
    for pod in scene.all_pods:
        pod.engine.faults.poisonous = {new.name(NAME)}
    await scene.edit(source=artifact(new))
    body = await scene.until_state("RolledBack")
    assert [each["reason"] for each in body["status"]["rejected"]] == ["BaseHarmed"]
    await scene.happens(lambda: sum(pod.engine_starts == 2 for pod in scene.all_pods) == 1, "one engine starts again")
    await scene.happens(lambda: all(pod.ready for pod in scene.all_pods), "all are ready again")
    assert not any(pod.engine.poisoned for pod in scene.all_pods)
    for pod in scene.all_pods:
        assert await pod.ask(NAME) == (200, old.name(NAME), old.marker)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "rank": ({"rank": 32}, "RankTooHigh"),
    "base": ({"base": "sha256:" + "e" * 64}, "BaseModelMismatch"),
    "nan": ({"spoil": lambda numbers: numbers.fill(numpy.nan)}, "NotFinite"),
    "large": ({"scale": 1e6}, "MagnitudeTooHigh"),
    "nothing": ({"zero": True}, "ChangesNothing"),
}


async def test_what_the_files_show_touches_no_engine(scene: Scene) -> None:
    """A rollout each, all at once on the same pods; and one whose object is damaged until somebody restores it."""
    await scene.pods(2)
    good = {name: scene.fleet.publish() for name in (*REFUSED, "flipped")}
    bad = {name: scene.fleet.publish(**changes) for name, (changes, _) in REFUSED.items()}
    bad["flipped"] = scene.fleet.publish()
    bad["flipped"].flip_a_bit()
    await asyncio.gather(*(scene.apply(artifact(good[name]), name) for name in good))
    await asyncio.gather(*(scene.served(good[name], name) for name in good))
    loads = [pod.loads() for pod in scene.all_pods]
    assert loads == [len(good)] * 2
    await asyncio.gather(*(scene.edit(name, source=artifact(bad[name])) for name in bad))
    bodies = await asyncio.gather(*(scene.until_state("RolledBack", name) for name in REFUSED))
    found = {body["metadata"]["name"]: body["status"]["rejected"][0]["reason"] for body in bodies}
    assert found == {name: reason for name, (_, reason) in REFUSED.items()}
    damaged = await scene.until(
        lambda body: bool(body["status"].get("podReasons")), "flipped", what="a reason of the pod"
    )
    assert {each["reason"] for each in damaged["status"]["podReasons"]} == {"ArtifactDamaged"}
    assert [pod.loads() for pod in scene.all_pods] == loads, "no engine was touched"
    for name, adapter in good.items():
        for pod in scene.all_pods:
            assert await pod.ask(name) == (200, adapter.name(name), adapter.marker)
    bad["flipped"].flip_a_bit()
    await scene.served(bad["flipped"], "flipped")
