"""This version and a later one take turns, over work that is on its way: nothing of it is begun again or ends early."""

from __future__ import annotations

from trimtab_operator.runtime.kube import JOBS, Body

from tests.component.operator.finetunejobs import finetunejob, until, verdict_of
from tests.component.rollout.objects import QUICK, ready_of
from tests.component.skew.later import CONDITION, SCHEDULE, STATE
from tests.component.skew.world import ARCHIVE, CANARY, World, later_answer
from tests.resources import EVALUATIONS, FINETUNEJOBS
from tests.serving.fleet import ROLLOUTS
from tests.unit.domain.makers import ARTIFACT


async def test_versions_take_turns_and_nothing_is_begun_again_or_ends_early(world: World) -> None:
    scene, trainers = world.scene, world.trainers
    calls = {pod: len(pod.calls) for pod in scene.all_pods}
    for pod in (earlier := scene.all_pods[1::2]):
        pod.faults.earlier = True

    # The definitions come first, while the operator of before leads: a setting is filled into every section.
    world.definitions.apply("later")
    for resource, name, filled in ((FINETUNEJOBS, "adapter", in_sections), (EVALUATIONS, "asking", in_items)):
        # The API server takes each definition in by itself, and may serve a kind by both for a moment.
        await until(world.kube, world.namespace, name, filled, what="the later setting", resource=resource)
    await world.goes_on()

    # The later version leads, trainers and half of the agents are of the later version, the other half of the one
    # before this. Its status says more.
    await world.lead("later")
    for pod in scene.all_pods[::2]:
        pod.faults.answers = later_answer
    trainers.later = True
    await world.goes_on()
    facts = await world.facts()
    assert {("adapter",), ("adapter", "attempts", "1"), ("adapter", "progress"), ("waiting",)} <= facts
    assert {(CANARY, "step"), (CANARY, "revisions", world.new.name(CANARY))} <= facts
    assert {(name, "conditions", CONDITION["type"]) for name in ("adapter", "asking", "waiting", CANARY)} <= facts

    # What only the later version knows: a schedule in a spec, a state in a status, and a run that begins under it.
    await world.create(FINETUNEJOBS, finetunejob("novel", world.namespace, training={"schedule": SCHEDULE}))
    await world.create(FINETUNEJOBS, finetunejob("early", world.namespace))
    for name in ("novel", "early"):
        await world.state(FINETUNEJOBS, name, "Training")
    await scene.until(archived, ARCHIVE, what="a state of the later version")
    await world.remember_jobs()

    # Back to this version, with the definitions as they are: what it does not know is neither lost nor touched.
    await world.lead("this")
    await world.goes_on()
    assert await world.facts() >= facts
    await world.state(FINETUNEJOBS, "novel", "NotUnderstood")
    body = await scene.until(not_understood, ARCHIVE, what="that it is not understood")
    assert archived(body)
    assert body["status"]["served"]["digest"] == world.kept.digest
    for pod in scene.all_pods:
        if pod.proves(world.kept.name(ARCHIVE)):
            assert await pod.ask(ARCHIVE) == (200, world.kept.name(ARCHIVE), world.kept.marker)
    for name in ("novel", "early"):
        trainers.ends[name].set()
    await world.state(FINETUNEJOBS, "early", "Completed")
    await until(world.kube, world.namespace, "novel-train-1", complete, what="the end of novel-train-1", resource=JOBS)
    await world.goes_on()
    body = await world.state(FINETUNEJOBS, "novel", "NotUnderstood")
    assert "reason" not in body["status"]["attempts"][-1]

    # The later version again. It finds what ended meanwhile, and everything comes to its end.
    await world.lead("later")
    await world.state(FINETUNEJOBS, "novel", "Completed")
    await world.goes_on()
    await scene.edit(CANARY, strategy=QUICK)
    for name in ("adapter", "waiting", "asking"):
        trainers.ends[name].set()
    await scene.served(world.new, CANARY)
    await scene.served(world.kept, ARCHIVE)
    for name in ("adapter", "novel", "early"):
        body = await world.state(FINETUNEJOBS, name, "Completed")
        assert [each["reason"] for each in body["status"]["attempts"]] == ["Completed"] * 2
        assert body["status"]["artifact"]["digest"] == ARTIFACT.digest
    for name in ("waiting", "asking"):
        body = await world.state(EVALUATIONS, name, "Completed")
        assert verdict_of(body) == ("True", "Passed")
        assert [each["reason"] for each in body["status"]["attempts"]] == ["Completed"] * 2
    assert world.jobs.items() <= (await world.jobs_there()).items()
    assert len(trainers.pods) == 2 * len(("adapter", "novel", "early", "waiting", "asking"))
    sent = {(pod in earlier, call.path) for pod in calls for call in pod.calls[calls[pod] :] if call.method == "PUT"}
    assert sent >= {(False, ROLLOUTS), (True, f"{ROLLOUTS}/{CANARY}")}, "each in the way that its agent knows"
    assert (False, f"{ROLLOUTS}/{CANARY}") not in sent
    world.nothing_went_wrong()


async def test_a_later_operator_goes_on_under_the_definitions_of_this_version(world: World) -> None:
    """Who manages definitions apart may be late with them: what they do not know is left out, and all goes on."""
    operator = await world.lead("later")
    await world.goes_on()
    await world.scene.until(archived, ARCHIVE, what="a word that the definitions do not have")
    assert await world.facts() == {(name, "conditions", CONDITION["type"]) for name in world.names}
    before = await operator.metrics()
    await world.goes_on()
    after = await operator.metrics()
    rounds = sum(after[each] - before[each] for each in after if each.startswith("trimtab_reconcile_total"))
    assert rounds < 100, "nothing turns in a circle over a field that never arrives"
    for name in ("adapter", "waiting", "asking"):
        world.trainers.ends[name].set()
    await world.state(FINETUNEJOBS, "adapter", "Completed")
    for name in ("waiting", "asking"):
        assert verdict_of(await world.state(EVALUATIONS, name, "Completed")) == ("True", "Passed")
    await world.scene.edit(CANARY, strategy=QUICK)
    await world.scene.served(world.new, CANARY)
    assert len(world.trainers.pods) == 2 * len(("adapter", "waiting", "asking"))
    world.nothing_went_wrong()


def in_sections(body: Body) -> bool:
    return all(body["spec"][section].get("laterSetting") == 7 for section in ("training", "lora"))


def in_items(body: Body) -> bool:
    return bool(body["spec"]["tasks"][0].get("laterSetting") == 7)


def archived(body: Body) -> bool:
    return any(each["state"] == STATE for each in body["status"]["revisions"])


def not_understood(body: Body) -> bool:
    return ready_of(body) == ("Unknown", "NotUnderstood")


def complete(body: Body) -> bool:
    conditions = body.get("status", {}).get("conditions", ())
    return any(each["type"] == "Complete" and each["status"] == "True" for each in conditions)
