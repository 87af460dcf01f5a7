"""Whatever lies in the Lease, and whatever the clock on the wall does, one replica leads, and one only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client import Configuration
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from trimtab_operator.runtime.kube import LEASES, Body, Invalid, NotLeading, Resource
from trimtab_operator.runtime.leader import MOST_TRANSITIONS, Leadership, Lock
from trimtab_operator.runtime.pods.desired import LOOK_SECONDS, Desired
from trimtab_operator.runtime.pods.signing import SigningKeys

from tests.unit.runtime.fake_api import FakeApi
from tests.unit.runtime.serving import new_key
from tests.unit.runtime.test_desired import share

NAME, NAMESPACE, SECONDS = "trimtab-operator", "trimtab-system", 15.0


class Leases(FakeApi):
    """An API server that reads a Lease as Kubernetes does."""

    def put(self, resource: Resource, body: Body) -> Body:
        if not 0 <= body["spec"].get("leaseTransitions", 0) < 2**31:
            raise Invalid(422, "Invalid", "leaseTransitions")
        return super().put(resource, body)

    def lease(self, **spec: Any) -> None:
        self.put(LEASES, {"metadata": {"namespace": NAMESPACE, "name": NAME}, "spec": spec})

    @property
    def spec(self) -> Body:
        spec: Body = self.objects["leases", NAMESPACE, NAME]["spec"]
        return spec


class Clocks:
    """That of the wall, and one that only ever goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady = 1_767_600_000.0, 1000.0
        monkeypatch.setattr(time, "time", lambda: self.wall)
        monkeypatch.setattr(time, "monotonic", lambda: self.steady)

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def api() -> Leases:
    return Leases()


@pytest.fixture
async def clocks(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clocks]:
    with monkeypatch.context() as patched:
        yield Clocks(patched)


def replica(api: Leases, identity: str) -> tuple[Lock, LeaderElection]:
    lock = Lock(api, NAME, NAMESPACE, identity, SECONDS)  # type: ignore[arg-type]

    async def nothing() -> None:
        """Neither begin nor end."""

    deadlines = {"lease_duration": SECONDS, "renew_deadline": 13.5, "retry_period": 3.0}
    return lock, LeaderElection(Config(lock, **deadlines, onstarted_leading=nothing, onstopped_leading=nothing))


HELD: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a number that has no next": {"leaseTransitions": MOST_TRANSITIONS},
    "a holder without times": {"holderIdentity": "someone", "leaseTransitions": 7},
    "a holder of before, of a restored backup": {
        "holderIdentity": "trimtab-6d5f9c-x",
        "leaseDurationSeconds": 2_147_483_647,
        "acquireTime": "2999-01-01T00:00:00.000000Z",
        "renewTime": "2999-01-01T00:00:00.000000Z",
        "leaseTransitions": MOST_TRANSITIONS,
    },
    "what a coordinated election left": {
        "strategy": "OldestEmulationVersion",
        "preferredHolder": "someone",
        "holderIdentity": "someone",
        "leaseTransitions": 1,
    },
}


@pytest.mark.parametrize("spec", HELD.values(), ids=HELD)
async def test_whatever_a_lease_holds_it_is_taken(api: Leases, clocks: Clocks, spec: dict[str, Any]) -> None:
    api.lease(**spec)
    lock, election = replica(api, "one")
    for _ in range(6):
        led = await election.try_acquire_or_renew()
        clocks.passes(3.1)
    assert led
    assert api.spec["holderIdentity"] == "one"
    assert api.spec["leaseDurationSeconds"] == SECONDS
    assert lock.transitions == api.spec["leaseTransitions"] <= MOST_TRANSITIONS


async def test_a_count_that_begins_again_still_tells_one_holder_from_the_next(api: Leases, clocks: Clocks) -> None:
    api.lease(leaseTransitions=MOST_TRANSITIONS)
    first, election = replica(api, "one")
    assert await election.try_acquire_or_renew()
    assert await first.release()
    second, election = replica(api, "two")
    assert await election.try_acquire_or_renew()
    assert (first.transitions, second.transitions) == (0, 1)


async def test_a_clock_that_is_set_ahead_makes_nobody_a_second_leader(api: Leases, clocks: Clocks) -> None:
    """The leader has just renewed, and writes on."""
    _, leading = replica(api, "one")
    _, following = replica(api, "two")
    assert await leading.try_acquire_or_renew()
    assert not await following.try_acquire_or_renew()
    clocks.passes(1)
    clocks.wall += 3600
    assert not await following.try_acquire_or_renew()
    assert api.spec["holderIdentity"] == "one"


