"""A cluster with work of every kind on its way, and the versions that take turns over it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from trimtab_operator.runtime.kube import JOBS, Body, Kube, Resource

from tests.component.api_server import ApiServer
from tests.component.conftest import ROOT
from tests.component.operator.finetunejobs import evaluation, finetunejob, state_of, until
from tests.component.operator.process import OperatorProcess
from tests.component.patience import Patience
from tests.component.rollout.objects import UNENDING, artifact, ready_of
from tests.component.rollout.scene import Scene, new_key
from tests.component.skew import later
from tests.component.skew.later import FACT
from tests.component.skew.trainers import Trainers
from tests.resources import ADAPTERROLLOUTS, EVALUATIONS, FINETUNEJOBS
from tests.serving.adapters import Published
from tests.serving.fleet import Pod
from tests.unit.domain.makers import ARTIFACT

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PROGRAMS = {"this": ("trimtab_operator",), "later": ("tests.component.skew.later", "operator")}


class Definitions:
    """The CustomResourceDefinitions of the API server, which all tests of a session share."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self._server = server
        self._namespace = namespace
        text = subprocess.run([sys.executable, "-m", later.__name__, "definitions"], capture_output=True, check=True)
        self._of = {
            "this": [
                yaml.load(path.read_text(), Loader=yaml.CSafeLoader) for path in sorted((ROOT / "crds").glob("*.yaml"))
            ],
            "later": json.loads(text.stdout),
        }

    def apply(self, version: str) -> None:
        """Apply those of a version, as the chart does, and wait until objects are served by them."""
        for crd in self._of[version]:
            answer = self._server.apply(f"{DEFINITIONS}/{crd['metadata']['name']}", crd)
            assert answer.accepted, answer.message
        patience = Patience(f"the definitions of {version} version served")
        while (fills_in := self._fills_in()) != (version == "later"):
            patience.spend(fills_in)
            time.sleep(0.1)

    def _fills_in(self) -> bool:
        """Tell whether the API server knows the setting that only the later version has."""
        path = f"/apis/trimtab.dev/v1alpha1/namespaces/{self._namespace}/finetunejobs"
        made = self._server.create(path, finetunejob("asks", self._namespace), dryRun="All")
        assert made.accepted, made.message
        return later.SETTING in made.body["spec"]["training"]


class Operators:
    """One leader at a time, of either version, as a Deployment's rolling update brings them."""

    def __init__(self, kubeconfig: Path, namespace: str, folder: Path) -> None:
        self._kubeconfig, self._namespace, self._folder = kubeconfig, namespace, folder
        self.keys = folder / "keys"
        new_key(self.keys)
        self.all: list[OperatorProcess] = []

    @property
    def leader(self) -> OperatorProcess:
        return self.all[-1]

    async def lead(self, version: str) -> OperatorProcess:
        """Start an operator of a version; as soon as it is ready, the one before is told to stop."""
        operator = OperatorProcess(
            self._kubeconfig,
            self._namespace,
            self._folder,
            f"{version}-{len(self.all)}",
            PROGRAMS[version],
            TRIMTAB_AGENT_KEYS=str(self.keys),
            TRIMTAB_PROGRESS_SECONDS="0.3",
        )
        self.all.append(operator)
        await operator.start()
        await operator.ready()
        for before in self.all[:-1]:
            if before.running:
                assert await before.terminate() == 0, before.tail()
        patience = Patience(f"{operator.name} leads")
        while not await operator.leading():
            patience.spend(operator.tail)
            await asyncio.sleep(0.05)
        return operator


ALONE: dict[str, object] = {
    "target": {"artifact": {"uri": ARTIFACT.uri, "digest": ARTIFACT.digest}},
    "baseModel": {"uri": "s3://models/base"},
    "output": {"uri": "s3://adapters/out"},
}
CANARY, ARCHIVE = "guide", "archive"
"""A rollout in the middle of its canary all the while, and one whose history gets a state of the later version."""


