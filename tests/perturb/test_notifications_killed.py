"""Notifications while the operator is killed right after each of its writes: every state that its objects go through is
told, signed, and under the same id however often.

The record of what was told is one of these writes, so it is killed between a delivery and its record too, and between a
state and its delivery.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from trimtab_operator.runtime.kube import CONFIGMAPS, Kube, NotFound

from tests.component.api_server import ApiServer
from tests.component.operator.conftest import playing
from tests.component.operator.finetunejobs import evaluation, finetunejob, over, until
from tests.component.operator.process import OperatorProcess
from tests.component.patience import Patience
from tests.perturb.proxy import Proxy, Write
from tests.receiver import KEY, Receiver, accept, data_of, secret
from tests.resources import EVALUATIONS, FINETUNEJOBS

AT_ONCE = 3
RECORD = "trimtab-operator-notifications"
Told = tuple[str, str, str, int | None]
"""Kind, type of the condition, reason and attempt."""


@dataclass(frozen=True)
class Life:
    """What was told of a FineTuneJob and its Evaluation."""

    told: Counter[Told]
    ids: dict[Told, set[str]]
    writes: list[Write]
    killed: bool


def settings_of(folder: Path, receiver: Receiver) -> dict[str, str]:
    secrets = secret(folder / "secrets", "bus", key=KEY, url=receiver.url)
    return {
        "TRIMTAB_NOTIFICATIONS": json.dumps([{"name": "bus", "secretName": "bus"}]),
        "TRIMTAB_NOTIFICATION_SECRETS": str(secrets),
    }


async def live(kube: Kube, kubeconfig: Path, namespace: str, folder: Path, kill_after: int = 0) -> Life:
    """Run one FineTuneJob and its Evaluation to their ends; kill the operator after a write, and start another one."""
    killed = asyncio.Event()
    async with Receiver() as receiver, Proxy(kubeconfig) as proxy, playing(kube, namespace):
        operator = OperatorProcess(proxy.kubeconfig(folder), namespace, folder, **settings_of(folder, receiver))

        async def after_write(number: int, write: Write) -> None:
            if number == kill_after and not killed.is_set():
                killed.set()
                await operator.kill()

        async def start_again() -> None:
            await killed.wait()
            await operator.process.wait()
            await operator.start()

        proxy.after_write = after_write
        again = asyncio.create_task(start_again())
        try:
            await operator.start()
            await operator.ready()
            patience = Patience("the record of a new endpoint")
            while not any(write.name == RECORD for write in proxy.writes):  # from now on it is told
                patience.spend(operator.tail)
                await asyncio.sleep(0.05)
            await kube.create(EVALUATIONS, namespace, evaluation("demo", namespace))
            await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
            await until(kube, namespace, "demo", over, what="the end", resource=EVALUATIONS)
            patience = Patience("the verdict")
            while not any(reason == "Passed" for _, _, reason in receiver.told):
                patience.spend(lambda: len(receiver.told))
                await asyncio.sleep(0.05)
            await asyncio.sleep(3)  # what else it would do: the record is written
        finally:
            again.cancel()
            await operator.kill()
    told, ids = Counter[Told](), dict[Told, set[str]]()
    for event in receiver.received:
        data = data_of(event)
        one = (data["kind"], data["condition"]["type"], data["condition"]["reason"], data.get("attempt"))
        told[one] += 1
        ids.setdefault(one, set()).add(event.get_id())
    return Life(told, ids, proxy.writes, killed.is_set())


async def test_killed_after_each_write_everything_is_told(
    kube: Kube, kubeconfig: Path, server: ApiServer, tmp_path: Path
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
    assert set(reference.told.values()) == {1}
    assert {(kind, reason) for kind, _, reason, _ in reference.told} >= {
        ("FineTuneJob", "Training"),
        ("FineTuneJob", "Completed"),
        ("Evaluation", "Completed"),
        ("Evaluation", "Passed"),
    }
    of_record = [write for write in reference.writes if write.name == RECORD]
    print(f"\n{sum(reference.told.values())} notifications, {len(of_record)} writes of the record")
    assert len(of_record) <= 1 + sum(reference.told.values())
    count = len(reference.writes)
    lives = await asyncio.gather(*(one(number) for number in range(1, count + 1)))
    twice = 0
    for number, life in enumerate(lives, start=1):
        story = f"killed after write {number} ({reference.writes[number - 1]}): {[str(w) for w in life.writes]}"
        assert life.killed or len(life.writes) < number, story
        # A life that is interrupted may go through a state less, or wait for its Evaluation a little longer.
        ends = {told for told in reference.told if told[2] in ("Training", "Completed", "Passed", "Evaluating")}
        assert ends <= life.told.keys(), story
        assert all(len(ids) == 1 for ids in life.ids.values()), story
        twice += sum(count - 1 for count in life.told.values())
    print(f"killed after each of {count} writes: all told, {twice} of them twice")


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
