"""Notifications while the operator is killed right after each of its writes: every state that an object goes through is
told, signed, and under the same id however often.

The record of what was told is one of these writes, so it is killed between a delivery and its record too, and between a
state and its delivery.

The first and the last write of each kind are part of `make test`, all of them of `make test-long`.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from trimtab_operator.domain.kinds import KINDS
from trimtab_operator.domain.notifications import transitions_of
from trimtab_operator.runtime.kube import CONFIGMAPS, Kube, NotFound

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import playing
from tests.component.operator.finetunejobs import finetunejob, over, until
from tests.component.operator.process import OperatorProcess
from tests.component.patience import Patience
from tests.long import SOME_OR_EVERY, first_and_last
from tests.perturb.deaths import kept_running
from tests.perturb.proxy import Proxy, Write
from tests.receiver import KEY, Receiver, accept, secret
from tests.resources import FINETUNEJOBS

AT_ONCE = 3
RECORD = "trimtab-operator-notifications"


class Watching(Proxy):
    """A proxy that knows every state that objects have gone through."""

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__(kubeconfig)
        self.states: dict[str, int] = {}
        """By id of the transition, how many writes there had been when the object said so first."""

    async def _note(self, method: str, resource: str, name: str, content: bytes) -> None:
        kind = next((kind for kind in KINDS.values() if resource == f"{kind.crd.plural}/status"), None)
        for each in transitions_of(kind, json.loads(content), 1, "") if kind is not None else ():
            self.states.setdefault(each.id, len(self.writes) + 1)
        await super()._note(method, resource, name, content)


@dataclass(frozen=True)
class Life:
    """What was told of a FineTuneJob, by id, and what it went through."""

    told: Counter[str]
    reasons: list[str]
    states: dict[str, int]
    writes: list[Write]
    killed: bool


def settings_of(folder: Path, receiver: Receiver) -> dict[str, str]:
    secrets = secret(folder / "secrets", "bus", key=KEY, url=receiver.url)
    return {
        "TRIMTAB_NOTIFICATIONS": json.dumps([{"name": "bus", "secretName": "bus"}]),
        "TRIMTAB_NOTIFICATION_SECRETS": str(secrets),
    }


async def live(kube: Kube, kubeconfig: Path, namespace: str, folder: Path, kill_after: int = 0) -> Life:
    """Run one FineTuneJob to its end; kill the operator after a write, and start another one."""
    killed = asyncio.Event()
    proxy = Watching(kubeconfig)
    async with Receiver() as receiver, proxy, playing(kube, namespace):
        operator = OperatorProcess(proxy.kubeconfig(folder), namespace, folder, **settings_of(folder, receiver))

        async def after_write(number: int, write: Write) -> None:
            if number == kill_after and not killed.is_set():
                killed.set()
                await operator.kill()

        proxy.after_write = after_write
        async with kept_running(operator):
            await until_recorded(proxy)  # from now on it is told
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
            await until(kube, namespace, "demo", over, what="the end")
            patience = Patience("the end to be told")
            while "Completed" not in (reason for _, _, reason in receiver.told):
                patience.spend(lambda: len(receiver.told))
                await asyncio.sleep(0.05)
            await until_recorded(proxy, after=len(proxy.writes) - 1)
    told = Counter(str(event.get_id()) for event in receiver.received)
    return Life(told, [reason for _, _, reason in receiver.told], proxy.states, proxy.writes, killed.is_set())


async def until_recorded(proxy: Proxy, after: int = 0) -> None:
    patience = Patience("a write of the record")
    while not any(write.name == RECORD for write in proxy.writes[after:]):
        patience.spend(lambda: len(proxy.writes))
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("every", SOME_OR_EVERY)
async def test_killed_after_each_write_everything_is_told(
    kube: Kube, kubeconfig: Path, server: ApiServer, tmp_path: Path, every: bool
) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(kill_after: int) -> Life:
        async with slots:
            made = server.create("/api/v1/namespaces", {"metadata": {"generateName": "notified-"}})
            name = made.body["metadata"]["name"]
            folder = tmp_path / str(kill_after)
            folder.mkdir()
            try:
                return await live(kube, kubeconfig, name, folder, kill_after)
            finally:
                server.delete(f"/api/v1/namespaces/{name}")

    reference = await one(0)
    assert reference.told == dict.fromkeys(reference.states, 1)
    assert reference.reasons == ["Preparing", "Training", "Completed"]
    of_record = [write for write in reference.writes if write.name == RECORD]
    others = len(reference.writes) - len(of_record)
    print(f"\n{others} writes as ever, {len(of_record)} of the record, {len(reference.told)} notifications")
    assert len(of_record) <= 1 + len(reference.told)  # one when the endpoint was new
    count = len(reference.writes)
    # Of other writes what is told does not depend: tests/perturb/test_killed.py has a life for each kind of them.
    concerns = [w.kind if w in of_record or w.resource == "finetunejobs/status" else None for w in reference.writes]
    some = [number for number in first_and_last(concerns) if concerns[number - 1] is not None]
    numbers = [*range(1, count + 1)] if every else some
    lives = await asyncio.gather(*map(one, numbers))
    for number, life in zip(numbers, lives, strict=True):
        story = f"killed after write {number} ({reference.writes[number - 1]}): {[str(w) for w in life.writes]}"
        assert life.killed or len(life.writes) < number, story
        assert life.told.keys() <= life.states.keys(), story
        for missed in life.states.keys() - life.told.keys():  # only what the killed one had left again itself
            assert any(life.states[missed] < written <= number for written in life.states.values()), story
    missing = sum(len(life.states) - len(life.told) for life in lives)
    assert missing <= max(1, len(lives) // 4), "what is passed through is told at once as a rule"
    twice = sum(times - 1 for life in lives for times in life.told.values())
    print(
        f"killed after each of {count} writes: all {sum(len(life.told) for life in lives)} told, {twice} of them twice"
    )


async def test_an_endpoint_that_is_down_delays_nothing_and_hears_of_it_later(
    kube: Kube, kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    """The operator, whose endpoint never answers, is replaced; the next one, whose endpoint does, tells the ends."""

    async def never(request: web.Request, number: int) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    async with Receiver(answer=never) as receiver, playing(kube, namespace):
        operator = OperatorProcess(kubeconfig, namespace, tmp_path, **settings_of(tmp_path, receiver))
        try:
            await operator.start()
            await operator.ready()
            patience = Patience("the record of a new endpoint")
            while not await record_is_there(kube, namespace):
                patience.spend(operator.tail)
                await asyncio.sleep(0.05)
            for name in ("a", "b"):
                await kube.create(FINETUNEJOBS, namespace, finetunejob(name, namespace))
            for name in ("a", "b"):
                await until(kube, namespace, name, over, what="the end")
            metrics = await operator.metrics()
            assert metrics['trimtab_notifications_pending{receiver="bus"}'] >= 2
            assert not receiver.received
            await operator.kill()
            receiver.answer = accept
            await operator.start()
            patience = Patience("both ends")
            while {name for _, name, reason in receiver.told if reason == "Completed"} != {"a", "b"}:
                patience.spend(lambda: len(receiver.told))
                await asyncio.sleep(0.05)
            logged = operator.log_file.read_text()
        finally:
            await operator.kill()
    assert "secret-part" not in logged
    assert KEY.removeprefix("whsec_") not in logged


async def record_is_there(kube: Kube, namespace: str) -> bool:
    try:
        await kube.get(CONFIGMAPS, namespace, RECORD)
    except NotFound:
        return False
    return True
