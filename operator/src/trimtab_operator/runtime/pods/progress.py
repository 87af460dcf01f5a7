"""Ask running trainers how far they are. One that cannot be reached is no failure: a network policy may forbid it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

import aiohttp
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from trimtab_trainer.contract import Progress, Stage
from trimtab_trainer.contract.gate.figures import COUNT, CURVES, FIGURE, WHOLE, figure

from ...domain.cluster import Key
from ...domain.views import PROGRESS_PORT, JobView, PodView, parse_time
from .. import metrics
from ..cluster.cache import Cache
from ..logs import keys
from .addresses import base_url
from .answers import AS_IT_IS, Unreadable, body_of, parsed

log = logging.getLogger(__name__)

PORT = PROGRESS_PORT
TIMEOUT = aiohttp.ClientTimeout(total=2)
AT_ONCE = 16
"""Of one namespace."""
LIMIT_BYTES = 65_536
TIME_LENGTH = 32
SILENT_POLLS = 6
"""So many polls in vain, and never an answer before: something forbids it, and the status says so."""


def url_of(ip: str) -> str:
    """Return where a pod tells its progress."""
    return f"{base_url(ip, PORT)}/progress"


def moment(told: object) -> object:
    """Return a time as RFC 3339 has it, None for anything else."""
    return told if isinstance(told, str) and len(told) <= TIME_LENGTH and parse_time(told) is not None else None


class ToldProgress(BaseModel):
    """`trimtab_trainer.contract.Progress` as a pod tells it, of whatever version, and whatever it says."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)

    run_uid: str = Field(max_length=64)
    attempt: WHOLE
    stage: Stage
    activity: str = Field(max_length=64)
    step: WHOLE = 0
    total_steps: WHOLE = 0
    loss: FIGURE = None
    validation_loss: FIGURE = None
    tokens_per_second: FIGURE = None
    eta_seconds: Annotated[float | None, BeforeValidator(figure)] = Field(default=None, ge=0)
    checkpoint_step: WHOLE | None = None
    checkpoint_time: Annotated[str | None, BeforeValidator(moment)] = None
    world_size: COUNT = None
    curve: CURVES = None

    @property
    def progress(self) -> Progress:
        return Progress(**dict(self))


class ProgressPoller:
    """Keeps the newest answer by Job uid; `changed` is told whom a new one concerns."""

    def __init__(
        self,
        cache: Cache,
        changed: Callable[[Key], None],
        every: float = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._changed = changed
        self._every = every
        self._clock = clock
        self._newest: dict[str, Progress] = {}
        self._in_vain: Counter[str] = Counter()
        self._advanced_at: dict[str, float] = {}

    def silent(self, job_uid: str) -> bool:
        """Tell whether a Job's pod has been asked for a while and has never answered."""
        return self._in_vain[job_uid] >= SILENT_POLLS

    def newest(self, job_uid: str) -> Progress | None:
        return self._newest.get(job_uid)

    async def run(self) -> None:
        """Poll for ever, each namespace on its own: one whose pods hang is behind with itself alone."""
        polls: dict[str, asyncio.Task[None]] = {}
        async with aiohttp.ClientSession(
            timeout=TIMEOUT, connector=aiohttp.TCPConnector(limit=0, force_close=True)
        ) as session:
            while True:
                await asyncio.sleep(self._every)
                polls = {namespace: task for namespace, task in polls.items() if not task.done()}
                for namespace, running in self._running().items():
                    if namespace not in polls:
                        polls[namespace] = asyncio.create_task(self._poll(session, running))

    async def poll(self, session: aiohttp.ClientSession) -> None:
        """Ask every running pod once."""
        await asyncio.gather(*(self._poll(session, running) for running in self._running().values()))
        self._running()

    def _running(self) -> dict[str, list[tuple[PodView, JobView]]]:
        """Return the pods to ask with their Jobs, by namespace; what is over is forgotten, who rests is told of."""
        jobs = {entry.uid: entry.view for entry in self._cache.jobs if entry.view and not entry.view.finished}
        self._newest = {uid: progress for uid, progress in self._newest.items() if uid in jobs}
        self._in_vain = Counter({uid: count for uid, count in self._in_vain.items() if uid in jobs})
        found: dict[str, list[tuple[PodView, JobView]]] = {}
        for entry in self._cache.pods:
            pod = entry.view
            # Of several that train together the first speaks for all.
            if pod is not None and pod.running and pod.ip and pod.job_uid in jobs and pod.index == 0:
                found.setdefault(pod.namespace, []).append((pod, jobs[pod.job_uid]))
        self._account({pod.job_uid for pods in found.values() for pod, _ in pods})
        return found

    async def _poll(self, session: aiohttp.ClientSession, running: list[tuple[PodView, JobView]]) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def ask(pod: PodView, job: JobView) -> None:
            async with slots:
                try:
                    await self._ask(session, pod, job)
                except Exception:  # logged; one pod does not end the questions to the others
                    log.exception("progress could not be taken in", extra=keys(namespace=pod.namespace, pod=pod.name))

        await asyncio.gather(*(ask(pod, job) for pod, job in running))

    def _account(self, running: set[str]) -> None:
        """Tell how long the trainer that rests longest has made no step; a suspended one begins anew."""
        self._advanced_at = {uid: at for uid, at in self._advanced_at.items() if uid in running}
        oldest = min(self._advanced_at.values(), default=None)
        metrics.PROGRESS_STALLED.set(0 if oldest is None else self._clock() - oldest)

    async def _ask(self, session: aiohttp.ClientSession, pod: PodView, job: JobView) -> None:
        result, progress = "unreachable", None
        try:
            async with session.get(
                url_of(pod.ip), allow_redirects=False, auto_decompress=False, headers=AS_IT_IS
            ) as response:
                text = await body_of(response, LIMIT_BYTES)
            result = "invalid"
            if response.status == HTTPStatus.OK:
                progress = parsed(ToldProgress, text).progress
                # The address of a pod that is gone may be another's by now.
                ours = (progress.run_uid, progress.attempt) == (job.owner_uid, job.attempt)
                result = "ok" if ours else "stranger"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, Unreadable) as error:
            log.debug("no progress", extra=keys(namespace=pod.namespace, pod=pod.name, err=str(error)[:300]))
        finally:
            metrics.PROGRESS_POLLS.labels(result).inc()
        was_silent, before = self.silent(job.uid), self._newest.get(job.uid)
        if result == "ok" and progress is not None:
            del self._in_vain[job.uid]
            self._note_advance(job.uid, progress)
            self._newest[job.uid] = progress
        elif before is None:
            self._in_vain[job.uid] += 1
        if self._newest.get(job.uid) != before or self.silent(job.uid) != was_silent:
            self._changed(Key(job.owner_kind, job.namespace, job.owner_name))

    def _note_advance(self, job_uid: str, progress: Progress) -> None:
        """Note a step, or the turn to something else: validation and publishing make no steps of their own."""
        before = self._newest.get(job_uid)
        still = before is not None and (before.step, before.activity) == (progress.step, progress.activity)
        if progress.stage is Stage.TRAIN and not (still and job_uid in self._advanced_at):
            self._advanced_at[job_uid] = self._clock()
