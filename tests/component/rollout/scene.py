"""One test's namespace: its serving pods, and what users and Evaluations write for AdapterRollouts there."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from trimtab_agent.contract import Share
from trimtab_agent.documents import MountedDocument, pod_audience, read_share, sign_call
from trimtab_operator import agentkey
from trimtab_operator.runtime.kube import CONFIGMAPS, MERGE_PATCH, PODS, Body, Kube, NotFound

from tests.component.operator.process import OperatorProcess
from tests.component.patience import Patience
from tests.component.rollout.objects import current, evaluation, ready_of, rollout, serves, verdict
from tests.resources import ADAPTERROLLOUTS, EVALUATIONS
from tests.serving.adapters import Published
from tests.serving.clients import Verdicts, asking
from tests.serving.fleet import Fleet, Pod

NAME = "guide"


def new_key(folder: Path, name: str = "key-1") -> Path:
    """Write a signing key, as the mounted Secret brings it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.pem"
    file.write_bytes(agentkey.new_key())
    return file


@dataclass
class Scene:
    """A namespace, with a fleet and an operator that may be those of other tests too."""

    kube: Kube
    namespace: str
    fleet: Fleet
    operator: OperatorProcess
    keys: Path
    completed: itertools.count[int] = field(default_factory=itertools.count)

    # Pods

    async def pods(self, count: int, *, ready: bool = True, **labels: str) -> list[Pod]:
        return await self.fleet.scale_up(self.namespace, count, labels, ready=ready)

    async def label(self, pod: Pod, labels: Mapping[str, str | None]) -> None:
        """Change labels of a pod; None takes one away."""
        await self.kube.patch(PODS, self.namespace, pod.name, MERGE_PATCH, {"metadata": {"labels": dict(labels)}})

    @property
    def all_pods(self) -> list[Pod]:
        return sorted(self.fleet.of(self.namespace), key=lambda pod: pod.name)

    def aliases(self, name: str = NAME) -> list[dict[str, int]]:
        """Return where the alias points in each pod."""
        return [pod.alias(name) for pod in self.all_pods]

    def asking(
        self, *adapters: Published, alias: str = NAME, number: int = 4, pause: float = 0.01
    ) -> AbstractAsyncContextManager[Verdicts]:
        """Let clients ask every pod that is ready meanwhile."""
        return asking(lambda: self.all_pods, alias, *adapters, number=number, pause=pause)

    # What users write

    async def apply(self, source: Body, name: str = NAME, **spec: Any) -> Body:
        body = rollout(self.namespace, name, source, port=self.fleet.port, **spec)
        return await self.kube.create(ADAPTERROLLOUTS, self.namespace, body)

    async def edit(self, name: str = NAME, *, source: Body | None = None, **spec: Any) -> None:
        """Change the spec; a source takes the place of the one there was."""
        if source is not None:
            spec["source"] = {"evaluationName": None, "artifact": None, "follow": None, **source}
        await self.kube.patch(ADAPTERROLLOUTS, self.namespace, name, MERGE_PATCH, {"spec": spec})

    async def mark(self, labels: Mapping[str, str], name: str = NAME) -> None:
        """Put labels on the AdapterRollout itself."""
        patch = {"metadata": {"labels": dict(labels)}}
        await self.kube.patch(ADAPTERROLLOUTS, self.namespace, name, MERGE_PATCH, patch)

    async def delete(self, name: str = NAME) -> None:
        body = await self.get(name)
        await self.kube.delete(ADAPTERROLLOUTS, self.namespace, name, body["metadata"]["uid"])

    async def get(self, name: str = NAME) -> Body:
        return await self.kube.get(ADAPTERROLLOUTS, self.namespace, name)

    async def evaluated(
        self,
        name: str,
        adapter: Published,
        labels: Mapping[str, str] | None = None,
        *,
        passed: bool = True,
        baseline: Published | None = None,
    ) -> None:
        """Write an Evaluation that has ended."""
        body = evaluation(self.namespace, name, adapter, baseline, labels or {})
        await self.kube.create(EVALUATIONS, self.namespace, body)
        completed = datetime.now(UTC) - timedelta(hours=1) + timedelta(seconds=next(self.completed))
        status = verdict(adapter, baseline, completed, passed=passed)
        await self.kube.patch(EVALUATIONS, self.namespace, name, MERGE_PATCH, {"status": status}, subresource="status")

    async def remove_evaluation(self, name: str) -> None:
        body = await self.kube.get(EVALUATIONS, self.namespace, name)
        await self.kube.delete(EVALUATIONS, self.namespace, name, body["metadata"]["uid"])

    # What becomes of it

    async def until(self, true: Callable[[Body], bool], name: str = NAME, *, what: str = "it") -> Body:
        """Return the AdapterRollout when something is true of it; it may take its time as long as something moves."""
        patience = Patience(what)
        while True:
            body = await self.get(name)
            if true(body):
                return body
            patience.spend(partial(self.told, body.get("status")))
            await asyncio.sleep(0.05)

    async def until_state(self, reason: str, name: str = NAME) -> Body:
        """Return the AdapterRollout when its state, of this generation, has a word."""
        return await self.until(lambda body: current(body) and ready_of(body)[1] == reason, name, what=reason)

    async def served(self, adapter: Published, name: str = NAME) -> Body:
        """Return the AdapterRollout when it is Ready with an adapter; all its pods must answer with it then."""
        what = f"{adapter.name(name)} served"
        return await self.until(lambda body: serves(body, adapter.digest), name, what=what)

    async def happens(self, true: Callable[[], bool], what: str) -> None:
        """Wait until something is true in the pods."""
        patience = Patience(what)
        while not true():
            patience.spend(self.told)
            await asyncio.sleep(0.02)

    async def answers(self, found: Callable[[], Awaitable[object]], want: object) -> None:
        """Wait until a question to the API server has an answer."""
        patience = Patience(f"the answer {want}")
        while (last := await found()) != want:
            patience.spend(partial(self.told, last))
            await asyncio.sleep(0.05)

    def told(self, seen: object = "") -> str:
        """Return what agents and operator said, and what else was seen: it moves, or is a failure's message."""
        pods = [f"{pod.name}: {pod.volume.table.aliases} {sorted(pod.engine.loaded)}" for pod in self.all_pods]
        return "\n".join([str(seen), *pods, self.operator.tail(25)])

    async def mounted(self) -> set[str]:
        """Return the files that new pods find."""
        return set(await self.mounted_files())

    async def mounted_revision(self, name: str = NAME) -> str | None:
        """Return the revision that new pods let the alias answer with."""
        text = (await self.mounted_files()).get(f"{name}.json")
        if text is None:
            return None
        (weights,) = read_share(MountedDocument.read(text.encode()).body).aliases.values()
        (revision,) = weights
        return revision

    async def mounted_files(self) -> Mapping[str, str]:
        """Return what the ConfigMap for new pods holds."""
        try:
            body = await self.kube.get(CONFIGMAPS, self.namespace, "trimtab-desired")
        except NotFound:
            return {}
        return body.get("data") or {}

    # What others may send

    async def mount(self, file: str, text: str) -> None:
        """Change the ConfigMap for new pods behind the operator's back."""
        await self.kube.patch(CONFIGMAPS, self.namespace, "trimtab-desired", MERGE_PATCH, {"data": {file: text}})

    async def call(
        self, pod: Pod, method: str, share: Share | None = None, *, key: Ed25519PrivateKey | None = None, **changes: Any
    ) -> tuple[int, Body]:
        """Call an agent as the operator does; `changes`: now, audience, body or path of another one."""
        path = f"/v1/rollouts/{share.rollout}" if share is not None else "/v1/rollouts"
        body = share.to_bytes() if share is not None else b""
        private = key or load_key(sorted(self.keys.glob("*.pem"))[-1])
        token = changes.get("token") or sign_call(
            private,
            changes.get("audience", pod_audience(pod.uid)),
            method=method,
            path=changes.get("path", path),
            body=changes.get("body", body),
            now=changes.get("now", time.time()),
        )
        url = f"http://{pod.address}:{self.fleet.port}{path}"
        headers = {"Authorization": f"Bearer {token}"}
        async with self.fleet.session.request(method, url, data=body or None, headers=headers) as answer:
            return answer.status, await answer.json()


def load_key(file: Path) -> Ed25519PrivateKey:
    key = load_pem_private_key(file.read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    return key
