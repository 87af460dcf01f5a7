"""Two replicas: one leads, the other follows at once when it may, and never do both write."""

from __future__ import annotations

import asyncio
import signal
import time

from trimtab_operator.runtime.kube import LEASES, MERGE_PATCH, Body, Kube, NotFound

from tests.component.operator.conftest import Start, playing
from tests.component.operator.finetunejobs import finetunejob, jobs_of, until_state
from tests.component.operator.process import OperatorProcess
from tests.component.patience import QUIET_SECONDS, Patience
from tests.resources import FINETUNEJOBS


async def until_leading(operator: OperatorProcess) -> float:
    """Return how many seconds it took."""
    began, patience = time.monotonic(), Patience(f"{operator.name} leads")
    while not await operator.leading():
        patience.spend(operator.tail)
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def test_a_killed_leader_is_followed(kube: Kube, namespace: str, start: Start) -> None:
    first = await start("first")
    await until_leading(first)
    second = await start("second")
    assert not await second.leading()
    assert await second.probe("healthz") == 200
    async with playing(kube, namespace):
        await kube.create(FINETUNEJOBS, namespace, finetunejob("before", namespace))
        while "before-prepare-0" not in await jobs_of(kube, namespace):
            await asyncio.sleep(0.05)
        await first.kill()
        await kube.create(FINETUNEJOBS, namespace, finetunejob("after", namespace))
        took = await until_leading(second)
        print(f"followed after {took:.1f} s")
        for name in ("before", "after"):
            await until_state(kube, namespace, name, "Completed")
    names = {f"{name}-{child}" for name in ("before", "after") for child in ("prepare-0", "train-1")}
    assert set(await jobs_of(kube, namespace)) == names


async def test_a_leader_that_is_told_to_stop_gives_the_lease_away(kube: Kube, namespace: str, start: Start) -> None:
    lease_seconds = 60
    first = await start("first", TRIMTAB_LEASE_SECONDS=str(lease_seconds))
    await until_leading(first)
    second = await start("second", TRIMTAB_LEASE_SECONDS=str(lease_seconds))
    began = time.monotonic()
    assert await first.terminate() == 0
    assert await until_leading(second) < lease_seconds, "it waited until the Lease was over"
    print(f"handed over in {time.monotonic() - began:.1f} s")
    lease = await kube.get(LEASES, namespace, "trimtab-operator")
    assert lease["spec"]["holderIdentity"] == "second"


async def test_a_leader_that_was_replaced_ends(kube: Kube, namespace: str, start: Start) -> None:
    """Stopped for longer than its Lease, it must not write one thing when it goes on."""
    first = await start("first", TRIMTAB_LEASE_SECONDS="6")
    await until_leading(first)
    first.process.send_signal(signal.SIGSTOP)
    second = await start("second", TRIMTAB_LEASE_SECONDS="6")
    await until_leading(second)
    await kube.create(FINETUNEJOBS, namespace, finetunejob("demo", namespace))
    await until_state(kube, namespace, "demo", "Preparing")
    first.process.send_signal(signal.SIGCONT)
    assert await asyncio.wait_for(first.process.wait(), QUIET_SECONDS) == 1
    assert not [line for line in first.log_lines() if line["msg"] == "created"]
    async with playing(kube, namespace):
        await until_state(kube, namespace, "demo", "Completed")
    assert len(await jobs_of(kube, namespace)) == 2


async def test_a_leader_whose_lease_was_taken_ends(kube: Kube, namespace: str, start: Start) -> None:
    first = await start("first")
    await until_leading(first)
    renewed = {"spec": {"holderIdentity": "someone-else", "renewTime": "2999-01-01T00:00:00.000000Z"}}
    await kube.patch(LEASES, namespace, "trimtab-operator", MERGE_PATCH, renewed)
    assert await asyncio.wait_for(first.process.wait(), QUIET_SECONDS) == 1


async def test_a_lease_that_is_deleted_makes_no_second_leader(kube: Kube, namespace: str, start: Start) -> None:
    """Who follows waits for as long as the leader may still write, which in the meantime makes the Lease anew."""
    first = await start("first")
    await until_leading(first)
    second = await start("second")
    patience = Patience("the second one has seen the Lease")
    while not any(line["msg"] == "following" for line in second.log_lines()):
        patience.spend(second.tail)
        await asyncio.sleep(0.05)
    for _ in range(2):
        lease = await kube.get(LEASES, namespace, "trimtab-operator")
        await kube.delete(LEASES, namespace, "trimtab-operator", lease["metadata"]["uid"])
        patience = Patience("the Lease is made anew")
        while (again := await found(kube, namespace)) is None:
            patience.spend(first.tail)
            await asyncio.sleep(0.05)
        assert again["spec"]["holderIdentity"] == "first"
    assert (await first.leading(), await second.leading()) == (True, False)
    await first.kill()
    await until_leading(second)


async def found(kube: Kube, namespace: str) -> Body | None:
    try:
        return await kube.get(LEASES, namespace, "trimtab-operator")
    except NotFound:
        return None
