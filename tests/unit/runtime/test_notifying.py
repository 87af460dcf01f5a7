"""Notifications as they are sent: to a real server that fails in every way, by leaders that die one after the other."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.registry import REGISTRY
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from trimtab_operator.domain.kinds import KINDS
from trimtab_operator.domain.notifications import Endpoint, Format, transitions_of
from trimtab_operator.runtime.cluster.cache import Cache
from trimtab_operator.runtime.kube import CONFIGMAPS, OWN, ApiError, Body, Unreachable, items_of
from trimtab_operator.runtime.notifying import notifier as notifier_module
from trimtab_operator.runtime.notifying import outbox as outbox_module
from trimtab_operator.runtime.notifying.notifier import REFUSALS_MAXIMUM, Notifier, Pace
from trimtab_operator.runtime.notifying.outbox import Outbox, Present, Record
from trimtab_operator.runtime.notifying.record import Records
from trimtab_operator.runtime.notifying.secrets import Secrets, SecretUnusable, signature_headers
from trimtab_operator.runtime.notifying.sender import Sender, outcome_of

from tests.component.patience import Patience
from tests.receiver import KEY, Receiver, secret
from tests.tasks import cancelled
from tests.unit.runtime.fake_api import FakeApi
from tests.unit.runtime.objects import finetunejob

JOBS = OWN["FineTuneJob"]
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
FAST = Pace(request=30, first=0.01, longest=0.05, write=0.01, settled=0.0)
HELD = replace(FAST, settled=3600.0)
RECORD = "trimtab-operator-notifications"


def says(name: str, reason: str, status: str = "Unknown", since: str = "2026-11-29T12:00:00Z", **more: Any) -> Body:
    condition = {"type": "Succeeded", "status": status, "reason": reason, "message": "", "lastTransitionTime": since}
    return finetunejob(name, f"uid-{name}", conditions=[condition], **more)


@dataclass
class World:
    """An API server in memory and a folder of Secrets, which outlive every leader."""

    api: FakeApi
    folder: Path
    endpoints: list[Endpoint]

    def write(self, body: Body) -> Body:
        """Have an object in the cluster, as if a leader had written its status."""
        return self.api.put(JOBS, body)

    @property
    def writes(self) -> int:
        """Writes of the record."""
        return len([call for call in self.api.writes() if call[2] == RECORD])

    @property
    def record(self) -> dict[str, str]:
        data: dict[str, str] = self.api.objects["configmaps", "system", RECORD]["data"]
        return data


@dataclass
class Leader:
    """One term: what it sees goes through a real cache."""

    world: World
    notifier: Notifier
    cache: Cache

    def sees(self, body: Body) -> None:
        self.cache.owners["FineTuneJob"].put(self.world.write(body))


@asynccontextmanager
async def leading(world: World, pace: Pace = FAST) -> AsyncIterator[Leader]:
    """Lead for a while, and end as a process that is killed."""
    async with aiohttp.ClientSession() as session:
        sender = Sender(session, Secrets(world.folder), seconds=pace.request)
        records = Records(world.api, "system", RECORD)
        notifier = Notifier(world.endpoints, sender, records, now=lambda: NOW, pace=pace)
        cache = Cache(seen=notifier.seen)
        await notifier.load()
        moments: dict[tuple[str, str | None], int] = {}
        for store in cache.owners.values():
            async for page in world.api.pages(store.resource, None):
                moments[store.resource.plural, None] = int(page["metadata"]["resourceVersion"])
                for item in items_of(page):
                    store.put(item)
        notifier.filled(cache, moments)
        task = asyncio.create_task(notifier.run())
        try:
            yield Leader(world, notifier, cache)
        finally:
            await cancelled(task)


async def until(what: Callable[[], object], words: str = "what is waited for") -> None:
    patience = Patience(words)
    while not what():
        patience.spend(what)
        await asyncio.sleep(0.01)


async def quiet(world: World, leader: Leader) -> None:
    """Wait until nothing is pending and all is written down."""
    await until(lambda: not any(map(len, leader.notifier._outboxes)) and not leader.notifier._to_write, "quiet")
    await asyncio.sleep(0.05)


def total(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
def world(tmp_path: Path, receiver: Receiver) -> World:
    folder = secret(tmp_path, "bus", key=KEY, url=receiver.url)
    return World(FakeApi(), folder, [Endpoint(name="bus", secret_name="bus-secret")])


async def test_every_change_is_told_once_in_order_and_signed(world: World, receiver: Receiver) -> None:
    async with leading(world) as leader:
        for reason, status in (("Preparing", "Unknown"), ("Training", "Unknown"), ("Completed", "True")):
            leader.sees(says("a", reason, status))
            leader.sees(says("a", reason, status, progress={"step": 1}))
        await quiet(world, leader)
        assert receiver.told == [("FineTuneJob", "a", reason) for reason in ("Preparing", "Training", "Completed")]
        assert len({event.get_id() for event in receiver.received}) == 3


async def test_a_new_endpoint_is_told_of_nothing_that_was_so_before(world: World, receiver: Receiver) -> None:
    world.write(says("old", "Completed", "True"))
    async with leading(world) as leader:
        leader.sees(says("new", "Training"))
        await quiet(world, leader)
    assert receiver.told == [("FineTuneJob", "new", "Training")]


async def test_the_next_leader_tells_what_the_last_one_did_not(world: World, receiver: Receiver) -> None:
    async with leading(world) as leader:
        leader.sees(says("a", "Training"))
        await quiet(world, leader)
    world.write(says("a", "Completed", "True"))  # written by a leader that died before it told
    async with leading(world) as leader:
        await quiet(world, leader)
    async with leading(world) as leader:
        await quiet(world, leader)
    assert [reason for _, _, reason in receiver.told] == ["Training", "Completed"]


async def test_what_was_told_is_not_told_again_though_the_object_changed(world: World, receiver: Receiver) -> None:
    for pace in (FAST, HELD):
        receiver.received.clear()
        async with leading(world, pace) as leader:
            leader.sees(says(f"a-{pace.settled}", "Training"))
            await quiet(world, leader)
        world.write(says(f"a-{pace.settled}", "Training", progress={"step": 9}))
        async with leading(world, pace) as leader:
            await quiet(world, leader)
        assert len(receiver.received) == 1, pace


async def test_killed_before_it_is_written_down_it_is_told_twice_under_one_id(world: World, receiver: Receiver) -> None:
    async with leading(world) as leader:
        await quiet(world, leader)

    def refuse(verb: str, plural: str, name: str) -> None:
        if verb == "patch" and name == RECORD:
            raise Unreachable("no answer")

    world.api.before = refuse
    async with leading(world) as leader:
        leader.sees(says("a", "Training"))
        await until(lambda: receiver.received)
    world.api.before = lambda verb, plural, name: None
    async with leading(world) as leader:
        await quiet(world, leader)
    assert [event.get_id() for event in receiver.received] == [receiver.received[0].get_id()] * 2


async def test_what_waits_keeps_the_record_from_moving_past_it(world: World, receiver: Receiver) -> None:
    """The endpoint is down, and others go on: what it has not heard is found by the leader after."""
    async with Receiver() as other:
        secret(world.folder, "other", key=KEY, url=other.url)
        world.endpoints.append(Endpoint(name="other", secret_name="other"))
        async with leading(world) as leader:
            await quiet(world, leader)

        async def down(request: web.Request, number: int) -> web.StreamResponse:
            return web.Response(status=503)

        accepted, receiver.answer = receiver.answer, down
        async with leading(world) as leader:
            leader.sees(says("a", "Completed", "True"))
            leader.sees(says("b", "Training"))
            await until(lambda: len(other.received) == 2 and receiver.requests > 2)
            await until(lambda: not leader.notifier._to_write)
        receiver.answer = accepted
        async with leading(world) as leader:
            await quiet(world, leader)
        assert sorted(receiver.told) == sorted(other.told)
        assert len(other.received) == 2


async def _hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


async def _resets(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response(status=500)  # which nobody hears


async def _fails(request: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text="x" * 100_000)


async def _redirects(request: web.Request) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": "/elsewhere"})


async def _dribbles(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=503)
    await response.prepare(request)
    for _ in range(100):
        await response.write(b"x")
        await asyncio.sleep(0.05)
    return response


FAILURES = {"fails": _fails, "hangs": _hangs, "resets": _resets, "redirects": _redirects, "dribbles": _dribbles}
ENDED_BY_US = replace(FAST, request=2)
"""Of what never answers; what does must not take so long."""


@pytest.mark.parametrize("story", FAILURES)
async def test_an_endpoint_that_fails_is_told_once_it_works(
    world: World, receiver: Receiver, story: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def twice(request: web.Request, number: int) -> web.StreamResponse:
        return await FAILURES[story](request) if number < 2 else web.Response()

    receiver.answer = twice
    before = total("trimtab_notifications_total", receiver="bus", result="failed")
    async with leading(world, ENDED_BY_US if story in ("hangs", "dribbles") else FAST) as leader:
        leader.sees(says("a", "Training"))
        await quiet(world, leader)
    assert receiver.told == [("FineTuneJob", "a", "Training")]
    assert receiver.elsewhere == 0
    assert total("trimtab_notifications_total", receiver="bus", result="failed") == before + 2
    logged = "\n".join(str(record.__dict__) for record in caplog.records if record.name.startswith("trimtab"))
    assert "notification failed" in logged
    assert "secret-part" not in logged
    assert KEY.removeprefix("whsec_") not in logged


async def test_no_server_at_all_is_waited_for(world: World, tmp_path: Path) -> None:
    secret(world.folder, "bus", url="http://127.0.0.1:9/hook/secret-part")
    async with leading(world) as leader:
        leader.sees(says("a", "Training"))
        await until(lambda: total("trimtab_notifications_total", receiver="bus", result="failed") > 2)
        metrics = {metric.name: metric.samples for metric in leader.notifier.collect()}
        assert metrics["trimtab_notifications_pending"][0].value == 1
        assert metrics["trimtab_notifications_waiting_seconds"][0].value > 0
        async with Receiver() as receiver:
            secret(world.folder, "bus", url=receiver.url)  # the Secret is mended, and no restart
            await quiet(world, leader)
            assert len(receiver.received) == 1


async def test_what_an_endpoint_never_takes_is_given_up_and_holds_up_nothing(world: World, receiver: Receiver) -> None:
    async def not_that_one(request: web.Request, number: int) -> web.StreamResponse:
        return web.Response(status=422 if b'"name":"bad"' in await request.read() else 200)

    receiver.answer = not_that_one
    before = total("trimtab_notifications_total", receiver="bus", result="givenUp")
    async with leading(world) as leader:
        leader.sees(says("bad", "Training"))
        leader.sees(says("good", "Training"))
        await quiet(world, leader)
    assert receiver.told == [("FineTuneJob", "good", "Training")]
    assert receiver.requests == REFUSALS_MAXIMUM + 1
    assert total("trimtab_notifications_total", receiver="bus", result="givenUp") == before + 1
    async with leading(world) as leader:
        await quiet(world, leader)
    assert receiver.requests == REFUSALS_MAXIMUM + 1


async def test_a_slow_endpoint_holds_up_no_other(world: World, receiver: Receiver) -> None:
    async def never(request: web.Request, number: int) -> web.StreamResponse:
        return await _hangs(request)

    async with Receiver(answer=never) as slow:
        secret(world.folder, "slow", key=KEY, url=slow.url)
        world.endpoints.insert(0, Endpoint(name="slow", secret_name="slow"))
        async with leading(world) as leader:
            for number in range(50):
                leader.sees(says(f"a-{number}", "Training"))
            await until(lambda: len(receiver.received) == 50)
        assert not slow.received


async def test_nothing_is_written_at_rest_and_once_a_pace_under_load(world: World, receiver: Receiver) -> None:
    pace = Pace(first=0.01, write=0.2, settled=0.0)
    async with leading(world, pace) as leader:
        await until(lambda: world.writes == 2)  # a patch that finds nothing, and the ConfigMap
        began = time.monotonic()
        for number in range(100):
            leader.sees(says(f"a-{number}", "Completed", "True"))
        await until(lambda: len(receiver.received) == 100)
        await quiet(world, leader)
        written = world.writes
        assert written - 2 <= (time.monotonic() - began) / pace.write + 1
        leader.sees(says("a-1", "Completed", "True", ttl="other"))
        await asyncio.sleep(0.5)
        assert world.writes == written
    assert Record.read(world.record["bus"]) is not None
    assert len(world.record["bus"]) < 4000


async def test_more_than_memory_may_hold_is_found_again(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "PENDING_MAXIMUM", 10)
    monkeypatch.setattr(notifier_module, "LOOKED_AT_ONCE", 2)
    gate = asyncio.Event()

    async def later(request: web.Request, number: int) -> web.StreamResponse:
        await gate.wait()
        return web.Response()

    receiver.answer = later
    names = [f"a-{number}" for number in range(45)]
    async with leading(world, Pace(request=60, first=0.01, write=0.01, settled=0.0)) as leader:
        for name in names:
            leader.sees(says(name, "Training"))
        assert len(leader.notifier._outboxes[0]) == 10
        gate.set()
        await until(lambda: len(receiver.received) >= len(names))
        await quiet(world, leader)
    assert Counter(name for _, name, _ in receiver.told) == dict.fromkeys(names, 1)
    async with leading(world) as leader:
        await quiet(world, leader)
    assert len(receiver.received) == len(names)


async def test_killed_with_more_than_memory_may_hold_all_is_told(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "PENDING_MAXIMUM", 10)
    names = [f"a-{number}" for number in range(45)]

    async def some(request: web.Request, number: int) -> web.StreamResponse:
        return web.Response(status=200 if number < 5 else 503)

    async with leading(world) as leader:
        await quiet(world, leader)
        accepted, receiver.answer = receiver.answer, some
        for name in names:
            leader.sees(says(name, "Training"))
        await until(lambda: receiver.requests > 8)
        await until(lambda: not leader.notifier._to_write)
    receiver.answer = accepted
    async with leading(world) as leader:
        await until(lambda: {name for _, name, _ in receiver.told} == set(names))


async def test_a_record_from_another_cluster_is_no_record(world: World, receiver: Receiver) -> None:
    future = Record({"FineTuneJob": 10**9}).to_text()
    world.api.put(
        CONFIGMAPS, {"metadata": {"namespace": "system", "name": RECORD}, "data": {"bus": future, "gone": "{}"}}
    )
    world.write(says("old", "Completed", "True"))
    async with leading(world) as leader:
        leader.sees(says("a", "Training"))
        await quiet(world, leader)
    assert receiver.told == [("FineTuneJob", "a", "Training")]
    record = Record.read(world.record["bus"])
    assert record is not None
    assert record.since["FineTuneJob"] < 10**9
    assert world.record.keys() == {"bus"}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        '{"since": {"FineTuneJob": 1e999}, "told": []}',
        "[]",
        "5",
        '{"since": 3, "told": []}',
        '{"since": {"a": "x"}, "told": 1}',
    ],
)  # fmt: skip
def test_what_is_no_record_is_none(text: object) -> None:
    assert Record.read(text) is None


def test_a_record_is_read_as_it_was_written() -> None:
    record = Record({"Review": 7, "FineTuneJob": 5}, ("0" * 16, "1" * 16), "2026-11-29T12:00:00Z")
    assert Record.read(record.to_text()) == record


async def test_without_the_right_to_read_its_record_it_begins_anew_and_says_so(
    world: World, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(verb: str, plural: str, name: str) -> None:
        if name == RECORD:
            raise ApiError(403, "Forbidden", "not allowed")

    world.api.before = refuse
    async with leading(world) as leader:
        leader.sees(says("a", "Training"))
        await until(lambda: receiver.received and world.writes > 2)  # which are refused too, and repeated
    assert "record of notifications may not be read" in caplog.text
    assert "notifications not written down" in caplog.text


async def test_an_api_server_that_does_not_answer_is_no_empty_record(world: World) -> None:
    def down(verb: str, plural: str, name: str) -> None:
        raise Unreachable("no answer")

    world.api.before = down
    with pytest.raises(Unreachable):
        await Records(world.api, "system", RECORD).read()


async def test_slack_gets_a_text_and_needs_no_key(tmp_path: Path, receiver: Receiver) -> None:
    folder = secret(tmp_path, "chat", url=receiver.url)
    world = World(
        FakeApi(), folder, [Endpoint(name="chat", secret_name="s", format=Format.SLACK, reasons=["Completed"])]
    )
    async with leading(world) as leader:
        leader.sees(says("a", "Training"))
        leader.sees(says("a", "Completed", "True"))
        await quiet(world, leader)
    assert receiver.texts == ["*FineTuneJob team/a: Completed*"]


UNUSABLE = {
    "no Secret": ({}, "Secret bus-secret with the file url is not there"),
    "no key": ({"url": "https://a.example/x"}, "Secret bus-secret with the file key is not there"),
    "an empty key": ({"url": "https://a.example/x", "key": "\n"}, "with the file key is not there"),
    "a short key": ({"url": "https://a.example/x", "key": "whsec_c2hvcnQ="}, "base64 of 24 to 64 bytes"),
    "no base64": ({"url": "https://a.example/x", "key": "correct horse battery staple"}, "base64 of 24 to 64 bytes"),
    "five keys": ({"url": "https://a.example/x", "key": f"{KEY}\n" * 5}, "more than 4 keys"),
    "no url": ({"url": "hook", "key": KEY}, "file url of Secret bus-secret: the url must begin with"),
    "bytes": ({"url": "\u00e9", "key": KEY}, "file url of Secret bus-secret is not readable: UnicodeDecodeError"),
}


@pytest.mark.parametrize("story", UNUSABLE)
async def test_a_secret_that_cannot_be_used_is_told_at_the_start(
    tmp_path: Path, story: str, caplog: pytest.LogCaptureFixture
) -> None:
    files, words = UNUSABLE[story]
    world = World(FakeApi(), secret(tmp_path, "bus", **files), [Endpoint(name="bus", secret_name="bus-secret")])
    async with leading(world):
        pass
    (said,) = [record for record in caplog.records if record.getMessage() == "endpoint cannot be told"]
    assert words in str(said.__dict__)
    assert "correct horse" not in str(said.__dict__)


async def test_while_one_key_replaces_another_both_verify(tmp_path: Path) -> None:
    other = "whsec_" + base64.b64encode(b"k" * 24).decode()
    endpoint = Endpoint(name="bus", url="https://a.example", secret_name="s")
    keys = Secrets(secret(tmp_path, "bus", key=f"{KEY}\n{other}\n")).keys(endpoint)
    seconds = int(datetime.now(UTC).timestamp())
    headers = signature_headers("id-1", seconds, b"{}", keys)
    for key in (KEY, other):
        Webhook(key).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(KEY).verify(b"{ }", headers)
    with pytest.raises(SecretUnusable):
        Secrets(None).keys(endpoint)


def test_answers() -> None:
    assert outcome_of(204, "", 0).delivered
    assert "redirects are not followed" in outcome_of(308, "", 0).words
    assert outcome_of(400, "", 0).not_taken
    assert not outcome_of(401, "", 0).not_taken
    assert outcome_of(429, "30", 0).retry_after == 30
    assert outcome_of(503, "999999", 0).retry_after == 3600
    assert outcome_of(503, "Wed, 21 Oct", 0).retry_after == 0
    assert outcome_of(503, "Thu, 01 Jan 1970 00:02:00 GMT", 90).retry_after == 30


async def test_those_that_are_gone_are_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier_module, "FORGET_EVERY", 10)
    async with leading(world) as leader:
        for number in range(40):
            leader.sees(says(f"a-{number}", "Completed", "True"))
            leader.cache.owners["FineTuneJob"].remove(f"uid-a-{number}")
        assert len(leader.notifier._said) <= 11


def test_marks_are_forgotten_once_nobody_will_ask_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(Endpoint(name="a", url="https://a.example", secret_name="a"), Record({"FineTuneJob": 5}))
    marks = {}
    for version in range(6, 12):
        body = says(f"a-{version}", "Training")
        (one,) = transitions_of(KINDS["FineTuneJob"], body, version, "now")
        outbox.add(one)
        outbox.done(one)
        marks[one.uid] = one.mark
    over, gone, other = "uid-a-6", "uid-a-7", "uid-a-8"

    def present(kind: str, uid: str) -> Present | None:
        says_now = ("x",) if uid == other else (marks[uid],)
        return None if uid == gone else Present(int(uid.rpartition("-")[2]), uid == over, says_now)

    record = outbox.advance({"FineTuneJob": 9}, present)
    assert record.since == {"FineTuneJob": 9}
    assert set(record.told) == {marks[f"uid-a-{version}"] for version in (9, 10, 11)}
    monkeypatch.setattr(outbox_module, "TOLD_WRITTEN", 2)  # what has to be there comes first
    assert set(outbox.advance({"FineTuneJob": 9}, present).told) == {marks["uid-a-10"], marks["uid-a-11"]}
    assert outbox.advance({"FineTuneJob": 99}, lambda kind, uid: None).told == ()


@pytest.mark.parametrize("told", ["by the leader before", "never: the endpoint is new"])
async def test_what_goes_on_for_long_is_not_told_again_when_it_changes(
    world: World, receiver: Receiver, told: str
) -> None:
    """Long after it was told, what is written down is past its version; then it changes, and says the same."""
    if told.startswith("never"):
        world.write(says("lasting", "Training"))
    async with leading(world) as leader:
        if not told.startswith("never"):
            leader.sees(says("lasting", "Training"))
        for number in range(5):  # each is written down, and so moves what is
            leader.sees(says(f"a-{number}", "Completed", "True"))
            await quiet(world, leader)
        leader.sees(says("lasting", "Training", progress={"step": 9}))
        await quiet(world, leader)
    before = len(receiver.received)
    for step in (10, 11):
        world.write(says("lasting", "Training", progress={"step": step}))
        async with leading(world) as leader:
            leader.sees(says(f"b-{step}", "Completed", "True"))
            await quiet(world, leader)
    assert [name for _, name, _ in receiver.told[before:]] == ["b-10", "b-11"]


@pytest.mark.parametrize("ended", ["2026-11-29T10:00:00Z", "2026-11-29T11:59:59Z"])
@pytest.mark.parametrize("told", ["by the leader before", "never: the endpoint is new"])
async def test_what_has_ended_is_not_told_again_when_somebody_labels_it(
    world: World, receiver: Receiver, told: str, ended: str
) -> None:
    """What is written down is past its version, nothing more is delivered, and then all of them get a label."""
    old = says("old", "Completed", "True", since=ended)
    if told.startswith("never"):
        world.write(old)
    async with leading(world) as leader:
        if not told.startswith("never"):
            leader.sees(old)
        for number in range(5):  # each is written down, and so moves what is
            leader.sees(says(f"a-{number}", "Training"))
            await quiet(world, leader)
    before = len(receiver.received)
    for label in ("x", "y"):
        world.write(says("old", "Completed", "True", since=ended, ttl=label))
        async with leading(world) as leader:
            await quiet(world, leader)
    async with leading(world) as leader:
        leader.sees(says("b", "Training"))
        await quiet(world, leader)
    assert [name for _, name, _ in receiver.told[before:]] == ["b"]


@pytest.mark.parametrize("memory", [1, 4096])
async def test_what_ended_long_ago_and_was_never_told_is_told(
    world: World, receiver: Receiver, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint takes one thing and no more for hours, which is when it is written down last."""
    monkeypatch.setattr(outbox_module, "PENDING_MAXIMUM", memory)
    accepted = receiver.answer

    async def one(request: web.Request, number: int) -> web.StreamResponse:
        return await accepted(request, number) if not receiver.received else web.Response(status=503)

    receiver.answer = one
    names = [f"ended-{number}" for number in range(5)]
    async with leading(world) as leader:
        leader.sees(says("first", "Training"))
        for name in names:
            leader.sees(says(name, "Completed", "True", since="2026-11-29T08:00:00Z"))
        await until(lambda: receiver.requests > 2 and not leader.notifier._to_write)
        await asyncio.sleep(0.05)
    receiver.answer = accepted
    async with leading(world) as leader:
        await quiet(world, leader)
    assert sorted({name for _, name, _ in receiver.told}) == [*names, "first"]


