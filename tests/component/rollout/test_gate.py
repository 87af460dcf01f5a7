"""What may be served: a verdict must have passed, against what is served now, and a name belongs to one rollout."""

from __future__ import annotations

import asyncio

import pytest

from tests.component.rollout.objects import artifact, current, ready_of
from tests.component.rollout.scene import NAME, Scene

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_evaluation_is_waited_for_and_opens_the_gate(scene: Scene) -> None:
    await scene.pods(2)
    bad, good = scene.fleet.publish(), scene.fleet.publish()
    await scene.apply({"evaluationName": "first"})
    await scene.until_state("EvaluationNotFound")
    await scene.evaluated("first", bad, passed=False)
    await scene.until_state("EvaluationNotPassed")
    assert all(pod.loads() == 0 for pod in scene.all_pods)
    await scene.edit(source={"evaluationName": "second"})
    await scene.until_state("EvaluationNotFound")
    await scene.evaluated("second", good)
    await scene.served(good)


async def test_the_passed_evaluation_that_completed_last_is_followed(scene: Scene) -> None:
    await scene.pods(2)
    one, two, bad, other = (scene.fleet.publish() for _ in range(4))
    labels = {"app": "guide"}
    await scene.apply({"follow": {"selector": {"matchLabels": labels}}})
    await scene.until_state("NothingPassed")
    await scene.evaluated("v1", one, labels)
    await scene.served(one)
    await scene.evaluated("v2", bad, labels, passed=False, baseline=one)
    await scene.evaluated("stranger", other, {"app": "else"})
    await scene.evaluated("v3", two, labels, baseline=one)
    body = await scene.served(two)
    assert body["status"]["served"]["passedTime"]
    await scene.remove_evaluation("v3")
    await scene.edit(strategy={"drainSeconds": 1})
    await scene.until(current, what="the deletion and the change looked at")
    await asyncio.sleep(1)
    await scene.served(two)
    assert {name for pod in scene.all_pods for name in pod.ever_meant(NAME)} == {one.name(NAME), two.name(NAME)}


async def test_an_answer_to_a_question_of_before_opens_nothing(scene: Scene) -> None:
    """Both were compared with the first adapter; when one of them is served, the other's verdict is of yesterday."""
    await scene.pods(2)
    first, second, third = (scene.fleet.publish() for _ in range(3))
    await scene.evaluated("v1", first)
    await scene.apply({"evaluationName": "v1"})
    await scene.served(first)
    await scene.evaluated("v2", second, baseline=first)
    await scene.evaluated("v3", third, baseline=first)
    await scene.edit(source={"evaluationName": "v2"})
    await scene.served(second)
    await scene.edit(source={"evaluationName": "v3"})
    body = await scene.until_state("BaselineChanged")
    assert body["status"]["served"]["digest"] == second.digest
    assert scene.aliases() == [{second.name(NAME): 100}] * 2
    await scene.evaluated("v4", third, baseline=second)
    await scene.edit(source={"evaluationName": "v4"})
    await scene.served(third)
    await scene.edit(source={"evaluationName": "v2"})  # what was served before needs no new comparison
    await scene.served(second)


async def test_the_older_of_two_rollouts_keeps_a_name_and_hands_it_over(scene: Scene) -> None:
    await scene.pods(2)
    one, two = scene.fleet.publish(), scene.fleet.publish()
    await scene.apply(artifact(one))
    await scene.served(one)
    await asyncio.sleep(1)  # creation is known to the second
    await scene.apply(artifact(two), "second", adapterName=NAME)
    await scene.until_state("AdapterNameConflict", "second")
    assert scene.aliases() == [{one.name(NAME): 100}] * 2
    await scene.delete()
    await scene.until(lambda body: ready_of(body) == ("True", "Serving"), "second", what="the name is handed over")
    assert scene.aliases() == [{two.name(NAME): 100}] * 2


async def test_the_name_of_the_base_model_is_no_adapters(scene: Scene) -> None:
    await scene.pods(1)
    await scene.apply(artifact(scene.fleet.publish()), "smol")
    await scene.until_state("NameIsBaseModel", "smol")
    assert (await scene.all_pods[0].ask("smol"))[1:] == ("smol", "base")
    assert scene.all_pods[0].loads() == 0
