"""Progress polls, against a trainer in this process."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import REGISTRY
from trimtab_operator.domain.cluster import Key
from trimtab_operator.runtime.cluster.cache import Cache
from trimtab_operator.runtime.pods import progress
from trimtab_operator.runtime.pods.progress import ProgressPoller, url_of
from trimtab_trainer.contract import Curve, Progress, Stage

from tests.tasks import cancelled
from tests.unit.runtime.objects import NAMESPACE, job, pod

KEY = Key("FineTuneJob", NAMESPACE, "demo")
CURVE = Curve(steps=(1, 5), loss=(2.5, 1.5), validation_steps=(5,), validation_loss=(1.75,))
WIDE = Curve(steps=tuple(range(10**9, 10**9 + 64)), loss=(1.2345678901234567,) * 64)
"""As a trainer of another version may tell it."""
ANSWER = Progress(run_uid="ftj-1", attempt=1, stage=Stage.TRAIN, activity="Training", step=5, total_steps=10)


class Trainer:
    def __init__(self) -> None:
        self.answer = ANSWER
        self.told: list[Key] = []
        self.cache = Cache()
        self.now = 1000.0
        self.poller = ProgressPoller(self.cache, self.told.append, clock=lambda: self.now)

    async def polled(self) -> Progress | None:
        async with aiohttp.ClientSession() as session:
            await self.poller.poll(session)
        return self.poller.newest("job-1")

    async def stalled_after(self, seconds: float, **figures: object) -> float | None:
        """Poll once more, so many seconds later; return what the gauge says."""
        self.now += seconds
        self.answer = self.answer.model_copy(update=figures)
        await self.polled()
        return REGISTRY.get_sample_value("trimtab_progress_stalled_seconds")


@pytest.fixture
async def trainer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trainer]:
    trainer = Trainer()

    async def handle(_: web.Request) -> web.Response:
        return web.json_response(trainer.answer.to_json())

    application = web.Application()
    application.add_routes([web.get("/progress", handle)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setattr(progress, "PORT", runner.addresses[0][1])
    body = pod()
    body["status"]["podIP"] = "127.0.0.1"
    trainer.cache.jobs.put(job())
    trainer.cache.pods.put(body)
    yield trainer
    await runner.cleanup()


async def test_an_answer_of_an_evaluation_concerns_the_evaluation(trainer: Trainer) -> None:
    trainer.cache.jobs.put(job("demo-eval-1", version=2, owner="ftev-1", kind="Evaluation"))
    trainer.answer = ANSWER.model_copy(update={"run_uid": "ftev-1", "stage": Stage.EVALUATE})
    await trainer.polled()
    assert trainer.told == [Key("Evaluation", NAMESPACE, "demo")]


async def test_only_a_new_answer_calls_for_a_look(trainer: Trainer) -> None:
    assert await trainer.polled() == ANSWER
    assert await trainer.polled() == ANSWER
    assert trainer.told == [KEY]
    trainer.answer = ANSWER.model_copy(update={"step": 6})
    await trainer.polled()
    assert trainer.told == [KEY, KEY]


@pytest.mark.parametrize("stranger", [{"run_uid": "other"}, {"attempt": 2}])
async def test_the_answer_of_another_run_at_a_reused_address_is_ignored(
    trainer: Trainer, stranger: dict[str, object]
) -> None:
    trainer.answer = ANSWER.model_copy(update=stranger)
    assert await trainer.polled() is None
    assert trainer.told == []


async def test_of_several_pods_the_first_alone_is_asked(trainer: Trainer) -> None:
    trainer.cache.pods.remove("pod-1")
    for name, index in (("second", "1"), ("first", "0")):
        assert await trainer.polled() is None
        body = pod(f"demo-train-1-{index}", name)
        body["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = index
        body["status"]["podIP"] = "127.0.0.1"
        trainer.cache.pods.put(body)
    assert await trainer.polled() == ANSWER


async def test_an_unreachable_trainer_is_no_failure_and_keeps_the_last_answer(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trainer.polled()
    monkeypatch.setattr(progress, "PORT", 1)
    assert await trainer.polled() == ANSWER


async def test_a_trainer_that_never_answers_is_told_of_once_and_again_when_it_does(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = progress.PORT
    monkeypatch.setattr(progress, "PORT", 1)
    for _ in range(progress.SILENT_POLLS - 1):
        await trainer.polled()
    assert not trainer.poller.silent("job-1")
    await trainer.polled()
    await trainer.polled()
    assert trainer.poller.silent("job-1")
    assert trainer.told == [KEY]
    monkeypatch.setattr(progress, "PORT", port)
    assert await trainer.polled() == ANSWER
    assert not trainer.poller.silent("job-1")
    assert trainer.told == [KEY, KEY]


async def test_a_trainer_that_has_answered_is_never_silent(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    await trainer.polled()
    monkeypatch.setattr(progress, "PORT", 1)
    for _ in range(2 * progress.SILENT_POLLS):
        await trainer.polled()
    assert not trainer.poller.silent("job-1")


async def test_the_answer_of_a_job_that_ended_is_forgotten(trainer: Trainer) -> None:
    await trainer.polled()
    body = job(version=2)
    body["status"] = {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": None}]}
    trainer.cache.jobs.put(body)
    assert await trainer.polled() is None


async def test_a_trainer_that_makes_steps_is_not_stalled(trainer: Trainer) -> None:
    assert await trainer.stalled_after(0) == 0
    assert await trainer.stalled_after(40, step=6) == 0
    assert await trainer.stalled_after(40) == 40
    assert await trainer.stalled_after(40, loss=1.0) == 80
    assert await trainer.stalled_after(40, step=7) == 0


async def test_validation_counts_from_its_beginning(trainer: Trainer) -> None:
    await trainer.stalled_after(0)
    assert await trainer.stalled_after(40, activity="Evaluating") == 0
    assert await trainer.stalled_after(40) == 40


async def test_a_trainer_that_stopped_answering_is_stalled(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    await trainer.stalled_after(0)
    monkeypatch.setattr(progress, "PORT", 1)
    assert await trainer.stalled_after(90) == 90


async def test_preparing_and_evaluating_are_never_stalled(trainer: Trainer) -> None:
    await trainer.stalled_after(0, stage=Stage.PREPARE)
    assert await trainer.stalled_after(90) == 0
    assert await trainer.stalled_after(90, stage=Stage.EVALUATE) == 0


async def test_of_several_trainers_the_one_that_rests_longest_is_told(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trainer.stalled_after(0)
    other = pod("demo-train-2-x", job_uid="job-2")
    other["status"]["podIP"] = "127.0.0.2"
    trainer.cache.jobs.put(job("demo-train-2", uid="job-2"))
    trainer.cache.pods.put(other)
    answers, nobody = progress.url_of("127.0.0.1"), "http://127.0.0.1:1/progress"
    monkeypatch.setattr(progress, "url_of", lambda ip: answers if ip == "127.0.0.2" else nobody)
    assert await trainer.stalled_after(50, step=6) == 50


async def test_the_time_of_a_suspension_does_not_count(trainer: Trainer) -> None:
    await trainer.stalled_after(0)
    body = pod(version=2)
    body["status"] = {"phase": "Succeeded"}
    trainer.cache.pods.put(body)
    assert await trainer.stalled_after(3600) == 0
    again = pod("demo-train-1-again", uid="pod-2")
    again["status"]["podIP"] = "127.0.0.1"
    trainer.cache.pods.put(again)
    assert await trainer.stalled_after(3600) == 0
    assert await trainer.stalled_after(40) == 40


def test_addresses_of_both_families() -> None:
    assert url_of("10.0.0.1") == "http://10.0.0.1:9401/progress"
    assert url_of("fd00::1") == "http://[fd00::1]:9401/progress"


Raw = bytes | tuple[int, bytes, dict[str, str]]
FINE = ANSWER.to_json()


def told(**figures: object) -> bytes:
    return json.dumps({**FINE, **figures}).encode()


@dataclass(frozen=True)
class Odd:
    answer: Raw
    want: dict[str, object] | None


ODD = {
    "a field that a later trainer tells": Odd(told(epoch=3, nested={"a": [1]}), {"step": 5}),
    "a loss that is not finite": Odd(told(loss=float("nan"), step=6), {"step": 6, "loss": None}),
    "an end that never comes": Odd(told(etaSeconds=float("inf")), {"step": 5, "eta_seconds": None}),
    "a figure that no number holds": Odd(told(tokensPerSecond=10**400), {"step": 5, "tokens_per_second": None}),
    "a time that is none": Odd(told(checkpointTime="yesterday"), {"checkpoint_time": None}),
    "a time before there was any": Odd(told(checkpointTime="0001-01-01T00:00:00+23:59"), {"checkpoint_time": None}),
    "a curve": Odd(told(curve=CURVE.to_json()), {"curve": CURVE}),
    "a curve with more steps than values": Odd(
        told(curve={"steps": [1, 2], "loss": [1.0]}), {"step": 5, "curve": None}
    ),
    "a curve that is not finite": Odd(told(curve={"steps": [1], "loss": [float("nan")]}), {"curve": None}),
    "a curve of a thousand points": Odd(
        told(curve={"steps": [*range(1000)], "loss": [1.0] * 1000}), {"step": 5, "curve": None}
    ),
    "a curve of more bytes than there is room for": Odd(
        told(curve=WIDE.to_json()), {"step": 5, "curve": WIDE.fitting()}
    ),
    "a curve beyond what a number of an API holds": Odd(
        told(curve={"steps": [2**60], "loss": [1.0]}), {"step": 5, "curve": None}
    ),
    "a curve that is a text": Odd(told(curve="~"), {"step": 5, "curve": None}),
    "a step that is none": Odd(told(step=-1), None),
    "a step that no API holds": Odd(told(step=2**70), None),
    "an integer of five thousand digits": Odd(told().replace(b'"step": 5', b'"step": ' + b"9" * 5000), None),
    "a stage that is not known": Odd(told(stage="dream"), None),
    "an answer as deep as it is long": Odd(b"[" * 60_000, None),
    "a deep one in a field that nobody reads": Odd(told()[:-1] + b', "x": ' + b"[" * 50_000 + b"}", None),
    "an object of nothing but parts": Odd(b"[" + b"[]," * 20_000 + b"[]]", None),
    "more than is read": Odd(told(activity="x" * 100_000), None),
    "bytes that are no text": Odd(b'{"runUid": "\xff\xfe"}', None),
    "no JSON": Odd(b"<html>", None),
    "JSON of something else": Odd(b"[1]", None),
    "an error with the body of an answer": Odd((500, told(), {}), None),
    "a few bytes that unpack to many": Odd((200, gzip.compress(told()), {"Content-Encoding": "gzip"}), None),
}


@pytest.mark.parametrize("case", ODD)
async def test_whatever_a_pod_says_is_taken_in_or_left_and_ends_nothing(
    case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    odd, trainer = ODD[case], Trainer()
    status, body, headers = odd.answer if isinstance(odd.answer, tuple) else (200, odd.answer, {})

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers=headers)

    async with listening(handle, monkeypatch):
        trainer.cache.jobs.put(job())
        trainer.cache.pods.put(there())
        found = await trainer.polled()
    if odd.want is None:
        assert found is None
    else:
        assert found is not None
        assert {name: getattr(found, name) for name in odd.want} == odd.want
    assert "could not be taken in" not in caplog.text


async def test_a_pod_sends_the_operator_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[str] = []

    async def secret(request: web.Request) -> web.Response:
        reached.append(str(request.rel_url))
        return web.json_response(ANSWER.to_json())

    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPFound(f"http://127.0.0.1:{progress.PORT}/latest/meta-data")

    application = web.Application()
    application.add_routes([web.get("/latest/meta-data", secret)])
    trainer = Trainer()
    async with listening(elsewhere, monkeypatch, application):
        trainer.cache.jobs.put(job())
        trainer.cache.pods.put(there())
        assert await trainer.polled() is None
    assert reached == []


async def test_pods_that_hang_delay_no_other_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TIMEOUT", aiohttp.ClientTimeout(total=600))  # who waited for them would never answer
    trainer, release = Trainer(), asyncio.Event()
    trainer.poller = ProgressPoller(trainer.cache, trainer.told.append, every=0.02)

    async def handle(request: web.Request) -> web.Response:
        if request.remote == "127.0.0.1" and request.host.startswith("127.0.0.9"):
            await release.wait()
        return web.json_response(ANSWER.to_json())

    async with listening(handle, monkeypatch, address="0.0.0.0"):
        for number in range(progress.AT_ONCE * 3):
            busy, hangs = job(f"x-{number}", uid=f"x-{number}"), pod(f"x-{number}", job_uid=f"x-{number}")
            hangs["metadata"]["uid"], hangs["status"]["podIP"] = f"x-{number}", "127.0.0.9"
            for body in (busy, hangs):
                body["metadata"]["namespace"] = "another"
            trainer.cache.jobs.put(busy)
            trainer.cache.pods.put(hangs)
        trainer.cache.jobs.put(job())
        trainer.cache.pods.put(there())
        running = asyncio.create_task(trainer.poller.run())
        async with asyncio.timeout(60):
            while trainer.poller.newest("job-1") is None:
                await asyncio.sleep(0.01)
        release.set()
        await cancelled(running)


def there() -> dict[str, Any]:
    body = pod()
    body["status"]["podIP"] = "127.0.0.1"
    return body


@asynccontextmanager
async def listening(
    handle: Callable[[web.Request], Awaitable[web.Response]],
    monkeypatch: pytest.MonkeyPatch,
    application: web.Application | None = None,
    address: str = "127.0.0.1",
) -> AsyncIterator[None]:
    """Answer for every pod's progress."""
    application = application or web.Application()
    application.add_routes([web.get("/progress", handle)])
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, address, 0).start()
    monkeypatch.setattr(progress, "PORT", runner.addresses[0][1])
    try:
        yield
    finally:
        await runner.cleanup()