@dataclass
class World:
    """Everything that is on its way: a job trains, one Evaluation waits for it and one asks; of the rollouts one is in
    its canary and one serves.

    Attributes:
        jobs: uids of all Jobs that were seen, by name.
    """

    scene: Scene
    trainers: Trainers
    operators: Operators
    definitions: Definitions
    jobs: dict[str, str] = field(default_factory=dict)
    old: Published = field(init=False)
    new: Published = field(init=False)
    kept: Published = field(init=False)
    names: tuple[str, ...] = ("adapter", "waiting", "asking", CANARY)
    """What both versions understand."""

    def __post_init__(self) -> None:
        self.old, self.new, self.kept = (self.scene.fleet.publish() for _ in range(3))

    @property
    def kube(self) -> Kube:
        return self.scene.kube

    @property
    def namespace(self) -> str:
        return self.scene.namespace

    async def begin(self) -> None:
        """Bring everything on its way."""
        scene, namespace = self.scene, self.namespace
        await self.create(FINETUNEJOBS, finetunejob("adapter", namespace))
        await self.create(EVALUATIONS, evaluation("waiting", namespace, target={"fineTuneJobName": "adapter"}))
        await self.create(EVALUATIONS, evaluation("asking", namespace, **ALONE))
        await scene.pods(2)
        await scene.apply(artifact(self.old), CANARY, strategy=UNENDING)
        await scene.apply(artifact(self.kept), ARCHIVE)
        await scene.mark({later.ARCHIVES: "yes"}, ARCHIVE)
        await scene.served(self.old, CANARY)
        await scene.served(self.kept, ARCHIVE)
        await scene.edit(CANARY, source=artifact(self.new))
        await scene.until(canary_takes_requests, CANARY, what="that the canary takes requests")
        await self.state(FINETUNEJOBS, "adapter", "Training")
        await self.state(EVALUATIONS, "asking", "Evaluating")
        await self.remember_jobs()
        await self.goes_on()

    async def lead(self, version: str) -> OperatorProcess:
        self.scene.operator = await self.operators.lead(version)
        return self.scene.operator

    async def goes_on(self) -> None:
        """Have the leader look at everything, and see that all goes on as if nothing else had happened.

        Trainers get on and a serving pod comes, so there is news to write of every kind.
        """
        step = (await self.get(ADAPTERROLLOUTS, CANARY))["status"]["step"]
        before = [(pod, pod.loads(), documents(pod), pod.tables[-1][1].aliases) for pod in self.scene.all_pods]
        for_new_pods = await self.scene.mounted_files()
        self.trainers.step += 10
        await self.scene.pods(1)
        count, done = len(self.scene.all_pods), self.trainers.step
        unharmed(await self.tells(FINETUNEJOBS, "adapter", {"step": done, "percent": done}))
        unharmed(await self.tells(EVALUATIONS, "asking", {"tasksDone": done, "percent": done}))
        body = await self.scene.until(lambda body: body["status"]["pods"]["updated"] == count, what="the new pod")
        assert ready_of(body) == ("False", "Canary")
        assert (body["status"]["step"]["canaries"], body["status"]["step"]["sinceTime"]) == (
            step["canaries"],
            step["sinceTime"],
        ), "the canary goes on, with the same pods"
        assert state_of(await self.get(EVALUATIONS, "waiting")) == "Pending"
        assert await self.jobs_there() == self.jobs, "nothing is begun or ended"
        assert await self.scene.mounted_files() == for_new_pods, "documents for new pods are as they were"
        for pod, loads, sent, aliases in before:
            assert documents(pod) == sent, f"{pod.name} was sent a document"
            assert pod.loads() == loads, f"{pod.name} loaded again"
            assert pod.tables[-1][1].aliases == aliases, f"requests to {pod.name} went elsewhere"

    async def tells(self, resource: Resource, name: str, progress: Body) -> Body:
        """Return an object when its status tells of a progress."""

        def told(body: Body) -> bool:
            return bool(progress.items() <= body["status"].get("progress", {}).items())

        return await self.until(resource, name, told, f"the progress of {name}")

    async def state(self, resource: Resource, name: str, state: str) -> Body:
        """Return a FineTuneJob or an Evaluation when it is in a state."""
        return await self.until(resource, name, lambda body: state_of(body) == state, f"{name} {state}")

    async def until(self, resource: Resource, name: str, true: Callable[[Body], bool], what: str) -> Body:
        what += f"\n{self.operators.leader.tail(15)}"
        return await until(self.kube, self.namespace, name, true, what=what, resource=resource)

    async def get(self, resource: Resource, name: str) -> Body:
        return await self.kube.get(resource, self.namespace, name)

    async def create(self, resource: Resource, body: Body) -> None:
        await self.kube.create(resource, self.namespace, body)

    async def jobs_there(self) -> dict[str, str]:
        """Return the uids of the Jobs that are there and stay, by name."""
        there = (job["metadata"] for job in await self.kube.items(JOBS, self.namespace, {}))
        return {job["name"]: job["uid"] for job in there if "deletionTimestamp" not in job}

    async def remember_jobs(self) -> None:
        self.jobs = await self.jobs_there()

    async def facts(self) -> set[tuple[str, ...]]:
        """Return where statuses tell what only the later version tells, of what both versions understand."""
        kinds = {"adapter": FINETUNEJOBS, CANARY: ADAPTERROLLOUTS}
        found = set[tuple[str, ...]]()
        for name in self.names:
            status = (await self.get(kinds.get(name, EVALUATIONS), name))["status"]
            found |= {(name, *path) for path in places(status)}
        return found

    def nothing_went_wrong(self) -> None:
        """Assert that no operator has met anything that it has no answer to."""
        for operator in self.operators.all:
            assert not [line for line in operator.log_lines() if line["level"] == "error"], operator.tail()


def canary_takes_requests(body: Body) -> bool:
    """Tell whether the canary has heard of it too: a status is written before the documents that follow from it."""
    return ready_of(body)[1] == "Canary" and body["status"]["pods"]["ready"] == len(body["status"]["step"]["canaries"])


def documents(pod: Pod) -> int:
    """Return how many documents a pod's agent has answered."""
    return sum(call.method != "GET" for call in pod.calls)


def unharmed(body: Body) -> None:
    """Assert that work is on its way in its first try."""
    status = body["status"]
    (condition,) = (each for each in status["conditions"] if each["type"] == "Succeeded")
    assert condition["status"] == "Unknown"
    assert [status.get(key, 0) for key in ("failures", "disruptions")] == [0, 0]
    assert [each.get("reason") for each in status["attempts"]] == ["Completed", None]


def places(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield where the later fact is, and the later condition; items of lists by what they are named by."""
    if isinstance(value, dict):
        if FACT in value or value.get("type") == later.CONDITION["type"]:
            yield at
        for key, inner in value.items():
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                named = (item.get(key) for key in ("type", "number", "name", "pod", "digest", "task"))
                yield from places(item, (*at, str(next(each for each in named if each is not None))))


def later_answer(body: Any) -> Any:
    """Return what an agent of a later version answers: more in every part that both sides know."""
    if not isinstance(body, dict):
        return body
    more: Body = {**body, FACT: {"told": True}}
    for part in ("engine", "pod"):
        if isinstance(more.get(part), dict):
            more[part] = {**more[part], FACT: 1}
    for part in ("rollouts", "revisions"):
        if isinstance(more.get(part), list):
            more[part] = [later_answer(each) for each in more[part]]
    return more