async def test_a_clock_that_is_set_back_keeps_nobody_from_following(api: Leases, clocks: Clocks) -> None:
    _, leading = replica(api, "one")
    _, following = replica(api, "two")
    assert await leading.try_acquire_or_renew()
    assert not await following.try_acquire_or_renew()
    clocks.wall -= 3600
    clocks.passes(SECONDS + 0.1)
    assert await following.try_acquire_or_renew()
    assert api.spec["holderIdentity"] == "two"


async def test_who_takes_a_lease_waits_for_all_of_it_though_its_holder_renewed(api: Leases, clocks: Clocks) -> None:
    _, leading = replica(api, "one")
    _, following = replica(api, "two")
    assert await leading.try_acquire_or_renew()
    for _ in range(4):
        assert not await following.try_acquire_or_renew()
        clocks.passes(10)
        assert await leading.try_acquire_or_renew()
    assert not await following.try_acquire_or_renew()
    clocks.passes(SECONDS - 0.1)
    assert not await following.try_acquire_or_renew()
    clocks.passes(0.2)
    assert await following.try_acquire_or_renew()
    assert not await leading.try_acquire_or_renew()


async def test_a_clock_that_is_set_while_the_lease_is_read_makes_nobody_a_second_leader(
    api: Leases, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The election takes its own time before it reads; the leader has just renewed, and writes on."""
    _, leading = replica(api, "one")
    _, following = replica(api, "two")
    assert await leading.try_acquire_or_renew()
    assert not await following.try_acquire_or_renew()
    clocks.passes(1)
    read = api.get

    async def slowly(resource: Resource, namespace: str | None, name: str) -> Body:
        clocks.wall -= 3600
        return await read(resource, namespace, name)

    monkeypatch.setattr(api, "get", slowly)
    assert not await following.try_acquire_or_renew()
    assert api.spec["holderIdentity"] == "one"


async def test_a_lease_that_was_given_for_longer_is_waited_for_so_long(api: Leases, clocks: Clocks) -> None:
    """Its holder was started with another setting."""
    api.lease(holderIdentity="someone", leaseDurationSeconds=60, leaseTransitions=1)
    _, following = replica(api, "two")
    assert not await following.try_acquire_or_renew()
    clocks.passes(59)
    assert not await following.try_acquire_or_renew()
    clocks.passes(1.1)
    assert await following.try_acquire_or_renew()
    assert api.spec["holderIdentity"] == "two"


async def test_a_lease_that_is_gone_is_waited_for_as_long_as_it_was_given(api: Leases, clocks: Clocks) -> None:
    api.lease(holderIdentity="someone", leaseDurationSeconds=60, leaseTransitions=1)
    _, following = replica(api, "two")
    assert not await following.try_acquire_or_renew()
    del api.objects["leases", NAMESPACE, NAME]
    clocks.passes(59)
    assert not await following.try_acquire_or_renew()
    clocks.passes(1.1)
    assert await following.try_acquire_or_renew()


class Slow(Leases):
    """An API server that answers no question about a Lease before `free`."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body:
        if resource == LEASES:
            await self.free.wait()
        return await super().get(resource, namespace, name)


async def test_what_waits_is_not_written_while_the_lease_is_given_away(tmp_path: Path) -> None:
    api, others = Slow(), True
    leadership = Leadership(Configuration(), name=NAME, namespace=NAMESPACE, identity="a", seconds=SECONDS)
    leadership._lock = Lock(api, NAME, NAMESPACE, "a", SECONDS)  # type: ignore[arg-type]
    leadership._lock.renewed = time.monotonic()
    leadership.leading = True
    api.lease(holderIdentity="a", leaseDurationSeconds=15)

    def fence(verb: str, plural: str, name: str) -> None:
        if plural != "leases" and verb != "get" and not leadership.may_write():
            raise NotLeading(name)
        reached.append((verb, plural))

    reached: list[tuple[str, str]] = []
    api.before = fence
    new_key(tmp_path / "keys", "key-1.pem")
    signing = SigningKeys(tmp_path / "keys")
    (key,) = signing.all()
    desired = Desired(api, signing, busy=lambda _: others)
    await desired.put(share(), key, now=1_700_000_000)
    assert leadership.may_write()
    release = asyncio.create_task(leadership.release())
    await asyncio.sleep(0)
    others = False
    await asyncio.sleep(3 * LOOK_SECONDS)
    api.free.set()
    await release
    assert api.spec.get("holderIdentity") is None
    assert [call for call in reached if call[1] == "configmaps" and call[0] != "get"] == []
