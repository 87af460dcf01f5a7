"""Ask running trainers how far they are. One that cannot be reached is no failure: a network policy may forbid it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

import aiohttp
from pydantic import ValidationError
from trimtab_trainer.contract import Progress, Stage

from ..domain.cluster import Key
from ..domain.views import JobView, PodView
from . import metrics
from .addresses import base_url
from .cache import Cache
from .logs import keys

log = logging.getLogger(__name__)

PORT = 9401
TIMEOUT = aiohttp.ClientTimeout(total=2)
AT_ONCE = 16
LIMIT_BYTES = 65_536
SILENT_POLLS = 6
"""So many polls in vain, and never an answer before: something forbids it, and the status says so."""


def url_of(ip: str) -> str:
    """Return where a pod tells its progress."""
    return f"{base_url(ip, PORT)}/progress"


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
        """Poll for ever."""
        async with aiohttp.ClientSession(timeout=TIMEOUT, connector=aiohttp.TCPConnector(force_close=True)) as session:
            while True:
                await asyncio.sleep(self._every)
                await self.poll(session)

    async def poll(self, session: aiohttp.ClientSession) -> None:
        """Ask every running pod once, and forget the answers of Jobs that ended."""
        jobs = {entry.uid: entry.view for entry in self._cache.jobs if entry.view and not entry.view.finished}
        self._newest = {uid: progress for uid, progress in self._newest.items() if uid in jobs}
        self._in_vain = Counter({uid: count for uid, count in self._in_vain.items() if uid in jobs})
        pods = [entry.view for entry in self._cache.pods if entry.view is not None]
        running = [pod for pod in pods if pod.running and pod.ip and pod.job_uid in jobs]
        slots = asyncio.Semaphore(AT_ONCE)

        async def ask(pod: PodView) -> None:
            async with slots:
                await self._ask(session, pod, jobs[pod.job_uid])

        await asyncio.gather(*(ask(pod) for pod in running))
        self._account({pod.job_uid for pod in running})

    def _account(self, running: set[str]) -> None:
        """Tell how long the trainer that rests longest has made no step; a suspended one begins anew."""
        self._advanced_at = {uid: at for uid, at in self._advanced_at.items() if uid in running}
        oldest = min(self._advanced_at.values(), default=None)
        metrics.PROGRESS_STALLED.set(0 if oldest is None else self._clock() - oldest)

    async def _ask(self, session: aiohttp.ClientSession, pod: PodView, job: JobView) -> None:
        result = "unreachable"
        try:
            async with session.get(url_of(pod.ip)) as response:
                text = await response.content.read(LIMIT_BYTES)
            result = "invalid"
            progress = Progress.model_validate_json(text)
            # The address of a pod that is gone may be another's by now.
            result = "ok" if (progress.run_uid, progress.attempt) == (job.owner_uid, job.attempt) else "stranger"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, ValidationError) as error:
            log.debug("no progress", extra=keys(namespace=pod.namespace, pod=pod.name, err=str(error)))
        finally:
            metrics.PROGRESS_POLLS.labels(result).inc()
        was_silent = self.silent(job.uid)
        if result == "ok":
            del self._in_vain[job.uid]
        elif job.uid not in self._newest:
            self._in_vain[job.uid] += 1
        news = result == "ok" and progress != self._newest.get(job.uid)
        if result == "ok":
            self._note_advance(job.uid, progress)
        if news:
            self._newest[job.uid] = progress
        if news or self.silent(job.uid) != was_silent:
            self._changed(Key(job.owner_kind, job.namespace, job.owner_name))

    def _note_advance(self, job_uid: str, progress: Progress) -> None:
        """Note a step, or the turn to something else: validation and publishing make no steps of their own."""
        before = self._newest.get(job_uid)
        still = before is not None and (before.step, before.activity) == (progress.step, progress.activity)
        if progress.stage is Stage.TRAIN and not (still and job_uid in self._advanced_at):
            self._advanced_at[job_uid] = self._clock()
