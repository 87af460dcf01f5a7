"""A client, and a FineTuneJob's namespace with an executor, for tests of the operator as a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kubernetes.aio import client, config
from trimtab_operator.runtime.kube import Kube

from tests.component.operator.executor import Executor, Script, succeed
from tests.component.operator.process import OperatorProcess
from tests.tasks import cancelled

Start = Callable[..., Awaitable[OperatorProcess]]


async def kube_of(kubeconfig: Path) -> Kube:
    configuration = client.Configuration()
    await config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    return Kube(configuration, timeout=30)


@asynccontextmanager
async def playing(
    kube: Kube, namespace: str, script: Script = succeed, *, kind: type[Executor] = Executor, **options: str
) -> AsyncIterator[Executor]:
    """Play the pods of a namespace meanwhile."""
    executor = kind(kube, namespace, script, **options)  # type: ignore[arg-type]
    task = asyncio.create_task(executor.run())
    try:
        yield executor
    finally:
        await cancelled(task)


@pytest.fixture
async def kube(kubeconfig: Path) -> AsyncIterator[Kube]:
    kube = await kube_of(kubeconfig)
    yield kube
    await kube.close()


@pytest.fixture
async def start(kubeconfig: Path, namespace: str, tmp_path: Path) -> AsyncIterator[Start]:
    """Start replicas that watch the test's namespace; they are killed when the test ends."""
    started: list[OperatorProcess] = []

    async def start(name: str = "one", kubeconfig: Path = kubeconfig, **settings: str) -> OperatorProcess:
        operator = OperatorProcess(kubeconfig, namespace, tmp_path, name, **settings)
        started.append(operator)
        await operator.start()
        await operator.ready()
        return operator

    yield start
    for operator in started:
        await operator.kill()