async def test_a_record_of_a_clock_that_was_ahead_hides_nothing(world: World, receiver: Receiver) -> None:
    async with leading(world) as leader:
        leader.sees(says("a", "Training"))
        await quiet(world, leader)
    record = Record.read(world.record["bus"])
    assert record is not None
    assert record.until == "2026-11-29T11:50:00Z"
    world.record["bus"] = replace(record, until="2126-11-29T11:50:00Z").to_text()
    world.write(says("a", "Completed", "True", since="2026-11-29T11:59:00Z"))
    async with leading(world) as leader:
        await quiet(world, leader)
    assert receiver.told[-1] == ("FineTuneJob", "a", "Completed")


@pytest.mark.parametrize("told", ["", ', "until": 5', ', "until": "x"', ', "until": null'])
def test_a_record_of_another_version_has_no_time(told: str) -> None:
    record = Record.read(f'{{"since": {{"FineTuneJob": 5}}, "told": []{told}}}')
    assert record == Record({"FineTuneJob": 5})


def test_marks_of_what_ended_lately_give_way_to_what_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(Endpoint(name="a", url="https://a.example", secret_name="a"), Record({"FineTuneJob": 5}))
    marks = {}
    for name, reason, status, since in (
        ("runs", "Training", "Unknown", "2026-11-29T08:00:00Z"),
        ("lately", "Completed", "True", "2026-11-29T11:55:00Z"),
        ("long-ago", "Completed", "True", "2026-11-29T08:00:00Z"),
    ):
        (one,) = transitions_of(KINDS["FineTuneJob"], says(name, reason, status, since), 4, "now")
        outbox.add(one)
        outbox.done(one)
        marks[one.uid] = one.mark
    over = {"uid-lately", "uid-long-ago"}

    def kept(before: str) -> tuple[str, ...]:
        return outbox.advance({}, lambda kind, uid: Present(4, uid in over, (marks[uid],)), before).told

    assert set(kept("2026-11-29T11:50:00Z")) == {marks["uid-runs"], marks["uid-lately"]}
    monkeypatch.setattr(outbox_module, "TOLD_WRITTEN", 1)
    assert kept("2026-11-29T11:50:00Z") == (marks["uid-runs"],)
