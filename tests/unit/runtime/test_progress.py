"""Progress polls, against a trainer in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from trimtab_operator.runtime import progress
from trimtab_operator.runtime.cache import Cache, Key
from trimtab_operator.runtime.progress import ProgressPoller, url_of
from trimtab_trainer.contract import Progress, Stage

from tests.unit.runtime.objects import NAMESPACE, job, pod

KEY = Key("FineTuneJob", NAMESPACE, "demo")
ANSWER = Progress(run_uid="ftj-1", attempt=1, stage=Stage.TRAIN, activity="Training", step=5, total_steps=10)


class Trainer:
    def __init__(self) -> None:
        self.answer = ANSWER
        self.told: list[Key] = []
        self.cache = Cache()
        self.poller = ProgressPoller(self.cache, self.told.append)

    async def polled(self) -> Progress | None:
        async with aiohttp.ClientSession() as session:
            await self.poller.poll(session)
        return self.poller.newest("job-1")


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


def test_addresses_of_both_families() -> None:
    assert url_of("10.0.0.1") == "http://10.0.0.1:9401/progress"
    assert url_of("fd00::1") == "http://[fd00::1]:9401/progress"
