"""The operator is killed right after each of its writes but Events, and after each document that an agent has taken.

A life: an adapter is served, a second one takes its place by way of a canary and of a person's approval, a third fails
its probe and is taken back. The process ends after API server or agent has done what it asked and before it knows that;
another one goes on from what is in the cluster and in the pods. The end must be that of an undisturbed life, no alias
ever means what was not proven, and clients notice nothing.

The first and the last write and document of each kind are part of `make test`, all of them of `make test-long`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from trimtab_agent.engine.vllm import Timeouts
from trimtab_operator.runtime.kube import Body, Kube

from tests.component.api_server import ApiServer
from tests.component.operator.process import OperatorProcess
from tests.component.reviews import policies
from tests.component.rollout.objects import QUICK, artifact, ready_of
from tests.component.rollout.scene import NAME, Scene, new_key
from tests.long import SOME_OR_EVERY, first_and_last
from tests.perturb.deaths import kept_running
from tests.perturb.proxy import Proxy, Write
from tests.resources import REVIEWS
from tests.serving.adapters import Published
from tests.serving.fleet import Call, Fleet, Pod, serving

AT_ONCE = 4
MASKED = {"lastTransitionTime", "sinceTime", "beganTime", "sequence", "message", "canary"}
"""What differs between any two lives; messages name pods, and count requests."""


@dataclass(frozen=True)
class Life:
    """What came of one life."""

    status: dict[str, Any]
    writes: list[Write]
    documents: list[str]
    killed: bool


def masked(value: Any) -> Any:
    if isinstance(value, dict):  # an empty list is there where one was taken back, and absent where none was
        return {key: masked(item) for key, item in value.items() if key not in MASKED and item != []}
    return [masked(item) for item in value] if isinstance(value, list) else value


class Lives:
    """Lives side by side, each in a namespace of its own, with the pods of one fleet."""

    def __init__(self, kube: Kube, kubeconfig: Path, fleet: Fleet, folder: Path) -> None:
        self._kube = kube
        self._kubeconfig = kubeconfig
        self._fleet = fleet
        self._folder = folder
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._told: dict[str, Callable[[Pod, Call], Awaitable[None]]] = {}
        fleet.after_call = self._after_call
        self.adapters = tuple(fleet.publish() for _ in range(3))

    async def _after_call(self, pod: Pod, call: Call) -> None:
        if call.method != "GET" and call.status == 200 and pod.namespace in self._told:
            await self._told[pod.namespace](pod, call)

    async def live(self, after_write: int = 0, after_document: int = 0) -> Life:
        """Live once; the operator is killed after a write or a document, and started again."""
        async with self._slots:
            server = ApiServer(self._kubeconfig)  # a connection that is kept over a whole life times out
            made = server.create("/api/v1/namespaces", {"metadata": {"generateName": "killed-"}})
            namespace = made.body["metadata"]["name"]
            folder = self._folder / namespace
            new_key(folder / "keys")
            try:
                async with Proxy(self._kubeconfig) as proxy:
                    settings = {
                        "TRIMTAB_AGENT_KEYS": str(folder / "keys"),
                        "TRIMTAB_ADMISSION_POLICIES": policies.RELEASE,
                    }
                    operator = OperatorProcess(proxy.kubeconfig(folder), namespace, folder, **settings)
                    scene = Scene(self._kube, namespace, self._fleet, operator, folder / "keys")
                    return await self._lived(scene, proxy, after_write, after_document)
            finally:
                self._told.pop(namespace, None)
                ApiServer(self._kubeconfig).delete(f"/api/v1/namespaces/{namespace}")

    async def _lived(self, scene: Scene, proxy: Proxy, after_write: int, after_document: int) -> Life:
        operator, killed = scene.operator, asyncio.Event()
        writes, documents = list[Write](), list[str]()

        async def kill() -> None:
            if not killed.is_set():
                killed.set()
                await operator.kill()

        async def wrote(_: int, write: Write) -> None:
            if write.resource != "events":  # of which nothing depends
                writes.append(write)
            if len(writes) == after_write:
                await kill()

        async def took(pod: Pod, call: Call) -> None:
            documents.append(call.method)
            if len(documents) == after_document:
                await kill()

        proxy.after_write = wrote
        self._told[scene.namespace] = took
        try:
            async with kept_running(operator):
                await scene.pods(2)
                await operator.ready()
                body = await story(scene, *self.adapters)
        finally:
            for pod in scene.all_pods:
                await pod.delete()
        return Life(masked(body["status"]), writes, documents, killed.is_set())


async def approve(scene: Scene, adapter: Published) -> None:
    """Let the user that all tests are approve an adapter."""
    spec = {
        "subject": {"kind": "AdapterRollout", "name": NAME, "digest": adapter.digest},
        "decision": "Approve",
        "author": "admin",
    }
    head = {"apiVersion": REVIEWS.api_version, "kind": REVIEWS.kind, "metadata": {"name": "approve"}}
    await scene.kube.create(REVIEWS, scene.namespace, {**head, "spec": spec})


async def story(scene: Scene, first: Published, second: Published, third: Published) -> Body:
    """Let the adapters be wanted one after the other; return the AdapterRollout at the end."""
    bad = third.name(NAME)
    await scene.apply(artifact(first))
    await scene.served(first)
    async with scene.asking(first, second, number=2, pause=0.02) as verdicts:
        await scene.edit(source=artifact(second), strategy={**QUICK, "approvals": {"required": 1}})
        await scene.until_state("AwaitingApproval")
        await approve(scene, second)
        await scene.served(second)
        await scene.edit(source=artifact(third), probe={"contains": "a word that nobody says"})

        def over(body: Body) -> bool:
            status = body["status"]
            whole = status.get("pods") == {"desired": 2, "ready": 2, "updated": 2}
            at_rest = "step" not in status and whole and ready_of(body) == ("False", "RolledBack")
            return at_rest and not any(pod.revision(bad) for pod in scene.all_pods)

        await scene.until(over, what="the end")
        await scene.answers(scene.mounted_revision, second.name(NAME))
        await asyncio.sleep(1.2)  # what else it would do
        end = await scene.until(over, what="the same end")
    verdicts.check()
    assert scene.aliases() == [{second.name(NAME): 100}] * 2, scene.told()
    for pod in scene.all_pods:
        assert pod.ever_meant(NAME) == {first.name(NAME), second.name(NAME)}, scene.told()
    return end


@pytest.mark.parametrize("every", SOME_OR_EVERY)
async def test_killed_after_each_write_and_after_each_document(
    kube: Kube, server: ApiServer, kubeconfig: Path, tmp_path: Path, every: bool
) -> None:
    policies.install(server)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(policies.uninstall, server)
        subject = {"kind": "AdapterRollout", "name": NAME, "digest": "sha256:" + "0" * 64}
        policies.takes_effect(server, REVIEWS.path("default"), {"subject": subject, "decision": "Approve"})
        fleet = await stack.enter_async_context(serving(kube, tmp_path / "fleet", timeouts=Timeouts()))
        lives = Lives(kube, kubeconfig, fleet, tmp_path / "lives")
        reference = await lives.live()
        kinds: dict[str, Sequence[object]] = {
            "after_write": [write.kind for write in reference.writes],
            "after_document": reference.documents,
        }
        deaths = [
            {place: number}
            for place, all_kinds in kinds.items()
            for number in (range(1, len(all_kinds) + 1) if every else first_and_last(all_kinds))
        ]
        found = await asyncio.gather(*(lives.live(**death) for death in deaths))
    for death, life in zip(deaths, found, strict=True):
        (number,) = death.values()
        seen = life.writes if "after_write" in death else life.documents
        tale = f"killed {death}: {[str(write) for write in life.writes]}"
        assert life.killed or len(seen) < number, tale  # a life may tell of less on its way
        assert life.status == reference.status, tale
    print(f"\nkilled {deaths}: {reference.documents}, {[str(write) for write in reference.writes]}")
