"""An executor for many Jobs at once: it finishes every Job as soon as it sees it, with three writes each.

It stands in for Job controller, scheduler and kubelet, whose own limits (20 requests a second in the controller
manager) would hide the operator's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from trimtab_operator.domain.views import ATTEMPT_LABEL, JOB_LABEL, STAGE_LABEL
from trimtab_operator.runtime.kube import JOBS, MERGE_PATCH, PODS, Body, Resource
from trimtab_trainer.contract import Stage

from tests.component.operator.executor import Act, ended, last_words, now, running
from tests.tasks import cancelled


class RawClient:
    """aiohttp and JSON: what any client can reach at most."""

    def __init__(self, host: str, session: aiohttp.ClientSession) -> None:
        self._host = host
        self._session = session

    @classmethod
    async def of(cls, kubeconfig: Path) -> RawClient:
        configuration = client.Configuration()
        await config.load_kube_config(str(kubeconfig), client_configuration=configuration)
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
        connector = aiohttp.TCPConnector(ssl=context, limit=64)
        return cls(configuration.host, aiohttp.ClientSession(connector=connector, read_bufsize=2**22))

    async def close(self) -> None:
        await self._session.close()

    async def send(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Body:
        headers = {"Content-Type": content_type}
        data = json.dumps(body) if body is not None else None
        async with self._session.request(method, self._host + path, data=data, headers=headers) as answer:
            found: Body = await answer.json(content_type=None)
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {found.get('message')}")
            return found

    async def watch(self, resource: Resource, namespace: str) -> AsyncIterator[tuple[str, Body]]:
        """Yield (type, object) from now on, and first of all what is there; again when the API server ends a watch."""
        query = "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        timeout = aiohttp.ClientTimeout(total=None)
        while True:
            async with self._session.get(self._host + resource.path(namespace) + query, timeout=timeout) as answer:
                while line := await answer.content.readline():
                    event = json.loads(line)
                    yield event["type"], event["object"]


class Executor:
    """Finishes Jobs; `created` notes when each was seen first, on the loop's clock."""

    def __init__(self, client: RawClient, namespace: str, at_once: int = 16) -> None:
        self._client = client
        self._namespace = namespace
        self._slots = asyncio.Semaphore(at_once)
        self.created: dict[str, float] = {}
        self.synced = asyncio.Event()
        self.finished = 0
        """Jobs that have come to their end."""
        self.hold_seconds = 0.0
        """How long a pod is seen running; at 0 it is seen only when it has ended."""
        self.errors: list[str] = []
        self.validation_loss: Callable[[str], float | None] = lambda job: None
        """Of a FineTuneJob, by its name."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            async for kind, job in self._client.watch(JOBS, self._namespace):
                if kind == "BOOKMARK":
                    self.synced.set()
                name = job["metadata"].get("name", "")
                if kind == "ADDED" and name not in self.created:
                    self.created[name] = time.perf_counter()
                    if STAGE_LABEL in job["metadata"].get("labels", {}) and not job.get("status", {}).get("succeeded"):
                        group.create_task(self._finish(job))

    async def _finish(self, job: Body) -> None:
        async with self._slots:
            try:
                await self._play(job)
            except (RuntimeError, aiohttp.ClientError) as error:
                self.errors.append(str(error))

    async def _play(self, job: Body) -> None:
        metadata, namespace = job["metadata"], self._namespace
        labels, time = metadata["labels"], now()
        template: dict[str, Any] = job["spec"]["template"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        pod = {
            "metadata": {
                "name": f"{metadata['name']}-pod",
                "namespace": namespace,
                "labels": template["metadata"]["labels"],
                "ownerReferences": [{**owner, "controller": True}],
            },
            "spec": template["spec"],
        }
        await self._client.send("POST", PODS.path(namespace), pod)
        if self.hold_seconds:
            path = PODS.path(namespace, f"{metadata['name']}-pod", "status")
            await self._client.send("PATCH", path, {"status": running(pod, time, "127.0.0.1")}, MERGE_PATCH)
            await asyncio.sleep(self.hold_seconds)
        stage, attempt = Stage(labels[STAGE_LABEL]), int(labels[ATTEMPT_LABEL])
        loss = self.validation_loss(labels.get(JOB_LABEL, ""))
        words = last_words(stage, attempt, metadata["ownerReferences"][0]["uid"], Act(), validation_loss=loss)
        status = {"status": ended(pod, time, "127.0.0.1", 0, words)}
        path = PODS.path(namespace, f"{metadata['name']}-pod", "status")
        await self._client.send("PATCH", path, status, MERGE_PATCH)
        true = {"status": "True", "lastProbeTime": time, "lastTransitionTime": time}
        done = {
            "startTime": time,
            "completionTime": time,
            "succeeded": 1,
            "uncountedTerminatedPods": {},
            "conditions": [{"type": kind, **true} for kind in ("SuccessCriteriaMet", "Complete")],
        }
        path = JOBS.path(namespace, metadata["name"], "status")
        await self._client.send("PATCH", path, {"status": done}, MERGE_PATCH)
        self.finished += 1


@contextlib.asynccontextmanager
async def executing(client: RawClient, namespace: str) -> AsyncIterator[Executor]:
    executor = Executor(client, namespace)
    task = asyncio.create_task(executor.run())
    try:
        await asyncio.wait_for(executor.synced.wait(), 30)
        yield executor
    finally:
        await cancelled(task)
