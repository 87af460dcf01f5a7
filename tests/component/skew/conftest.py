"""One cluster for each test: its definitions are changed, and changed back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from trimtab_agent.engine.vllm import Timeouts
from trimtab_operator.runtime.kube import Kube

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import kube_of
from tests.component.rollout.scene import Scene
from tests.component.skew.trainers import Trainers, telling
from tests.component.skew.world import Definitions, Operators, World
from tests.serving.fleet import Fleet, serving


@pytest.fixture
async def kube(kubeconfig: Path) -> AsyncIterator[Kube]:
    kube = await kube_of(kubeconfig)
    yield kube
    await kube.close()


@pytest.fixture
def definitions(server: ApiServer, namespace: str) -> Iterator[Definitions]:
    """Those of this version; what a test changes is taken back."""
    definitions = Definitions(server, namespace)
    yield definitions
    definitions.apply("this")


@pytest.fixture
async def operators(kubeconfig: Path, namespace: str, tmp_path: Path) -> AsyncIterator[Operators]:
    operators = Operators(kubeconfig, namespace, tmp_path)
    yield operators
    for operator in operators.all:
        await operator.kill()


@pytest.fixture
async def trainers(kube: Kube, namespace: str) -> AsyncIterator[Trainers]:
    trainers = Trainers(kube, namespace)
    async with telling(trainers):
        yield trainers


@pytest.fixture
async def fleet(kube: Kube, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with serving(kube, tmp_path / "fleet", max_cpu_loras=16, timeouts=Timeouts()) as fleet:
        yield fleet


@pytest.fixture
async def world(fleet: Fleet, trainers: Trainers, operators: Operators, definitions: Definitions) -> World:
    """Everything on its way, under this version."""
    leader = await operators.lead("this")
    scene = Scene(trainers.kube, trainers.namespace, fleet, leader, operators.keys)
    world = World(scene, trainers, operators, definitions)
    await world.begin()
    return world
